"""Client: the blocking twin, from threads, notebooks and processes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from asyncline import DeadlineExceeded, Unavailable
from asyncline.client import Client, Refused
from tests.serving import Server, serving

WIRES = ("http", "grpc", "tcp")


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """Addresses of `echo`, and of `work`, by wire."""
    with _both("good:graph") as echo, _both("good:work") as work:
        yield {
            **dict(zip(WIRES, echo.addresses, strict=True)),
            **{f"work {wire}": address for wire, address in zip(WIRES, work.addresses, strict=True)},
        }


class _both:
    def __init__(self, app: str) -> None:
        self._serving = serving(app, "--grpc-port", "0", "--tcp-port", "0")

    def __enter__(self) -> _both:
        server: Server = self._serving.__enter__()
        self.addresses = (server.address, *(server.wait_for(rf"and on ({wire}\S+)")[1] for wire in WIRES[1:]))
        return self

    def __exit__(self, *error: Any) -> None:
        self._serving.__exit__(None, None, None)


def thread_count() -> int:
    return sum(thread.name == "asyncline client" for thread in threading.enumerate())


@pytest.mark.parametrize("wire", WIRES)
def test_it_calls_and_closes(servers: dict[str, str], wire: str) -> None:
    with Client(servers[wire]) as client:
        answer = client("echo", {"a": np.ones(3), "b": b"x"})
        assert (answer["a"] == 1).all() and answer["b"] == b"x"
        assert client("echo", a=1) == {"a": 1} and client.ready()
        assert thread_count() == 1
    assert thread_count() == 0
    with pytest.raises(Refused, match="was closed"):
        client("echo", 1)
    client.close()


@pytest.mark.parametrize("wire", WIRES)
def test_many_threads_share_one(servers: dict[str, str], wire: str) -> None:
    with Client(servers[wire]) as client, ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda n: client("echo", n), range(500))) == list(range(500))


@pytest.mark.parametrize("wire", WIRES)
def test_a_close_fails_what_other_threads_wait_for(servers: dict[str, str], wire: str) -> None:
    client = Client(servers[f"work {wire}"])
    client.ready()
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(client, "work", order={"mid_s": 1}) for _ in range(2)]
        while client._client._balancer.endpoints.all[0].outstanding < 2:
            threading.Event().wait(0.001)
        client.close()
        for each in asked:
            with pytest.raises(Unavailable, match=r"closed|lost|broke off"):
                each.result(timeout=2)


def test_errors_are_raised_as_they_are(servers: dict[str, str]) -> None:
    with Client(servers["work tcp"]) as client, pytest.raises(DeadlineExceeded):
        client("work", order={"pre_s": 1}, timeout=0.05)


async def test_it_works_inside_a_running_loop_as_in_a_notebook(servers: dict[str, str]) -> None:
    def cell() -> Any:
        with Client(servers["tcp"]) as client:
            return client("echo", 1)

    assert await asyncio.to_thread(cell) == 1


def test_one_that_is_forgotten_ends(servers: dict[str, str]) -> None:
    client = Client(servers["tcp"])
    assert client("echo", 1) == 1
    del client
    gc.collect()
    assert thread_count() == 0


def test_one_that_cannot_be_made_leaves_no_thread() -> None:
    with pytest.raises(ValueError, match="is no endpoint"):
        Client("nonsense")
    gc.collect()
    assert thread_count() == 0


def test_the_interpreter_ends_with_one_open(servers: dict[str, str]) -> None:
    code = f"""
from asyncline.client import Client
for address in {list(servers.values())[:2]!r}:
    client = Client(address)
    globals()[address] = client
    print(client("echo", 1))
"""
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n1\n", "")


def test_after_a_fork_the_child_is_told_and_the_parent_goes_on(servers: dict[str, str]) -> None:
    code = f"""
import os
from asyncline.client import Client
client = Client({servers["tcp"]!r})
client("echo", 1)
if os.fork() == 0:
    try:
        client("echo", 2)
    except RuntimeError as error:
        print(error, flush=True)
    client.close()
    raise SystemExit
_, status = os.wait()
print(status, client("echo", 3))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    said = "this Client was made before the process was forked: make one in the new process"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{said}\n0 3\n", "")


def test_an_interrupt_cancels_the_call(servers: dict[str, str]) -> None:
    with Client(servers["work tcp"]) as client:
        assert client.ready()
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            client("work", order={"pre_s": 1})
        timer.join()
        assert client.ready()  # by the loop, behind the cancel
        assert client._client._balancer.endpoints.all[0].outstanding == 0


def test_the_client_imports_no_server() -> None:
    code = """
import sys
import asyncline.client
from asyncline.client import AsyncClient, Client
def found(*names):
    return [name for name in names if any(m == name or m.startswith(name + ".") for m in sys.modules)]
servers = "asyncline.engine", "asyncline.transports", "asyncline.server", "asyncline.graph.graph", "asyncline.settings"
print(found(*servers, "torch", "onnxruntime", "aiohttp", "grpclib", "google", "uvloop", "typer", "PIL"))
for address in ("http://127.0.0.1:1", "tcp://127.0.0.1:1"):
    with Client(address) as client:
        client.ready()
print(found(*servers, "torch", "onnxruntime", "grpclib", "google", "uvloop", "typer", "PIL"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n[]\n"


def test_parts_come_one_by_one_and_leaving_ends_them() -> None:
    with (
        serving("streaming:count", "--tcp-port", "0") as server,
        Client(server.wait_for(r"and on (tcp\S+)")[1]) as client,
    ):
        assert list(client.stream("count", order={"n": 3})) == [0, 1, 2]
        parts = client.stream("count", order={"n": 10**6, "pause_ms": 1})
        assert next(parts) == 0
        parts.close()  # type: ignore[attr-defined]  # it is a generator
        assert client("count", order={"ask": 1})[0]["ended"] == 2
        forgotten = client.stream("count", order={"n": 10**6, "pause_ms": 1})
        assert next(forgotten) == 0
    with pytest.raises(Refused, match="was closed"):
        next(forgotten)
