"""Predictor: the model of an Op, as its `process` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from asyncline.backends import BuildOptions, OnnxSession, Session, TensorRTSession, TorchSession, describe
from asyncline.backends.base import Precision
from asyncline.errors import LoadError
from asyncline.graph.fields import DTYPES
from asyncline.paddle.errors import CustomExceptionCode, HookError

SUFFIXES = (".onnx", ".pt2", ".pt")
"""Of files that a model folder may have one of."""


class Model(Protocol):
    """Where the model of an Op is."""

    def load(self, device: str) -> Any:
        """What `self.client` is in `process`; called once for each replica, in its thread.

        :raises LoadError: it cannot be had.
        """


@dataclass(frozen=True)
class ModelFile:
    """A model, as `local_service_conf` names it."""

    path: str
    """A file, or a folder with one."""
    fetch: tuple[str, ...] = ()
    """The outputs that are wanted; all by default."""
    threads: int = 2
    precision: Precision | None = None
    tensorrt: bool = False
    shapes: dict[str, Any] = field(default_factory=dict)
    """For TensorRT: smallest, most common and largest shape by input name."""
    max_batch_size: int = 1
    """For TensorRT."""

    def find(self) -> Path:
        """:raises LoadError: there is no such file, or it is a model of Paddle's own."""
        path = Path(self.path)
        if not path.is_dir():
            return path
        found = [file for file in sorted(path.iterdir()) if file.suffix in SUFFIXES]
        if len(found) == 1:
            return found[0]
        raise LoadError(
            f"model_config {self.path!r} is a folder with {len(found) or 'no'} files of {', '.join(SUFFIXES)}: "
            "export the model (paddle2onnx --model_dir ... --save_file model.onnx) and name the file"
        )

    def load(self, device: str) -> Predictor:
        return Predictor(self.open(device), self.fetch)

    def open(self, device: str) -> Session:
        """Load it in the calling thread.

        :raises LoadError: it is missing, no model, or does not say what its inputs are.
        """
        path = self.find()
        if self.tensorrt:
            options = BuildOptions(max_batch_size=self.max_batch_size, shapes=self.shapes, precision=self.precision)
            return TensorRTSession(path, device, options=options)
        if path.suffix == ".onnx":
            return OnnxSession(path, device, threads=self.threads, precision=self.precision)
        return TorchSession(path, device, threads=self.threads, info=describe(path), precision=self.precision)


class Predictor:
    """A loaded model: `client.predict(feed, fetch)`, as Paddle's local predictor has it."""

    def __init__(self, session: Session, fetch: Sequence[str]) -> None:
        self._session = session
        self._inputs = {info.name: info for info in session.inputs}
        self.feed_names_ = list(self._inputs)
        self.fetch_names_ = [info.name for info in session.outputs]
        self._fetch = list(fetch)
        if self.fetch_names_:
            for name in fetch:
                if name not in self.fetch_names_:
                    raise LoadError(f"fetch_list: the model has no output {name!r}: {', '.join(self.fetch_names_)}")

    def get_feed_names(self) -> list[str]:
        return self.feed_names_

    def get_fetch_names(self) -> list[str]:
        return self.fetch_names_

    def predict(
        self, feed: Any = None, fetch: Sequence[str] | None = None, batch: bool = True, log_id: int = 0
    ) -> dict[str, Any]:
        """Run the model.

        :param feed: `[n, ...]` by input name; numbers are cast to the model's dtype, and names with "lod" left out.
        :param fetch: the outputs that are wanted; by default those of `fetch_list`, or all.
        :param batch: False: the arrays are one sample, without the leading dimension.
        :raises HookError: the names are not the model's (5000), or a value is no array (7000).
        """
        wanted = self._check(feed, fetch)
        arrays = {name: self._array(name, feed[name]) for name in self._inputs}
        if not batch:
            arrays = {name: array[None] for name, array in arrays.items()}
        if self._session.max_batch_size is None:
            outputs = self._session.run_named(arrays)
        else:
            outputs = self._session.run_batch(arrays)
        return {name: outputs[name] for name in wanted} if wanted else outputs

    def _check(self, feed: Any, fetch: Sequence[str] | None) -> list[str]:
        given = [name for name in feed if "lod" not in name or name in self._inputs] if isinstance(feed, dict) else None
        if given is None or set(given) != set(self._inputs):
            got = "no dict" if given is None else ", ".join(map(str, given)) or "nothing"
            raise _refused(f"feed: the model takes {', '.join(self._inputs)}, got {got}")
        wanted = self._fetch if fetch is None else list(fetch)
        for name in wanted:
            if name not in self.fetch_names_ and self.fetch_names_:
                raise _refused(f"fetch: the model has no output {str(name)!r}: {', '.join(self.fetch_names_)}")
        return wanted

    def _array(self, name: str, value: Any) -> np.ndarray[Any, Any]:
        if not isinstance(value, np.ndarray):
            raise HookError(
                CustomExceptionCode.TYPE_ERROR.value, f"feed_batch must be npdata: {name} is {type(value).__name__}"
            )
        dtype = DTYPES.get(self._inputs[name].dtype)
        if dtype is None or value.dtype == dtype or value.dtype.kind not in "biuf":
            return value
        return value.astype(dtype)

    def close(self) -> None:
        self._session.close()


def _refused(text: str) -> HookError:
    return HookError(CustomExceptionCode.INPUT_PARAMS_ERROR.value, f"invalid arg list: {text}")
