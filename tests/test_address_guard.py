"""Which addresses messages may go to."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Any

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.alerts.channels import reaching
from pool_monitor.alerts.channels.address_guard import Reach, address_problem, host_problem, url_problem
from pool_monitor.alerts.channels.guarded_backend import GuardedBackend
from pool_monitor.alerts.channels.reaching import Forbidden
from pool_monitor.side_thread import SideThread
from tests.helpers.fault_server import FaultServer

METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "fd00:a9fe:a9fe::1",
    # An address of IPv4 in one of IPv6.
    "::ffff:169.254.169.254",
    "::ffff:0:a9fe:a9fe",
    "::a9fe:a9fe",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:12a9:fe:a9fe::",
    "64:ff9b:1:1234:a9:fea9:fe00:0",
    "2002:a9fe:a9fe::",
    "2001:0:a9fe:a9fe::",
    "2001:0:808:808:0:0:5601:5601",
]
LOCAL = [
    "127.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "192.168.0.7",
    "100.64.0.1",
    "::1",
    "::",
    "fd12::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "198.18.0.1",
    "192.0.2.1",
    "2001:db8::1",
]
GLOBAL = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::"]


@pytest.mark.parametrize("address", METADATA)
@pytest.mark.parametrize("reach", Reach)
def test_an_address_of_metadata_is_never_allowed(address: str, reach: Reach) -> None:
    assert "metadata" in (address_problem(address, reach) or "")


@pytest.mark.parametrize("address", LOCAL)
def test_a_local_address_is_allowed_for_a_rule_file_and_for_nobody_else(address: str) -> None:
    assert address_problem(address) is None
    assert "not of the internet" in (address_problem(address, Reach.GLOBAL) or "")


@pytest.mark.parametrize("address", GLOBAL)
@pytest.mark.parametrize("reach", Reach)
def test_an_address_of_the_internet_is_allowed(address: str, reach: Reach) -> None:
    assert address_problem(address, reach) is None


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "64:ff9b::{}", "::ffff:0:{}"]))
def test_an_address_in_another_is_judged_as_it_is_alone(address: ipaddress.IPv4Address, written: str) -> None:
    for reach in Reach:
        alone = address_problem(str(address), reach)
        if alone is not None:
            assert address_problem(written.format(address), reach) is not None


@pytest.mark.parametrize(
    "host",
    [
        *METADATA[:14],
        "2852039166",
        "0xa9fea9fe",
        "0xa9.254.0xa9.254",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "169.254.169.254.",
        "metadata.google.internal",
        "Metadata.Google.Internal.",
        "instance-data",
    ],
)
def test_a_metadata_address_is_found_in_every_spelling(host: str) -> None:
    written = f"[{host}]" if ":" in host else host
    assert "metadata" in (host_problem(host) or ""), host
    assert "metadata" in (url_problem(f"http://{written}:80/latest") or ""), host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://hooks.example/",
        "//hooks.example/",
        "http://",
        "http:///path",
        "https://hooks.example:99999/",
        "https://hooks.example:x/",
        "https://[::1/",
        "https://hooks.example/a b",
        "https://hooks.example/a\nb",
        "https://hooks.example\\@169.254.169.254/",
        f"https://hooks.example/{'x' * 2048}",
    ],
)
def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    problem = url_problem(url)
    assert problem
    assert "169.254" not in problem
    assert "a b" not in problem
    assert "xxx" not in problem


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/x", "https://hooks.example/T/B?x=1", "http://[::1]:80", "https://user:pw@10.0.0.1/"]
)
def test_a_good_url_has_no_problem(url: str) -> None:
    assert url_problem(url) is None


@given(st.text("htp:/.@[]%\\0x19af \n\u200bé", max_size=40))
def test_no_text_breaks_the_checks(text: str) -> None:
    url_problem(text)
    host_problem(text)
    address_problem(text)


# -- connecting -------------------------------------------------------------------------------------------------------


def answers(monkeypatch: pytest.MonkeyPatch, *looks: list[str]) -> list[str]:
    """Have the names of *.example* looked up as *looks* say, one after the other. Returns the names."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if not str(host).endswith(".example"):
            return real(host, port, *args, **kwargs)
        found = looks[min(len(asked), len(looks) - 1)]
        asked.append(host)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found
        ]

    monkeypatch.setattr(reaching.socket, "getaddrinfo", look_up)
    return asked


async def connect(host: str, port: int, reach: Reach = Reach.ANY_BUT_METADATA) -> None:
    thread = SideThread("test")
    try:
        stream = await GuardedBackend(thread, reach).connect_tcp(host, port, timeout=2.0)
        await stream.aclose()
    finally:
        await thread.close()


@pytest.mark.parametrize(
    "addresses",
    [["169.254.169.254"], ["127.0.0.1", "169.254.169.254"], ["fe80::1%lo", "127.0.0.1"], ["::ffff:169.254.169.254"]],
)
async def test_a_name_with_a_metadata_address_among_its_addresses_is_not_connected_to(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    answers(monkeypatch, addresses)
    async with FaultServer() as server:
        with pytest.raises(Forbidden, match="metadata"):
            await connect("hooks.example", server.port)
        assert server.connections == 0


async def test_what_was_checked_is_what_is_connected_to(monkeypatch: pytest.MonkeyPatch, no_leaks: None) -> None:
    """A name server that answers otherwise the second time (DNS rebinding) is not asked a second time."""
    asked = answers(monkeypatch, ["127.0.0.1"], ["169.254.169.254"])
    async with FaultServer() as server:
        await connect("hooks.example", server.port)
        assert server.connections == 1
    assert asked == ["hooks.example"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "127.1", "hooks.example"])
async def test_strictly_no_spelling_of_this_machine_is_connected_to(
    host: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    answers(monkeypatch, ["8.8.8.8", "127.0.0.1"])
    async with FaultServer() as server:
        with pytest.raises(Forbidden, match=re.escape("not of the internet")):
            await connect(host, server.port, Reach.GLOBAL)
        assert server.connections == 0


async def test_an_address_that_refuses_leaves_time_for_the_next(
    monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    answers(monkeypatch, ["127.0.0.2", "127.0.0.1"])  # the server listens on the second alone
    async with FaultServer() as server:
        await connect("hooks.example", server.port)
        assert server.connections == 1


async def test_a_name_that_is_not_known_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch, no_leaks: None) -> None:
    answers(monkeypatch, [])
    with pytest.raises(httpcore.ConnectError):
        await connect("hooks.example", 80)


async def test_a_receiver_is_never_a_socket_of_this_machine() -> None:
    with pytest.raises(Forbidden):
        await GuardedBackend(SideThread("test")).connect_unix_socket("/run/x.sock")
