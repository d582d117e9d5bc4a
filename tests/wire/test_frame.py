"""The stream of frames: any pieces, any rubbish; and the format as its docstring writes it down."""

from __future__ import annotations

import re
import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncline import BadRequest, RequestError
from asyncline.errors import TooLarge
from asyncline.wire import frame as format_
from asyncline.wire.frame import messages
from asyncline.wire.frame.decoder import (
    ALIGNMENT,
    CALL,
    CANCEL,
    ERROR,
    GOAWAY,
    HELLO,
    MAX_HEADER_NBYTES,
    MORE,
    PART,
    PREFIX,
    RESULT,
    WITH_BODY,
    Decoder,
    frame,
)
from asyncline.wire.frame.values import Encoder

Said = tuple[int, int, bytes, bytes]
"""A frame: kind, stream, header, body."""


def written(kind: int, stream: int, header: bytes = b"", body: bytes = b"") -> bytes:
    return b"".join(frame(kind, stream, header, [body] if body else (), len(body)))


def read(decoder: Decoder, *pieces: bytes) -> list[Said]:
    found: list[Said] = []
    for piece in pieces:
        found += [(k, s, header, bytes(body or b"")) for k, s, header, body in decoder.feed(piece)]
    return found


def received(decoder: Decoder, pieces: list[bytes]) -> list[Said]:
    """As `read`, with bodies received where they belong, as a socket would."""
    found: list[Said] = []
    for piece in pieces:
        while piece:
            if decoder.buffer is None:
                found += read(decoder, piece)
                break
            taken = min(len(piece), len(decoder.buffer))
            decoder.buffer[:taken] = piece[:taken]
            piece = piece[taken:]
            found += [(k, s, header, bytes(body or b"")) for k, s, header, body in decoder.received(taken)]
    return found


@st.composite
def frames(draw: st.DrawFn) -> Said:
    kind = draw(st.sampled_from([HELLO, CALL, RESULT, ERROR, CANCEL, GOAWAY, PART, MORE]))
    body = draw(st.binary(max_size=100)) if kind in WITH_BODY else b""
    return kind, draw(st.integers(0, 2**32 - 1)), draw(st.binary(max_size=40)), body


