"""A serving process from start to end, as its operator sees it."""

from __future__ import annotations

import asyncio
import http.client
import re
import signal
import socket
import subprocess
import threading
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from asyncline.client.tcp import TcpConnection
from asyncline.settings import ServiceSettings
from tests.serving import Process, Server, run, serving


def test_it_says_where_it_serves_and_the_curl_line_works() -> None:
    with serving("good:graph") as server:
        line = server.wait_for("^curl ").string.strip()
        assert "http://127.0.0.1:" in line
        out = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=20, check=True).stdout
        assert out == '"hello"'
        assert server.get("/readyz") == (200, {"status": "ready"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_what_is_in_flight_and_exits_0(number: signal.Signals) -> None:
    server = Server("good:work")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(server.post, "/work", {"order": {"n": 7, "pre_s": 0.3, "mid_s": 0.3}})
        _wait_until_in_flight(server, 1)
        server.process.send_signal(number)
        assert running.result() == (200, 7)
        code, err = server.end()
    assert code == 0 and "Traceback" not in err
    with pytest.raises(OSError):
        socket.create_connection(_host_port(server.address), timeout=5)


def test_a_second_signal_exits_at_once() -> None:
    server = Server("good:work")
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(server.post, "/work", {"order": {"mid_s": 600}}, X_Timeout_Ms="500000")
        _wait_until_in_flight(server, 1)
        server.process.send_signal(signal.SIGTERM)
        _wait_until_refused(server)
        server.process.send_signal(signal.SIGTERM)
        code, _ = server.end()
        assert code == 128 + signal.SIGTERM
        assert hanging.exception() is not None


def test_a_drain_that_ends_with_requests_in_flight_says_so() -> None:
    server = Server("good:work", "--drain-s", "0.2")
    with ThreadPoolExecutor() as threads:
        hanging = threads.submit(server.post, "/work", {"order": {"mid_s": 600}}, X_Timeout_Ms="500000")
        _wait_until_in_flight(server, 1)
        server.process.send_signal(signal.SIGTERM)
        status, answer = hanging.result()
        assert (status, answer["code"]) == (503, "unavailable")
        assert server.end()[0] == 75


def test_a_signal_while_models_load_ends_it() -> None:
    server = Process("serve", "slow_model:graph", "--http-port", "0")
    server.wait_for("the model is loading")
    server.process.send_signal(signal.SIGTERM)
    assert server.end()[0] == 0


def test_workers_end_with_their_server_however_it_ends() -> None:
    server = Server("good:work")
    assert server.post("/work", {"order": {"n": 1}}) == (200, 1)
    family = _descendants(server.process.pid)
    assert family
    server.process.kill()
    server.end()
    for pid in family:
        _wait_gone(pid)


def test_killed_workers_under_load_cost_their_own_requests_only() -> None:
    with serving("good:work", env={"ASYNCLINE_DAG_CPU_WORKERS": "2"}) as server, ThreadPoolExecutor(8) as threads:
        orders = [{"order": {"n": n, "die": n % 10 == 3}} for n in range(60)]
        got = list(threads.map(lambda order: server.post("/work", order, X_Timeout_Ms="9999"), orders))
        for n, (status, answer) in enumerate(got):
            if n % 10 == 3:
                assert (status, answer["code"]) == (500, "worker_crashed")
            else:
                assert (status, answer) == (200, n)
        assert server.get("/readyz")[0] == 200
        assert "asyncline_workers_lost_total 6.0" in server.get("/metrics")[1]
        assert "asyncline_in_flight 0.0" in server.get("/metrics")[1]


def test_an_op_that_blocks_the_loop_is_named_in_the_log() -> None:
    with serving("good:blocking") as server:
        status, answer = server.post("/blocking", 3, X_Timeout_Ms="500")
        assert (status, answer["code"]) == (504, "deadline")
        server.wait_for("op 'block' preprocess has blocked the event loop")
        assert server.post("/blocking", 0) == (200, 0)


def test_what_is_loaded_costs_the_collector_nothing_while_it_serves() -> None:
    with serving("good:collector") as server:
        status, count = server.post("/collector", 0)
    assert status == 200 and count < 20_000  # else 110,000: mostly modules


def test_a_missing_model_is_one_clear_line_and_a_failure() -> None:
    code, _, err = run("serve", "missing_model:graph", "--http-port", "0")
    assert code == 1
    assert err.strip() == "error: op 'detect' load_model: there is no model file /models/detector.onnx"


def test_a_port_that_is_taken_is_one_clear_line_and_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = run("serve", "good:graph", "--http-port", port)
    assert (
        code == 1
        and err.strip() == f"error: cannot listen on 127.0.0.1:{port}: Address already in use (see --http-port)"
    )


def test_another_host_without_a_token_warns() -> None:
    with serving("good:graph", "--host", "0.0.0.0") as server:
        assert "0.0.0.0 is open to other machines and no --auth-token is set" in "".join(server.lines)
    with serving("good:graph", "--host", "0.0.0.0", "--auth-token", "t") as server:
        assert "warning" not in "".join(server.lines)


def test_a_token_comes_from_the_environment_too() -> None:
    with serving("good:graph", env={"ASYNCLINE_AUTH_TOKEN": "sesame"}) as server:
        assert server.post("/echo", 1)[0] == 401
        assert server.post("/echo", 1, Authorization="Bearer sesame") == (200, 1)


def test_tls(tmp_path: Path) -> None:
    import ssl
    import urllib.request

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True, timeout=30
    )
    with serving("good:graph", "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        assert server.address.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(server.address + "/readyz", context=context, timeout=20) as response:
            assert response.status == 200


# -- msgpack over TCP -----------------------------------------------------------------------------------


def _tcp_call(server: Server, graph: str, value: Any, **open_with: Any) -> Any:
    """One call by TCP, to where the server says that it listens."""
    host, port = server.wait_for(r"and on tcps?://(\S+):(\d+)").groups()

    async def call() -> Any:
        async with await TcpConnection.open(host, int(port), **open_with) as connection:
            return await connection.call(graph, value, timeout=20)

    return asyncio.run(call())


def test_tcp_is_served_beside_rest() -> None:
    with serving("good:graph", "--tcp-port", "0") as server:
        assert _tcp_call(server, "echo", {"x": b"\xff"}) == {"x": b"\xff"}
        assert server.post("/echo", 1) == (200, 1)
        assert 'asyncline_requests_total{code="ok"} 2.0' in server.get("/metrics")[1]
        server.process.terminate()
        assert server.end()[0] == 0


def test_tcp_has_the_token_of_rest() -> None:
    with serving("good:graph", "--tcp-port", "0", "--auth-token", "sesame") as server:
        assert _tcp_call(server, "echo", 1, token="sesame") == 1


def test_every_wire_has_a_port_of_its_own_and_one_that_is_null_is_not_opened() -> None:
    with serving("good:graph", "--grpc-port", "0", "--tcp-port", "0") as server:
        server.wait_for("and on grpc://127.0.0.1:")
        server.wait_for("and on tcp://127.0.0.1:")
        assert len(_listening(server.process.pid)) == 3
    with serving("good:graph", "--grpc-port", "null", "--tcp-port", "null") as server:
        assert server.post("/echo", 1) == (200, 1)
        assert len(_listening(server.process.pid)) == 1
        assert not any("and on" in line for line in server.lines)
    service = ServiceSettings()
    assert (service.http_port, service.grpc_port, service.tcp_port) == (8000, 8001, 8002)


@pytest.mark.parametrize("option", ["--grpc-port", "--tcp-port"])
@pytest.mark.parametrize("more", [[], ["--supervise"]])
def test_another_port_that_is_taken_is_one_clear_line_that_names_its_option(option: str, more: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = run("serve", "good:graph", "--http-port", "0", option, port, *more)
    assert code == 1
    assert err.strip() == f"error: cannot listen on 127.0.0.1:{port}: Address already in use (see {option})"


def test_a_bad_certificate_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("nonsense")
    code, _, err = run("serve", "good:graph", "--http-port", "0", "--tls-cert", str(tmp_path / "cert.pem"))
    assert code != 0 and err.startswith("error: ") and "Traceback" not in err


def test_reload_serves_the_changed_app(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    text = "from asyncline import Graph, Request, op\n@op(cpu='inline')\ndef say(x):\n    return 'one'\n"
    app.write_text(text + "graph = Graph('say', say(Request()))\n")
    server = Server("app:graph", "--reload", cwd=tmp_path)
    try:
        assert server.post("/say", 0) == (200, "one")
        app.write_text(app.read_text().replace("'one'", "'another'"))
        server.wait_for("app.py changed")
        server.address = server.wait_for(r"serving \S+ on (http\S+)")[1]
        assert server.post("/say", 0) == (200, "another")
    finally:
        server.process.terminate()
        assert server.end()[0] == 0


def test_a_device_that_fails_for_good_ends_the_server_with_exit_code_70() -> None:
    server = Server("good:lost")
    status, answer = server.post("/lost", 1)
    assert (status, answer["code"]) == (500, "op_error") and "an illegal memory access" in answer["message"]
    code, err = server.end()
    assert code == 70 and "the device has failed: op 'lost'" in err


# -- a supervised server --------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [70, -9])
def test_a_supervised_server_that_fails_is_started_again_and_nobody_is_refused(code: int) -> None:
    with serving("good:mortal", "--supervise") as server:
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            server.post("/mortal", code)  # its connection dies with the server
        # A client that comes while there is no server waits for the next.
        assert server.get("/healthz")[0] == 200
        server.wait_for("the server .*: starting again")
        server.wait_for("serving")
        assert server.get("/readyz")[0] == 200
        server.process.terminate()
        assert server.end()[0] == 0


def test_a_supervised_server_that_fails_again_and_again_is_given_up() -> None:
    server = Server("good:mortal", "--supervise")
    while server.process.poll() is None:
        try:
            server.post("/mortal", 70)
        except (ConnectionError, http.client.HTTPException):
            pass
        except urllib.error.URLError:
            break
    code, err = server.end()
    assert code == 71 and "again and again: giving up" in err


def test_a_supervised_server_that_cannot_start_is_not_tried_again() -> None:
    code, _, err = run("serve", "missing_model:graph", "--supervise", "--http-port", "0")
    assert code == 1 and err.count("error:") == 1
    code, _, err = run("serve", "good:graph", "--supervise", "--reload")
    assert code == 78 and "give one" in err


def test_a_server_does_not_outlive_its_supervisor() -> None:
    server = Server("good:graph", "--supervise")
    server.process.kill()
    server.end()
    # The last holder of the listening socket is gone when nobody can connect any more.
    with pytest.raises(urllib.error.URLError):
        while True:
            server.get("/healthz")


# -- looking at processes from outside ------------------------------------------------------------------


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("http://").partition(":")
    return host, int(port)


def _listening(pid: int) -> list[str]:
    """The sockets of a process that listen, by TCP of either version."""
    own = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        if found := re.fullmatch(r"socket:\[(\d+)\]", str(path.readlink())):
            own.add(found[1])
    rows = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
    ]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in own]


def _until(found: object) -> None:
    """Nothing announces these states to an outsider: look again, without hurry, for a bounded time."""
    assert callable(found)
    pause = threading.Event()
    for _ in range(2000):
        if found():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come about in 20 s")


def _wait_until_in_flight(server: Server, count: int) -> None:
    _until(lambda: f"asyncline_in_flight {count}.0" in server.get("/metrics")[1])


def _wait_until_refused(server: Server) -> None:
    def refused() -> bool:
        try:
            socket.create_connection(_host_port(server.address), timeout=5).close()
        except OSError:
            return True
        return False

    _until(refused)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(re.sub(r".*\) \S ", "", path.read_text()).split()[0])
        except (OSError, ValueError):
            continue
        if parent == pid:
            child = int(path.parent.name)
            found += [child, *_descendants(child)]
    return found


def _wait_gone(pid: int) -> None:
    def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    _until(gone)
