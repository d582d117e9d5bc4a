"""Paddle's error numbers (those of 0.8 and later) for our errors, and back."""

from __future__ import annotations

from enum import IntEnum

from asyncline.errors import (
    BadImage,
    BadRequest,
    DeadlineExceeded,
    FetchFailed,
    NotFound,
    OpError,
    Overloaded,
    ProductError,
    RequestError,
    TooLarge,
    Unavailable,
    Unsupported,
    UrlForbidden,
)

LAST_PRODUCT = 999


class ErrNo(IntEnum):
    """`err_no` of an answer. 50 to 999 are the business's own."""

    OK = 0
    PRODUCT_ERROR = 50
    NOT_IMPLEMENTED = 3000
    CLOSED_ERROR = 3001
    NO_SERVICE = 3002
    INIT_ERROR = 3003
    CONF_ERROR = 4000
    INPUT_PARAMS_ERROR = 5000
    TIMEOUT = 6000
    TYPE_ERROR = 7000
    RPC_PACKAGE_ERROR = 8000
    CLIENT_ERROR = 9000
    UNKNOW = 10000


class BadPackage(BadRequest):
    """Expected error: keys, values or tensors of a well-formed message do not fit together (8000)."""


class PipelineError(RequestError):
    """An error with a number of Paddle's; over other wires an OpError.

    :param err_no: goes to the client as it is; any 32-bit integer but 0.
    """

    def __init__(self, err_no: int, message: str) -> None:
        super().__init__(message)
        self.err_no = int(err_no)


_NUMBERS: tuple[tuple[type[RequestError], ErrNo], ...] = (
    (BadPackage, ErrNo.RPC_PACKAGE_ERROR),
    (BadRequest, ErrNo.INPUT_PARAMS_ERROR),
    (TooLarge, ErrNo.INPUT_PARAMS_ERROR),
    (Unsupported, ErrNo.INPUT_PARAMS_ERROR),
    (BadImage, ErrNo.INPUT_PARAMS_ERROR),
    (UrlForbidden, ErrNo.INPUT_PARAMS_ERROR),
    (FetchFailed, ErrNo.INPUT_PARAMS_ERROR),
    (NotFound, ErrNo.NO_SERVICE),
    (Unavailable, ErrNo.CLOSED_ERROR),
    (Overloaded, ErrNo.CLOSED_ERROR),
    (DeadlineExceeded, ErrNo.TIMEOUT),
)
"""The first class that an error is of decides; any other is UNKNOW, as is what a hook of Paddle's raises."""


def number_of(error: RequestError) -> int:
    """The `err_no` of an error: a ProductError's own where it is a number that fits, else as Paddle would."""
    if isinstance(error, PipelineError):
        code: int | str = error.err_no
    elif isinstance(error, ProductError):
        code = error.code
    else:
        return next((number for kind, number in _NUMBERS if isinstance(error, kind)), ErrNo.UNKNOW)
    if isinstance(code, int) and code != 0 and -(2**31) <= code < 2**31:
        return int(code)
    return ErrNo.PRODUCT_ERROR if isinstance(error, ProductError) else ErrNo.UNKNOW


def error_of(err_no: int, err_msg: str) -> RequestError | None:
    """What an answer of a pipeline server says as an error of ours; None where it is none."""
    if err_no == ErrNo.OK:
        return None
    if ErrNo.PRODUCT_ERROR <= err_no <= LAST_PRODUCT:
        return ProductError(err_no, err_msg)
    if err_no == ErrNo.NO_SERVICE:
        return NotFound(err_msg)
    if err_no == ErrNo.CLOSED_ERROR:
        return Unavailable(err_msg)
    if err_no == ErrNo.RPC_PACKAGE_ERROR:
        return BadPackage(err_msg)
    if 5000 <= err_no < 6000:
        return BadRequest(err_msg)
    if 6000 <= err_no < 7000:
        return DeadlineExceeded(err_msg)
    return OpError(err_msg)
