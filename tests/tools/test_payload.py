"""What `--sample` may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from asyncline import Image, Json, Request, SettingsError, Text
from asyncline.tools.advise.payload import read_values


def values_of(sample: str | Path, request: Request) -> dict[str, Any]:
    return {value._label(): found for value, found in read_values(str(sample), request).items()}


def test_json_as_rest_takes_it() -> None:
    assert values_of('{"text": "good"}', Request(text=Text(), top=Json(default=3))) == {
        "request.text": "good",
        "request.top": 3,
    }


def test_a_file_of_json(tmp_path: Path) -> None:
    file = tmp_path / "request.json"
    file.write_text('{"text": "good"}')
    assert values_of(file, Request(text=Text())) == {"request.text": "good"}


@pytest.mark.parametrize("name", ["page.jpg", "page.webp", "page", "page.bin"])
def test_a_file_is_the_value_of_the_only_image(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(b"\xff\xd8\xff")
    assert values_of(file, Request(image=Image())) == {"request.image": b"\xff\xd8\xff"}


def test_a_file_of_text_is_the_value_of_the_only_text(tmp_path: Path) -> None:
    file = tmp_path / "review.txt"
    file.write_text("so good")
    assert values_of(file, Request(text=Text())) == {"request.text": "so good"}


def test_a_file_of_msgpack(tmp_path: Path) -> None:
    file = tmp_path / "request.msgpack"
    file.write_bytes(msgpack.packb({"image": b"\xff\xd8\xff", "text": "good"}))
    request = Request(image=Image(), text=Text())
    assert values_of(file, request) == {"request.image": b"\xff\xd8\xff", "request.text": "good"}


def test_a_bare_request_takes_the_whole_payload() -> None:
    assert values_of("[1, 2]", Request()) == {"request": [1, 2]}


def test_a_request_with_an_unpack_of_its_own_is_asked() -> None:
    class Doubled(Request):
        def unpack(self, payload: Any) -> Any:
            return {"n": 2 * payload["half"]}

    assert values_of('{"half": 4}', Doubled(n=Json())) == {"request.n": 8}


def test_an_unpack_that_raises_is_told() -> None:
    class Broken(Request):
        def unpack(self, payload: Any) -> Any:
            raise KeyError("half")

    with pytest.raises(SettingsError, match=r"--sample: .*op 'request' unpack: KeyError: 'half'"):
        values_of("{}", Broken(n=Json()))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("page.jpg", "--sample: 'page.jpg' is no file here, and as JSON: the body is no JSON"),
        ('{"txt": "good"}', "field 'text' is missing"),
        ('{"text": 5}', "field 'text': expected a string"),
        ("a" * 5000, "a' is no file here"),
        ("\0", "is no file here"),
        ("\udcff", "is no file here"),
    ],
)
def test_what_is_no_request_is_refused(sample: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_values(sample, Request(text=Text()))
    assert message in str(error.value)
    assert len(str(error.value)) < 400


def test_a_file_of_a_kind_that_the_graph_does_not_take_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "page.jpg"
    file.write_bytes(b"\xff\xd8\xff")
    with pytest.raises(SettingsError, match=r"page\.jpg: media type 'image/jpeg' is not accepted here: send appl"):
        read_values(str(file), Request(n=Json()))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "request.json"
    file.write_text("{}")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SettingsError, match=r"cannot read .*: Permission denied"):
        read_values(str(file), Request(n=Json()))
