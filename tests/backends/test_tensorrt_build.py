"""Building engines: for real by TensorRT-RTX, which needs no GPU for it; the flags of 10 and 11 by recorded calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import LoadError
from asyncline.backends import BuildOptions
from asyncline.backends.tensorrt_build import EngineCache, build

from . import onnx_models, recorded_tensorrt
from .onnx_models import FLOAT, helper, onnx, save, value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return onnx_models.linear(tmp_path / "net.onnx")


@pytest.fixture
def rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx")


def built(rtx: Any, path: Path, options: BuildOptions | None = None) -> tuple[bytes, bytes]:
    return build(rtx, rtx.Logger(rtx.Logger.INTERNAL_ERROR), path, options or BuildOptions())


# -- real builds


def test_an_engine_is_built(rtx: Any, path: Path) -> None:
    assert len(built(rtx, path)[0]) > 1000


def test_a_convolution_with_open_lengths_is_built_for_its_range(rtx: Any, tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    shape = ["n", 3, "height", "width"]
    path = save(tmp_path / "net.onnx", nodes, [value("x", shape)], [value("y", ["n", 4, "h", "w"])], [weights])
    options = BuildOptions(shapes={"x": ((1, 3, 32, 32), (8, 3, 64, 64), (8, 3, 128, 128))})
    assert len(built(rtx, path, options)[0]) > 1000


def test_weights_in_a_file_beside_the_model_are_found(rtx: Any, path: Path) -> None:
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.bin", size_threshold=0)
    assert built(rtx, path)[0]


def test_a_model_in_half_precision_is_built_as_it_is(rtx: Any, tmp_path: Path) -> None:
    half = onnx.TensorProto.FLOAT16
    node = helper.make_node("Relu", ["x"], ["y"])
    path = save(tmp_path / "net.onnx", [node], [value("x", ["n", 4], half)], [value("y", ["n", 4], half)])
    assert built(rtx, path, BuildOptions(precision="fp16"))[0]


def test_a_model_with_quantisation_nodes_is_built_in_int8(rtx: Any, tmp_path: Path) -> None:
    scale = helper.make_tensor("scale", FLOAT, [], [0.1])
    zero = helper.make_tensor("zero", onnx.TensorProto.INT8, [], [0])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, [value("x", ["n", 4])], [value("y", ["n", 4])], [scale, zero])
    assert built(rtx, path, BuildOptions(precision="int8"))[0]


@pytest.mark.parametrize(
    ("precision", "cure"), [("fp16", "export it in that precision"), ("bf16", "export it"), ("int8", "Q/DQ nodes")]
)
def test_a_precision_that_the_file_does_not_have_is_refused_with_the_cure(
    rtx: Any, path: Path, precision: Any, cure: str
) -> None:
    with pytest.raises(LoadError, match=f"^net.onnx has nothing in {precision}: .*{cure}"):
        built(rtx, path, BuildOptions(precision=precision))


def test_an_operator_that_tensorrt_does_not_know_is_named(rtx: Any, tmp_path: Path) -> None:
    node = helper.make_node("Wonder", ["x"], ["y"])
    path = save(tmp_path / "net.onnx", [node], [value("x", ["n", 4])], [value("y", ["n", 4])])
    with pytest.raises(LoadError, match=r"^net\.onnx is no model that TensorRT [\d.]+ can parse: .*Wonder"):
        built(rtx, path)


def test_shapes_that_do_not_fit_the_model_are_refused(rtx: Any, path: Path) -> None:
    with pytest.raises(LoadError, match=r"^TensorRT (does not take the shapes|[\d.]+ cannot build an engine)"):
        built(rtx, path, BuildOptions(shapes={"x": ((1, 5), (2, 5), (4, 5))}))


# -- what is said to the builder


def calls(version: int, path: Path, name: str, options: BuildOptions, **state: Any) -> list[Any]:
    module = recorded_tensorrt.make(version)
    for key, found in state.items():
        setattr(module, key, found)
    build(module, None, path, options, b"before")
    return [call[1:] for call in module.calls if call[0] == name]


@pytest.mark.parametrize("version", [10, 11])
def test_a_network_is_strongly_typed_unless_a_precision_is_to_be_chosen(version: int, path: Path) -> None:
    assert calls(version, path, "create_network", BuildOptions()) == [(1 << 1,)]


def test_tensorrt_10_may_choose_half_precision(path: Path) -> None:
    options = BuildOptions(precision="fp16")
    assert calls(10, path, "create_network", options) == [(0,)]
    assert calls(10, path, "set_flag", options) == [("FP16",)]


def test_tensorrt_10_chooses_int8_only_with_quantisation_nodes(path: Path) -> None:
    options = BuildOptions(precision="int8")
    assert calls(10, path, "set_flag", options, layer="QUANTIZE") == [("INT8",)]
    with pytest.raises(LoadError, match="has nothing in int8"):
        calls(10, path, "set_flag", options)


def test_tensorrt_11_sets_no_flag(path: Path) -> None:
    options = BuildOptions(precision="fp16")
    assert calls(11, path, "set_flag", options, dtype=recorded_tensorrt.HALF) == []
    assert calls(11, path, "create_network", options, dtype=recorded_tensorrt.HALF) == [(1 << 1,)]


def test_the_profile_goes_from_one_row_to_all(path: Path) -> None:
    options = BuildOptions(max_batch_size=16)
    assert calls(11, path, "set_shape", options) == [("x", (1, 4), (16, 4), (16, 4))]


def test_a_fixed_batch_needs_no_profile(tmp_path: Path) -> None:
    path = onnx_models.linear(tmp_path / "net.onnx", batch=3)
    assert calls(11, path, "set_shape", BuildOptions()) == []


def test_workspace_and_timings_are_handed_on(path: Path) -> None:
    options = BuildOptions(workspace_mb=3)
    assert calls(11, path, "set_memory_pool_limit", options) == [("workspace", 3 << 20)]
    assert calls(11, path, "create_timing_cache", options) == [(b"before",)]


def test_open_lengths_need_a_range(tmp_path: Path) -> None:
    path = onnx_models.image(tmp_path / "net.onnx")
    with pytest.raises(LoadError, match=r"^input 'image' has open lengths, \[-1, 3, -1, -1\]: .*shapes={'image': "):
        calls(11, path, "set_shape", BuildOptions())


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"parses": False}, "net.onnx is no model that TensorRT 11.0 can parse: Foo: there is no such operator"),
        ({"builds": False}, "TensorRT 11.0 cannot build an engine of net.onnx: its log above says why"),
    ],
)
def test_what_tensorrt_refuses_is_said(path: Path, state: dict[str, bool], says: str) -> None:
    with pytest.raises(LoadError) as caught:
        calls(11, path, "set_shape", BuildOptions(), **state)
    assert str(caught.value) == says


# -- the cache


def test_whatever_changes_an_engine_changes_its_key(path: Path, tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "engines")
    ten, eleven = recorded_tensorrt.make(10), recorded_tensorrt.make(11)
    other = onnx_models.linear(tmp_path / "other.onnx", opset=16)
    keys = [
        cache.key(ten, path, "sm_90", BuildOptions()),
        cache.key(eleven, path, "sm_90", BuildOptions()),
        cache.key(ten, path, "sm_80", BuildOptions()),
        cache.key(ten, path, "sm_90", BuildOptions(max_batch_size=4)),
        cache.key(ten, path, "sm_90", BuildOptions(precision="fp16")),
        cache.key(ten, other, "sm_90", BuildOptions()).replace("other", "net"),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == cache.key(ten, path, "sm_90", BuildOptions())


def test_weights_beside_the_model_are_part_of_its_key(path: Path, tmp_path: Path) -> None:
    cache, module = EngineCache(tmp_path), recorded_tensorrt.make(11)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="net.bin", size_threshold=0)
    before = cache.key(module, path, "sm_90", BuildOptions())
    (tmp_path / "net.bin").write_bytes(bytes(32))
    assert cache.key(module, path, "sm_90", BuildOptions()) != before
    (tmp_path / "net.bin").unlink()
    with pytest.raises(LoadError, match=r"net\.bin, weights of net\.onnx"):
        cache.key(module, path, "sm_90", BuildOptions())


def test_plans_and_timings_are_kept(tmp_path: Path) -> None:
    cache, module = EngineCache(tmp_path / "deep" / "engines"), recorded_tensorrt.make(11)
    assert cache.plan("net-1") is None
    assert cache.timing(module, "sm_90") == b""
    cache.keep_plan("net-1", b"plan")
    cache.keep_timing(module, "sm_90", b"timing")
    assert cache.plan("net-1") == b"plan"
    assert cache.timing(module, "sm_90") == b"timing"
    assert cache.timing(recorded_tensorrt.make(10), "sm_90") == b""
    assert len(list((tmp_path / "deep" / "engines").iterdir())) == 2


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LoadError, match=r"^cannot write the engine cache .*file"):
        EngineCache(tmp_path / "file").keep_plan("net-1", b"plan")


def test_a_plan_that_cannot_be_kept_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "net-1.plan").mkdir()
    with pytest.raises(LoadError, match=r"^cannot write the engine cache"):
        EngineCache(tmp_path).keep_plan("net-1", b"plan")
    assert [file.name for file in tmp_path.iterdir()] == ["net-1.plan"]
