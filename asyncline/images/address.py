"""Which addresses may be downloaded from: pure policy, without a socket.

A server that downloads for strangers can be sent against its own network (SSRF). So only public addresses
are allowed, whatever they hide behind: an address that carries another one in it is judged by that one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What `is_global` of some or all versions of Python lets pass.
_REFUSED: tuple[tuple[Network, str], ...] = (
    (IPv4Network("100.64.0.0/10"), "the provider's own network"),
    (IPv4Network("168.63.129.16/32"), "Azure's host"),
    (IPv4Network("192.0.0.0/24"), "IETF protocol assignments, among them Oracle's metadata"),
    (IPv4Network("192.88.99.0/24"), "the nearest relay of 6to4, which may be one's own"),
    (IPv6Network("64:ff9b:1::/48"), "NAT64 of a private network"),
    (IPv6Network("fd00:ec2::254/128"), "Amazon's metadata"),
    (IPv6Network("3fff::/20"), "documentation"),
    (IPv6Network("fec0::/10"), "site-local"),
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All of IPv6 that IANA has given out; Python calls the reserved rest global."""

_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)
"""Upper half of an interface identifier of ISATAP (RFC 5214 §6.1)."""


def classify(ip: Address) -> str | None:
    """Why `ip` is refused; None if it is a public unicast address."""
    if isinstance(ip, IPv4Address):
        return _classify(ip)
    if ip.scope_id is not None:
        return "an address with a zone"
    inner = _inner(ip)
    # These carry an address, and the packets go on to it alone; an ISATAP address also is one itself.
    reason = None if inner else _classify(ip)
    if ip.packed[8:12] in (part.to_bytes(4, "big") for part in _ISATAP):
        inner = (*inner, IPv4Address(ip.packed[12:]))
    for address in inner:
        reason = reason or _classify(address)
    return reason


def _inner(ip: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that `ip` stands for."""
    if ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    if ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1):  # :: and ::1 are what they are
        return (IPv4Address(ip.packed[12:]),)
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    return ip.teredo or ()


def _classify(ip: Address) -> str | None:
    for network, reason in _REFUSED:
        if ip in network:
            return reason
    if ip.is_multicast:
        return "multicast"
    if not ip.is_global:
        return "not public"
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return "reserved"
    return None


@dataclass(frozen=True)
class UrlPolicy:
    """What may be downloaded; by default from public addresses only.

    `UrlPolicy(allow_hosts=["images.internal"])` trusts whatever that name resolves to, and
    `UrlPolicy(allow_cidrs=["10.1.0.0/16"])` whatever has such an address; both on any port.
    With `proxy="http://egress:3128"` everything goes by that proxy, and where names lead is its to judge.
    """

    allow_hosts: Collection[str] = ()
    allow_cidrs: Collection[str] = ()
    ports: Collection[int] = (80, 443)
    """Of public hosts."""
    https_only: bool = False
    proxy: str | None = None
    _hosts: frozenset[str] = field(init=False, repr=False, compare=False)
    _networks: tuple[Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("allow_hosts", "allow_cidrs"):
            if isinstance(getattr(self, name), str):
                raise ValueError(f"{name}={getattr(self, name)!r}: write a list")
        for host in self.allow_hosts:
            if not host or set(host) & set("/:@* "):
                raise ValueError(f"allow_hosts: {host!r} is no name of a host: write it without scheme, port or *")
        if self.proxy is not None and not self.proxy.startswith(("http://", "https://")):
            raise ValueError(f"proxy={self.proxy!r}: expected http://host:port")
        try:
            networks = tuple(map(ip_network, self.allow_cidrs))
        except ValueError as error:
            raise ValueError(f"allow_cidrs: {error}") from None
        object.__setattr__(self, "_hosts", frozenset(host.rstrip(".").lower() for host in self.allow_hosts))
        object.__setattr__(self, "_networks", networks)

    def trusts(self, host: str) -> bool:
        """Whether `host`, a name in lower case or an address, is allowed by name."""
        return host.rstrip(".") in self._hosts

    def refusal(self, ip: Address, port: int) -> str | None:
        """Why a connection to `ip` is refused; None if it is allowed."""
        plain = ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip
        if any(plain in network for network in self._networks):
            return None
        if port not in self.ports:
            return f"port {port}"
        return classify(ip)

    def may_use(self, port: int) -> bool:
        """Whether some address might be allowed on `port`."""
        return port in self.ports or bool(self._networks)


PUBLIC = UrlPolicy()
