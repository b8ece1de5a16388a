"""Which addresses a message may go to. Without I/O.

A URL of a rule file may lead to loopback and to a private network: the receiver is often there. It never leads to the
metadata service of a machine in a cloud, which hands out the keys of the machine. `Reach.GLOBAL` is for URLs that come
from elsewhere: then only addresses of the internet are allowed.

Names are checked when a file is read, and the addresses that they stand for when a connection is made (see
`reaching`), because a name may stand for another address at each look.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

URL_MAX = 2048
"""Most characters of a URL."""
_SUCH_AS = "needs one such as https://hooks.example/alerts"
_METADATA_NAMES = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "metadata.azure.internal", "instance-data"}
)
_METADATA = tuple(
    map(
        ip_network,
        (
            "169.254.0.0/16",  # all of link-local: most clouds, and the credentials of containers
            "fe80::/10",
            "fd00:ec2::/32",  # Amazon
            "fd20:ce::/32",  # Google
            "fd00:c1::/32",  # Oracle
            "fd00:42::/32",  # Scaleway
            "fd00:a9fe:a9fe::/48",  # Akamai
            "100.100.100.200/32",  # Alibaba
            "192.0.0.192/32",  # Oracle
            "168.63.129.16/32",  # Azure
        ),
    )
)
_NAT64_OF_A_SITE = IPv6Network("64:ff9b:1::/48")
_IN_V6 = (
    # Networks of IPv6 that lead to the IPv4 address in their bits, which end that many bits before the last.
    (IPv6Network("::/96"), 0),  # compatible, and ::1 itself
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated (SIIT)
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (_NAT64_OF_A_SITE, 0),  # as most write it
    (IPv6Network("2002::/16"), 80),  # 6to4
)
_TEREDO = IPv6Network("2001::/32")


class Reach(enum.Enum):
    """How far away from the open internet an address may be."""

    ANY_BUT_METADATA = "any but metadata"
    GLOBAL = "global"


def url_problem(url: str) -> str | None:
    """Return why nothing could be sent to *url*, in words that repeat nothing of it; None: something could."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f"is not a URL; {_SUCH_AS}"
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url or "\\" in url:
        return f"is not a URL of http or https; {_SUCH_AS}"
    if len(url) > URL_MAX:
        return f"has {len(url)} characters; {URL_MAX} are the most"
    return host_problem(host)


def host_problem(host: str) -> str | None:
    """Return why nothing is sent to *host*, as far as its name or written address says so."""
    address = written_address(host)
    known = host.lower().rstrip(".") in _METADATA_NAMES if address is None else bool(address_problem(str(address)))
    return "is the address of a machine's metadata service, which is never told anything" if known else None


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine, as far as its name or written address says so."""
    address = written_address(host)
    return host.lower().rstrip(".") == "localhost" if address is None else address.is_loopback


def written_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that *host* is, in any spelling that a system's resolver reads, such as ``0x7f.1``; None: it
    is a name.
    """
    host = host.rstrip(".")
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host)) if host.isascii() and host[:1].isdigit() else None
    except OSError:
        return None


def address_problem(address: str, reach: Reach = Reach.ANY_BUT_METADATA) -> str | None:
    """Return why nothing is sent to the IP *address*, in words; None: something may be."""
    try:
        given = ip_address(address.partition("%")[0])
    except ValueError:
        return "has an address that is not known"
    every = (given, *_inside(given))
    if any(one in network for one in every for network in _METADATA if network.version == one.version):
        return "leads to a machine's metadata service, which is never told anything"
    if reach is Reach.GLOBAL and not all(map(_is_global, every)):
        return "leads to an address that is not of the internet"
    return None


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    site = address.version == 6 and address in _NAT64_OF_A_SITE  # Python 3.11 takes it for global
    return address.is_global and not (address.is_multicast or site)


def _inside(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address]:
    """Yield the addresses of IPv4 that an address of IPv6 leads to."""
    if isinstance(address, IPv4Address):
        return
    bits = int(address)
    for network, shift in _IN_V6:
        if address in network and bits > 1:
            yield IPv4Address(bits >> shift & 0xFFFFFFFF)
    if address in _NAT64_OF_A_SITE:  # a prefix of 48, 56 or 64 bits: RFC 6052 leaves out the bits 64 to 71
        joined = bits >> 64 << 56 | bits & (1 << 56) - 1
        yield from (IPv4Address(joined >> shift & 0xFFFFFFFF) for shift in (40, 32, 24))
    if address in _TEREDO:
        yield IPv4Address(bits >> 64 & 0xFFFFFFFF)
        yield IPv4Address(~bits & 0xFFFFFFFF)
