"""Where log lines go, and what they carry."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncline import Engine, Graph, Request, SettingsError, op
from asyncline.engine.frames import HookFrames
from asyncline.errors import BadRequest, Overloaded
from asyncline.observe.logs.access import MOST, AccessLog
from asyncline.observe.logs.enqueue import Enqueue
from asyncline.observe.logs.formats import ConsoleFormatter, FileFormatter, JsonFormatter
from asyncline.observe.logs.limit import MOST_KINDS, Limit
from asyncline.observe.logs.logs import Logs
from asyncline.observe.logs.writer import MOST_RECORDS, LogFile, Writer, hand
from asyncline.settings import ServiceSettings
from tests.serving import Server, run, serving


def record(
    text: str, *args: Any, level: int = logging.INFO, line: int = 1, name: str = "asyncline.x", **fields: Any
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "/some/file.py", line, text, args, None)
    made.__dict__.update(fields)
    return made


# -- limit


def admitted(limit: Limit, count: int, now: float, text: str = "late by %d") -> int:
    return sum(limit.admits(record(text, n), now) for n in range(count))


def test_lines_of_one_kind_are_limited_and_those_left_out_are_counted() -> None:
    limit = Limit(3, interval_s=10)
    assert admitted(limit, 10, now=100.0) == 3
    assert limit.due_at == 110.0
    assert limit.take(109.9) == []
    (left_out,) = limit.take(110.0)
    assert (left_out.record.msg, left_out.count) == ("late by %d", 7)
    assert limit.left_out == 7 and limit.due_at is None


def test_after_the_interval_a_kind_is_written_again() -> None:
    limit = Limit(3, interval_s=10)
    admitted(limit, 3, now=100.0)
    assert admitted(limit, 3, now=109.0) == 0
    limit.take(110.0)
    assert admitted(limit, 3, now=110.0) == 3


def test_a_kind_within_its_limit_begins_a_new_interval() -> None:
    limit = Limit(3, interval_s=10)
    admitted(limit, 2, now=100.0)
    assert admitted(limit, 5, now=110.0) == 3


def test_kinds_are_told_apart_by_template_logger_and_level() -> None:
    limit = Limit(1)
    assert limit.admits(record("a %d", 1), 0.0) and limit.admits(record("b %d", 1), 0.0)
    assert limit.admits(record("a %d", 1, name="asyncline.y"), 0.0)
    assert limit.admits(record("a %d", 1, level=logging.ERROR), 0.0)
    assert not limit.admits(record("a %d", 2), 0.0)


def test_texts_without_a_template_are_one_kind_where_they_come_from_one_line() -> None:
    limit = Limit(1)
    assert limit.admits(record("user 1 is late"), 0.0)
    assert not limit.admits(record("user 2 is late"), 0.0)
    assert limit.admits(record("user 2 is early", line=2), 0.0)


def test_the_kinds_that_are_counted_are_bounded() -> None:
    limit = Limit(1)
    for n in range(3 * MOST_KINDS):
        limit.admits(record(f"kind {n} %d", 1), 0.0)
        limit.admits(record(f"kind {n} %d", 1), 0.0)
    assert len(limit._kinds) <= MOST_KINDS


def test_no_limit_admits_all() -> None:
    assert admitted(Limit(0), 1000, now=0.0) == 1000


# -- formats


def test_ids_stand_at_the_end_of_the_first_line() -> None:
    text = ConsoleFormatter().format(record("one\ntwo", data_id=7, log_id="abc", op="detect", hook="process"))
    assert text.endswith("INFO one [data_id=7 log_id=abc op=detect hook=process]\ntwo")


def test_ids_that_are_empty_are_left_out() -> None:
    assert ConsoleFormatter().format(record("one", data_id=7, log_id="", op="")).endswith("INFO one [data_id=7]")
    assert ConsoleFormatter().format(record("one")).endswith("INFO one")


def test_a_file_s_line_says_where_it_comes_from() -> None:
    text = FileFormatter().format(record("one", level=logging.WARNING))
    assert text.startswith("WARNING 2") and text.endswith("[file.py:1] one")


def test_json_has_one_object_a_line() -> None:
    try:
        raise ValueError("planted")
    except ValueError as error:
        made = record("a\n%s", "b", data_id=7, log_id="", op="detect")
        made.exc_info = (ValueError, error, error.__traceback__)
        line = JsonFormatter().format(made)
    assert "\n" not in line
    found = json.loads(line)
    assert found["time"].endswith("+00:00")
    assert found["traceback"].splitlines()[-1] == "ValueError: planted"
    del found["time"], found["traceback"]
    assert found == {"level": "INFO", "logger": "asyncline.x", "message": "a\nb", "data_id": 7, "op": "detect"}


def test_json_takes_text_that_is_no_unicode() -> None:
    assert json.loads(JsonFormatter().format(record("\udcff")))["message"] == "?"


# -- files


def test_a_full_file_is_set_aside_and_the_oldest_is_let_go(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "x.log", logging.Formatter("%(message)s"), nbytes=30, count=2)
    for n in range(20):
        file.handle(record(f"line {n:04d}"))
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
    assert (tmp_path / "x.log").read_text() == "line 0018\nline 0019\n"
    assert (tmp_path / "x.log.1").read_text() == "line 0015\nline 0016\nline 0017\n"


def test_a_disk_that_takes_no_more_is_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    file = LogFile(Path("/dev/full"), logging.Formatter("%(message)s"), nbytes=10**6, count=1)
    for _ in range(10):
        hand(record("x"), [file])
    file.close()
    assert capsys.readouterr().err == "asyncline: cannot write /dev/full: [Errno 28] No space left on device\n"


# -- the writer


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def test_what_is_put_is_written_before_the_end() -> None:
    kept = Kept()
    writer = Writer(Limit(0), [kept])
    writer.start()
    for n in range(100):
        writer.put(record(str(n)), [kept])
    writer.close()
    assert kept.texts == [str(n) for n in range(100)]


def test_what_has_no_room_is_dropped_and_counted() -> None:
    kept = Kept()
    writer = Writer(Limit(0), [kept])
    for n in range(MOST_RECORDS + 5):  # its thread has not begun
        writer.put(record(str(n)), [kept])
    writer.start()
    writer.close()
    assert writer.dropped == 5 and len(kept.texts) == MOST_RECORDS + 1
    assert kept.texts.count("5 log lines were dropped: they came faster than they could be written") == 1


def test_lines_left_out_are_told_of_at_the_latest_at_the_end() -> None:
    kept = Kept()
    limit = Limit(2)
    writer = Writer(limit, [kept])
    writer.start()
    handler = Enqueue(writer, [kept], limit, HookFrames(()))
    for n in range(5):
        handler.handle(record("late by %d", n))
    writer.close()
    assert kept.texts == ["late by 0", "late by 1", "3 more lines like this one were left out in 10 s: late by %d"]


def test_arguments_that_do_not_fit_lose_no_line() -> None:
    kept = Kept()
    writer = Writer(Limit(0), [kept])
    writer.start()
    Enqueue(writer, [kept], Limit(0), HookFrames(())).handle(record("%d and %d", 1))
    writer.close()
    assert kept.texts == ["'%d and %d' does not fit its arguments"]


# -- all of it


@op(cpu="inline")
def echo(x: Any) -> Any:
    logging.getLogger("asyncline.app").info("echoes %s", x)
    if x == "bad":
        raise BadRequest("not that")
    return x


GRAPH = Graph("g", echo(Request()))


@pytest.fixture
def unset() -> Iterator[None]:
    """asyncline's logger, as `to_console` leaves it."""
    logger = logging.getLogger("asyncline")
    before = logger.handlers[:], logger.propagate, logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def written(logs: Logs, folder: Path) -> dict[str, str]:
    logs.close()
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_records_go_to_files_by_their_level_and_the_tracer_s_to_its_own(unset: None, tmp_path: Path) -> None:
    logs = Logs(ServiceSettings(log_dir=tmp_path / "logs"), GRAPH)
    logs.start()
    logging.getLogger("asyncline.server").info("fine")
    logging.getLogger("asyncline.server").warning("not so")
    logging.getLogger("asyncline.tracer").info("a block")
    logging.getLogger("asyncline.server").debug("details")
    found = written(logs, tmp_path / "logs")
    assert sorted(found) == ["pipeline.lock", "pipeline.log", "pipeline.log.wf", "pipeline.tracer"]
    assert [line.split("] ")[1] for line in found["pipeline.log"].splitlines()] == ["fine", "not so"]
    assert [line.split("] ")[1] for line in found["pipeline.log.wf"].splitlines()] == ["not so"]
    assert found["pipeline.tracer"].endswith(" a block\n") and "fine" not in found["pipeline.tracer"]


