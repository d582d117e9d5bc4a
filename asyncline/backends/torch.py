"""Models of torch: a Module, a function that makes one, TorchScript, or an exported program.

On CUDA this has not been run: what is here was written against torch 2.13 without a device.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from asyncline.backends import torch_file
from asyncline.backends.base import (
    Array,
    ModelInfo,
    Precision,
    Session,
    TensorInfo,
    fixed_batch_size,
    stack,
    zeros,
)
from asyncline.backends.device import DeviceSession, OutputTensors, cuda_index
from asyncline.backends.torch_cuda import TorchAccelerator, TorchStream, cuda_device, import_torch, translating
from asyncline.engine.lanes.accelerator import Accelerator, DeviceTensor, Shape
from asyncline.errors import LoadError, OpError
from asyncline.graph.fields import DTYPES

SCRIPTS = frozenset({".pt", ".pth", ".ts", ".jit", ".torchscript"})
"""Suffixes of TorchScript files."""
EXPORTED = ".pt2"
"""Suffix of exported programs."""

Source = str | PathLike[str] | Callable[..., Any]
"""An `nn.Module`, a function without arguments that makes one, `module:attr` of either, or the path of a file."""

_DTYPES = {
    "float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "float64": "FP64", "uint8": "UINT8", "uint16": "UINT16",
    "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "bool": "BOOL",
}  # fmt: skip


_TRACEBACK = "Traceback of TorchScript"


class TorchSession(Session):
    """A torch model, loaded.

    :param source: see Source. A Module is copied, so that replicas do not share it.
    :param device: `cpu`, `cuda` or `cuda:1`.
    :param threads: of one run on the CPU.
    :param info: its inputs, where the source does not say; outputs are found by a run on zeros where they can be.
    :param weights: a file of weights for the Module, made by `torch.save(module.state_dict(), file)`.
    :param precision: bf16, or fp16 on CUDA: the Module's weights and its floating inputs are cast; fp32 by default
        is what the Module has.
    :param channels_last: lay out images (inputs of four lengths) as convolutions like them; the values are the same.
    :param compile: run it through `torch.compile`, of that backend if it is a name; a shape's first run takes long.
    :raises LoadError: torch is not installed, the device is not there, or the source is no model.
    """

    def __init__(
        self,
        source: Source,
        device: str = "cpu",
        *,
        threads: int = 1,
        info: ModelInfo | None = None,
        weights: str | PathLike[str] | None = None,
        precision: Precision | None = None,
        channels_last: bool = True,
        compile: bool | str = False,
    ) -> None:
        torch = import_torch()
        index = cuda_index(device)
        if index is None:
            torch.set_num_threads(threads)  # of the calling thread, and of those that come after
        place = torch.device("cpu") if index is None else cuda_device(torch, index)
        self._network: Network | None = Network(torch, source, place, info, weights, precision, channels_last, compile)
        self._network.describe(self)

    def run_named(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        network = self._network
        assert network is not None, "the session is closed"
        return network.run_arrays([inputs[info.name] for info in self.inputs])

    def close(self) -> None:
        self._network = None


class TorchDeviceSession(DeviceSession):
    """A torch model on CUDA, for a lane that has its own streams and memory. Arguments are those of TorchSession.

    :raises LoadError: as of TorchSession.
    """

    def __init__(
        self,
        source: Source,
        accelerator: Accelerator,
        *,
        info: ModelInfo | None = None,
        weights: str | PathLike[str] | None = None,
        precision: Precision | None = None,
        channels_last: bool = True,
        compile: bool | str = False,
    ) -> None:
        if not isinstance(accelerator, TorchAccelerator):
            raise LoadError("a torch model needs an Accelerator of torch")
        super().__init__(accelerator)
        torch = import_torch()
        self._network: Network | None = Network(
            torch, source, accelerator.device, info, weights, precision, channels_last, compile
        )
        self._network.describe(self)

    def infer_outputs(self, shapes: Mapping[str, Shape]) -> OutputTensors | None:
        # Two runs that differ only in their data have to agree: else lengths depend on it. Integers stay zero, the
        # one number that is an index of anything.
        network = self._network
        assert network is not None, "the session is closed"
        found = []
        for make in (np.zeros, np.ones):
            arrays: list[Array] = [
                (make if info.dtype.startswith("FP") else np.zeros)(shapes[info.name], DTYPES[info.dtype])
                for info in self.inputs
            ]
            found.append({name: (a.dtype, a.shape) for name, a in network.run_arrays(arrays).items()})
        return found[0] if found[0] == found[1] else None

    def enqueue(self, inputs: Mapping[str, DeviceTensor], outputs: Mapping[str, DeviceTensor]) -> None:
        network, stream = self._network, self.stream
        assert network is not None and isinstance(stream, TorchStream)
        torch = network.torch
        with translating(torch), torch.cuda.stream(stream.stream), torch.inference_mode():
            found = network([view(torch, inputs[info.name]) for info in self.inputs])
            hand_over(torch, found, outputs)

    def run_eagerly(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        network = self._network
        assert network is not None, "the session is closed"
        return network.run_arrays([inputs[info.name] for info in self.inputs])

    def close(self) -> None:
        super().close()
        self._network = None


class Network:
    """A Module in its place, with its precision and its layout: tensors in, named tensors out."""

    def __init__(
        self,
        torch: Any,
        source: Source,
        device: Any,
        info: ModelInfo | None,
        weights: str | PathLike[str] | None,
        precision: Precision | None,
        channels_last: bool,
        compile: bool | str,
    ) -> None:
        self.torch = torch
        self.device = device
        is_exported = isinstance(source, (str, PathLike)) and Path(source).suffix == EXPORTED
        self.dtype = _dtype(torch, precision, device, is_exported)
        module = _exported(torch, source, device) if is_exported else _module(torch, source, weights)
        if is_exported:
            self.info = info or torch_file.read(Path(source))  # type: ignore[arg-type]  # a path, as is_exported says
        else:
            self.info = info or ModelInfo(_arguments(module))
            module = module.eval().to(device)
            if self.dtype is not None:
                module = module.to(self.dtype)
        #: Of others nobody says where they have the batch.
        self.is_exported = is_exported
        self._channels_last = channels_last and not is_exported and any(len(i.shape) == 4 for i in self.info.inputs)
        if self._channels_last:
            module = module.to(memory_format=torch.channels_last)
        if compile:
            mode = None if device.type == "cpu" else "max-autotune-no-cudagraphs"
            options = {"backend": compile} if isinstance(compile, str) else {"mode": mode}
            module = torch.compile(module, **options)
        self._call = module
        #: Memory that is not a run's own: an output in it would change with the next run.
        self._kept = frozenset(
            place
            for tensor in (*module.parameters(), *module.buffers())
            if device.type == "cpu" and (place := _place(tensor)) is not None
        )
        #: Whether the Module has written to its inputs, which are the caller's; None before the first run.
        self._writes: bool | None = None

    def __call__(self, tensors: list[Any]) -> dict[str, Any]:
        """Run the Module on tensors of its device; inside of `inference_mode`."""
        if self.dtype is not None:
            tensors = [tensor.to(self.dtype) if tensor.is_floating_point() else tensor for tensor in tensors]
        if self._channels_last:
            layout = self.torch.channels_last
            tensors = [tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor for tensor in tensors]
        return _named(self._call(*tensors))

    def run_arrays(self, arrays: list[Array]) -> dict[str, Array]:
        torch = self.torch
        try:
            with translating(torch):
                # Outside of inference_mode, where a tensor does not count how often it was written to.
                tensors = given = [_tensor(torch, array, copies=self._writes is not False) for array in arrays]
                with torch.inference_mode():
                    if self.device.type != "cpu":
                        tensors = [tensor.to(self.device) for tensor in tensors]
                    outputs = {name: self._array(name, tensor) for name, tensor in self(tensors).items()}
        except Exception as error:  # torch.jit.Error has no other base
            if _TRACEBACK not in str(error):
                raise
            # It tells the model's source, line by line, and what was raised in the last one.
            raise RuntimeError(_line(error, last=True)) from error
        self._writes = bool(self._writes) or any(tensor._version for tensor in given)
        if not outputs:
            raise OpError("the model gave no output")
        return outputs

    def describe(self, session: Session) -> None:
        """Tell `session` what is known of the model; a run on zeros tells outputs that are not known yet.

        :raises LoadError: the model does not take the inputs that it is said to have.
        """
        info = self.info
        session.inputs, session.metadata = info.inputs, dict(info.metadata)
        session.max_batch_size = info.fixed_batch_size or info.max_batch_size
        session.says_batch_axis = self.is_exported
        session.outputs = info.outputs or self._find_outputs(info.inputs)

    def _find_outputs(self, inputs: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
        if not inputs or any(not info.shape or -1 in info.row for info in inputs):
            return ()
        rows = fixed_batch_size(inputs)
        try:
            found = self.run_arrays([stack([zeros(info)] * (rows or 1)) for info in inputs])
        except OpError as error:
            raise LoadError(error.message) from error
        except Exception as error:
            shapes = ", ".join(f"{info.name} {list(info.shape)}" for info in inputs)
            raise LoadError(f"the model does not take {shapes}: {' '.join(str(error).split())}") from error
        return tuple(
            TensorInfo(name, _DTYPES.get(array.dtype.name, "OTHER"), (rows or -1, *array.shape[1:]))
            for name, array in found.items()
        )

    def _array(self, name: str, tensor: Any) -> Array:
        if not isinstance(tensor, self.torch.Tensor):
            raise OpError(f"output {name!r} is a {type(tensor).__name__}, not a tensor")
        if tensor.dtype == self.torch.bfloat16 or (self.dtype is not None and tensor.dtype == self.dtype):
            tensor = tensor.float()  # numpy has no bfloat16, and a precision is asked for speed, not for its dtype
        tensor = tensor.contiguous().cpu()
        array: Array = tensor.numpy()
        return array.copy() if self._kept and tensor.untyped_storage().data_ptr() in self._kept else array


def view(torch: Any, tensor: DeviceTensor) -> Any:
    """A DeviceTensor as a tensor of torch, over the same memory."""
    memory: Any = tensor.memory
    dtype = getattr(torch, tensor.dtype.name)
    return memory.bytes[: tensor.nbytes].view(dtype).view(tensor.shape)


def hand_over(torch: Any, found: Mapping[str, Any], outputs: Mapping[str, DeviceTensor]) -> None:
    """Copy what a Module gave to addresses that stay, and to the outputs' dtypes.

    :raises OpError: an output has another shape than it is known to have.
    """
    for name, tensor in outputs.items():
        shape = tuple(found[name].shape)
        if shape != tensor.shape:  # copy_ would repeat what is smaller
            raise OpError(f"output {name!r} has the shape {list(shape)}, not {list(tensor.shape)}")
        view(torch, tensor).copy_(found[name])


def _dtype(torch: Any, precision: Precision | None, device: Any, is_exported: bool) -> Any:
    """What to cast to; None: nothing."""
    if precision in (None, "fp32"):
        return None
    if precision == "int8":
        raise LoadError("torch casts no model to int8: quantise the Module, by torchao for example, and serve that")
    if is_exported:
        raise LoadError(f"an exported program has its precision in the file: export it in {precision}")
    if precision == "fp16" and device.type == "cpu":
        raise LoadError("fp16 has few kernels on the CPU in torch: use bf16 there")
    return torch.bfloat16 if precision == "bf16" else torch.float16


def _exported(torch: Any, source: Any, device: Any) -> Any:
    path = Path(source)
    torch_file.read(path)  # torch writes pages to the log before it says what is wrong
    try:
        program = torch.export.load(path)
        if device.type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
    except Exception as error:
        raise LoadError(f"{path.name} is no program that torch {torch.__version__} can load: {_line(error)}") from error
    return program.module()


def _module(torch: Any, source: Source, weights: str | PathLike[str] | None) -> Any:
    if isinstance(source, torch.nn.Module):
        module = copy.deepcopy(source)
    elif isinstance(source, PathLike) or (isinstance(source, str) and Path(source).suffix in SCRIPTS):
        return _script(torch, Path(source))
    elif isinstance(source, str):
        found = imported(source)
        module = copy.deepcopy(found) if isinstance(found, torch.nn.Module) else found()
    else:
        module = source()
    if not isinstance(module, torch.nn.Module):
        raise LoadError(f"expected an nn.Module, or a function that makes one; got {type(module).__name__}")
    if weights is not None:
        _load_weights(torch, module, Path(weights))
    return module


def _script(torch: Any, path: Path) -> Any:
    if not path.is_file():
        raise LoadError(f"there is no model file {path}")
    try:
        return torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise LoadError(
            f"{path.name} is no TorchScript (a file of weights needs its Module: TorchSession('module:attr', "
            f"weights={path.name!r})): {_line(error)}"
        ) from error


def _load_weights(torch: Any, module: Any, path: Path) -> None:
    if not path.is_file():
        raise LoadError(f"there is no file of weights {path}")
    try:
        # Anything but weights would be code that runs while it is read.
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except (pickle.UnpicklingError, EOFError, RuntimeError, TypeError, AttributeError, KeyError) as error:
        raise LoadError(f"{path.name} has no weights for {type(module).__name__}: {_line(error)}") from error


def imported(name: str) -> Any:
    """What `module:attr` names.

    :raises LoadError: there is no such module or attribute, or the module fails.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not all(module_name.split(".")) or not attribute:
        raise LoadError(f"{name!r} is no torch model: write the path of a file ({EXPORTED}, .pt) or module:attr")
    try:
        module: ModuleType = importlib.import_module(module_name)
        return getattr(module, attribute)
    except ModuleNotFoundError as error:
        raise LoadError(f"{name!r}: there is no module {error.name!r}") from error
    except AttributeError as error:
        raise LoadError(f"{name!r}: {error}") from error
    except Exception as error:
        raise LoadError(f"{name!r}: module {module_name!r} fails: {type(error).__name__}: {error}") from error


