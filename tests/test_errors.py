"""The error tree: neutral codes, a round trip through pickle, and messages that a client may read."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline import errors
from asyncline.errors import (
    MESSAGE_BYTES,
    AsynclineError,
    BadRequest,
    DeadlineExceeded,
    GraphError,
    LoadError,
    OpError,
    Overloaded,
    ProductError,
    RequestError,
    SettingsError,
    Unavailable,
    hook_error,
    load_error,
    public_message,
)

CODES = {
    "BadRequest": "bad_request",
    "NotFound": "not_found",
    "Unauthenticated": "unauthenticated",
    "TooLarge": "too_large",
    "Unsupported": "unsupported",
    "BadImage": "bad_image",
    "UrlForbidden": "url_forbidden",
    "FetchFailed": "fetch_failed",
    "SlowClient": "slow_client",
    "Cancelled": "cancelled",
    "Overloaded": "overloaded",
    "Unavailable": "unavailable",
    "DeadlineExceeded": "deadline",
    "OpError": "op_error",
    "WorkerCrashed": "worker_crashed",
}


class Custom(BadRequest):
    """A user's own, with arguments of its own."""

    def __init__(self, field: str, *, limit: int) -> None:
        super().__init__(f"{field} over {limit}")
        self.limit = limit


class Mute(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError


SAMPLES = [getattr(errors, name)("what was wrong") for name in CODES] + [
    ProductError(1001, "out of stock"),
    ProductError("sold", "out of stock"),
    Overloaded("busy", 7),
    Custom("width", limit=5),
]


def describe(error: RequestError) -> str:
    return f"{type(error).__name__} {error.code}"


# -- the tree


def test_every_outcome_has_its_code() -> None:
    found = {cls.__name__: cls.code for cls in vars(errors).values() if _is_outcome(cls)}
    assert found == CODES


def _is_outcome(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, RequestError) and cls not in (RequestError, ProductError)


def test_the_code_of_a_product_error_is_the_business_s_own() -> None:
    assert ProductError(1001, "out of stock").code == 1001
    assert ProductError("sold", "out of stock").code == "sold"


def test_every_error_is_one_of_the_tree() -> None:
    assert issubclass(RequestError, AsynclineError)
    for kind in (GraphError, SettingsError, LoadError):
        assert issubclass(kind, AsynclineError)
        assert not issubclass(kind, RequestError)


def test_the_tree_in_the_docstring_has_every_class() -> None:
    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AsynclineError)
    ]
    drawn = re.findall(r"── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(cls.__name__ for cls in classes if cls is not AsynclineError)


def test_retry_after_is_known_for_what_passes_by_itself() -> None:
    assert Overloaded("busy").retry_after_s == 1
    assert Overloaded("busy", 7).retry_after_s == 7
    assert Unavailable("draining").retry_after_s == 1


# -- pickle


@pytest.mark.parametrize("error", SAMPLES, ids=describe)
def test_an_outcome_comes_back_from_another_process(error: RequestError) -> None:
    error = copy.copy(error)
    error.at("detect", "preprocess")
    error.traceback = "Traceback ..."
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__
    assert again.code == error.code


def test_what_a_product_error_and_an_overload_carry_comes_back() -> None:
    assert pickle.loads(pickle.dumps(ProductError(1001, "m"))).code == 1001
    assert pickle.loads(pickle.dumps(Overloaded("m", 7))).retry_after_s == 7
    assert pickle.loads(pickle.dumps(Custom("width", limit=5))).limit == 5


def test_a_note_comes_back() -> None:
    error = BadRequest("m")
    error.add_note("seen at noon")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["seen at noon"]


# -- at


def test_an_outcome_names_its_op_and_hook() -> None:
    assert str(BadRequest("too small").at("detect", "preprocess")) == "op 'detect' preprocess: too small"


def test_an_outcome_names_its_op_and_hook_once() -> None:
    error = BadRequest("too small").at("detect", "preprocess").at("other", "process")
    assert str(error) == "op 'detect' preprocess: too small"


def test_a_message_that_begins_with_op_is_named_too() -> None:
    assert str(BadRequest("op amp unknown").at("detect", "process")) == "op 'detect' process: op amp unknown"


def test_a_product_error_keeps_its_own_words() -> None:
    assert str(ProductError(1, "out of stock").at("detect", "process")) == "out of stock"


def test_an_exception_may_be_the_message() -> None:
    error = BadRequest(ValueError("too small"))  # type: ignore[arg-type]  # users do
    assert str(error.at("detect", "process")) == "op 'detect' process: too small"


# -- hook_error


def test_what_a_hook_raised_becomes_an_op_error_that_names_it() -> None:
    cause = ValueError("expected 3 channels, got 4")
    error = hook_error(cause, "detect", "preprocess")
    assert type(error) is OpError
    assert str(error) == "op 'detect' preprocess: ValueError: expected 3 channels, got 4"
    assert error.__cause__ is cause


def test_an_exception_without_words_is_named() -> None:
    assert str(hook_error(ValueError(), "detect", "process")) == "op 'detect' process: ValueError"
    assert str(hook_error(Mute(), "detect", "process")) == "op 'detect' process: Mute"


@pytest.mark.parametrize("error", SAMPLES, ids=describe)
def test_an_outcome_that_a_hook_raised_stays_itself(error: RequestError) -> None:
    error = copy.copy(error)
    assert hook_error(error, "detect", "process") is error


# -- load_error


def test_what_load_model_raised_is_one_line_with_its_path() -> None:
    cause = OSError("no file\n  /models/det.onnx")
    error = load_error(cause, "detect", "load_model")
    assert type(error) is LoadError
    assert str(error) == "op 'detect' load_model: OSError: no file /models/det.onnx"
    assert error.__cause__ is cause


def test_a_load_error_of_ours_is_not_named_twice() -> None:
    assert str(load_error(LoadError("no file"), "detect", "load_model")) == "op 'detect' load_model: no file"


def test_a_load_without_words_is_named() -> None:
    assert str(load_error(KeyError(), "detect", "init_op")) == "op 'detect' init_op: KeyError"
    assert str(load_error(Mute(), "detect", "init_op")) == "op 'detect' init_op: Mute"


# -- public_message


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("no file '/home/me/models/det.onnx'", "no file '<path>'"),
        ("/etc/passwd is not yours", "<path> is not yours"),
        ("cannot open:/srv/app/x.py, line 3", "cannot open:<path>, line 3"),
        ("file:///srv/app/x.py", "file://<path>"),
        ("in /usr/lib/python3.11/site-packages/", "in <path>"),
        ("a /b/c-d/e@f+g.h and /i/j", "a <path> and <path>"),
    ],
)
def test_paths_are_stripped(text: str, public: str) -> None:
    assert public_message(ValueError(text)) == public