@st.composite
def cut(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """A stream in pieces."""
    places = draw(st.lists(st.integers(0, len(stream)), max_size=8))
    return [stream[a:b] for a, b in pairwise([0, *sorted(places), len(stream)])]


# -- any pieces


@given(st.data(), st.lists(frames(), max_size=6))
def test_the_frames_do_not_depend_on_how_the_stream_is_cut(data: st.DataObject, said: list[Said]) -> None:
    pieces = data.draw(cut(b"".join(written(*each) for each in said)))
    assert read(Decoder(), *pieces) == said
    assert received(Decoder(), pieces) == said


@given(st.data(), st.lists(frames(), max_size=4), st.binary(min_size=12, max_size=30))
def test_neither_does_what_a_bad_stream_says_until_it_is_bad(
    data: st.DataObject, said: list[Said], rubbish: bytes
) -> None:
    stream = b"".join(written(*each) for each in said) + b"\xff" + rubbish + written(CANCEL, 1)
    decoder = Decoder()
    assert read(decoder, *data.draw(cut(stream))) == said
    assert isinstance(decoder.error, BadRequest)


@given(st.data(), st.lists(st.tuples(frames(), st.booleans()), max_size=5))
def test_what_is_not_wanted_is_passed_over(data: st.DataObject, said: list[tuple[Said, bool]]) -> None:
    # Streams are numbered here, to tell which are not wanted.
    numbered = [((kind, n, header, body), wanted) for n, ((kind, _, header, body), wanted) in enumerate(said)]
    unwanted = {each[1] for each, wanted in numbered if not wanted}
    asked = set()

    def admit(kind: int, stream: int, header_nbytes: int, body_nbytes: int) -> bool:
        assert (header_nbytes, body_nbytes) == (len(numbered[stream][0][2]), len(numbered[stream][0][3]))
        asked.add(stream)
        return stream not in unwanted

    decoder = Decoder(admit=admit)
    found = received(decoder, data.draw(cut(b"".join(written(*each) for each, _ in numbered))))
    assert found == [each for each, _ in numbered if each[1] not in asked & unwanted]
    assert decoder.count == len(said) and not decoder.is_partial


def test_a_long_header_may_come_byte_by_byte() -> None:
    stream = written(CALL, 5, b"h" * MAX_HEADER_NBYTES, b"body")
    decoder = Decoder()
    assert read(decoder, *(stream[place : place + 1] for place in range(len(stream)))) == [
        (CALL, 5, b"h" * MAX_HEADER_NBYTES, b"body")
    ]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 100_000])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_body_is_read_only_and_lies_at_a_multiple_of_64(size: int, pieces: int) -> None:
    stream = written(CALL, 1, b"", bytes(size))
    step = -(-len(stream) // pieces)
    decoder = Decoder()
    found = [each for place in range(0, len(stream), step) for each in decoder.feed(stream[place : place + step])]
    body = found[0][3]
    assert body is not None and body.readonly and body.nbytes == size
    assert np.frombuffer(body, np.uint8).ctypes.data % ALIGNMENT == 0


def test_it_says_whether_a_frame_has_begun() -> None:
    decoder = Decoder(admit=lambda *head: head[1] != 2)
    assert not decoder.is_partial
    for stream in (written(CANCEL, 1), written(CALL, 1, b"h", b"body"), written(CALL, 2, b"h", b"body")):
        read(decoder, stream[:-1])
        assert decoder.is_partial and "in a frame" in repr(decoder)
        read(decoder, stream[-1:])
        assert not decoder.is_partial and "between frames" in repr(decoder)


# -- rubbish


@pytest.mark.parametrize(
    ("prefix", "kind", "words"),
    [
        (PREFIX.pack(0, 0, 0, 1, 0), BadRequest, "no frame of kind 0 with flags 0"),
        (PREFIX.pack(9, 0, 0, 1, 0), BadRequest, "no frame of kind 9 with flags 0"),
        (PREFIX.pack(CALL, 1, 0, 1, 0), BadRequest, "no frame of kind 2 with flags 1"),
        (PREFIX.pack(CANCEL, 0, 0, 1, 5), BadRequest, "a CANCEL has no body, this one has 5 bytes"),
        (PREFIX.pack(HELLO, 0, 0, 1, 5), BadRequest, "a HELLO has no body"),
        (PREFIX.pack(CALL, 0, 0, 1, 1001), TooLarge, "a body of 1001 bytes is over the limit of 1000"),
        (PREFIX.pack(RESULT, 0, 0, 1, 2**32 - 1), TooLarge, "a body of 4294967295 bytes is over the limit of 1000"),
        (b"POST /echo HTTP/1.1\r\n", BadRequest, "no frame of kind 80"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS", BadRequest, "no frame of kind 22"),
        (b"PRI * HTTP/2.0\r\n\r\n", BadRequest, "no frame of kind 80"),
        (b"GET / HTTP/1.0\r\n", BadRequest, "no frame of kind 71"),
    ],
    ids=lambda value: value.hex(" ")[:23] if isinstance(value, bytes) else None,
)
def test_what_is_no_frame_is_one_error_and_the_end(prefix: bytes, kind: type[RequestError], words: str) -> None:
    decoder = Decoder(max_body_nbytes=1000)
    assert read(decoder, written(CANCEL, 1) + prefix + written(CANCEL, 2), written(CANCEL, 3)) == [
        (CANCEL, 1, b"", b"")
    ]
    error = decoder.error
    assert type(error) is kind and words in error.message and words in repr(decoder)


def test_a_claim_takes_no_memory() -> None:
    decoders = [Decoder(max_body_nbytes=2**24, admit=lambda *head: False) for _ in range(100)]
    decoders += [Decoder(max_body_nbytes=2**24) for _ in range(100)]
    tracemalloc.start()
    try:
        for decoder in decoders[:100]:
            read(decoder, PREFIX.pack(CALL, 0, 0, 1, 2**24), bytes(1000))
        for decoder in decoders[100:]:
            read(decoder, PREFIX.pack(CALL, 0, 0, 1, 2**24 + 1), bytes(1000))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_whatever_is_fed_becomes_frames_or_one_error(pieces: list[bytes]) -> None:
    decoder = Decoder(max_body_nbytes=1000)
    found = read(decoder, *pieces)
    rest = b"".join(pieces)[sum(PREFIX.size + len(header) + len(body) for _, _, header, body in found) :]
    again = Decoder(max_body_nbytes=1000)
    assert read(again, rest) == [] and str(again.error) == str(decoder.error)


# -- as it is written down


def example() -> list[bytes]:
    """The frames of the docstring."""
    lines = re.findall(r"^    (    )?((?:[0-9a-f]{2} ?)+)$", format_.__doc__ or "", re.MULTILINE)
    stream: list[bytes] = []
    for continued, line in lines:
        if continued:
            stream[-1] += bytes.fromhex(line)
        else:
            stream.append(bytes.fromhex(line))
    return stream


def test_the_example_of_the_docstring_is_what_is_written() -> None:
    encoder = Encoder(copy=False)
    array = np.array([1, 2], np.float32)
    wrote: list[Any] = [
        messages.encode_hello(messages.ClientHello()),
        messages.encode_call(encoder, 7, "echo", messages.NO_OPTIONS, {"x": array})[0],
        messages.encode_cancel(7),
        messages.encode_hello(messages.ServerHello("echo", 16_000_000, 256)),
        messages.encode_result(encoder, 7, 9, array)[0],
    ]
    assert [b"".join(parts) for parts in wrote] == example()


def test_the_example_of_the_docstring_is_understood() -> None:
    said = list(Decoder().feed(b"".join(example())))
    assert [kind for kind, _, _, _ in said] == [HELLO, CALL, CANCEL, HELLO, RESULT]
    assert messages.decode_client_hello(*said[0][1:3]) == messages.ClientHello()
    graph, options, value = messages.decode_call(*said[1][2:], 0)
    assert (graph, options, value["x"].tolist()) == ("echo", messages.NO_OPTIONS, [1, 2])
    assert messages.decode_server_hello(*said[3][1:3]) == messages.ServerHello("echo", 16_000_000, 256)
    assert messages.decode_result(*said[4][2:]).tolist() == [1, 2]


def test_the_docstring_names_every_kind_dtype_and_extension() -> None:
    from asyncline.wire.frame.decoder import NAMES
    from asyncline.wire.frame.values import DTYPES

    text = format_.__doc__ or ""
    for kind, name in enumerate(NAMES[1:], 1):
        assert f"    {kind}  {name} " in text
    for name in DTYPES:
        assert re.search(rf"\b{name}\b", text)
