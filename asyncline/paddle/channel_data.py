"""ChannelData: what an Op handed on, as `ResponseOp.pack_response_package` gets it."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from asyncline.paddle.errors import CustomExceptionCode


class ChannelDataType(enum.Enum):
    DICT = 0
    CHANNEL_NPDATA = 1
    ERROR = 2


_DICT, _ARRAYS = ChannelDataType.DICT.value, ChannelDataType.CHANNEL_NPDATA.value


class ChannelData:
    """The result of the last Op. An error never gets that far, so that `error_code` is 0."""

    error_code = CustomExceptionCode.OK.value
    error_info = ""
    prod_error_code = None
    prod_error_info = None

    def __init__(self, data: dict[str, Any], data_id: int, log_id: int | None) -> None:
        self.id = data_id
        self.log_id = log_id
        is_arrays = _are_arrays(data)
        self.datatype = _ARRAYS if is_arrays else _DICT
        self.npdata = data if is_arrays else None
        self.dictdata = None if is_arrays else data

    def parse(self) -> dict[str, Any]:
        data = self.dictdata if self.npdata is None else self.npdata
        assert data is not None
        return data


def _are_arrays(data: dict[str, Any]) -> bool:
    for value in data.values():
        if type(value) is str or not (isinstance(value, np.ndarray) or _is_texts(value)):
            return False
    return True


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
