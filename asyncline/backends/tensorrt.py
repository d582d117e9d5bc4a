"""Engines of TensorRT: built from ONNX files or read from plans, run by `execute_async_v3`.

For the API of TensorRT 10 and 11. Building is tested with TensorRT-RTX 1.7, running by recorded calls: no release of
TensorRT has run an engine through this code yet.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from asyncline.backends.base import TensorInfo, fixed_batch_size
from asyncline.backends.cuda import open_accelerator
from asyncline.backends.device import DeviceSession, OutputTensors
from asyncline.backends.tensorrt_build import BuildOptions, EngineCache, build
from asyncline.engine.lanes.accelerator import Accelerator, DeviceTensor, Shape
from asyncline.errors import LoadError, OpError
from asyncline.graph.fields import DTYPES

PLANS = frozenset({".plan", ".engine"})
"""Suffixes of files that TensorRT has built."""

_DTYPES = {
    "FLOAT": "FP32", "HALF": "FP16", "BF16": "BF16", "BOOL": "BOOL", "INT8": "INT8", "UINT8": "UINT8", "INT32": "INT32",
    "INT64": "INT64",
}  # fmt: skip

# One logger for all: TensorRT keeps the first it is given.
_loggers: dict[str, Any] = {}
# One build at a time: the second replica then finds the engine of the first in the cache.
_building = threading.Lock()


class TensorRTSession(DeviceSession):
    """An engine, and one context to run it, for the one thread that made them.

    :param path: an ONNX file, or a plan (.plan, .engine), which is code that runs on load: your own only.
    :param device: `cuda` or `cuda:1`.
    :param options: how to build; of no use to a plan.
    :param cache: a folder where engines are kept, by model, release, device and options; without it every start builds.
    :param accelerator: memory and streams; by default those of torch, or of pycuda where there is no torch.
    :param module: the name of TensorRT's module.
    :raises LoadError: TensorRT or the device is not there, or the file cannot be built or read.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        device: str = "cuda",
        *,
        options: BuildOptions | None = None,
        cache: str | PathLike[str] | None = None,
        accelerator: Accelerator | None = None,
        module: str = "tensorrt",
    ) -> None:
        trt = import_tensorrt(module)
        # Before anything of TensorRT is made: without a device its objects crash the interpreter at exit.
        super().__init__(open_accelerator(device) if accelerator is None else accelerator)
        self._entered = accelerator is None
        try:
            self._open(trt, Path(path), options, cache)
        except BaseException:
            self.close()
            raise

    def _open(self, trt: Any, file: Path, options: BuildOptions | None, cache: str | PathLike[str] | None) -> None:
        logger = _logger(trt)
        self._runtime: Any = trt.Runtime(logger)
        if file.suffix in PLANS:
            self._engine = self._read_plan(trt, file)
        else:
            self._engine = self._build(trt, logger, file, options or BuildOptions(), cache)
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise LoadError(f"no room on {self.accelerator.name} for {file.name}")
        self._profile = 0
        self._describe(trt)

    def infer_outputs(self, shapes: Mapping[str, Shape]) -> OutputTensors | None:
        self._set_shapes(shapes)
        if self._context.infer_shapes():
            return None  # it names inputs whose values it would have to know
        tensors: OutputTensors = {}
        for info in self.outputs:
            shape = tuple(self._context.get_tensor_shape(info.name))
            if -1 in shape:
                return None
            tensors[info.name] = np.dtype(DTYPES[info.dtype]), shape
        return tensors

    def enqueue(self, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        context = self._context
        self._set_shapes({name: tensor.shape for name, tensor in inputs.items()})
        for name, tensor in (*inputs.items(), *outputs.items()):
            context.set_tensor_address(name, tensor.memory.address)
        if not context.execute_async_v3(self.stream.handle):
            raise RuntimeError("TensorRT could not start the run: its log says why")

    def close(self) -> None:
        super().close()
        # Each needs the one after it while it is freed.
        self._context = None
        self._engine = None
        self._runtime = None
        self.__dict__.pop("stream", None)
        if self._entered:
            self._entered = False
            self.accelerator.leave()

    def _set_shapes(self, shapes: Mapping[str, Shape]) -> None:
        profile = self._profile_for(shapes)
        if profile != self._profile:
            # Before the shapes, which it resets.
            if not self._context.set_optimization_profile_async(profile, self.stream.handle):
                raise RuntimeError(f"TensorRT could not take profile {profile}: its log says why")
            self._profile = profile
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise OpError(f"tensor {name!r}: TensorRT does not take the shape {list(shape)}")

    def _profile_for(self, shapes: Mapping[str, Shape]) -> int:
        """The first profile that has room for `shapes`."""
        for index, ranges in enumerate(self._profiles):
            if all(
                all(low <= length <= high for low, length, high in zip(lows, shapes[name], highs, strict=True))
                for name, (lows, _, highs) in ranges.items()
            ):
                return index
        found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise OpError(f"no profile of the engine has room for {found}")

    def _read_plan(self, trt: Any, file: Path) -> Any:
        if not file.is_file():
            raise LoadError(f"there is no model file {file}")
        engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if engine is None:
            raise LoadError(
                f"{file.name} is no plan that TensorRT {trt.__version__} can run on {self.accelerator.architecture}: "
                "plans are for the release and the GPU that built them"
            )
        return engine

    def _build(
        self, trt: Any, logger: Any, file: Path, options: BuildOptions, folder: str | PathLike[str] | None
    ) -> Any:
        with _building:
            if folder is None:
                plan, _ = build(trt, logger, file, options)
            else:
                cache, architecture = EngineCache(Path(folder)), self.accelerator.architecture
                key = cache.key(trt, file, architecture, options)
                kept = cache.plan(key)
                # A plan that cannot be read (half a disk, another driver) is built again.
                engine = None if kept is None else self._runtime.deserialize_cuda_engine(kept)
                if engine is not None:
                    return engine
                plan, timing = build(trt, logger, file, options, cache.timing(trt, architecture))
                cache.keep_plan(key, plan)
                cache.keep_timing(trt, architecture, timing)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise LoadError(f"TensorRT {trt.__version__} cannot run the engine that it built of {file.name}")
        return engine

    def _describe(self, trt: Any) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        infos = {
            name: TensorInfo(
                name,
                _DTYPES.get(engine.get_tensor_dtype(name).name, "OTHER"),
                tuple(engine.get_tensor_shape(name)),
            )
            for name in names
        }
        for info in infos.values():
            if info.dtype not in DTYPES:
                raise LoadError(
                    f"tensor {info.name!r} is {engine.get_tensor_dtype(info.name).name}: numpy has no such type"
                )
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs = tuple(infos[name] for name in names if is_input[name])
        self.outputs = tuple(infos[name] for name in names if not is_input[name])
        self.metadata = {}
        self._profiles: list[dict[str, tuple[Shape, Shape, Shape]]] = [
            {
                info.name: tuple(tuple(shape) for shape in engine.get_tensor_profile_shape(info.name, index))  # type: ignore[misc]
                for info in self.inputs
            }
            for index in range(engine.num_optimization_profiles)
        ]
        batches = [ranges[info.name] for ranges in self._profiles for info in self.inputs[:1]]
        fixed = fixed_batch_size(self.inputs)
        self.max_batch_size = fixed or max((highs[0] for _, _, highs in batches), default=None)
        if fixed is None:
            # Kernels are chosen for the most common shape of a profile.
            self.batch_sizes = tuple(sorted({common[0] for _, common, _ in batches}))


def import_tensorrt(module: str = "tensorrt") -> Any:
    """The module of TensorRT.

    :raises LoadError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise LoadError(
            f"{module} is not installed: pip install 'asyncline[tensorrt]', with pypi.nvidia.com in reach"
        ) from None


def _logger(trt: Any) -> Any:
    if trt.__name__ not in _loggers:
        _loggers[trt.__name__] = trt.Logger(trt.Logger.WARNING)
    return _loggers[trt.__name__]
