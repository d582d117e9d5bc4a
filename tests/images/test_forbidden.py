"""No connection goes where none may go, however it is spelled; and every refusal reads the same."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from asyncline import FetchFailed, UrlForbidden
from asyncline.images import UrlPolicy
from asyncline.images.download import dial
from asyncline.images.names import MOST_KEPT, Names, Resolver
from tests.images.downloads import FORBIDDEN, downloads, names
from tests.images.origins import PNG, Client, Origin, answer, answers, origin, redirects

SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "127.0.0.1.", "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7F.1", "0177.0.0.1",
    "017700000001", "0177.0.0.01", "127.0.0.001", "00000127.0.0.1", "127.2", "0", "0.0.0.0", "0x0", "000",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]", "[::127.0.0.1]", "[::7f00:1]",
    "[64:ff9b::7f00:1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]",
    "[2001:0:808:808::80ff:fffe]", "[fe80::5efe:7f00:1]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::1%25lo]",
    "[::1%lo]", "[fe80::1%25eth0]", "[fec0::1]", "[ff02::1]", "[fd00:ec2::254]", "169.254.169.254", "192.168.0.1",
    "10.0.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16", "255.255.255.255", "224.0.0.1", "240.0.0.1",
    "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1", "127．0．0．1", "%31%32%37.0.0.1", "127%2e0%2e0%2e1", "127.0.0.1%00",
    "localhost", "LOCALHOST", "localhost.", "ⓛocalhost", "loopback.test", "mixed.test", "mapped.test", "six.test",
    "zone.test", "127.0.0.1.nip.test", "7f000001.nip.test", "metadata.test", "unknown.test", "",
    "user@127.0.0.1", "user:word@127.0.0.1", "@127.0.0.1", "public.test@127.0.0.1", "public.test:80@127.0.0.1",
    "127.0.0.1\\@public.test", "public.test\\@127.0.0.1", "127.0.0.1\t", " 127.0.0.1", "127.0.0.1\n", "127.0.0.1\0",
    "[127.0.0.1]", "[v1.7f]", "127.0.0.1,public.test", "*", "a..b", "-",
]  # fmt: skip
"""Hosts that are, or some program takes for, one that nothing may connect to; and what is no host."""

NIP = names(
    localhost="127.0.0.1", loopback_test="127.0.0.1", mixed_test=["8.8.8.8", "127.0.0.1"], six_test="::1",
    mapped_test="::ffff:127.0.0.1", zone_test="fe80::1%lo", metadata_test="169.254.169.254",
    **{"127_0_0_1_nip_test": "127.0.0.1", "7f000001_nip_test": "127.0.0.1"},
)  # fmt: skip


@asynccontextmanager
async def tripwires() -> AsyncIterator[list[Origin]]:
    """Listen on one port wherever a guard that fails would lead to; the first is at 127.0.0.1."""
    async with AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(origin(answers(answer()), "127.0.0.1"))]
        port = int(wires[0].address.rpartition(":")[2])
        wires.append(await stack.enter_async_context(origin(answers(answer()), "127.0.0.2", port)))
        if socket.has_ipv6:
            try:
                wires.append(await stack.enter_async_context(origin(answers(answer()), "::1", port)))
            except OSError:  # this machine has none
                pass
        yield wires


async def test_the_tripwires_work() -> None:
    async with tripwires() as wires, downloads(lookup=NIP) as downloader:
        port = wires[0].address.rpartition(":")[2]
        assert await downloader.get(f"http://loopback.test:{port}/") == PNG
        assert await downloader.get(f"http://[::ffff:127.0.0.1]:{port}/") == PNG
        assert wires[0].connections == 2


async def test_no_spelling_of_a_forbidden_host_gets_a_connection_or_another_answer() -> None:
    async with tripwires() as wires:
        port = int(wires[0].address.rpartition(":")[2])
        # The port is open to public hosts: only the address is in the way.
        async with downloads(UrlPolicy(ports=(port, 80)), NIP) as downloader:
            for host in SPELLINGS:
                for url in (f"http://{host}:{port}/a.png", f"https://{host}:{port}", f"HTTP://{host}/"):
                    with pytest.raises(UrlForbidden) as raised:
                        await downloader.get(url)
                    assert str(raised.value) == FORBIDDEN, url
        assert [wire.connections for wire in wires] == [0] * len(wires)


async def test_no_redirect_leads_to_a_forbidden_host() -> None:
    async with tripwires() as wires:
        port = int(wires[0].address.rpartition(":")[2])
        hosts = [host for host in SPELLINGS if not set(host) & set("\n\0")]
        locations = [f"http://{host}:{port}/".encode().decode("latin-1") for host in hosts]
        locations += [f"//127.0.0.1:{port}/", f"///127.0.0.1:{port}/", f"http:\\\\127.0.0.1:{port}/"]
        locations += ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:70/", "data:image/png;base64,AA"]
        locations += ["http:", "http://", "x" * 3000, "http://SELF:99999/", "http://u@SELF/"]

        async def handler(made: Origin, client: Client, path: str) -> None:
            location = locations[int(path[1:])].replace("SELF", made.address).encode("latin-1")
            client.write(b"HTTP/1.1 302 x\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")

        policy = UrlPolicy(allow_cidrs=["127.0.0.3/32"], ports=(port,))
        async with origin(handler, "127.0.0.3") as made, downloads(policy, NIP) as downloader:
            for place in range(len(locations)):
                with pytest.raises((UrlForbidden, FetchFailed)) as raised:
                    await downloader.get(made.url(f"/{place}"))
                # A Location that is no URL at all is a path of the same origin, which redirects no further.
                if isinstance(raised.value, UrlForbidden):
                    assert str(raised.value) == FORBIDDEN
                else:
                    assert "://" not in locations[place] or "malformed" in str(raised.value), locations[place]
        assert [wire.connections for wire in wires] == [0] * len(wires)


@pytest.mark.parametrize(
    "url",
    [
        "", "/", "image.png", "http:", "http://", "http:/8.8.8.8/", "http:8.8.8.8", "ftp://8.8.8.8/", "file:///etc/hosts",
        "//8.8.8.8/", "http://8.8.8.8:22/", "http://8.8.8.8:0/", "http://8.8.8.8:99999/", "http://8.8.8.8:x/",
        "http://8.8.8.8/ x", "http://8.8.8.8/\r\nHost: x", "http://8.8.8.8/" + "x" * 2048, "http://u:p@8.8.8.8/",
        "data:image/png;base64,AAAA", "http://" + "a" * 300 + ".test/", "http://[::1", "http://é" + "é" * 300,
    ],
)  # fmt: skip
async def test_what_is_no_url_to_download_is_refused_in_the_same_words(url: str) -> None:
    async with downloads(UrlPolicy()) as downloader:
        with pytest.raises(UrlForbidden) as raised:
            await downloader.get(url)
        assert str(raised.value) == FORBIDDEN


async def test_a_name_that_changes_its_answer_between_check_and_connection_is_refused() -> None:
    async with tripwires() as wires:
        port = wires[0].address.rpartition(":")[2]
        answers_in_turn = iter([["127.0.0.2"], ["127.0.0.1"]])

        async def lookup(host: str) -> Iterable[str]:
            return next(answers_in_turn)

        async with downloads(UrlPolicy(allow_cidrs=["127.0.0.2/32"]), lookup) as downloader:
            downloader._names._kept_s = 0
            with pytest.raises(UrlForbidden) as raised:
                await downloader.get(f"http://changing.test:{port}/")
        assert str(raised.value) == FORBIDDEN
        assert [wire.connections for wire in wires] == [0] * len(wires)


async def test_answers_are_kept_between_check_and_connection() -> None:
    async with origin(answers(answer()), "127.0.0.2") as made:
        answers_in_turn = iter([["127.0.0.2"], ["127.0.0.1"]])

        async def lookup(host: str) -> Iterable[str]:
            return next(answers_in_turn)

        async with downloads(UrlPolicy(allow_cidrs=["127.0.0.2/32"]), lookup) as downloader:
            url = made.url().replace("127.0.0.2", "changing.test")
            assert await downloader.get(url) == PNG
            assert await downloader.get(url) == PNG


async def test_the_socket_itself_refuses_what_everything_before_let_pass() -> None:
    class Lying(Resolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> Any:
            known = {"host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            return [{"hostname": host, **known}, {"hostname": host, **known, "host": "::1", "family": socket.AF_INET6}]

    async with tripwires() as wires:
        port = int(wires[0].address.rpartition(":")[2])
        async with downloads(UrlPolicy(ports=(port,)), names(lying_test="8.8.8.8")) as downloader:
            refusal = downloader.policy.refusal
            connector = aiohttp.TCPConnector(
                resolver=Lying(downloader._names, refusal), socket_factory=partial(dial, refusal)
            )
            async with aiohttp.ClientSession(connector=connector) as session:
                for host in ("lying.test", "127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"):
                    with pytest.raises(aiohttp.ClientConnectorError) as raised:
                        await session.get(f"http://{host}:{port}/")
                    assert isinstance(raised.value.os_error, PermissionError)
        assert [wire.connections for wire in wires] == [0] * len(wires)


@pytest.mark.parametrize("info", [("127.0.0.1", 80), ("8.8.8.8", 81), ("::1", 80, 0, 0), ("2606:4700::1", 80, 0, 3)])
def test_no_socket_is_made_for_a_refused_address(info: Any) -> None:
    family = socket.AF_INET if len(info) == 2 else socket.AF_INET6
    with pytest.raises(PermissionError):
        dial(UrlPolicy().refusal, (family, socket.SOCK_STREAM, 0, "", info))
    dial(UrlPolicy().refusal, (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 80))).close()


async def test_a_slow_name_server_looks_like_a_refusal() -> None:
    async def lookup(host: str) -> Iterable[str]:
        await asyncio.get_running_loop().create_future()
        return []

    async with downloads(lookup=lookup, total_s=0.1) as downloader:
        with pytest.raises(UrlForbidden) as raised:
            await downloader.get("http://slow.test/")
        assert str(raised.value) == FORBIDDEN


@pytest.mark.parametrize("found", [[], ["no address"], ["8.8.8.8", ""]])
async def test_odd_answers_of_a_name_server_look_like_a_refusal(found: list[str]) -> None:
    async def lookup(host: str) -> Iterable[str]:
        return found

    async with downloads(lookup=lookup) as downloader:
        with pytest.raises(UrlForbidden) as raised:
            await downloader.get("http://odd.test/")
        assert str(raised.value) == FORBIDDEN


async def test_the_systems_own_names_are_found_and_judged() -> None:
    async with tripwires() as wires:
        port = wires[0].address.rpartition(":")[2]
        async with downloads(UrlPolicy(ports=(int(port),)), None, total_s=5) as downloader:
            with pytest.raises(UrlForbidden):
                await downloader.get(f"http://localhost:{port}/")
        assert wires[0].connections == 0
        async with downloads(UrlPolicy(allow_cidrs=["127.0.0.0/8", "::1/128"]), None, total_s=5) as downloader:
            assert await downloader.get(f"http://localhost:{port}/") == PNG


async def test_an_allowed_host_may_be_anywhere_and_leads_nowhere_else() -> None:
    async with tripwires() as wires:
        port = wires[0].address.rpartition(":")[2]
        handler = redirects(f"http://127.0.0.1:{port}/", f"http://other.test:{port}/")
        lookup = names(images_internal="127.0.0.3", other_test="127.0.0.1")
        policy = UrlPolicy(allow_hosts=["Images.internal"], ports=(int(port),))
        async with origin(handler, "127.0.0.3") as made, downloads(policy, lookup) as downloader:
            base = made.url("").replace("127.0.0.3", "IMAGES.internal")
            assert await downloader.get(f"{base}/a.png") == PNG
            for path in ("/0", "/1"):
                with pytest.raises(UrlForbidden):
                    await downloader.get(base + path)
            with pytest.raises(UrlForbidden):
                await downloader.get(made.url())  # by its address it is not allowed
        assert [wire.connections for wire in wires] == [0] * len(wires)


async def test_a_proxy_is_asked_for_everything_but_never_for_a_forbidden_address() -> None:
    async with tripwires() as wires, origin(answers(answer())) as proxy:
        async with downloads(UrlPolicy(proxy=proxy.url(""))) as downloader:
            assert await downloader.get("http://unknown.test/a.png") == PNG
            for url in ("http://127.0.0.1/", "http://[::ffff:10.0.0.1]/", "http://unknown.test:22/"):
                with pytest.raises(UrlForbidden):
                    await downloader.get(url)
        assert proxy.requests == ["http://unknown.test/a.png"]
        assert [wire.connections for wire in wires] == [0] * len(wires)


async def test_https_only_holds_for_allowed_hosts_too() -> None:
    policy = UrlPolicy(allow_cidrs=["127.0.0.0/8"], https_only=True)
    async with origin(answers(answer())) as made, downloads(policy) as downloader:
        with pytest.raises(UrlForbidden):
            await downloader.get(made.url())
        assert not made.connections


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """For images.test; and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {cert} -days 2 -subj /CN=images.test"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:images.test"], check=True, capture_output=True, timeout=30
    )
    return cert, key


