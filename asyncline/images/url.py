"""A URL as a client wrote it, taken apart once and judged before anything is done with it."""

from __future__ import annotations

import logging
import re
from ipaddress import ip_address

from yarl import URL

from asyncline.errors import UrlForbidden
from asyncline.images.address import Address, UrlPolicy

MOST_CHARACTERS = 2048

log = logging.getLogger("asyncline.images")

# Parsers differ in what they make of these, and some drop them.
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
_AUTHORITY = re.compile(r"[a-z]+://([^/?#]*)", re.IGNORECASE)
_NAME = re.compile(r"(?=.{1,253}\.?$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?$")


def forbidden(reason: str) -> UrlForbidden:
    """The one answer to every refusal; the reason is for the log alone, as it would tell of our network."""
    log.debug("a URL is refused: %s", reason)
    return UrlForbidden()


def parse(text: str, policy: UrlPolicy) -> URL:
    """Take a URL apart and check all that can be checked without asking anybody.

    :raises UrlForbidden: `policy` refuses it, or it is none.
    """
    if len(text) > MOST_CHARACTERS:
        raise forbidden("too long")
    authority = _AUTHORITY.match(text)
    if authority is None or _ODD.search(text):
        raise forbidden("malformed")
    if "@" in authority[1]:
        raise forbidden("it has a user")
    try:
        return check(URL(text).with_fragment(None), policy)
    except ValueError:
        raise forbidden("malformed") from None


def follow(url: URL, location: str, policy: UrlPolicy) -> URL:
    """The URL that a redirect from `url` leads to.

    :raises UrlForbidden: likewise.
    """
    if location.startswith("//"):
        location = f"{url.scheme}:{location}"
    if _AUTHORITY.match(location):
        return parse(location, policy)
    if len(location) > MOST_CHARACTERS or _ODD.search(location):
        raise forbidden("malformed redirect")
    try:
        return check(url.join(URL(location)).with_fragment(None), policy)
    except ValueError:
        raise forbidden("malformed redirect") from None


def check(url: URL, policy: UrlPolicy) -> URL:
    """:raises UrlForbidden: scheme, host or port are not allowed."""
    if url.scheme != "https" and (url.scheme != "http" or policy.https_only):
        raise forbidden("scheme")
    if url.raw_user is not None or url.raw_password is not None:
        raise forbidden("it has a user")
    host, port = host_of(url), url.port
    if not port:
        raise forbidden("no port")
    if not policy.trusts(str(host)):
        reason = None if policy.may_use(port) else f"port {port}"
        if not isinstance(host, str):
            reason = policy.refusal(host, port)
        if reason is not None:
            raise forbidden(reason)
    return url


def host_of(url: URL) -> Address | str:
    """The host: an address, or a name in ASCII and lower case.

    :raises UrlForbidden: it has none, or one that programs read differently (`0x7f.1`, `2130706433`).
    """
    host = (url.raw_host or "").lower()
    try:
        return ip_address(host)
    except ValueError:
        pass
    if not _NAME.fullmatch(host) or _NUMBER.match(host.rstrip(".").rpartition(".")[2]):
        raise forbidden("no host")
    return host