def test_the_root_logger_is_left_alone_and_the_others_are_as_before(unset: None, tmp_path: Path) -> None:
    names = ("", "asyncline", "asyncline.tracer", "tests")
    before = [(each.handlers[:], each.level, each.propagate) for each in map(logging.getLogger, names)]
    logs = Logs(ServiceSettings(log_dir=tmp_path), GRAPH)
    logs.start()
    assert logging.getLogger().handlers == before[0][0]
    logs.close()
    assert [(each.handlers[:], each.level, each.propagate) for each in map(logging.getLogger, names)] == before


def test_a_folder_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"service.log_dir: cannot write to .*/file/logs: Not a directory"):
        Logs(ServiceSettings(log_dir=tmp_path / "file" / "logs"), GRAPH)


def test_what_a_hook_logs_carries_the_ids_of_its_request(unset: None, tmp_path: Path) -> None:
    logs = Logs(ServiceSettings(log_dir=tmp_path), GRAPH)
    logs.start()

    async def serve() -> None:
        async with Engine(GRAPH) as engine:
            await engine.submit("one", log_id="mine")
            logging.getLogger("asyncline.app").info("outside")

    asyncio.run(serve())
    found = written(logs, tmp_path)["pipeline.log"].splitlines()
    assert found[0].endswith("echoes one [data_id=1 log_id=mine]")
    assert found[1].endswith("] outside")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_access_log_has_a_line_for_each_request(unset: None, tmp_path: Path, log_format: str) -> None:
    logs = Logs(ServiceSettings(log_dir=tmp_path, access_log=True, log_format=log_format), GRAPH)
    logs.start()
    access = AccessLog(logs, "g", log_format)

    async def serve() -> None:
        async with Engine(GRAPH, observers=[access]) as engine:
            await engine.submit("one", log_id="mine")
            with pytest.raises(BadRequest):
                await engine.submit("bad")
            engine.begin("two", wire="tcp")
            engine.note_rejected(Overloaded("full"))
            access.hand_over()

    asyncio.run(serve())
    lines = written(logs, tmp_path)["pipeline.access"].splitlines()
    if log_format == "json":
        found = [json.loads(line) for line in lines]
        assert [(one["wire"], one["code"], one.get("data_id"), one.get("log_id")) for one in found] == [
            ("", "ok", 1, "mine"),
            ("", "bad_request", 2, ""),
            ("tcp", "ok", 3, ""),
            ("", "overloaded", None, None),
        ]
        assert {(one["graph"], one["level"], one["ms"] >= 0) for one in found} == {("g", "INFO", True)}
    else:
        words = [line.split()[1:4] + line.split()[6:] for line in lines]
        assert words == [
            ["-", "g", "ok", "[data_id=1", "log_id=mine]"],
            ["-", "g", "bad_request", "[data_id=2]"],
            ["tcp", "g", "ok", "[data_id=3]"],
            ["-", "g", "overloaded"],
        ]