async def test_https_wants_a_certificate_for_that_name(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    lookup = names(images_test="127.0.0.1", other_test="127.0.0.1")
    policy = UrlPolicy(allow_cidrs=["127.0.0.0/8"], https_only=True)
    async with origin(answers(answer()), tls=tls) as made:
        url = made.url().replace("http://127.0.0.1", "https://images.test")
        async with downloads(policy, lookup) as downloader:
            with pytest.raises(FetchFailed, match="cannot be reached"):
                await downloader.get(url)
        known = ssl.create_default_context(cafile=str(certificate[0]))
        monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", known)
        async with downloads(policy, lookup) as downloader:
            assert await downloader.get(url) == PNG
            with pytest.raises(FetchFailed, match="cannot be reached"):
                await downloader.get(url.replace("images", "other"))
        assert len(made.requests) == 1


async def test_names_are_kept_within_a_bound() -> None:
    asked: list[str] = []

    async def lookup(host: str) -> Iterable[str]:
        asked.append(host)
        return ["8.8.8.8"]

    kept = Names(lookup)
    for i in range(MOST_KEPT + 1):
        await kept.addresses(f"{i}.test")
    await kept.addresses("1.test")
    await kept.addresses("0.test")
    assert asked.count("1.test") == 1 and asked.count("0.test") == 2
