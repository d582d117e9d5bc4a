"""Where decoded pixels lie: in the caller's array, and between Ops in the one that the decoder wrote."""

from __future__ import annotations

from importlib import import_module
from typing import Any, get_args

import numpy as np
import pytest
import simplejpeg

from asyncline import BadImage, Engine, Graph, Request, op
from asyncline.images import Crop, Decode, decode
from asyncline.images.decode import Colour
from tests.images.pictures import BMP, CMYK, GIF, JPEG, PNG, TIFF, WEBP, encode, gradient

COLOURS: tuple[Colour, ...] = get_args(Colour)
UPRIGHT = encode(gradient(), "JPEG")
SOURCES = {
    "upright": UPRIGHT,
    "turned": JPEG,
    "cmyk": CMYK,
    "png": PNG,
    "webp": WEBP,
    "gif": GIF,
    "bmp": BMP,
    "tiff": TIFF,
}


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The addresses at which simplejpeg wrote pixels."""
    places: list[int] = []
    real = simplejpeg.decode_jpeg

    def watched(*args: Any, **kwargs: Any) -> Any:
        pixels = real(*args, **kwargs)
        places.append(address(pixels))
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", watched)
    return places


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("source", SOURCES)
def test_an_image_is_written_into_the_callers_array(source: str, colour: Colour) -> None:
    expected = decode(SOURCES[source], colour)
    out = np.full(expected.shape, 77, np.uint8)
    result = decode(SOURCES[source], colour, out=out)
    assert result is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("colour", COLOURS)
def test_a_jpeg_is_decoded_into_it_without_a_copy(colour: Colour, written: list[int]) -> None:
    out = np.empty(decode(UPRIGHT, colour).shape, np.uint8)
    written.clear()
    assert np.shares_memory(decode(UPRIGHT, colour, out=out), out)
    assert written == [address(out)]


def test_a_row_of_a_batch_will_do(written: list[int]) -> None:
    full, small = decode(UPRIGHT), decode(UPRIGHT, at_least=(10, 10))
    batch = np.zeros((3, *small.shape), np.uint8)
    decode(UPRIGHT, at_least=(10, 10), out=batch[1])
    assert written[-1] == address(batch[1])
    np.testing.assert_array_equal(batch[1], small)
    assert not batch[0].any() and not batch[2].any()
    assert small.size < full.size


@pytest.mark.parametrize("source", ["upright", "turned", "png"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda right: np.empty(right.shape[::-1], np.uint8),
            r"out: the image has the shape \[\d+, \d+, 3\], got \[3, ",
        ),
        (lambda right: np.empty(right.size, np.uint8), r"got \[2553\]"),
        (lambda right: np.empty((*right.shape[:2], 4), np.uint8), r"got \[\d+, \d+, 4\]"),
        (lambda right: np.empty(right.shape, np.int8), "got int8"),
        (lambda right: np.empty(right.shape, np.float32), "got float32"),
        (lambda right: np.asfortranarray(right), "this one is not contiguous"),
        (lambda right: np.repeat(right, 2, axis=1)[:, ::2], "this one is not contiguous"),
        (lambda right: np.frombuffer(right.tobytes(), np.uint8).reshape(right.shape), "this one is read-only"),
        (lambda right: bytearray(right.tobytes()), "got bytearray"),
        (lambda right: right.tolist(), "got list"),
    ],
)
def test_an_array_that_does_not_fit_is_told(source: str, wrong: Any, message: str, written: list[int]) -> None:
    right = decode(SOURCES[source])
    written.clear()
    with pytest.raises(ValueError, match=message):
        decode(SOURCES[source], out=wrong(right))
    assert not written


def test_nothing_is_written_for_an_image_that_is_refused_by_its_header() -> None:
    out = np.full((5, 5, 3), 77, np.uint8)
    with pytest.raises(BadImage):
        decode(b"<html>", out=out)
    assert (out == 77).all()


# -- between Ops


@op(cpu="inline")
def where(pixels: Any) -> Any:
    return address(pixels), pixels.flags.writeable


async def test_a_consumer_gets_the_memory_that_the_decoder_wrote(written: list[int]) -> None:
    async with Engine(Graph("g", where(Decode(Request())))) as engine:
        place, writeable = await engine.submit(UPRIGHT)
    assert written == [place]
    assert writeable


@op(cpu="thread")
def where_in_a_thread(pixels: Any) -> Any:
    return address(pixels), pixels.flags.writeable


async def test_two_consumers_in_threads_get_it_too(written: list[int]) -> None:
    page = Decode(Request(), at_least=(10, 10))
    graph = Graph("g", a=where_in_a_thread(page, name="a"), b=where_in_a_thread(page, name="b"))
    async with Engine(graph) as engine:
        places = await engine.submit(UPRIGHT)
    assert [place for place, _ in places.values()] == written * 2


@pytest.fixture
def given_rooms(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arrays that Ops got from `asyncline.empty`."""
    rooms: list[Any] = []

    def empty(shape: Any) -> Any:
        rooms.append(np.empty(shape, np.uint8))
        return rooms[-1]

    for name in ("decode", "crop"):  # the package's attributes of these names are the functions
        monkeypatch.setattr(import_module(f"asyncline.images.{name}"), "empty", empty)
    return rooms


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("source", SOURCES)
def test_the_op_decodes_into_room_it_asked_for_once(source: str, colour: Colour, given_rooms: list[Any]) -> None:
    result = Decode(Request(), colour=colour).preprocess(SOURCES[source])
    assert len(given_rooms) == 1 and result is given_rooms[0]
    np.testing.assert_array_equal(result, decode(SOURCES[source], colour))


@pytest.mark.parametrize("settings", [{"box": (1, 2, 20, 10)}, {"width": 19, "height": 8}])
def test_a_crop_lies_in_room_it_asked_for(settings: Any, given_rooms: list[Any]) -> None:
    result = Crop(Request(), **settings).preprocess(decode(UPRIGHT))
    assert len(given_rooms) == 1 and result is given_rooms[0]
    assert result.shape == (8, 19, 3)
