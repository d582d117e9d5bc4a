"""What frames say: calls and their options, hellos, and errors of every kind."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from asyncline import BadImage, BadRequest, OpError, Overloaded, ProductError, RequestError, Unavailable, errors
from asyncline.errors import MESSAGE_BYTES, Unsupported
from asyncline.wire.frame import messages
from asyncline.wire.frame.decoder import Decoder
from asyncline.wire.frame.messages import ClientHello, Options, ServerHello
from asyncline.wire.frame.values import Encoder

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def header_of(parts: list[Any]) -> bytes:
    ((_, _, header, _),) = Decoder().feed(b"".join(parts))
    return header


def call(header: Any) -> tuple[str, Options, Any]:
    return messages.decode_call(msgpack.packb(header), None, 0)


def through(error: RequestError) -> RequestError:
    return messages.decode_error(header_of(messages.encode_error(1, error, 17)))


# -- calls


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(timeout_s=0.25),
        Options(log_id="order 7"),
        Options(priority=3),
        Options(traceparent=TRACE),
        Options(1.5, "x", 2, TRACE),
        Options(parts=1),
        Options(parts=65535),
    ],
)
def test_options_come_back(options: Options) -> None:
    parts, _ = messages.encode_call(Encoder(copy=False), 5, "ocr", options, [1])
    assert messages.decode_call(header_of(parts), None, 0) == ("ocr", options, [1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 5}, "no option 'timeout': there are timeout_ms, log_id, priority, traceparent and parts"),
        ({"x" * 100: 5}, f"no option '{'x' * 64}'"),
        *[({"timeout_ms": bad}, "option timeout_ms: expected") for bad in (0, -1, "5", True, 1e10, float("nan"), [])],
        ({"timeout_ms": float("inf")}, "option timeout_ms: expected"),
        *[({"log_id": bad}, "option log_id: expected") for bad in (5, None, "x" * 129, "a\nb", "é", b"x")],
        *[
            ({"parts": bad}, "option parts: expected a whole number from 1 to 65535")
            for bad in (0, 65536, True, "1", 1.5)
        ],
        *[({"priority": bad}, "option priority: expected") for bad in (0, -1, 1.0, True, "1", None)],
    ],
)
def test_an_option_that_is_wrong_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=f"^{words}"):
        call(["ocr", options, 1])


def test_a_trace_context_that_does_not_parse_is_ignored() -> None:
    for bad in ("rubbish", 5, None, TRACE + "x"):
        assert call(["ocr", {"traceparent": bad}, 1])[1] == Options()


@pytest.mark.parametrize(
    "header", [1, None, [], ["ocr"], ["ocr", {}], ["ocr", {}, 1, 2], [5, {}, 1], ["ocr", [], 1], ["ocr", None, 1], {}]
)
def test_a_call_that_is_none_says_what_was_expected(header: Any) -> None:
    with pytest.raises(BadRequest, match="CALL: expected the graph's name, a map of options and a value"):
        call(header)


def test_a_value_that_cannot_be_written_is_the_callers_fault_or_the_graphs() -> None:
    with pytest.raises(BadRequest, match="the request cannot be written as msgpack: a object has no msgpack form"):
        messages.encode_call(Encoder(copy=False), 1, "ocr", Options(), object())
    with pytest.raises(OpError, match="the answer cannot be written as msgpack: a object has no msgpack form"):
        messages.encode_result(Encoder(copy=True), 1, 1, object())


@pytest.mark.parametrize("header", [1, [], [1], [1, 2, 3], {}])
def test_an_answer_that_is_none_is_refused(header: Any) -> None:
    with pytest.raises(BadRequest, match="RESULT: expected"):
        messages.decode_result(msgpack.packb(header), None)


# -- hellos


def test_hellos_come_back() -> None:
    for client in (ClientHello(), ClientHello("sesame")):
        assert messages.decode_client_hello(1, header_of(messages.encode_hello(client))) == client
    server = ServerHello("ocr", 16_000_000, 100)
    assert messages.decode_server_hello(1, header_of(messages.encode_hello(server))) == server


def test_a_hello_of_another_version_is_refused() -> None:
    for decode in (messages.decode_client_hello, messages.decode_server_hello):
        with pytest.raises(Unsupported, match="HELLO of version 2: this is version 1"):
            decode(2, b"\x80")


@pytest.mark.parametrize("header", [1, [], {"graph": 5}, {"graph": "x", "max_body_nbytes": "1"}, {"graph": "x"}])
def test_a_servers_hello_that_is_none_is_refused(header: Any) -> None:
    with pytest.raises(BadRequest, match="HELLO: "):
        messages.decode_server_hello(1, msgpack.packb(header))


@pytest.mark.parametrize("header", [1, [], {"token": 5}, {"token": b"x"}])
def test_a_clients_hello_that_is_none_is_refused(header: Any) -> None:
    with pytest.raises(BadRequest, match="HELLO: "):
        messages.decode_client_hello(1, msgpack.packb(header))


def test_a_hello_may_say_more_than_is_known() -> None:
    assert messages.decode_client_hello(1, msgpack.packb({"agent": "x"})) == ClientHello()


# -- errors

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, RequestError) and kind not in (RequestError, ProductError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_as_what_it_was(kind: type[RequestError]) -> None:
    found = through(kind("what was wrong"))
    assert type(found) is kind and (found.code, found.message) == (kind.code, "what was wrong")
    assert found.__notes__ == ["request 17"]


@pytest.mark.parametrize("code", [1001, "sold"])
def test_a_business_error_has_its_own_code(code: int | str) -> None:
    found = through(ProductError(code, "out of stock"))
    assert type(found) is ProductError and (found.code, found.message) == (code, "out of stock")


def test_seconds_to_wait_come_along() -> None:
    found = through(Overloaded("busy", 7))
    assert isinstance(found, Overloaded) and found.retry_after_s == 7
    found = through(Unavailable("starting"))
    assert isinstance(found, Unavailable) and found.retry_after_s == 1


def test_an_error_of_a_users_class_is_one_of_its_base() -> None:
    class Blurred(BadImage):
        code = "blurred"

    found = through(Blurred("not sharp"))
    assert type(found) is BadImage and (found.code, found.message) == ("blurred", "not sharp")


def test_an_error_says_what_may_be_said() -> None:
    found = through(OpError("no file /srv/models/x.onnx " + "x" * 5000))
    assert found.message.startswith("no file <path> xxx") and len(found.message) == MESSAGE_BYTES


def test_a_status_that_is_not_known_yet_is_an_error_all_the_same() -> None:
    found = messages.decode_error(msgpack.packb({"status": "quota", "code": "quota", "message": "too many"}))
    assert type(found) is RequestError and (found.code, found.message) == ("quota", "too many")


@pytest.mark.parametrize(
    "header",
    [1, [], {}, {"status": "op_error"}, {"status": 5, "message": "x"}, {"status": "op_error", "message": 5},
     {"status": "op_error", "message": "x", "code": []}],
)  # fmt: skip
def test_an_error_that_is_none_is_refused(header: Any) -> None:
    with pytest.raises(BadRequest, match="ERROR: "):
        messages.decode_error(msgpack.packb(header))


# -- parts


def test_a_part_comes_back_with_its_number() -> None:
    parts, nbytes = messages.encode_part(Encoder(copy=True), 3, 70_000, {"token": "x"})
    assert nbytes == len(b"".join(parts))
    assert messages.decode_part(header_of(parts), None) == (70_000, {"token": "x"})


def test_a_part_that_msgpack_cannot_carry_is_the_graphs_fault() -> None:
    with pytest.raises(OpError, match="cannot be written as msgpack"):
        messages.encode_part(Encoder(copy=True), 3, 0, object())


@pytest.mark.parametrize("header", [[1], [1, 2, 3], ["0", 1], {}, None])
def test_a_part_without_number_and_value_is_malformed(header: Any) -> None:
    with pytest.raises(BadRequest, match="PART: expected a number and a value"):
        messages.decode_part(msgpack.packb(header), None)


def test_more_says_how_many() -> None:
    assert messages.decode_more(header_of(messages.encode_more(3, 65_535))) == 65_535


@pytest.mark.parametrize("count", [0, -1, 65_536, True, "1", None])
def test_more_of_no_number_is_malformed(count: Any) -> None:
    with pytest.raises(BadRequest, match="MORE: expected a whole number from 1 to 65535"):
        messages.decode_more(msgpack.packb(count))
