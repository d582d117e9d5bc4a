"""`asyncline top`: its picture of recorded figures, and the command against a served graph."""

from __future__ import annotations

import io
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console, RenderableType

from asyncline import SettingsError
from asyncline.tools.top import Moment, NoFigures, Refused, block, follow, top
from tests.serving import Process, run, serving

DETECT: dict[str, Any] = {
    "name": "detect", "count": 20, "errors": {}, "in_ms": 41.5, "prep_ms": 3.25, "midp_ms": 180.0, "postp_ms": 9.0,
    "out_ms": 0.5, "idle": 0.05, "batches": 10, "batch_size": 2.0, "depth": 7, "depth_max": 12, "channel_size": 64,
}  # fmt: skip
ANSWER = {**DETECT, "name": "answer", "errors": {"product": 2}, "idle": 0.99, "batches": 0, "depth": 0}
MOMENT: Moment = {
    "state": "ready",
    "problem": None,
    "last": {
        "at": 100.0, "seconds": 10.0, "qps": 2.0, "success": 0.9,
        "outcomes": {"ok": 18, "product": 2}, "rejected": {"overloaded": 3},
        "latency": {"mean_ms": 240.0, "percentiles_ms": {"50": 230.0, "99": 600.0}}, "in_flight": 8,
        "in_flight_max": 64, "cores": 1.5, "cores_there": 2, "loop_lag_ms": 3.0, "ops": [DETECT, ANSWER],
    },
    "verdict": {"text": "bottleneck: op 'detect' process is device-bound", "op": "detect", "kind": "device-bound"},
    "failures": [{"code": "product", "message": "[bold]no[/] such page", "data_id": 7}],
    "blockages": [], "blocked": 0,
    "nbytes": 123_000_000,
    "lanes": {"process": {"workers": [{"pid": 5, "nbytes": 45_000_000}]}},
}  # fmt: skip


def text(picture: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(picture)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_picture_has_totals_verdict_ops_and_errors() -> None:
    lines = text(block(MOMENT, "http://a:1")).splitlines()
    assert "2 requests/s  90.0% ok  2 failed  3 refused  in flight 8 of 64" in lines[1]
    assert "p50 230  p99 600  mean 240" in lines[2]
    assert "cores 1.50 of 2  loop lag 3.0 ms  memory 123 MB  workers 45 MB" in lines[3]
    assert lines[4].startswith("bottleneck: op 'detect'")
    [detect] = [line.split() for line in lines if "detect " in line and "▶" in line]
    assert detect == ["▶", "detect", "2", "41.5", "3.25", "180", "9", "0.5", "0.05", "2", "7/64", "12", "0"]
    assert any(line.split()[:1] == ["answer"] and line.split()[-1] == "2" for line in lines)
    assert "product: [bold]no[/] such page [data_id=7]" in lines[-1]  # no markup comes from data


def test_a_loop_that_stood_still_is_told_of_for_a_minute() -> None:
    old, new = ({"at": at, "op": "detect", "hook": "preprocess", "seconds": 0.5} for at in (39.0, 88.0))
    told = "op 'detect' preprocess kept the event loop for 500 ms, 12 s ago; 7 times since the start"
    assert told in text(block({**MOMENT, "blockages": [new, old], "blocked": 7}, "http://a:1"))
    assert "kept" not in text(block({**MOMENT, "blockages": [old], "blocked": 6}, "http://a:1"))


def test_when_the_server_goes_it_says_so_and_asks_again() -> None:
    connections = iter([[MOMENT], NoFigures("no server there: Connection refused"), [MOMENT], Refused("wrong token")])
    shown: list[str] = []
    slept: list[float] = []

    def connect() -> Iterator[Moment]:
        found = next(connections)
        if isinstance(found, Exception):
            raise found
        yield from found

    with pytest.raises(Refused, match="wrong token"):
        follow(connect, lambda picture: shown.append(text(picture)), "http://a:1", 1.0, slept.append)
    assert [picture.splitlines()[0].rstrip() for picture in shown] == [
        "http://a:1  ready  10 s",
        "the server has stopped; trying again",
        "no server there: Connection refused; trying again",
        "http://a:1  ready  10 s",
        "the server has stopped; trying again",
    ]
    assert "detect" in shown[2]  # what was last known stays
    assert len(slept) == 3


def test_a_longer_interval_shows_fewer_pictures() -> None:
    shown: list[RenderableType] = []
    connections = iter([[MOMENT] * 6])

    def connect() -> Iterator[Moment]:
        yield from next(connections)

    with pytest.raises(RuntimeError):  # the recorded connections are at their end
        follow(connect, shown.append, "http://a:1", 3.0, lambda seconds: None)
    assert len(shown) == 2 + 1


@pytest.mark.parametrize("url", ["tcp://a:8002", "localhost:8000", "http://", "http://a:x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="give the REST address"):
        top(url, token=None, interval_s=1, once=True, console=Console())


def test_once_prints_one_picture_of_a_live_server() -> None:
    with serving("good:graph", "--auth-token", "secret") as server:
        code, out, _ = run("top", server.address, "--once", "--token", "secret")
        assert code == 0
        assert "bottleneck: none" in out and "echo" in out and "ready" in out
        code, out, err = run("top", server.address, "--once")
        assert (code, out) == (1, "") and "a bearer token is required" in err


def test_without_a_server_once_fails_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, _, err = run("top", f"http://127.0.0.1:{port}", "--once")
    assert code == 1 and "no server there" in err and "Traceback" not in err


def test_ctrl_c_ends_it_cleanly() -> None:
    with serving("good:graph") as server:
        process = Process("top", server.address)
        assert process.process.stdout is not None
        line = process.process.stdout.readline()  # so it is in the midst of it
        process.process.send_signal(signal.SIGINT)
        code, err = process.end()
    assert (code, err) == (0, "")
    assert "ready" in line