def _arguments(module: Any) -> tuple[TensorInfo, ...]:
    """The arguments of `forward` that have no default: their dtypes and shapes are not known."""
    schema = getattr(getattr(module, "forward", None), "schema", None)  # of TorchScript
    if schema is not None:
        names = [argument.name for argument in schema.arguments[1:] if not argument.has_default_value()]
    else:
        parameters = inspect.signature(module.forward).parameters.values()
        names = [p.name for p in parameters if p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD]
    return tuple(TensorInfo(name, "", ()) for name in names)


def _named(found: Any) -> dict[str, Any]:
    if isinstance(found, Mapping):
        return {str(key): value for key, value in found.items()}
    if not isinstance(found, (tuple, list)):
        return {"output": found}
    return {"output": found[0]} if len(found) == 1 else {f"output_{i}": value for i, value in enumerate(found)}


def _place(tensor: Any) -> int | None:
    """Where its memory begins; None where it has none of its own, as of a lazy Module or quantised by a subclass."""
    try:
        return int(tensor.untyped_storage().data_ptr()) or None
    except (RuntimeError, NotImplementedError, ValueError):
        return None


def _tensor(torch: Any, array: Array, *, copies: bool) -> Any:
    # torch warns of arrays that it could not write to, as those of the pool, and takes no negative strides.
    if copies or not array.flags.writeable or not array.flags.c_contiguous:
        array = array.copy()
    return torch.from_numpy(array)


def _line(error: BaseException, *, last: bool = False) -> str:
    """What an error says, or the last line of it, as one line."""
    text = str(error).strip()
    text = " ".join((text.rpartition("\n")[2] if last else text).split())
    return text if len(text) < 400 else text[:400] + "..."
