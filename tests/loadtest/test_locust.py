"""The users of locust, run by locust itself against a served graph."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from tests.serving import ROOT, Server, serving

# To import it would replace this process's threads and sockets.
pytestmark = pytest.mark.skipif(find_spec("locust") is None, reason="pip install 'asyncline[loadtest]'")

FILES = "loadtest/locustfile.py,tests/loadtest/until_answered.py"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("loadtest.echo_graph:graph", "--grpc-port", "0", "--tcp-port", "0", cwd=ROOT) as running:
        yield running


@pytest.fixture(scope="module")
def wires(server: Server) -> list[str]:
    return ["--grpc", server.wait_for(r"on (grpc://\S+)")[1], "--tcp", server.wait_for(r"on (tcp://\S+)")[1]]


def locust(*arguments: str, until: int = 1) -> subprocess.CompletedProcess[str]:
    """Run it until requests of so many names have been answered."""
    command = [sys.executable, "-m", "locust", "-f", FILES, "--headless", "--json", "--until-answered", str(until)]
    return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)


def test_users_of_all_wires_are_answered_with_pages_and_tensors(server: Server, wires: list[str]) -> None:
    done = locust("--host", server.address, *wires, "-u", "6", "-r", "6", "--floats", "64", until=8)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert {(row["method"], row["name"]) for row in rows} == {
        (wire, f"echo, {kind}{form}")
        for wire, forms in (("POST", (", JSON", ", OIP binary")), ("gRPC", ("",)), ("TCP", ("",)))
        for kind in ("page", "tensor")
        for form in forms
    }
    assert all(row["num_requests"] and not row["num_failures"] for row in rows)


def test_tags_and_names_of_users_choose_what_is_asked(server: Server) -> None:
    done = locust("--host", server.address, "-u", "1", "--tags", "oip", "--exclude-tags", "page", "--", "RestUser")
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)] == ["echo, tensor, OIP binary"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--host is missing"),
        (["--host", "http://127.0.0.1:1"], "http://127.0.0.1:1/v2/repository/index: "),
        (["--host", "ADDRESS", "--grpc", "grpc://127.0.0.1:1"], "nobody is ready at grpc://127.0.0.1:1: give --grpc"),
        (["--host", "ADDRESS", "--graph", "nope"], "there is no model 'nope'"),
    ],
)
def test_what_cannot_be_asked_ends_it_with_the_reason(server: Server, arguments: list[str], says: str) -> None:
    done = locust(*(server.address if each == "ADDRESS" else each for each in arguments))
    assert done.returncode == 1 and says in done.stderr


def test_a_request_that_the_server_refuses_is_a_failure() -> None:
    # Pages and tensors are larger than the server takes.
    with serving("loadtest.echo_graph:graph", "--max-body-mb", "0.01", "--tcp-port", "0", cwd=ROOT) as small:
        tcp = small.wait_for(r"on (tcp://\S+)")[1]
        arguments = ["--host", small.address, "--tcp", tcp, "-u", "2", "--tags", "page", "--", "RestUser", "TcpUser"]
        done = locust(*arguments, until=2)
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert rows and all(row["num_failures"] == row["num_requests"] > 0 for row in rows)
