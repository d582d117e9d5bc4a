"""Only public addresses pass, whatever they hide behind."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncline.images import UrlPolicy
from asyncline.images.address import Address, classify

REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "168.63.129.16",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.9", "192.0.0.192", "192.0.2.1",
    "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::a9fe:a9fe", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:100.64.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1", "64:ff9b::168.63.129.16", "64:ff9b:1::1",
    "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:0a00:0001::", "2001:db8::1",
    "3fff::1", "3fff:fff::1",
    "2001:0:808:808::f5ff:fffe", "2001:0:7f00:1::f7f7:f7f7", "2606:4700::5efe:7f00:1", "2606:4700::200:5efe:a00:1",
    "2002:808:808::5efe:7f00:1", "fe80::1", "fe80::5efe:808:808", "fec0::1", "feff::1", "fc00::1", "fd00:ec2::254",
    "fd12:3456::1", "ff02::1", "ff0e::1", "100::1", "4000::1", "8000::", "e000::1", "1000::1",
    "2606:4700::1%eth0", "fe80::1%1",
]  # fmt: skip
"""What no server of ours has to ask."""

ALLOWED = [
    "8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "168.63.129.17", "172.32.0.1", "192.0.1.1", "192.88.98.1",
    "3fff:1000::1",
    "2606:4700:4700::1111", "2a00:1450:4001:80b::200e", "::ffff:8.8.8.8", "::8.8.8.8", "64:ff9b::8.8.8.8",
    "64:ff9b::808:808", "2002:808:808::1", "2001:0:808:808::f7f7:f7f7", "2606:4700::5efe:808:808",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    assert classify(ip_address(text))


@pytest.mark.parametrize("text", ALLOWED)
def test_a_public_address_passes(text: str) -> None:
    assert classify(ip_address(text)) is None


def unwrapped(ip: Address) -> Address:
    """The address that packets to `ip` end at, written again from the RFCs."""
    if isinstance(ip, IPv4Address):
        return ip
    bits = int(ip)
    if bits >> 32 in (0xFFFF, 0x64FF9B << 64) or (bits >> 32 == 0 and bits > 1):
        return IPv4Address(bits & 0xFFFFFFFF)
    if bits >> 112 == 0x2002:
        return IPv4Address(bits >> 80 & 0xFFFFFFFF)
    if bits >> 96 == 0x20010000:
        return IPv4Address(~bits & 0xFFFFFFFF)
    return ip


def is_global_unicast(ip: Address) -> bool:
    """By IANA's registries, without Python's."""
    if isinstance(ip, IPv6Address):
        special = ("2001::/32", "2001:2::/48", "2001:10::/28", "2001:db8::/32", "2002::/16", "3fff::/20")
        return ip in IPv6Network("2000::/3") and not any(ip in IPv6Network(network) for network in special)
    first, second, third, _ = ip.packed
    return not (
        first in (0, 10, 127)
        or first >= 224
        or (first == 100 and 64 <= second < 128)
        or (first == 169 and second == 254)
        or (first == 172 and 16 <= second < 32)
        or (first == 192 and second == 168)
        or (first == 198 and second in (18, 19))
        or (first, second, third) in ((192, 0, 0), (192, 0, 2), (192, 88, 99), (198, 51, 100), (203, 0, 113))
    )


prefixes = st.sampled_from(
    [
        "::",
        "::ffff:0:0",
        "64:ff9b::",
        "64:ff9b:1::",
        "2002::",
        "2001::",
        "2606:4700::5efe:0:0",
        "fe80::",
        "fec0::",
        "ff00::",
    ]
).map(lambda text: int(IPv6Address(text)))
edges = st.sampled_from([int(IPv4Address(text)) for text in REFUSED if "." in text and ":" not in text])
inner = edges | st.integers(0, 2**32 - 1)
wrapped = st.builds(
    lambda prefix, ip, shift, rest: IPv6Address((prefix | ip << shift | rest) & (2**128 - 1)),
    prefixes, inner, st.sampled_from([0, 64, 80]), st.integers(0, 3),
)  # fmt: skip
addresses = inner.map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address) | wrapped


@given(addresses)
@example(IPv6Address("64:ff9b::a9fe:a9fe"))
def test_every_address_that_passes_is_global_unicast_after_unwrapping(ip: Address) -> None:
    if classify(ip) is None:
        assert is_global_unicast(unwrapped(ip))


@given(inner.map(IPv4Address))
def test_a_wrapped_address_fares_like_the_one_inside(ip: IPv4Address) -> None:
    verdict = classify(ip) is None
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        assert (classify(IPv6Address(int(IPv6Address(prefix)) | int(ip))) is None) is verdict
    assert (classify(IPv6Address(0x2002 << 112 | int(ip) << 80)) is None) is verdict


def test_by_default_public_hosts_answer_on_two_ports() -> None:
    policy = UrlPolicy()
    assert policy.refusal(ip_address("8.8.8.8"), 443) is None
    assert policy.refusal(ip_address("8.8.8.8"), 8080) == "port 8080"
    assert policy.refusal(ip_address("10.0.0.1"), 80) == "not public"


def test_an_allowed_network_may_use_any_port_and_no_other_network_gains() -> None:
    policy = UrlPolicy(allow_cidrs=["10.1.0.0/16", "fd00:1::/32"])
    assert policy.refusal(ip_address("10.1.2.3"), 9000) is None
    assert policy.refusal(ip_address("::ffff:10.1.2.3"), 9000) is None
    assert policy.refusal(ip_address("fd00:1::5"), 80) is None
    assert policy.refusal(ip_address("10.2.0.1"), 80)
    assert policy.refusal(ip_address("8.8.8.8"), 9000)


def test_names_are_allowed_whole_and_without_regard_to_case() -> None:
    policy = UrlPolicy(allow_hosts=["Images.Internal"])
    assert policy.trusts("images.internal") and policy.trusts("images.internal.")
    assert not policy.trusts("evil.images.internal") and not policy.trusts("internal")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"allow_hosts": "images.internal"}, "write a list"),
        ({"allow_cidrs": "10.0.0.0/8"}, "write a list"),
        ({"allow_cidrs": ["10.0.0.1/8"]}, "allow_cidrs: 10.0.0.1/8 has host bits set"),
        ({"allow_hosts": ["http://images.internal"]}, "without scheme, port or"),
        ({"allow_hosts": ["*.internal"]}, "without scheme, port or"),
        ({"proxy": "egress:3128"}, "expected http://host:port"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UrlPolicy(**settings)  # type: ignore[arg-type]
