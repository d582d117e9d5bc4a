"""Whether a request comes from this machine, and is meant: what guards `/admin` where there is no token."""

from __future__ import annotations

import ipaddress
import re

from aiohttp import web

from asyncline.errors import Unauthenticated

_HOST = re.compile(r"(?:\[(?P<v6>[^]]+)\]|(?P<name>[^:]+))(?::\d+)?")


def check_local(request: web.BaseRequest) -> None:
    """:raises Unauthenticated: another machine asks, or a page of another site in a browser on this one."""
    if not is_loopback(request.remote):
        raise Unauthenticated("without --auth-token, /admin answers to the server's own machine only")
    host = request.headers.get("Host", "")
    found = _HOST.fullmatch(host)
    name = (found["v6"] or found["name"]) if found is not None else ""
    if name != "localhost" and _address(name) is None:
        # Whoever owns a name may have it lead here, and then the pages under it are of the same origin as ours.
        raise Unauthenticated("without --auth-token, /admin answers under localhost or an address, not under a name")
    if request.method == "POST" and _is_of_another_origin(request, host):
        raise Unauthenticated("without --auth-token, /admin takes nothing from pages of other origins")


def is_loopback(remote: str | None) -> bool:
    """:param remote: a client's address."""
    address = _address((remote or "").partition("%")[0])
    return address is not None and address.is_loopback


def _is_of_another_origin(request: web.BaseRequest, host: str) -> bool:
    """What browsers say of themselves; other clients say nothing."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return True
    return request.headers.get("Origin", f"http://{host}") not in (f"http://{host}", f"https://{host}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
