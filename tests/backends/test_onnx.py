"""OnnxSession: what it says about a model, what it runs, and the one line where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import LoadError, OpError
from asyncline.backends import OnnxSession, TensorInfo
from asyncline.engine.lanes.accelerator import OutOfMemory

from . import onnx_models

datasets = pytest.importorskip("onnxruntime.datasets")


def example(name: str) -> str:
    """The path of a model of a few hundred bytes in onnxruntime's own wheel."""
    path: str = datasets.get_example(name)
    return path


@pytest.fixture
def sigmoid() -> OnnxSession:
    return OnnxSession(example("sigmoid.onnx"))


@pytest.fixture(scope="module")
def classifier() -> OnnxSession:
    """Tells whether a line of text is upside down; 0.6 MB in RapidOCR's wheel."""
    rapidocr = pytest.importorskip("rapidocr")
    return OnnxSession(Path(rapidocr.__file__).parent / "models" / "ch_ppocr_mobile_v2.0_cls_mobile.onnx", threads=2)


def test_a_model_names_its_inputs_and_outputs(sigmoid: OnnxSession) -> None:
    assert sigmoid.inputs == (TensorInfo("x", "FP32", (3, 4, 5)),)
    assert sigmoid.outputs == (TensorInfo("y", "FP32", (3, 4, 5)),)


def test_an_open_length_is_minus_one(classifier: OnnxSession) -> None:
    (image,) = classifier.inputs
    assert image.dtype == "FP32"
    assert image.shape[0] == -1
    assert len(image.shape) == 4


def test_a_model_says_what_its_file_says(classifier: OnnxSession) -> None:
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in classifier.metadata.items())


def test_a_batch_that_is_an_array_runs_as_it_is(sigmoid: OnnxSession) -> None:
    batch = np.linspace(-3, 3, 60, dtype=np.float32).reshape(3, 4, 5)
    np.testing.assert_allclose(sigmoid.run(batch), 1 / (1 + np.exp(-batch)), rtol=1e-5)