@pytest.mark.parametrize(
    "text", ["and/or", "1/2/3", "application/json", "see http://host/docs/a", "GET /readyz", "3 / 4 / 5", "km/h/s"]
)
def test_slashes_that_are_no_path_stay(text: str) -> None:
    assert public_message(ValueError(text)) == text


def test_a_public_message_is_one_line() -> None:
    assert public_message(ValueError(" a\n\tb\r\n  c ")) == "a b c"


def test_an_error_without_words_is_named_in_public() -> None:
    assert public_message(ValueError()) == "ValueError"
    assert public_message(ValueError(" \n")) == "ValueError"
    assert public_message(Mute()) == "Mute"


def test_a_message_at_the_limit_stays_whole() -> None:
    assert public_message(ValueError("x" * MESSAGE_BYTES)) == "x" * MESSAGE_BYTES


@pytest.mark.parametrize("letter", ["x", "ü", "好", "🙂"])
def test_a_long_message_is_cut_between_letters(letter: str) -> None:
    message = public_message(ValueError(letter * 1000))
    assert MESSAGE_BYTES - 4 <= len(message.encode()) <= MESSAGE_BYTES
    assert message.rstrip(".") == letter * len(message.rstrip("."))
    assert message.endswith("...")


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    # As in the name of a file that is no UTF-8, out of os.listdir.
    assert public_message(ValueError("no \udcff")) == "no ?"


@given(st.text(st.characters(), max_size=1000))
def test_whatever_was_raised_has_a_short_line_that_can_be_sent(text: str) -> None:
    message = public_message(DeadlineExceeded(text))
    assert 0 < len(message.encode()) <= MESSAGE_BYTES
    assert len(message.splitlines()) == 1