def test_the_access_log_hands_over_what_has_gathered_before_it_is_much(unset: None, tmp_path: Path) -> None:
    logs = Logs(ServiceSettings(log_dir=tmp_path, access_log=True), GRAPH)
    logs.start()
    access = AccessLog(logs, "g", "text")
    for _ in range(MOST):
        access.rejected("overloaded")
    assert access._lines == []
    assert written(logs, tmp_path)["pipeline.access"].count("\n") == MOST


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_access_line_is_one_line_whatever_the_log_id_holds(unset: None, tmp_path: Path, log_format: str) -> None:
    logs = Logs(ServiceSettings(log_dir=tmp_path, access_log=True, log_format=log_format), GRAPH)
    logs.start()
    access = AccessLog(logs, "g", log_format)
    log_ids = ['a"b\nc', "\ud800", "é"]

    async def serve() -> None:
        async with Engine(GRAPH, observers=[access]) as engine:
            for log_id in log_ids:
                engine.begin("one", log_id=log_id)
            access.hand_over()

    asyncio.run(serve())
    lines = written(logs, tmp_path)["pipeline.access"].splitlines()
    if log_format == "json":
        assert [json.loads(line)["log_id"] for line in lines] == ['a"b\nc', "?", "é"]
    else:
        assert [line.partition("log_id=")[2] for line in lines] == ["'a\"b\\nc']", "'\\ud800']", "é]"]


