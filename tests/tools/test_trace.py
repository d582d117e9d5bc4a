"""`asyncline trace`, and timelines that a server writes by itself."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from asyncline import SettingsError
from asyncline.tools.trace import TraceFailed, record, summarise
from tests.observe.trace_format import check_trace
from tests.serving import Server, run, serving

ORDER = {"order": {"n": 1}}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("good:work") as found:
        yield found


@pytest.fixture
def stranger() -> Iterator[str]:
    """A server that is not one of ours."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *args: Any) -> None: ...

    httpd = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_live_server_is_recorded_and_the_file_summed_up(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "t.json"

    def meanwhile(seconds: float) -> None:
        assert seconds == 5
        for _ in range(3):
            assert server.post("/work", ORDER) == (200, 1)

    said = list(record(server.address, 5, file, None, meanwhile))
    assert said[0].startswith("3 requests (3 ok)") or said[0].startswith("4 requests")
    assert said[-1].startswith(f"written to {file}")
    events = check_trace(json.loads(file.read_text()))
    assert {event["name"] for event in events} >= {"work.preprocess", "work.process"}
    code, out, err = run("trace", "summary", str(file))
    assert (code, err) == (0, "")
    assert out.splitlines() == said[:-1]


def test_the_command_waits_and_writes(server: Server, tmp_path: Path) -> None:
    code, out, err = run("trace", server.address, "--seconds", "0.1", "-o", str(tmp_path / "t.json"))
    assert (code, err) == (0, "")
    assert "written to" in out and check_trace(json.loads((tmp_path / "t.json").read_text()))


def test_nobody_there_is_said_at_once(tmp_path: Path) -> None:
    code, _, err = run("trace", "http://127.0.0.1:1", "--seconds", "600", "-o", str(tmp_path / "t.json"))
    assert code == 1 and "no server answers at http://127.0.0.1:1" in err and "Traceback" not in err


def test_a_token_is_asked_for_and_given(tmp_path: Path) -> None:
    with serving("good:graph", "--auth-token", "secret") as server:
        with pytest.raises(TraceFailed, match=r"token .*--token"):
            list(record(server.address, 0.1, tmp_path / "t.json", None, _never))
        assert list(record(server.address, 0.1, tmp_path / "t.json", "secret", lambda seconds: None))


def _never(seconds: float) -> None:
    raise AssertionError("it is said before the wait")


def test_what_is_no_server_of_ours_is_said(stranger: str, tmp_path: Path) -> None:
    with pytest.raises(TraceFailed, match="no trace"):
        list(record(stranger, 1, tmp_path / "t.json", None, lambda seconds: None))
    assert not (tmp_path / "t.json").exists()


@pytest.mark.parametrize("url", ["localhost:8000", "grpc://localhost:8001", "http://", "file:///etc/passwd"])
def test_what_is_no_address_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="REST address"):
        list(record(url, 1, tmp_path / "t.json", None, _never))


@pytest.mark.parametrize("text", ["", "5", "{}", '{"traceEvents": []}', "\xff"])
def test_a_file_that_is_no_trace_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match="is no trace of asyncline"):
        list(summarise(file))


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    code, _, err = run("trace", "summary", str(tmp_path / "none.json"))
    assert code == 78 and "No such file" in err


# -- what a server writes by itself


def traces(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_request_that_was_slow_leaves_its_timeline(tmp_path: Path) -> None:
    with serving("good:work", "--trace-slow-ms", "200", "--trace-dir", str(tmp_path / "slow")) as server:
        server.post("/work", ORDER)
        server.post("/work", {"order": {"n": 1, "mid_s": 0.3}})
    (file,) = traces(tmp_path / "slow")
    assert "-work-2-ok-" in file.name and file.name.endswith("ms.trace.json")
    events = check_trace(json.loads(file.read_text()))
    assert {event["args"]["data_id"] for event in events if event.get("cat") == "request"} == {2}
    assert {"work.preprocess", "work.process"} <= {event["name"] for event in events}


def test_a_request_that_failed_leaves_its_timeline_and_many_leave_few(tmp_path: Path) -> None:
    with serving("good:work", "--trace-errors", "--trace-dir", str(tmp_path)) as server:
        for _ in range(5):
            assert server.post("/work", {"order": {"mid_s": "no number"}})[0] == 500
    assert 1 <= len(traces(tmp_path)) < 5
    assert all("-op_error-" in file.name for file in traces(tmp_path))


def test_the_oldest_are_deleted_for_new_ones_and_nothing_else(tmp_path: Path) -> None:
    for n in range(100):
        (tmp_path / f"2020-{n:03}.trace.json").write_text("{}")
    (tmp_path / "1999.txt").write_text("mine")
    with serving("good:work", "--trace-errors", "--trace-dir", str(tmp_path)) as server:
        server.post("/work", {"order": {"mid_s": "no number"}})
    names = [file.name for file in traces(tmp_path)]
    assert len(names) == 101 and "1999.txt" in names
    assert "2020-000.trace.json" not in names and "2020-001.trace.json" in names


def test_a_folder_that_cannot_be_made_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "traces")
    code, _, err = run("serve", "good:graph", "--http-port", "0", "--trace-errors", "--trace-dir", folder)
    assert code == 78 and "service.trace_dir" in err and "Traceback" not in err


def test_traces_of_a_timeline_that_is_off_end_the_start() -> None:
    code, _, err = run("serve", "good:graph", "--http-port", "0", "--trace-slow-ms", "5", "--set", "dag.timeline_mb=0")
    assert code == 78 and "dag.timeline_mb is 0" in err


@pytest.mark.parametrize("path", ["/work", "/v2/models/work/infer"])
def test_the_way_to_its_timeline_is_in_the_answer(server: Server, path: str) -> None:
    body: Any = ORDER
    if path.startswith("/v2"):
        body = {"inputs": [{"name": "order", "datatype": "BYTES", "shape": [1], "data": [json.dumps(ORDER["order"])]}]}
    headers = {"Content-Type": "application/json", "X-Trace": "1"}
    with urllib.request.urlopen(
        urllib.request.Request(server.address + path, json.dumps(body).encode(), headers), timeout=20
    ) as answer:
        where = answer.headers["X-Trace"]
    status, trace = server.get(where)
    assert status == 200
    assert [event["name"] for event in check_trace(trace) if event.get("cat") == "request"] == [
        f"request {where.rpartition('=')[2]}"
    ]
