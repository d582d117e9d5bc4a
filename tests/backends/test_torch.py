"""TorchSession on the CPU: Modules, TorchScript, exported programs, and what cannot be loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import LoadError, OpError
from asyncline.backends import Model, ModelInfo, TensorInfo, TorchSession
from asyncline.backends.torch import hand_over, view
from asyncline.backends.torch_cuda import TorchMemory
from asyncline.engine.lanes.accelerator import DeviceTensor, OutOfMemory

from . import torch_models
from .torch_models import torch

WEIGHTS = np.arange(8, dtype=np.float32).reshape(2, 4).T
INFO = ModelInfo((TensorInfo("x", "FP32", (-1, 4)),))
IMAGE = ModelInfo((TensorInfo("image", "FP32", (-1, 3, 8, 8)),))

# torch 2.13 says so of all of TorchScript, which it still runs.
scripted = pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")


def samples(count: int) -> list[np.ndarray[Any, Any]]:
    return list(np.arange(count * 4, dtype=np.float32).reshape(count, 4))


# -- what it takes


@pytest.mark.parametrize(
    "source", [torch_models.Linear(), torch_models.Linear, "tests.backends.torch_models:linear",
               "tests.backends.torch_models:Linear"]
)  # fmt: skip
@pytest.mark.parametrize("count", [1, 3])
def test_a_module_runs_however_it_is_given(source: Any, count: int) -> None:
    session = TorchSession(source, info=INFO)
    np.testing.assert_allclose(session.run(samples(count)), np.stack(samples(count)) @ WEIGHTS)


@scripted
def test_torchscript_runs(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch_models.Linear()), tmp_path / "net.pt")
    session = TorchSession(tmp_path / "net.pt", info=INFO)
    np.testing.assert_allclose(session.run(samples(3)), np.stack(samples(3)) @ WEIGHTS)


@pytest.mark.parametrize("count", [1, 3])
def test_an_exported_program_runs_and_says_what_it_takes(tmp_path: Path, count: int) -> None:
    session = TorchSession(torch_models.export(tmp_path / "net.pt2"))
    assert session.inputs == (TensorInfo("x", "FP32", (-1, 4)),)
    assert session.outputs == (TensorInfo("output", "FP32", (-1, 2)),)
    assert session.max_batch_size == 64
    np.testing.assert_allclose(session.run(samples(count)), np.stack(samples(count)) @ WEIGHTS)


def test_an_exported_program_of_one_batch_size_takes_any_number_of_samples(tmp_path: Path) -> None:
    session = TorchSession(torch_models.export(tmp_path / "net.pt2", torch.export.Dim.STATIC))
    assert session.max_batch_size == 3
    np.testing.assert_allclose(session.run(samples(4)), np.stack(samples(4)) @ WEIGHTS)


def test_weights_are_loaded_into_the_module(tmp_path: Path) -> None:
    torch.save({"linear.weight": torch.ones(2, 4)}, tmp_path / "net.pt")
    session = TorchSession(torch_models.Linear, info=INFO, weights=tmp_path / "net.pt")
    assert session.run([np.ones(4, np.float32)]).tolist() == [[4, 4]]


# -- names


def test_several_inputs_and_outputs_have_names() -> None:
    info = ModelInfo((TensorInfo("left", "FP32", (-1, 3)), TensorInfo("right", "FP32", (-1, 1))))
    session = TorchSession(torch_models.Two, info=info)
    assert session.outputs == (TensorInfo("sum", "FP32", (-1, 3)), TensorInfo("product", "FP32", (-1, 3)))
    left, right = np.ones((2, 3), np.float32), np.full((2, 1), 3, np.float32)
    np.testing.assert_array_equal(session.run_named({"left": left, "right": right})["product"], left * right)


def test_outputs_of_a_tuple_are_numbered() -> None:
    session = TorchSession(torch_models.Convolution, info=IMAGE)
    assert session.outputs == (
        TensorInfo("output_0", "FP32", (-1, 4, 8, 8)),
        TensorInfo("output_1", "FP32", (-1, 4)),
    )


def test_inputs_that_nothing_is_known_of_have_the_names_of_the_arguments() -> None:
    session = TorchSession(torch_models.Two)
    assert session.inputs == (TensorInfo("left", "", ()), TensorInfo("right", "", ()))
    assert session.outputs == ()
    (row,) = session.run([(np.ones(3, np.float32), np.ones(1, np.float32))])
    assert [value.tolist() for value in row] == [[2, 2, 2], [1, 1, 1]]


@scripted
def test_torchscript_says_the_names_of_its_arguments(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch_models.Linear()), tmp_path / "net.pt")
    assert TorchSession(tmp_path / "net.pt").inputs == (TensorInfo("x", "", ()),)


# -- whose the rows are


OPEN = ModelInfo((TensorInfo("x", "FP32", (-1, -1)),))


def test_a_module_whose_batch_comes_out_elsewhere_gives_nobody_anothers() -> None:
    session = TorchSession(torch_models.Made(lambda x: x.T), info=OPEN)
    with pytest.raises(OpError, match=r"^output 'output' does not have the batch first"):
        session.run(samples(4))


@scripted
def test_nor_does_torchscript(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch_models.Made(lambda x: x.T), torch.zeros(2, 3)), tmp_path / "net.pt")
    session = TorchSession(tmp_path / "net.pt", info=OPEN)
    with pytest.raises(OpError, match=r"does not have the batch first"):
        session.run(samples(4))


def test_nor_a_model_of_known_lengths_which_is_found_at_its_start() -> None:
    model = Model(torch_models.Made(lambda x: x.T), info=INFO, batch_size=4)
    with pytest.raises(OpError, match=r"^output 'output' has 4 rows for a batch of 1$"):
        model.load_model("cpu")


# -- how it runs


def test_no_gradient_is_kept() -> None:
    class Watched(torch_models.Linear):
        def forward(self, x: Any) -> Any:
            assert torch.is_inference_mode_enabled()
            return super().forward(x)

    TorchSession(Watched, info=INFO).run(samples(2))


def test_the_module_of_the_caller_is_not_touched() -> None:
    module = torch_models.Linear().train()
    TorchSession(module, info=INFO, precision="bf16").run(samples(1))
    assert module.training
    assert module.linear.weight.dtype == torch.float32


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_are_laid_out_as_convolutions_like_them(channels_last: bool) -> None:
    seen: list[bool] = []

    class Watched(torch_models.Convolution):
        def forward(self, image: Any) -> Any:
            seen.append(image.is_contiguous(memory_format=torch.channels_last))
            return super().forward(image)

    session = TorchSession(Watched, info=IMAGE, channels_last=channels_last)
    image = np.random.default_rng(0).random((2, 3, 8, 8), np.float32)
    features = session.run_named({"image": image})["output_0"]
    assert seen[-1] is channels_last
    assert features.flags.c_contiguous
    expected = torch_models.Convolution()(torch.from_numpy(image))[0].detach().numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_bf16_casts_the_weights_and_the_inputs_and_answers_in_fp32() -> None:
    seen: list[Any] = []

    class Watched(torch_models.Linear):
        def forward(self, x: Any) -> Any:
            seen.append((x.dtype, self.linear.weight.dtype))
            return super().forward(x)

    result = TorchSession(Watched, info=INFO, precision="bf16").run(samples(2))
    assert seen[-1] == (torch.bfloat16, torch.bfloat16)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, np.stack(samples(2)) @ WEIGHTS, rtol=0.01)


def test_integers_are_not_cast() -> None:
    info = ModelInfo((TensorInfo("x", "INT64", (-1, 2)),))
    result = TorchSession(torch_models.Same, info=info, precision="bf16").run([np.array([1, 2**40])])
    assert result.tolist() == [[1, 2**40]]


def test_threads_are_those_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        TorchSession(torch_models.Same, threads=2, info=INFO)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_array_that_may_not_be_written_to_is_taken() -> None:
    (sample,) = samples(1)
    sample.flags.writeable = False
    assert TorchSession(torch_models.Same, info=INFO).run([sample]).tolist() == [sample.tolist()]


def test_an_array_that_runs_backwards_is_taken() -> None:
    batch = np.stack(samples(3))[::-1]
    np.testing.assert_array_equal(TorchSession(torch_models.Same, info=INFO).run(batch), batch)


def test_a_compiled_module_gives_the_same() -> None:
    calls: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        calls.append(len(inputs))
        return graph.forward

    torch._dynamo.register_backend(backend, name="asyncline_test")
    session = TorchSession(torch_models.Linear, info=INFO, compile="asyncline_test")
    np.testing.assert_allclose(session.run(samples(3)), np.stack(samples(3)) @ WEIGHTS)
    assert calls


def test_memory_that_is_not_there_is_out_of_memory() -> None:
    class Greedy(torch_models.Same):
        def forward(self, x: Any) -> Any:
            return x if x.sum() == 0 else torch.zeros(10**15)

    session = TorchSession(Greedy, info=INFO)
    with pytest.raises(OutOfMemory, match="can't allocate memory"):
        session.run([np.ones(4, np.float32)])


def test_what_the_module_raises_comes_out_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        TorchSession(torch_models.Linear).run([np.ones(5, np.float32)])


# -- what cannot be loaded


def test_without_torch_the_line_to_install_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(LoadError, match=r"^torch is not installed: pip install 'asyncline\[torch\]'$"):
        TorchSession("net.pt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_torch_says_so() -> None:
    with pytest.raises(LoadError, match=r"^torch \S+ sees no CUDA device"):
        TorchSession(torch_models.Linear, "cuda:0")


@pytest.mark.parametrize("name", ["net.pt", "net.pt2"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadError, match=f"^there is no model file .*{name}$"):
        TorchSession(tmp_path / name)


@scripted
@pytest.mark.parametrize(("name", "what"), [("net.pt", "TorchScript"), ("net.pt2", "exported program")])
@pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04" + bytes(100)])
def test_a_file_that_is_no_model_is_one_line(tmp_path: Path, name: str, what: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LoadError, match=f"^{name} is no {what}") as caught:
        TorchSession(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


@scripted
def test_a_file_of_weights_alone_says_that_it_needs_its_module(tmp_path: Path) -> None:
    torch.save(torch_models.linear.state_dict(), tmp_path / "net.pt")
    with pytest.raises(LoadError, match="a file of weights needs its Module"):
        TorchSession(tmp_path / "net.pt")


@scripted
def test_a_cut_off_exported_program_is_refused(tmp_path: Path) -> None:
    path = torch_models.export(tmp_path / "net.pt2")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(LoadError, match=r"^net\.pt2 is no exported program"):
        TorchSession(path)


def test_a_file_of_weights_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    proof = tmp_path / "evil"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (proof,))

    torch.save({"linear.weight": Evil()}, path)
    with pytest.raises(LoadError, match=r"^net\.pt has no weights for Linear"):
        TorchSession(torch_models.Linear, weights=path)
    assert not proof.exists()


@pytest.mark.parametrize("state", [{}, {"linear.weight": 1}, {"linear.weight": [1]}, 7])
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, state: Any) -> None:
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(LoadError, match=r"^net\.pt has no weights for Linear: .") as caught:
        TorchSession(torch_models.Linear, weights=tmp_path / "net.pt")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("net", "'net' is no torch model: write the path of a file"),
        ("net.onnx", "'net.onnx' is no torch model"),
        (":net", "':net' is no torch model"),
        ("no_such_module:net", "'no_such_module:net': there is no module 'no_such_module'"),
        ("tests.backends.torch_models:nothing", "has no attribute 'nothing'"),
        (lambda: 7, "expected an nn.Module, or a function that makes one; got int"),
    ],
)
def test_what_is_no_model_is_said_in_a_line(source: Any, says: str) -> None:
    with pytest.raises(LoadError) as caught:
        TorchSession(source)
    assert says in str(caught.value)


def test_a_module_that_does_not_take_its_inputs_is_found_at_load() -> None:
    wrong = ModelInfo((TensorInfo("x", "FP32", (-1, 5)),))
    with pytest.raises(LoadError, match=r"^the model does not take x \[-1, 5\]: .*cannot be multiplied"):
        TorchSession(torch_models.Linear, info=wrong)


@pytest.mark.parametrize(
    ("precision", "says"),
    [
        ("int8", "torch casts no model to int8: quantise"),
        ("fp16", "fp16 has few kernels on the CPU in torch: use bf16"),
    ],
)
def test_a_precision_that_cannot_be_is_refused_with_the_reason(precision: Any, says: str) -> None:
    with pytest.raises(LoadError, match=f"^{says}"):
        TorchSession(torch_models.Linear, info=INFO, precision=precision)


def test_an_exported_program_keeps_its_precision(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="has its precision in the file: export it in bf16"):
        TorchSession(torch_models.export(tmp_path / "net.pt2"), precision="bf16")


# -- whose memory it is


class Doubles(torch.nn.Module):
    """`x` times two, written over `x`."""

    def forward(self, x: Any) -> Any:
        return x.mul_(2)


class Keeps(torch.nn.Module):
    """`x`, handed out in a buffer that every run writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(1, 4))

    def forward(self, x: Any) -> Any:
        return self.kept.copy_(x)


