"""Building TensorRT engines from ONNX files, and keeping them.

For the API of TensorRT 10 and 11, and of TensorRT-RTX, whose builder is the same and needs no GPU: that is the one
the tests build with (1.7). No release of the full TensorRT has built an engine through this code yet.

The releases differ in precision. TensorRT 11 takes it from the file alone: half-precision weights and inputs,
Q/DQ nodes for int8. TensorRT 10 can also be told to choose (BuilderFlag.FP16, BF16, INT8), which 11 has removed.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncline.backends import onnx_file
from asyncline.backends.base import ModelInfo, Precision
from asyncline.errors import LoadError

Shape = tuple[int, ...]
Range = tuple[Shape, Shape, Shape]
"""The smallest, the most common and the largest shape of an input."""

_TYPES = {"fp16": "HALF", "bf16": "BF16", "int8": "INT8"}


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    :param max_batch_size: most rows of a run; for inputs whose only open length is the batch.
    :param shapes: for inputs with other open lengths, their range: one profile.
    :param workspace_mb: most device memory of one layer.
    :param optimization_level: 0 builds fast, 5 slowly; what it builds may run the faster.
    """

    max_batch_size: int = 32
    shapes: Mapping[str, Range] = field(default_factory=dict)
    precision: Precision | None = None
    workspace_mb: int = 1024
    optimization_level: int = 3

    def profile(self, info: ModelInfo) -> dict[str, Range]:
        """The range of every input that has an open length.

        :raises LoadError: a length beside the batch is open and no range says how far.
        """
        ranges: dict[str, Range] = {}
        for tensor in info.inputs:
            if tensor.name in self.shapes:
                ranges[tensor.name] = self.shapes[tensor.name]
            elif -1 in tensor.row or not tensor.shape:
                raise LoadError(
                    f"input {tensor.name!r} has open lengths, {list(tensor.shape)}: TensorRT has to know how far, "
                    f"shapes={{{tensor.name!r}: (smallest, most common, largest)}}"
                )
            elif -1 in tensor.shape:
                largest = (self.max_batch_size, *tensor.row)
                # Tuned for full batches, which is what decides at the limit.
                ranges[tensor.name] = ((1, *tensor.row), largest, largest)
        return ranges


def build(trt: Any, logger: Any, path: Path, options: BuildOptions, timing: bytes = b"") -> tuple[bytes, bytes]:
    """Build an engine; the calling thread is busy for seconds to minutes, without the GIL.

    :param trt: the module `tensorrt` or `tensorrt_rtx`.
    :param timing: a timing cache of an earlier build, of the same release and device.
    :returns: the plan, and the timing cache after it (empty where there is none).
    :raises LoadError: the file is missing or no model, TensorRT does not take it, or a precision is not to be had.
    """
    info = onnx_file.read(path).info
    ranges = options.profile(info)
    builder = trt.Builder(logger)
    may_choose = options.precision in _TYPES and hasattr(
        trt.BuilderFlag, _TYPES[options.precision].replace("HALF", "FP16")
    )
    flags = 0
    if not may_choose and hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    # From the file, not its bytes: weights may lie in files beside it.
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        problems = "; ".join(f"{error.node_operator()}: {error.desc()}" for error in errors)
        raise LoadError(f"{path.name} is no model that TensorRT {trt.__version__} can parse: {problems}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    config.builder_optimization_level = options.optimization_level
    _set_precision(trt, network, config, path, options.precision, may_choose)
    if ranges:
        profile = builder.create_optimization_profile()
        for name, (smallest, common, largest) in ranges.items():
            profile.set_shape(name, smallest, common, largest)
        if config.add_optimization_profile(profile) < 0:
            raise LoadError(f"TensorRT does not take the shapes {ranges} for {path.name}")
    keeps_timings = trt.__name__ != "tensorrt_rtx"  # which has taken them out
    if keeps_timings:
        config.set_timing_cache(config.create_timing_cache(timing), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise LoadError(f"TensorRT {trt.__version__} cannot build an engine of {path.name}: its log above says why")
    return bytes(plan), bytes(config.get_timing_cache().serialize()) if keeps_timings else b""


def _set_precision(
    trt: Any, network: Any, config: Any, path: Path, precision: Precision | None, may_choose: bool
) -> None:
    if precision in (None, "fp32"):
        return
    assert precision is not None
    if precision == "int8":
        # Without Q/DQ nodes int8 needs a calibrator, which TensorRT 11 has removed.
        found = any(network.get_layer(i).type == trt.LayerType.QUANTIZE for i in range(network.num_layers))
        cure = "quantise it with Q/DQ nodes, by nvidia-modelopt for example"
    else:
        wanted = getattr(trt.DataType, _TYPES[precision])
        layers = [network.get_layer(index) for index in range(network.num_layers)]
        found = may_choose or any(
            layer.get_output(index).dtype == wanted for layer in layers for index in range(layer.num_outputs)
        )
        cure = "export it in that precision: this TensorRT takes types from the file alone"
    if not found:
        raise LoadError(f"{path.name} has nothing in {precision}: {cure}")
    if may_choose:
        config.set_flag(getattr(trt.BuilderFlag, _TYPES[precision].replace("HALF", "FP16")))


class EngineCache:
    """Plans and timing caches in a folder; a plan is code that runs on load, so the folder has to be your own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key(self, trt: Any, path: Path, architecture: str, options: BuildOptions) -> str:
        """A name that changes with whatever changes an engine: the model, the release, the device, the options."""
        digest = hashlib.sha256()
        for file in [path, *sorted(path.parent / name for name in onnx_file.read(path).external)]:
            try:
                with file.open("rb") as opened:
                    digest.update(hashlib.file_digest(opened, "sha256").digest())
            except OSError as error:
                raise LoadError(f"cannot read {file}, weights of {path.name}: {error.strerror}") from error
        digest.update(repr((trt.__name__, trt.__version__, architecture, options)).encode())
        return f"{path.stem}-{digest.hexdigest()[:32]}"

    def plan(self, key: str) -> bytes | None:
        return self._read(f"{key}.plan")

    def keep_plan(self, key: str, plan: bytes) -> None:
        self._write(f"{key}.plan", plan)

    def timing(self, trt: Any, architecture: str) -> bytes:
        return self._read(f"{trt.__name__}-{trt.__version__}-{architecture}.timing") or b""

    def keep_timing(self, trt: Any, architecture: str, timing: bytes) -> None:
        self._write(f"{trt.__name__}-{trt.__version__}-{architecture}.timing", timing)

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LoadError(f"cannot read the engine cache {self._folder / name}: {error.strerror}") from error

    def _write(self, name: str, data: bytes) -> None:
        # Renamed at the end: another replica, or the next start, never reads half a plan.
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                try:
                    file.write(data)
                    file.flush()
                    os.replace(file.name, self._folder / name)
                except BaseException:
                    os.unlink(file.name)
                    raise
        except OSError as error:
            raise LoadError(f"cannot write the engine cache {self._folder}: {error.strerror}") from error
