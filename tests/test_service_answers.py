"""In which form the HTTP face answers: compressed or not, for which window, and what there is to ask for."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families as read_text
from starlette.applications import Starlette
from starlette.routing import Mount

from pool_monitor import Monitor
from pool_monitor.adapters import MonitoredCalls
from pool_monitor.config import MonitorConfig, ServiceConfig
from pool_monitor.export.gzipped import AT_ONCE, accepts_gzip, compressed_in_steps, run_in_steps
from pool_monitor.service.app import COMPRESSED_FROM
from pool_monitor.service.client import Address, connected
from pool_monitor.snapshot import Snapshot
from pool_monitor.version import __version__

NO_SOCKET = MonitorConfig(service=ServiceConfig(socket=False))
Ask = Callable[..., Awaitable[tuple[httpx.Response, bytes]]]


@pytest.fixture
async def monitor() -> AsyncIterator[Monitor]:
    async with Monitor(MonitoredCalls(name="client"), config=NO_SOCKET) as monitor:
        yield monitor


@pytest.fixture
async def ask(monitor: Monitor) -> AsyncIterator[Ask]:
    """Asks the mounted app, and gives the answer and its body as it came."""
    app = Starlette(routes=[Mount("/monitor", monitor.asgi())])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:

        async def ask(path: str, accept_encoding: str = "identity") -> tuple[httpx.Response, bytes]:
            async with http.stream("GET", f"/monitor{path}", headers={"Accept-Encoding": accept_encoding}) as response:
                return response, b"".join([piece async for piece in response.aiter_raw()])

        yield ask


@pytest.mark.parametrize("path", ["/metrics", "/v1/snapshot"])
async def test_an_answer_is_compressed_for_those_who_accept_it(ask: Ask, path: str) -> None:
    await ask(path)  # how long a Snapshot takes to make is known from the second on
    plain, body = await ask(path)
    packed, smaller = await ask(path, "gzip, deflate")
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    assert plain.headers["content-type"] == packed.headers["content-type"]
    assert int(packed.headers["content-length"]) == len(smaller) < len(body) / 2
    unpacked = gzip.decompress(smaller)
    if path == "/metrics":
        assert {family.name for family in read_text(unpacked.decode())} == {
            family.name for family in read_text(body.decode())
        }
    else:
        assert msgspec.json.decode(unpacked).keys() == msgspec.json.decode(body).keys()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/snapshot?window=7h"])
async def test_a_short_answer_is_not_compressed(ask: Ask, path: str) -> None:
    response, body = await ask(path, "gzip")
    assert "content-encoding" not in response.headers
    assert len(body) < COMPRESSED_FROM


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZIP;q=0.5, identity", True),
        ("deflate, x-gzip", True),
        ("*", True),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("deflate, br", False),
        ("gzip;q=much", False),
        ("gzip;q=0.000", False),
        (";;=,,", False),
    ],
)
def test_an_accept_encoding_header_says_whether_gzip_is_wanted(header: str | None, wanted: bool) -> None:
    assert accepts_gzip(header) is wanted


async def test_a_large_page_is_compressed_in_turns_with_other_work() -> None:
    body = b"pool_monitor_calls_total 1\n" * 40_000
    steps = compressed_in_steps(body)
    turns = sum(1 for _ in steps)
    assert turns == -(-len(body) // AT_ONCE) > 5
    assert gzip.decompress(await run_in_steps(compressed_in_steps(body))) == body


async def test_within_the_machine_our_own_commands_ask_for_plain_answers() -> None:
    async with connected(Address("x", None, "http://127.0.0.1:1")) as remote:
        assert "gzip" in remote.headers["accept-encoding"]
    async with connected(Address("x", Path("/nowhere.sock"), "http://localhost")) as local:
        assert local.headers["accept-encoding"] == "identity"


async def test_the_windows_of_a_page_can_be_chosen(ask: Ask) -> None:
    for asked, window in (("", "5m"), ("?window=1h", "1h")):
        _response, page = await ask(f"/metrics{asked}")
        assert f'pool_monitor_window_covered_seconds{{window="{window}"}}'.encode() in page
    response, body = await ask("/metrics?window=7h")
    assert response.status_code == 400
    assert b"7h" in body


async def test_the_root_lists_what_there_is_where_it_is(ask: Ask) -> None:
    response, body = await ask("/")
    assert response.headers["content-type"].startswith("text/plain")
    paths = body.decode().splitlines()
    assert {"/monitor/metrics", "/monitor/v1/snapshot", "/monitor/v1/stream", "/monitor/livez"} <= set(paths)
    for path in paths:
        if not path.endswith("stream"):
            assert (await ask(path.removeprefix("/monitor")))[0].status_code in (200, 400, 503)


async def test_a_snapshot_says_which_version_made_it(monitor: Monitor, ask: Ask) -> None:
    _response, body = await ask("/v1/snapshot")
    assert msgspec.json.decode(body, type=Snapshot).service.version == __version__
    _response, page = await ask("/metrics")
    assert f'version="{__version__}"'.encode() in page
