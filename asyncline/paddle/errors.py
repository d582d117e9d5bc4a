"""Errors with Paddle's numbers: as hooks raise them, and as clients read them."""

from __future__ import annotations

import enum
import traceback

from asyncline.errors import TRACEBACK_CHARACTERS, OpError, ProductError, RequestError, text_of
from asyncline.wire.paddle import ErrNo, PipelineError

CustomExceptionCode = ErrNo
"""`err_no` of an answer. 50 to 999 are the business's own."""
ChannelDataErrcode = CustomExceptionCode
ChannelDataEcode = CustomExceptionCode
"""As releases up to 0.4 called it."""


class ProductErrCode(enum.Enum):
    """Base of a service's own error numbers."""


class CustomException(Exception):
    """Raised by a hook: ends the request with that number.

    :param isSendToUser: whether the client may read `errorMsg`; the log has it in any case.
    """

    def __init__(self, exceptionCode: enum.Enum | int, errorMsg: str, isSendToUser: bool = False) -> None:
        super().__init__(exceptionCode, errorMsg, isSendToUser)
        self.err_no = number(exceptionCode)
        self.error_msg = str(errorMsg)
        self.is_send_to_user = isSendToUser

    def __str__(self) -> str:
        return self.error_msg


class HookError(PipelineError, OpError):
    """A hook of a Paddle Op failed, in the words that Paddle has for it."""

    def at(self, op: str, hook: str) -> RequestError:
        return self  # the message names both already


def number(code: object) -> int:
    """The number of an error code: an int, or a member of an Enum of such.

    :raises TypeError: it is none. A trailing comma, as in `BAD = 51,`, is forgiven.
    """
    value = code.value if isinstance(code, enum.Enum) else code
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        raise TypeError(f"expected an error number, got {code!r}")
    return value


def hook_failed(error: Exception, where: str, hook: str, log_id: int | None) -> RequestError:
    """What a hook raised, as the outcome of its request.

    :param where: the class of the Op.
    """
    if isinstance(error, RequestError):
        return error
    err_no, words = told(error)
    return caused_by(error, err_no, f"Log_id: {log_id}  Raise_msg: {words}  ClassName: {where}  FunctionName: {hook}")


def told(error: Exception) -> tuple[int, str]:
    """The number of what a hook raised, and what a client may read of it."""
    if not isinstance(error, CustomException):
        return CustomExceptionCode.UNKNOW.value, f"{type(error).__name__}: {text_of(error)}"
    words = error.error_msg if error.is_send_to_user else "the service failed; its log says how"
    return error.err_no or CustomExceptionCode.UNKNOW.value, words


def caused_by(error: BaseException, err_no: int, message: str) -> HookError:
    """An error with that number and message, whose reason goes to the log."""
    outcome = HookError(err_no, message)
    outcome.__cause__ = error
    outcome.traceback = "".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:]
    return outcome


def check_product_error(code: object, info: object) -> None:
    """Raise the business's own error where a hook returned one; None and 0 are none.

    :raises ProductError: with that number and text.
    :raises HookError: the code is no number (8000).
    """
    if code is None:
        return
    try:
        err_no = number(code)
    except TypeError as error:
        raise caused_by(error, CustomExceptionCode.RPC_PACKAGE_ERROR.value, f"prod_errcode: {error}") from error
    if err_no:
        raise ProductError(err_no, "" if info is None else str(info))
