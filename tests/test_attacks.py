"""A served graph and clients that mean harm or are badly off, on all wires; others are served meanwhile."""

from __future__ import annotations

import re
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.serving import Server

WIRES = ("http", "grpc", "tcp")
MB = 10**6
PREFIX = struct.Struct("<BBHII")
TCP_HELLO = PREFIX.pack(1, 0, 1, 1, 0) + b"\x80"
H2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
TLS_HELLO = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(190)
H2_CALL = (
    bytes.fromhex("000050010400000001")  # HEADERS
    + b"\x83\x86D*/inference.GRPCInferenceService/ModelInferA\x01t_\x10application/grpc@\x02te\x08trailers"
    + bytes.fromhex("000005000000000001")  # DATA: of a message of 100,000 bytes the length
    + bytes.fromhex("00000186a0")
)
H2_RESET = bytes.fromhex("000004030000000001") + bytes(4)
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


class AllWires(Server):
    """A server of `echo` by every wire; `ports` by the wire's name."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("good:graph", "--grpc-port", "0", "--tcp-port", "0", *arguments)
        self.ports = {"http": int(self.address.rpartition(":")[2])}
        for _ in range(2):
            found = self.wait_for(r"and on (tcp|grpc)://[\d.]+:(\d+)")
            self.ports[found[1]] = int(found[2])

    def connect(self, wire: str, receive_nbytes: int | None = None) -> socket.socket:
        client = socket.socket()
        client.settimeout(20)
        if receive_nbytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_nbytes)
        client.connect(("127.0.0.1", self.ports[wire]))
        return client

    @property
    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1e3

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def limit_descriptors(self, count: int) -> None:
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (count, hard))


@pytest.fixture(scope="module")
def server() -> Iterator[AllWires]:
    """One that is impatient."""
    limits = {"header_timeout_s": 0.3, "body_timeout_s": 0.3, "keepalive_s": 0.6, "stall_timeout_s": 0.3}
    server = AllWires(*(f"--set=service.{name}={value}" for name, value in limits.items()))
    yield server
    server.process.terminate()
    assert server.end()[0] == 0


def rest(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    got = b""
    with suppress(ConnectionError):
        while data := client.recv(2**16):
            got += data
    return got


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x00",
        TLS_HELLO,
        H2_HELLO,
        H2_HELLO + bytes.fromhex("ffffff000000000001"),  # a frame of 16 MB
        b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
        POST + b"Content-Length: 4294967296\r\n\r\n",
        POST + b"Content-Length: 1000\r\n\r\n12",
        TCP_HELLO + PREFIX.pack(2, 0, 1, 1, 2**32 - 1) + b"\x90",
        TCP_HELLO + PREFIX.pack(2, 0, 1, 1, 1000) + b"\x90",
        b"\xff" * 1000,
    ],
    ids=["nothing", "zero", "tls", "h2", "h2-frame", "head", "4GiB", "half", "tcp-4GiB", "tcp-half", "ff"],
)
def test_half_a_message_and_another_protocols_hello_end_within_the_limit(
    server: AllWires, wire: str, said: bytes
) -> None:
    """That of a handshake, a body or an idle connection, and of what a client may take to close its end."""
    with server.connect(wire) as hostile:
        hostile.sendall(said)
        assert server.post("/echo", 1) == (200, 1)
        rest(hostile)


@pytest.mark.parametrize("wire", WIRES)
def test_a_byte_at_a_time_is_ended(server: AllWires, wire: str) -> None:
    begins = {
        "http": POST + b"Content-Length: 10000\r\n\r\n",
        "grpc": H2_HELLO + bytes.fromhex("003fff000000000001"),
        "tcp": TCP_HELLO + PREFIX.pack(2, 0, 1, 1, 10_000) + b"\x90",
    }
    with server.connect(wire) as hostile:
        hostile.sendall(begins[wire])
        hostile.settimeout(0.05)
        for _ in range(400):
            try:
                hostile.sendall(b"0")
                if not hostile.recv(2**16):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            raise AssertionError("it was never ended")


def test_answers_that_nobody_reads_are_bounded_in_memory_and_others_are_served(server: AllWires) -> None:
    body = b'"' + b"x" * MB + b'"'
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    before = server.memory_mb
    with ExitStack() as stack:
        for _ in range(10):
            hostile = stack.enter_context(server.connect("http", 4096))
            hostile.settimeout(0.05)
            with suppress(TimeoutError, ConnectionError):
                for _ in range(20):  # 200 MB of answers, if they were all made
                    hostile.sendall(request)
        assert server.post("/echo", 1) == (200, 1)
        assert server.memory_mb - before < 64
        for _ in range(1000):
            metrics = server.get("/metrics")[1]
            if 'asyncline_connections_closed_total{reason="stalled",wire="rest"} 10.0' in metrics:
                break
        else:
            raise AssertionError("they were never ended")


@pytest.mark.parametrize("wire", WIRES)
def test_a_storm_of_clients_that_leave_and_come_again_leaves_nothing(server: AllWires, wire: str) -> None:
    call = PREFIX.pack(2, 0, 8, 1, 0) + b"\x93\xa4echo\x80\x01" + PREFIX.pack(5, 0, 0, 1, 0)
    sent = {
        "http": (POST + b"Content-Length: 1\r\n\r\n1") * 5 + POST + b"Content-Length: 100000\r\n\r\n1",
        "tcp": TCP_HELLO + call * 5 + PREFIX.pack(2, 0, 1, 2, 100_000) + b"\x90",
        "grpc": H2_HELLO + H2_CALL + H2_RESET,
    }
    before = server.descriptors
    for number in range(300):
        with server.connect(wire) as hostile:
            hostile.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a RST
            hostile.sendall(sent[wire][: len(sent[wire]) - number % 20])
        if number % 50 == 0:
            assert server.post("/echo", number) == (200, number)
    assert server.post("/echo", 1) == (200, 1)
    for _ in range(200):
        metrics = server.get("/metrics")[1]
        nothing = "\nasyncline_in_flight 0.0" in metrics and "\nasyncline_in_flight_bytes 0.0" in metrics
        if nothing and server.descriptors <= before + 1:
            break
    else:
        left = re.findall(r"\nasyncline_in_flight\S* \S+", metrics)
        raise AssertionError(f"{server.descriptors} descriptors, of {before} before;{''.join(left)}")


def test_without_descriptors_who_is_connected_is_served_and_others_once_there_are_some() -> None:
    server = AllWires()
    try:
        with server.connect("http") as inside, ExitStack() as stack:
            inside.sendall(POST + b"Content-Length: 1\r\n\r\n1")
            assert b"200 OK" in inside.recv(2**16)
            server.limit_descriptors(server.descriptors + 4)
            waiting = [stack.enter_context(server.connect(wire)) for wire in WIRES for _ in range(10)]
            server.wait_for("no connection is accepted")
            for _ in range(20):
                inside.sendall(POST + b"Content-Length: 1\r\n\r\n1")
                assert b"200 OK" in inside.recv(2**16)
            for client in waiting:
                client.close()
            assert server.post("/echo", 2) == (200, 2)
    finally:
        server.process.terminate()
        assert server.end()[0] == 0


def test_descriptors_are_kept_back_for_what_is_no_connection() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))  # the server inherits it
    try:
        server = AllWires("--set", "service.max_connections=1000")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        with ExitStack() as stack:
            for number in range(150):
                stack.enter_context(server.connect(WIRES[number % 3]))
            server.wait_for("no connection is accepted")
            assert server.descriptors <= 120 - 120 // 4 + len(WIRES)
        assert server.post("/echo", 2) == (200, 2)
    finally:
        server.process.terminate()
        assert server.end()[0] == 0
