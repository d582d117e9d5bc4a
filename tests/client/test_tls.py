"""Endpoints behind TLS: https and grpcs."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import numpy as np
import pytest

from asyncline import Engine, Graph, LoadError, Request
from asyncline.client import AsyncClient, Refused, Remote
from tests.client.served import served
from tests.client.servers import ModelServer, grpc_server, http

WIRES = {"https": http, "grpcs": grpc_server}
X = np.array([1, 2, 3], np.float32)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that signed itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return cert, key


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.mark.parametrize("scheme", WIRES)
async def test_a_server_whose_certificate_the_system_trusts_is_asked(
    scheme: str, tls: ssl.SSLContext, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with WIRES[scheme](ModelServer(), tls) as served:
        assert served.url.startswith(f"{scheme}://")
        async with Engine(Graph("g", Remote(served.url, "scores", Request(), outputs="sum"))) as engine:
            assert await engine.submit(X) == 6


@pytest.mark.parametrize("scheme", WIRES)
async def test_a_server_whose_certificate_nobody_signed_is_not_there(scheme: str, tls: ssl.SSLContext) -> None:
    async with WIRES[scheme](ModelServer(), tls) as served:
        with pytest.raises(LoadError, match="cannot be reached"):
            await Engine(Graph("g", Remote(served.url, "scores", Request()))).start()
    assert not served.requests


@pytest.mark.parametrize("wire", ["http", "grpc", "tcp"])
async def test_a_client_of_ours_asks_by_tls_those_it_trusts(wire: str, certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    async with served(tls_cert=cert, tls_key=key) as server:
        assert server.addresses[wire].startswith(f"{wire}s://")
        context = ssl.create_default_context(cafile=cert)
        for trusting in ({"verify": cert}, {"verify": False}, {"tls": context}):
            async with server.client(wire, **trusting) as client:
                assert await client("told", 1) == 1 and await client.ready()
        async with server.client(wire) as client:
            with pytest.raises(Refused) as caught:
                await client("told", 1)
        assert "CERTIFICATE_VERIFY_FAILED" in f"{caught.value} {caught.value.__cause__}"


async def test_a_file_of_certificates_that_is_not_there_is_told() -> None:
    async with AsyncClient("https://127.0.0.1:1", verify="/nowhere.pem") as client:
        with pytest.raises(FileNotFoundError):
            await client("told", 1)
