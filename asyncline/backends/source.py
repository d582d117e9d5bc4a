"""What a Model can be made of: each kind describes itself without loading, and opens a Session on a device."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from asyncline.backends import onnx_file, torch_file
from asyncline.backends.base import ModelInfo, Precision, Session
from asyncline.backends.cuda import open_accelerator
from asyncline.backends.device import cuda_index
from asyncline.backends.onnx import OnnxDeviceSession, OnnxSession, can_bind
from asyncline.backends.torch import EXPORTED, SCRIPTS, TorchDeviceSession, TorchSession
from asyncline.errors import LoadError

Source = str | PathLike[str] | Callable[..., Any]
"""See Model."""

UNKNOWN = ModelInfo(())


class Kind(ABC):
    """One kind of source."""

    name: str
    """For messages, and for the Op."""

    @abstractmethod
    def describe(self) -> ModelInfo:
        """What the source says of the model, UNKNOWN where that is nothing.

        :raises LoadError: it is missing, or no model.
        """

    @abstractmethod
    def open(self, device: str, threads: int, info: ModelInfo, precision: Precision | None) -> Session:
        """Load the model.

        :raises LoadError: as of the Session.
        """


class OnnxKind(Kind):
    """An ONNX file, for onnxruntime."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path

    def describe(self) -> ModelInfo:
        return onnx_file.read(self._path).info

    def open(self, device: str, threads: int, info: ModelInfo, precision: Precision | None) -> Session:
        if cuda_index(device) is not None and can_bind(info.inputs + info.outputs):
            try:
                accelerator = open_accelerator(device, "torch")
            except LoadError:
                pass  # no streams to share: onnxruntime runs on its own
            else:
                return OnnxDeviceSession(self._path, accelerator, precision=precision)
        return OnnxSession(self._path, device, threads=threads, precision=precision)


class TorchKind(Kind):
    """A torch model: a file, a Module, or `module:attr`."""

    def __init__(self, source: Source, name: str) -> None:
        self.name = name
        self._source = source

    def describe(self) -> ModelInfo:
        if not isinstance(self._source, (str, PathLike)):
            return UNKNOWN
        path = Path(self._source)
        if path.suffix == EXPORTED:
            return torch_file.read(path)
        if path.suffix in SCRIPTS and not path.is_file():
            raise LoadError(f"there is no model file {path}")
        return UNKNOWN

    def open(self, device: str, threads: int, info: ModelInfo, precision: Precision | None) -> Session:
        if cuda_index(device) is None:
            return TorchSession(self._source, device, threads=threads, info=info, precision=precision)
        return TorchDeviceSession(self._source, open_accelerator(device, "torch"), info=info, precision=precision)


class FactoryKind(Kind):
    """A function that makes a Session for a device."""

    def __init__(self, factory: Callable[[str], Session]) -> None:
        function = factory.func if isinstance(factory, functools.partial) else factory
        self.name = getattr(function, "__name__", "model")
        self._factory = factory

    def describe(self) -> ModelInfo:
        return UNKNOWN

    def open(self, device: str, threads: int, info: ModelInfo, precision: Precision | None) -> Session:
        if precision is not None:
            raise LoadError(f"{self.name} makes its Sessions itself: give it the precision {precision}")
        session = self._factory(device)
        if not isinstance(session, Session):
            raise LoadError(f"{self.name} made a {type(session).__name__}, not a Session")
        if [(i.name, i.dtype) for i in session.inputs] != [(i.name, i.dtype) for i in info.inputs]:
            raise LoadError(f"{self.name} made a Session of {session.inputs}, where info says {info.inputs}")
        return session


def kind_of(source: Source) -> Kind:
    """The kind of a source.

    :raises LoadError: it is none.
    """
    if isinstance(source, (str, PathLike)):
        path, text = Path(source), fspath(source)
        if path.suffix == ".onnx":
            return OnnxKind(path)
        if path.suffix == EXPORTED or path.suffix in SCRIPTS:
            return TorchKind(source, path.name)
        if isinstance(source, str) and ":" in text:
            return TorchKind(source, text.rpartition(":")[2])
        raise LoadError(f"{text!r} is no model that is known here: use a file (.onnx, {EXPORTED}, .pt) or module:attr")
    if hasattr(source, "state_dict"):  # an nn.Module; torch itself is imported when it is loaded
        return TorchKind(source, type(source).__name__)
    if callable(source):
        return FactoryKind(source)
    raise LoadError(f"{source!r} is no model: use a file, an nn.Module, or a function that makes a Session")
