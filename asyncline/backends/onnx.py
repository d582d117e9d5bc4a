"""Models in ONNX files, run by onnxruntime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from asyncline.backends.base import Array, Session, TensorInfo
from asyncline.errors import LoadError

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
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


class OnnxSession(Session):
    """An ONNX file, loaded.

    :param path: the file.
    :param device: `cpu`.
    :param threads: of one run. Replicas × threads should not be more than the cores.
    :param spinning: let idle threads spin: a run starts sooner, at the price of a core that other Ops need.
    :raises LoadError: onnxruntime is not installed, the device is not there, or the file is no model.
    """

    def __init__(
        self, path: str | PathLike[str], device: str = "cpu", *, threads: int = 1, spinning: bool = False
    ) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise LoadError("onnxruntime is not installed: pip install 'asyncline[onnx]'") from None
        if device != "cpu":
            raise LoadError(f"OnnxSession runs on the CPU only, not on {device!r}")
        file = Path(path)
        if not file.is_file():
            raise LoadError(f"there is no model file {file}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        try:
            self._session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no base
            raise LoadError(
                f"{file.name} is no model that onnxruntime can load: {' '.join(str(error).split())}"
            ) from error
        self.inputs = tuple(map(_info, self._session.get_inputs()))
        self.outputs = tuple(map(_info, self._session.get_outputs()))
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)

    def run(self, batch: Array | Sequence[Array]) -> Array | list[tuple[Array, ...]]:
        if not isinstance(batch, np.ndarray):
            # A lone sample is not copied.
            batch = batch[0][None] if len(batch) == 1 else np.stack(batch)
        outputs: list[Array] = self._session.run(None, {self.inputs[0].name: batch})
        return outputs[0] if len(outputs) == 1 else list(zip(*outputs, strict=True))

    def close(self) -> None:
        self._session = None


def _info(found: Any) -> TensorInfo:
    shape = tuple(length if isinstance(length, int) else -1 for length in found.shape)
    return TensorInfo(found.name, _DTYPES.get(found.type, found.type), shape)
