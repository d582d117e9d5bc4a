"""`asyncline call`: its words, its answers, and the command against a served graph."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncline import OpError, SettingsError
from asyncline.tools.call.answer import as_it_is, as_json, take_bytes
from asyncline.tools.call.arguments import read_payload
from tests.serving import SERVICES, run, serving

# -- words ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "page.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "request.json").write_text('{"a": [1, 2]}')
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    np.save(tmp_path / "evil.npy", np.array([{}], object), allow_pickle=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "payload"),
    [
        ([], {}),
        (["text=so good", "empty="], {"text": "so good", "empty": ""}),
        (["n:=5", "list:=[1,2]", "s:=null"], {"n": 5, "list": [1, 2], "s": None}),
        (["url=http://a/?b=c:=@d"], {"url": "http://a/?b=c:=@d"}),
        (["mail=a@b"], {"mail": "a@b"}),
        (["image=@page.jpg"], {"image": b"\xff\xd8"}),
        (["order=@request.json"], {"order": {"a": [1, 2]}}),
        (["@page.jpg"], b"\xff\xd8"),
        (["@request.json"], {"a": [1, 2]}),
        ([":=5"], 5),
        (["=text"], "text"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_words_are_a_payload(words: list[str], payload: Any) -> None:
    assert read_payload(words) == payload


@pytest.mark.usefixtures("folder")
def test_an_npy_file_is_an_array() -> None:
    assert (read_payload(["x=@x.npy"])["x"] == np.ones((2, 3))).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["text"], "'text' is no field"),
        (["a:b"], "is no field"),
        (["a=1", "a=2"], "field 'a' is there twice"),
        (["@page.jpg", "a=1"], "a whole payload"),
        (["a:={"], "a:={: it is no JSON"),
        (["a=@missing.jpg"], "missing.jpg: No such file"),
        (["a=@evil.npy"], "evil.npy: Object arrays cannot be loaded"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_words_that_are_none_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_payload(words)
    assert message in str(caught.value)


@pytest.mark.parametrize(("data", "payload"), [(b'{"a": 1}', {"a": 1}), (b"\xff\xd8", b"\xff\xd8"), (b"hi", b"hi")])
def test_standard_input_is_json_if_it_can_be(data: bytes, payload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read_payload(["-"]) == payload


# -- answers --------------------------------------------------------------------------------------------


def test_json_sums_up_what_is_long() -> None:
    answer = {"short": np.arange(3), "long": np.arange(2000.0), "b": b"abc", "bytes": bytes(5000), "none": None}
    assert json.loads(as_json(answer)) == {
        "short": [0, 1, 2],
        "long": {"array": "float64 [2000]", "min": 0.0, "max": 1999.0, "mean": 999.5},
        "b": "YWJj",
        "bytes": {"bytes": 5000},
        "none": None,
    }


def test_raw_is_as_it_is() -> None:
    assert as_it_is(b"\xff") == b"\xff" and as_it_is("é") == "é".encode() and as_it_is({"a": [1]}) == b'{"a":[1]}'
    assert (np.load(io.BytesIO(as_it_is(np.arange(3)))) == np.arange(3)).all()


def test_the_only_bytes_of_an_answer_go_to_a_file() -> None:
    assert take_bytes(b"x") == (b"x", None)
    assert take_bytes({"image": b"x", "n": 1}) == (b"x", {"n": 1})
    for answer in ({"a": b"x", "b": b"y"}, {"n": 1}, 5):
        with pytest.raises(SettingsError, match="-o"):
            take_bytes(answer)


def test_what_has_no_json_is_told() -> None:
    with pytest.raises(OpError):
        as_json(object())


# -- the command ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def addresses() -> Iterator[list[str]]:
    with serving("good:graph", "--tcp-port", "0") as server:
        yield [server.address, server.wait_for(r"and on (tcp\S+)")[1]]


@pytest.mark.parametrize("wire", [0, 1])
def test_a_call_prints_the_answer(addresses: list[str], wire: int, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(range(256)))
    code, out, err = run("call", addresses[wire], "echo", "text=hi", "n:=[1,2]", f"b=@{file}", "--log-id", "mine")
    assert (code, err) == (0, "") and json.loads(out)["text"] == "hi" and json.loads(out)["n"] == [1, 2]


def test_bytes_go_through_a_pipe_and_into_a_file(addresses: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asyncline", "call", addresses[0], "echo", "-"]
    data = bytes(range(256)) * 100
    done = subprocess.run([*command, "--output", "raw"], input=data, capture_output=True, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")
    file = tmp_path / "out"
    done = subprocess.run([*command, "-o", str(file)], input=data, capture_output=True, timeout=50)
    assert (done.returncode, done.stdout, file.read_bytes()) == (0, b"", data)


@pytest.mark.parametrize("wire", [0, 1])
def test_errors_have_their_exit_codes(addresses: list[str], wire: int) -> None:
    code, out, err = run("call", addresses[wire], "other", "a=1")
    assert (code, out) == (65, "") and "error: not_found: there is no graph 'other' (there is: echo)" in err


def test_nobody_there_is_told_with_what_to_do() -> None:
    for scheme, option in (("http", "--http-port"), ("grpc", "--grpc-port"), ("tcp", "--tcp-port")):
        code, out, err = run("call", f"{scheme}://127.0.0.1:1", "echo", "a=1")
        assert (code, out) == (69, "") and f"{scheme}://127.0.0.1:1 cannot be reached" in err
        assert f"asyncline serve APP {option} 1" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense", "echo"), "is no endpoint"),
        (("tcp://a:1", "echo", "word"), "'word' is no field"),
        (("tcp://a:1", "echo", "--output", "xml"), "use json or raw"),
        (("tcp://a:1", "echo", "--timeout-ms", "-1"), "a timeout of"),
    ],
)
def test_a_wrong_command_is_told(arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run("call", *arguments, cwd=SERVICES)
    assert (code, out) == (78, "") and message in err and "Traceback" not in err


def test_parts_are_printed_as_they_come() -> None:
    with serving("streaming:count") as server:
        code, out, err = run("call", server.address, "count", 'order:={"n": 3}', "--stream", "--output", "raw")
        assert (code, out, err) == (0, "0\n1\n2\n", "")
        code, out, err = run("call", server.address, "count", 'order:={"n": 3, "fail_at": 1}', "--stream")
        assert (code, out) == (1, "0\n") and "error: 7: not this one" in err
