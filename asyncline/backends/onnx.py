"""Models in ONNX files, run by onnxruntime on the CPU or on CUDA.

CUDA wants the package onnxruntime-gpu in place of onnxruntime. Its path here has been checked against recorded
calls only; no GPU has run it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from asyncline.backends.base import Array, Precision, Session, TensorInfo, fixed_batch_size, with_batch_axis
from asyncline.backends.device import DeviceSession, OutputTensors, cuda_index
from asyncline.engine.lanes.accelerator import Accelerator, DeviceTensor, OutOfMemory, Shape
from asyncline.errors import LoadError
from asyncline.graph.fields import DTYPES

_DTYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

_NOISE = re.compile(
    r"^(\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed:|/onnxruntime_src/[^)]*\) |Exception during "
    r"loading: )"
)
"""What stands before onnxruntime's own words: numbers, the path once more, and a place in its sources."""
_TOO_NEW = re.compile(
    r"Opset (\d+) is under development .* is till opset (\d+)"
    r"|model (IR version): (\d+), max supported IR version: (\d+)"
)
_FATAL = 4
"""Of onnxruntime's log levels the highest."""
_NO_ROOM = re.compile(r"Failed to allocate memory|bad_alloc|out of memory", re.IGNORECASE)


class OnnxSession(Session):
    """An ONNX file, loaded.

    :param path: the file.
    :param device: `cpu`, `cuda` or `cuda:1`.
    :param threads: of one run on the CPU. Replicas x threads should not be more than the cores.
    :param spinning: let idle threads spin: a run starts sooner, at the price of a core that other Ops need.
    :param precision: only what the file has: an ONNX file is converted beforehand, where its accuracy can be seen.
    :raises LoadError: onnxruntime is not installed, the device is not there, or the file is no model.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        device: str = "cpu",
        *,
        threads: int = 1,
        spinning: bool = False,
        precision: Precision | None = None,
    ) -> None:
        self._session = _load(Path(path), device, threads, spinning, precision, {})
        _describe(self, self._session)
        self._device = cuda_index(device) if can_bind(self.inputs + self.outputs) else None
        self._names = [info.name for info in self.outputs]
        self._options = _run_options()

    def run_named(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            if self._device is None:
                outputs = self._session.run(self._names, inputs, self._options)
            else:
                outputs = _run_bound(self._session, self._device, inputs, self._options)
        except Exception as error:  # onnxruntime's own exceptions share no base
            raise _translated(error) from error
        return dict(zip(self._names, outputs, strict=True))

    def close(self) -> None:
        self._session = None


class OnnxDeviceSession(DeviceSession):
    """An ONNX file on CUDA, for a lane that has its own streams and memory.

    :raises LoadError: as of OnnxSession.
    """

    # onnxruntime allocates inside of a run, which breaks a capture from outside.
    can_capture = False

    def __init__(
        self, path: str | PathLike[str], accelerator: Accelerator, *, precision: Precision | None = None
    ) -> None:
        super().__init__(accelerator)
        self._device = cuda_index(accelerator.name) or 0
        stream = {"user_compute_stream": str(self.stream.handle)}
        self._session = _load(Path(path), accelerator.name, 1, False, precision, stream)
        _describe(self, self._session)
        self._options = _run_options()
        # Else every run would wait for the device.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def infer_outputs(self, shapes: Mapping[str, Shape]) -> OutputTensors | None:
        # Open lengths have names in the file: one of an output that no input has is known to a run only.
        lengths = {
            length: shapes[value.name][axis]
            for value in self._session.get_inputs()
            for axis, length in enumerate(value.shape)
            if isinstance(length, str)
        }
        tensors: OutputTensors = {}
        for value, info in zip(self._session.get_outputs(), self.outputs, strict=True):
            shape = [length if isinstance(length, int) else lengths.get(length, -1) for length in value.shape]
            if not shape or -1 in shape or info.dtype not in DTYPES:
                return None
            tensors[info.name] = np.dtype(DTYPES[info.dtype]), tuple(shape)
        return tensors

    def enqueue(self, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_input(name, "cuda", self._device, tensor.dtype, tensor.shape, tensor.memory.address)
        for name, tensor in outputs.items():
            binding.bind_output(name, "cuda", self._device, tensor.dtype, tensor.shape, tensor.memory.address)
        try:
            self._session.run_with_iobinding(binding, self._options)
        except Exception as error:  # onnxruntime's own exceptions share no base
            raise _translated(error) from error

    def run_eagerly(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            outputs = _run_bound(self._session, self._device, inputs, _run_options())
        except Exception as error:  # onnxruntime's own exceptions share no base
            raise _translated(error) from error
        return {info.name: output for info, output in zip(self.outputs, outputs, strict=True)}

    def close(self) -> None:
        super().close()
        self._session = None


def _load(
    path: Path, device: str, threads: int, spinning: bool, precision: Precision | None, cuda: Mapping[str, str]
) -> Any:
    """An `onnxruntime.InferenceSession`; `cuda` are further options of the CUDA provider."""
    index = cuda_index(device)
    if precision not in (None, "fp32"):
        raise LoadError(
            f"onnxruntime runs {path.name} in the precision that the file has, not in {precision}: convert the file "
            "and check its accuracy (int8: onnxruntime.quantization; fp16: export the model in half precision)"
        )
    try:
        import onnxruntime
    except ImportError:
        raise LoadError("onnxruntime is not installed: pip install 'asyncline[onnx]'") from None
    if not path.is_file():
        raise LoadError(f"there is no model file {path}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    providers: list[Any] = ["CPUExecutionProvider"]
    if index is not None:
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise LoadError(
                f"this onnxruntime has no CUDA for {device}: pip uninstall onnxruntime, pip install onnxruntime-gpu"
            )
        if hasattr(onnxruntime, "preload_dlls"):  # since 1.21
            onnxruntime.preload_dlls()  # CUDA's libraries, where they came with torch or as wheels
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": str(index), **cuda}))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions share no base
        runtime = f"onnxruntime {onnxruntime.__version__}"
        if too_new := _TOO_NEW.search(words := _words(error)):
            *kind, its, newest = (text for text in too_new.groups() if text)
            version = f"{kind[0] if kind else 'opset'} {its}, {runtime} knows up to {newest}"
            cure = "export it for an older one, or pip install -U onnxruntime"
            raise LoadError(f"{path.name} has {version}: {cure}") from error
        raise LoadError(f"{path.name} is no model that {runtime} can load: {words}") from error
    if index is not None and "CUDAExecutionProvider" not in session.get_providers():
        # It only logs that, and goes on with the CPU.
        raise LoadError(f"onnxruntime cannot use {device}: there is no such device, or CUDA or cuDNN is missing")
    return session


def _run_options() -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = _FATAL  # what fails is raised, and needs no line on stderr as well
    return options


def _describe(target: Session, session: Any) -> None:
    """Take over what the file says of itself."""
    target.inputs = tuple(map(_info, session.get_inputs()))
    batch = next((found.shape[0] for found in session.get_inputs() if found.shape), None)
    target.outputs = tuple(
        with_batch_axis(_info(found), found.shape, batch if isinstance(batch, str) else None)
        for found in session.get_outputs()
    )
    # Exporters that know no better name each open length anew, or none.
    target.says_batch_axis = batch is not None and all(found.shape[:1] == [batch] for found in session.get_outputs())
    for info in target.outputs:
        if info.dtype == "BF16":
            raise LoadError(f"output {info.name!r} is BF16, which numpy does not have: let the model cast it to FP32")
    target.metadata = dict(session.get_modelmeta().custom_metadata_map)
    target.max_batch_size = fixed_batch_size(target.inputs)


def _info(found: Any) -> TensorInfo:
    shape = tuple(length if isinstance(length, int) else -1 for length in found.shape)
    return TensorInfo(found.name, _DTYPES.get(found.type, "OTHER"), shape)


def can_bind(tensors: Sequence[TensorInfo]) -> bool:
    """Whether all of them can lie on a device: strings, sequences and maps cannot."""
    return all(info.dtype in DTYPES and info.dtype != "BYTES" for info in tensors)


def _run_bound(session: Any, device: int, inputs: Mapping[str, Array], options: Any) -> list[Array]:
    """A run with inputs and outputs bound to the device, so that one copy each way is all there is."""
    from onnxruntime import OrtValue

    binding = session.io_binding()
    for name, array in inputs.items():
        value = OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", device)
        binding.bind_ortvalue_input(name, value)
    for found in session.get_outputs():
        binding.bind_output(found.name, "cuda", device)
    session.run_with_iobinding(binding, options)
    outputs: list[Array] = binding.copy_outputs_to_cpu()
    return outputs


def _translated(error: Exception) -> Exception:
    text = _words(error)
    if _NO_ROOM.search(text):
        return OutOfMemory(text)
    return RuntimeError(text)


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    while (shorter := _NOISE.sub("", text, count=1)) != text:
        text = shorter
    return text