def test_a_module_that_writes_to_its_input_does_not_write_to_that_of_the_caller() -> None:
    session, batch = TorchSession(Doubles(), info=INFO), np.ones((2, 4), np.float32)
    for _ in range(2):
        assert session.run(batch).tolist() == [[2] * 4] * 2
    assert batch.tolist() == [[1] * 4] * 2


def test_a_module_that_does_not_is_given_the_callers_array_after_its_first_run() -> None:
    session, batch = TorchSession(torch_models.Same(), info=INFO), np.ones((2, 4), np.float32)
    session.run(batch)
    assert np.shares_memory(session.run(batch), batch)


def test_an_output_that_is_a_buffer_of_the_module_does_not_change_with_the_next_run() -> None:
    session = TorchSession(Keeps(), info=INFO)
    first = session.run(np.ones((1, 4), np.float32))
    session.run(np.zeros((1, 4), np.float32))
    assert first.tolist() == [[1] * 4]


# -- what it gives


def test_an_output_of_another_shape_is_not_repeated_until_it_fits() -> None:
    places = {"y": DeviceTensor(TorchMemory(torch.zeros(24, dtype=torch.uint8)), np.dtype(np.float32), (3, 2))}
    with pytest.raises(OpError, match=r"^output 'y' has the shape \[1, 2\], not \[3, 2\]$"):
        hand_over(torch, {"y": torch.ones(1, 2)}, places)
    hand_over(torch, {"y": torch.ones(3, 2, dtype=torch.float16)}, places)
    assert view(torch, places["y"]).tolist() == [[1, 1]] * 3


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (None, "output 'output' is a NoneType, not a tensor"),
        ({"y": 1.0}, "output 'y' is a float, not a tensor"),
        ((), "the model gave no output"),
    ],
)
def test_what_is_no_tensor_is_found_at_load(made: Any, says: str) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return made

    with pytest.raises(LoadError, match=f"^{says}$"):
        TorchSession(Odd(), info=INFO)


class Refuses(torch.nn.Module):
    def forward(self, x):
        assert bool((x >= 0).all()), "negative"
        return x


@scripted
def test_an_error_of_torchscript_does_not_tell_its_source(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Refuses()), tmp_path / "net.pt")
    session = TorchSession(tmp_path / "net.pt", info=INFO)
    with pytest.raises(RuntimeError, match=r"^RuntimeError: AssertionError: negative$") as caught:
        session.run(np.full((1, 4), -1, np.float32))
    assert "forward" in str(caught.value.__cause__)  # for the log


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
def test_a_module_that_finds_its_weights_shapes_in_the_first_run_is_taken() -> None:
    session = TorchSession(torch.nn.LazyLinear(2), info=INFO)
    assert session.run(np.ones((3, 4), np.float32)).shape == (3, 2)


def test_weights_without_memory_of_their_own_are_taken() -> None:
    class Sparse(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.eye(4).to_sparse_coo())

        def forward(self, x: Any) -> Any:
            return torch.sparse.mm(self.weight, x.T).T

    session = TorchSession(Sparse, info=INFO)
    assert session.run(np.ones((3, 4), np.float32)).tolist() == [[1] * 4] * 3