def test_the_time_of_an_access_line_is_that_of_its_request(
    unset: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = Logs(ServiceSettings(log_dir=tmp_path, access_log=True), GRAPH)
    logs.start()
    access = AccessLog(logs, "g", "text")
    for now in (1.9996, 2.0, 86400.25, 1.5):  # a clock may be set back
        monkeypatch.setattr("asyncline.observe.logs.access.time.time", lambda now=now: now)
        access.rejected("overloaded")
    monkeypatch.undo()
    access.hand_over()
    assert [line.split()[0] for line in written(logs, tmp_path)["pipeline.access"].splitlines()] == [
        "1970-01-01T00:00:01.999+00:00",
        "1970-01-01T00:00:02.000+00:00",
        "1970-01-02T00:00:00.250+00:00",
        "1970-01-01T00:00:01.500+00:00",
    ]


# -- as it is served


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def post(server: Server, log_id: str, **order: Any) -> tuple[int, Any]:
    return server.post("/loud", {"order": {"word": log_id, **order}}, X_Log_Id=log_id)


def test_what_the_app_logs_in_any_lane_is_in_the_log_with_its_ids(tmp_path: Path) -> None:
    arguments = ("--log-dir", str(tmp_path), "--log-format", "json", "--access-log", "--set", "dag.fuse=false")
    with serving("logging_app:graph", *arguments) as server:
        assert post(server, "a")[0] == 200
        assert post(server, "b", trace=True)[0] == 200
        assert post(server, "c", fail=True)[0] == 500
        assert post(server, "d", die=True)[0] == 500
    found = lines_of(tmp_path / "pipeline.log")
    said = {(one["message"], one["op"], one["hook"], one["data_id"], one["log_id"])
            for one in found if one["logger"] == "logging_app" and " says a" in one["message"]}  # fmt: skip
    assert said == {
        ("process says a", "in_process", "preprocess", 1, "a"),
        ("thread says a", "in_thread", "preprocess", 1, "a"),
        ("inline says a", "inline", "preprocess", 1, "a"),
    }
    assert [(one["op"], one["hook"]) for one in found if one["message"] == "model says 1"] == [("model", "process")] * 2
    assert "details" not in {one["message"] for one in found}
    (traced,) = [one for one in found if one["message"] == "with a traceback"]
    assert traced["traceback"].splitlines()[-1] == "ValueError: planted"
    warned = [(one["message"], one.get("data_id"), one.get("log_id")) for one in lines_of(tmp_path / "pipeline.log.wf")]
    assert warned[0] == ("with a traceback", 2, "b")
    assert ("last words", 4, "d") in warned
    assert any(text.startswith("op 'inline' preprocess: ") for text, *ids in warned if ids == [3, "c"])
    access = lines_of(tmp_path / "pipeline.access")
    assert [(one["wire"], one["code"], one["log_id"]) for one in access] == [
        ("rest", "ok", "a"), ("rest", "ok", "b"), ("rest", "op_error", "c"), ("rest", "worker_crashed", "d"),
    ]  # fmt: skip


def test_lines_of_one_kind_are_limited_on_their_way_from_workers_too(tmp_path: Path) -> None:
    with serving("logging_app:graph", "--log-dir", str(tmp_path), "--log-limit", "5") as server:
        assert post(server, "a", times=50)[0] == 200
    text = (tmp_path / "pipeline.log.wf").read_text()
    assert text.count("] again, ") == 5
    assert "45 more lines like this one were left out in 10 s" in text


def test_a_folder_that_cannot_be_made_ends_the_server_with_one_line() -> None:
    code, _, err = run("serve", "good:graph", "--http-port", "0", "--log-dir", "/dev/null/logs")
    assert code == 78
    assert "service.log_dir: cannot write to /dev/null/logs: Not a directory" in err and "Traceback" not in err


def test_a_fault_is_in_the_log(tmp_path: Path) -> None:
    server = Server("good:lost", "--log-dir", str(tmp_path))
    server.post("/lost", 1)
    assert server.end()[0] == 70
    assert "the device has failed" in (tmp_path / "pipeline.log.wf").read_text()


def test_without_a_folder_the_console_has_it_all() -> None:
    server = Server("good:graph", "--access-log", "--set", "dag.tracer.interval_s=1")
    assert server.post("/echo", 1)[0] == 200
    server.wait_for(r" rest echo ok \d+\.\d{3} ms \[data_id=1\]")
    server.wait_for("== TRACER ==")
    server.process.terminate()
    assert server.end()[0] == 0


# -- one server for a folder


def test_a_second_server_is_told_who_has_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    with serving("good:graph", "--log-dir", str(folder)) as server:
        code, _, err = run("serve", "good:graph", "--http-port", "0", "--log-dir", str(folder))
    assert code == 78 and f"another server (pid {server.process.pid}) writes to {folder}" in " ".join(err.split())
    assert "--log-dir" in err and "Traceback" not in err
    logs = Logs(ServiceSettings(log_dir=folder), GRAPH)  # the first has ended
    logs.start()
    logs.close()


def test_a_server_that_was_killed_locks_nobody_out(tmp_path: Path) -> None:
    server = Server("good:work", "--log-dir", str(tmp_path))
    server.process.kill()
    server.end()
    with serving("good:work", "--log-dir", str(tmp_path)) as after:
        assert after.post("/work", {"order": {"n": 1}})[0] == 200
