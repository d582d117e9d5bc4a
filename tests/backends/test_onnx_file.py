"""What an ONNX file says of itself, read without onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asyncline import LoadError
from asyncline.backends import OnnxSession, TensorInfo
from asyncline.backends.onnx_file import read

from . import onnx_models
from .onnx_models import FLOAT, helper, onnx, save, value


def test_a_file_names_its_inputs_and_outputs(tmp_path: Path) -> None:
    info = read(onnx_models.two(tmp_path / "two.onnx")).info
    assert info.inputs == (TensorInfo("left", "FP32", (-1, 3)), TensorInfo("right", "FP32", (-1, 1)))
    assert info.outputs == (TensorInfo("sum", "FP32", (-1, 3)), TensorInfo("product", "FP32", (-1, 3)))


@pytest.mark.parametrize("make", [onnx_models.linear, onnx_models.two, onnx_models.image, onnx_models.texts])
def test_the_file_says_what_onnxruntime_says(tmp_path: Path, make: type[onnx_models.two]) -> None:
    pytest.importorskip("onnxruntime")
    path = make(tmp_path / "net.onnx")
    info, session = read(path).info, OnnxSession(path)
    assert (info.inputs, info.outputs) == (session.inputs, session.outputs)


@pytest.mark.parametrize("name", ["ch_ppocr_mobile_v2.0_cls_mobile.onnx", "PP-OCRv6_rec_small.onnx"])
def test_a_real_model_says_what_onnxruntime_says(name: str) -> None:
    rapidocr = pytest.importorskip("rapidocr")
    path = Path(rapidocr.__file__).parent / "models" / name
    info, session = read(path).info, OnnxSession(path)
    assert (info.inputs, info.outputs, info.metadata) == (session.inputs, session.outputs, session.metadata)


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(1, "FP32"), (2, "UINT8"), (6, "INT32"), (7, "INT64"), (8, "BYTES"), (9, "BOOL"), (10, "FP16"), (16, "BF16")],
)
def test_a_dtype_has_the_name_of_the_protocol(tmp_path: Path, number: int, dtype: str) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    path = save(tmp_path / "net.onnx", [node], [value("x", ["n"], number)], [value("y", ["n"], number)])
    assert read(path).info.inputs[0].dtype == dtype


def test_metadata_is_read(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.metadata_props.add(key="classes", value="hund\nkatze\nvögel")
    onnx.save(model, path)
    assert read(path).info.metadata == {"classes": "hund\nkatze\nvögel"}


def test_weights_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", FLOAT, [4, 2], onnx_models.WEIGHTS)
    inputs = [value("w", [4, 2]), value("x", ["n", 4])]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = save(tmp_path / "net.onnx", [node], inputs, [value("y", ["n", 2])], [weights])
    assert [info.name for info in read(path).info.inputs] == ["x"]


def test_a_shape_that_the_file_does_not_give_is_empty(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    path = save(tmp_path / "net.onnx", [node], [value("x", None)], [value("y", None)])
    assert read(path).info.inputs == (TensorInfo("x", "FP32", ()),)


def test_an_output_that_is_no_tensor_has_the_dtype_other() -> None:
    datasets = pytest.importorskip("onnxruntime.datasets")
    assert read(Path(datasets.get_example("logreg_iris.onnx"))).info.outputs[1] == TensorInfo(
        "probabilities", "OTHER", ()
    )


def test_files_with_the_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(
        onnx.load(onnx_models.linear(path)), path, save_as_external_data=True, location="net.bin", size_threshold=0
    )
    assert read(path).external == {"net.bin"}


def test_a_large_file_is_jumped_over_not_read(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", FLOAT, [4, 2], np.zeros(8, np.float32))
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = save(tmp_path / "net.onnx", [node], [value("x", ["n", 4])], [value("y", ["n", 2])], [weights])
    # A field of ten gigabytes that nobody knows, a hole in a sparse file, stands before the model.
    size = 10 << 30
    length = bytes([*((size >> shift & 127) | 128 for shift in (0, 7, 14, 21)), size >> 28])
    model = path.read_bytes()
    with path.open("wb") as file:
        file.write(bytes([0xFA, 0x3E]) + length)  # field 1007, wire type 2
        file.seek(size, 1)
        file.write(model)
    assert read(path).info.inputs == (TensorInfo("x", "FP32", (-1, 4)),)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no model",
        b"\x08\x07",
        bytes(1000),
        b"<html>\n<p>404</p>\n</html>",
        b"\x3a\xff\xff\xff\xff\x7f",
        b"\xff" * 100,
        b"\x3a\x00",
    ],
)
def test_what_is_no_model_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=r"^net\.onnx is no ONNX model: ") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.touch()
    with pytest.raises(LoadError, match=r"^net\.onnx is no ONNX model: the file is empty$"):
        read(path)


def test_a_model_that_is_cut_off_anywhere_is_refused_or_read_never_crashes(tmp_path: Path) -> None:
    path = onnx_models.two(tmp_path / "net.onnx")
    whole = path.read_bytes()
    refused = 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            read(path)
        except LoadError:
            refused += 1
    # The last field is the opset: without it the file still says all that is asked.
    assert refused > len(whole) - 20


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"^there is no model file .*net\.onnx$"):
        read(tmp_path / "net.onnx")
