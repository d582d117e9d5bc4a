"""PipelineService as served, by grpcio and stubs of protoc's, in both numberings and all of a client's packings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.serving import ROOT, serving

pytest.importorskip("grpc_tools", reason="pip install grpcio-tools")

ARRAY = {"dtype": "float32", "array": [[1, 2], [3, 4.5]]}


class Caller:
    """A running `paddle_client`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, feed: dict[str, Any] | None = None, **call: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"feed": feed or {}, **call}) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        return said

    def values(self, feed: dict[str, Any], **call: Any) -> dict[str, str]:
        said = self(feed, **call)
        assert (said["err_no"], said["err_msg"]) == (0, ""), said
        return dict(zip(said["key"], said["value"], strict=True))


@contextmanager
def calling(era: str, address: str) -> Iterator[Caller]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.transports.paddle_client", era, address],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Caller(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


@contextmanager
def served(app: str) -> Iterator[str]:
    """Where `app` listens for gRPC."""
    with serving(app, "--grpc-port", "0") as server:
        yield server.wait_for(r"and on grpc://(\S+)")[1]


@pytest.fixture(scope="module")
def scale() -> Iterator[str]:
    with served("pipeline:graph") as address:
        yield address


@pytest.fixture(scope="module")
def today(scale: str) -> Iterator[Caller]:
    with calling("today", scale) as call:
        yield call


@pytest.fixture(scope="module")
def old(scale: str) -> Iterator[Caller]:
    with calling("old", scale) as call:
        yield call


@pytest.fixture(scope="module")
def seen() -> Iterator[Caller]:
    with served("pipeline_values:graph") as address, calling("today", address) as call:
        yield call


def test_printed_arrays_come_and_go(today: Caller) -> None:
    values = today.values({"x": ARRAY, "by": "0.5", "note": "é"}, fields={"name": "scale", "method": "prediction"})
    assert values == {"y": "array([[0.5, 1.0], [1.5, 2.25]], dtype=float32)", "note": "é", "log_id": ""}


def test_tensors_come_and_go(today: Caller) -> None:
    said = today({"x": ARRAY}, mode="tensors", fields={"logid": 7, "clientip": "10.0.0.1"})
    assert (said["key"], said["value"][2]) == (["y", "note", "log_id"], "7")
    assert said["tensors"] == [{"name": "y", "elem_type": 1, "shape": [2, 2], "float_data": [2.0, 4.0, 6.0, 9.0]}]


def test_npy_streams_come_and_go(today: Caller) -> None:
    said = today({"x": ARRAY}, mode="bytes")
    assert said["tensors"] == [{"name": "y", "elem_type": 13, "shape": [2, 2], "byte_data": [[2.0, 4.0], [6.0, 9.0]]}]


@pytest.mark.parametrize(
    "fields", [{"name": "scale", "method": "prediction", "logid": 7, "clientip": "10.0.0.1"}, {"logid": 7}]
)
def test_the_old_numbering_is_understood(old: Caller, fields: dict[str, Any]) -> None:
    assert old.values({"x": ARRAY, "note": "a"}, fields=fields)["log_id"] == "7"


def test_an_old_request_with_a_name_only_is_understood(old: Caller) -> None:
    said = old({"x": ARRAY}, fields={"name": "other", "method": "prediction"})
    assert (said["err_no"], said["err_msg"]) == (3002, "Failed to inference: Service name error.")


def test_another_service_is_refused_by_name(today: Caller) -> None:
    assert today({}, fields={"name": "ocr"})["err_no"] == 3002


def test_errors_are_numbers_in_a_good_answer(today: Caller) -> None:
    assert today({"x": ARRAY, "note": "sold out"})["err_no"] == 77
    missing = today({})
    assert (missing["err_no"], missing["err_msg"], missing["key"]) == (5000, "field 'x' is missing", [])
    assert today({"x": {"dtype": "object", "array": ["a", 1]}}, mode="bytes")["err_no"] == 8000
    assert today({}, fields={"key": ["a", "b"], "value": ["1"]})["err_no"] == 8000


def test_a_message_over_the_limit_is_refused(today: Caller) -> None:
    assert today({"note": "x" * 17_000_000})["status"] == "RESOURCE_EXHAUSTED"


def test_a_bare_request_gets_all_values(seen: Caller) -> None:
    offsets = {"dtype": "int32", "array": [0, 1, 1, 3]}
    feed = {"ids": {"dtype": "int64", "array": [5, 6, 7]}, "ids.lod": offsets, "half": {"dtype": "float16", "array": 1}}
    expected = {"ids": "int64 [3] [5, 6, 7]", "ids.lod": "int32 [2, 2] [[0, 1], [1, 3]]", "half": "float16 [] 1.0"}
    assert seen.values({**feed, "text": "é"}, mode="tensors") == {**expected, "text": "str é"}
    assert seen.values(feed, mode="bytes") == expected
    assert seen.values({"list": [1, 2], "text": "é"}) == {"list": "str array([1, 2])", "text": "str é"}


def test_another_client_gets_its_timings_question_unanswered(today: Caller) -> None:
    assert today({"x": ARRAY, "pipeline.profile": "1"})["err_no"] == 0