def test_samples_are_stacked_to_a_batch(sigmoid: OnnxSession) -> None:
    samples = [np.full((4, 5), value, np.float32) for value in (-1, 0, 1)]
    np.testing.assert_array_equal(sigmoid.run(samples), sigmoid.run(np.stack(samples)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_many_results_come_as_samples_went_in(classifier: OnnxSession, count: int) -> None:
    rng = np.random.default_rng(0)
    samples = [rng.random((3, 48, 192), np.float32) for _ in range(count)]
    results = classifier.run(samples)
    assert isinstance(results, np.ndarray)
    assert results.shape == (count, 2)
    np.testing.assert_allclose(results.sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(results[-1:], classifier.run(samples[-1:]), atol=1e-4)


def test_a_model_of_several_outputs_gives_a_tuple_for_each_sample() -> None:
    iris = OnnxSession(example("logreg_iris.onnx"))
    results = iris.run(np.array([[5.1, 3.5], [6.2, 3.4], [5.9, 3.0]], np.float32))
    assert isinstance(results, list)
    assert [len(result) for result in results] == [2, 2, 2]
    label, probabilities = results[0]
    assert probabilities[int(label)] == max(probabilities.values())


def test_a_closed_session_lets_go_of_its_model(sigmoid: OnnxSession) -> None:
    sigmoid.close()
    assert sigmoid._session is None


# -- batches and names


def test_several_inputs_and_outputs_run_by_name(tmp_path: Path) -> None:
    session = OnnxSession(onnx_models.two(tmp_path / "two.onnx"))
    left, right = np.ones((2, 3), np.float32), np.full((2, 1), 3, np.float32)
    outputs = session.run_named({"left": left, "right": right})
    assert list(outputs) == ["sum", "product"]
    np.testing.assert_array_equal(outputs["product"], left * right)


def test_a_sample_of_several_inputs_is_a_tuple(tmp_path: Path) -> None:
    session = OnnxSession(onnx_models.two(tmp_path / "two.onnx"))
    sample = (np.array([1, 2, 3], np.float32), np.array([10], np.float32))
    ((total, product),) = session.run([sample])
    assert (total.tolist(), product.tolist()) == ([11, 12, 13], [10, 20, 30])


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_file_of_one_batch_size_takes_any_number_of_samples(tmp_path: Path, count: int) -> None:
    session = OnnxSession(onnx_models.linear(tmp_path / "net.onnx", batch=3))
    samples = list(np.arange(count * 4, dtype=np.float32).reshape(count, 4))
    np.testing.assert_allclose(session.run(samples), np.stack(samples) @ onnx_models.WEIGHTS)


def test_an_open_batch_has_no_limit_and_a_fixed_one_has(tmp_path: Path) -> None:
    assert OnnxSession(onnx_models.linear(tmp_path / "net.onnx")).max_batch_size is None
    assert OnnxSession(onnx_models.linear(tmp_path / "net.onnx", batch=3)).max_batch_size == 3


def test_strings_go_in_and_come_out(tmp_path: Path) -> None:
    session = OnnxSession(onnx_models.texts(tmp_path / "texts.onnx"))
    assert session.run([np.array("schön", object), np.array("gut", object)]).tolist() == ["schön", "gut"]


def test_an_output_that_is_not_of_the_batch_is_an_error(tmp_path: Path) -> None:
    session = OnnxSession(onnx_models.one_for_all(tmp_path / "net.onnx"))
    with pytest.raises(OpError, match=r"^output 'total' has 1 rows for a batch of 3$"):
        session.run(np.ones((3, 4), np.float32))


def test_what_onnxruntime_refuses_is_one_line_without_its_sources(sigmoid: OnnxSession) -> None:
    with pytest.raises(RuntimeError, match=r"^Got invalid dimensions for input: x .* Got: 2 Expected: 3"):
        sigmoid.run_named({"x": np.zeros((2, 4, 5), np.float32)})


def test_memory_that_is_not_there_is_out_of_memory(tmp_path: Path) -> None:
    session = OnnxSession(onnx_models.huge(tmp_path / "huge.onnx"))
    with pytest.raises(OutOfMemory, match="Failed to allocate memory"):
        session.run_named({"shape": np.array([1 << 46], np.int64)})
    assert session.run_named({"shape": np.array([2], np.int64)})["zeros"].tolist() == [0, 0]


# -- what cannot be loaded


@pytest.mark.parametrize("as_path", [Path, str])
def test_a_missing_file_is_named(tmp_path: Path, as_path: type[Path] | type[str]) -> None:
    with pytest.raises(LoadError) as caught:
        OnnxSession(as_path(tmp_path / "det.onnx"))
    assert str(caught.value) == f"there is no model file {tmp_path / 'det.onnx'}"


def test_a_folder_is_no_model_file(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="there is no model file"):
        OnnxSession(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07", bytes(1000), b"<html>\n<p>404</p>\n</html>"])
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "det.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=r"^det\.onnx is no model that onnxruntime [\d.]+ can load: ") as caught:
        OnnxSession(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"opset": 99}, "has opset 99"),
        ({"ir_version": 99}, "has IR version 99"),
    ],
)
def test_a_version_that_onnxruntime_does_not_know_is_named(tmp_path: Path, options: dict[str, int], says: str) -> None:
    cure = r"export it for an older one, or pip install -U onnxruntime"
    with pytest.raises(LoadError, match=rf"^net\.onnx {says}, onnxruntime [\d.]+ knows up to \d+: {cure}$"):
        OnnxSession(onnx_models.linear(tmp_path / "net.onnx", **options))


@pytest.mark.parametrize("device", ["gpu", "cuda:0,1", "cuda:x", ""])
def test_what_is_no_device_is_refused(device: str) -> None:
    with pytest.raises(LoadError) as caught:
        OnnxSession(example("sigmoid.onnx"), device)
    assert str(caught.value) == f"{device!r} is no device of a session: use cpu, cuda or cuda:1"


def test_without_cuda_in_onnxruntime_the_line_to_install_it_is_shown() -> None:
    with pytest.raises(LoadError) as caught:
        OnnxSession(example("sigmoid.onnx"), "cuda:0")
    line = "this onnxruntime has no CUDA for cuda:0: pip uninstall onnxruntime, pip install onnxruntime-gpu"
    assert str(caught.value) == line


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_precision_that_the_file_does_not_have_is_refused_with_the_reason(precision: Any) -> None:
    with pytest.raises(LoadError, match=f"in the precision that the file has, not in {precision}: convert the file"):
        OnnxSession(example("sigmoid.onnx"), precision=precision)


def test_without_onnxruntime_the_line_to_install_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(LoadError, match=r"^onnxruntime is not installed: pip install 'asyncline\[onnx\]'$"):
        OnnxSession("det.onnx")


def test_rows_of_an_output_whose_batch_is_elsewhere_are_not_given_to_anybody(tmp_path: Path) -> None:
    session = OnnxSession(onnx_models.transposed(tmp_path / "net.onnx"))
    batch = np.arange(9, dtype=np.float32).reshape(3, 3)
    with pytest.raises(OpError, match=r"^output 'y' has its batch at axis 1"):
        session.run(batch)
    assert session.run_named({"x": batch})["y"].tolist() == batch.T.tolist()


def test_where_open_lengths_have_no_names_a_second_run_tells_whose_the_rows_are(tmp_path: Path) -> None:
    session = OnnxSession(onnx_models.transposed(tmp_path / "net.onnx", (None, None)))
    with pytest.raises(OpError, match=r"^output 'y' does not have the batch first"):
        session.run(np.zeros((3, 3), np.float32))


def test_a_run_that_fails_writes_nothing_by_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = OnnxSession(onnx_models.huge(tmp_path / "huge.onnx"))
    with pytest.raises(OutOfMemory):
        session.run_named({"shape": np.array([1 << 46], np.int64)})
    assert capfd.readouterr() == ("", "")


def test_an_output_that_numpy_does_not_have_is_refused_at_load(tmp_path: Path) -> None:
    BF16 = onnx_models.onnx.TensorProto.BFLOAT16
    cast = onnx_models.helper.make_node("Cast", ["x"], ["y"], to=BF16)
    values = onnx_models.value("x", ["n", 2]), onnx_models.value("y", ["n", 2], BF16)
    path = onnx_models.save(tmp_path / "net.onnx", [cast], [values[0]], [values[1]])
    with pytest.raises(LoadError, match=r"^output 'y' is BF16, which numpy does not have: let the model cast it"):
        OnnxSession(path)
