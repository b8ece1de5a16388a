"""The mounted face under the servers that people run: nobody who watches keeps one of them from ending."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress

import httpx
import pytest

from pool_monitor.dashboard.feed import Lost
from pool_monitor.dashboard.remote import RemoteFeed
from pool_monitor.errors import ConnectError
from pool_monitor.service.client import connected, fetch, parse, resolve
from pool_monitor.snapshot import Snapshot
from tests.helpers.programs import Program
from tests.helpers.support import eventually

APP = "tests.targets.mounted:app"
SERVERS = {
    "uvicorn": lambda port: ("-m", "uvicorn", APP, "--port", port),
    "uvicorn workers": lambda port: ("-m", "uvicorn", APP, "--port", port, "--workers", "2"),
    "hypercorn": lambda port: ("-m", "hypercorn", APP, "--bind", f"127.0.0.1:{port}"),
    "granian": lambda port: ("-m", "granian", "--interface", "asgi", "--port", port, APP),
}
IN_TIME_S = 2.0
Serve = Callable[[str], AsyncIterator[tuple[Program, str]]]


@pytest.fixture
def serving(program: Callable[..., Program]) -> Serve:
    """Runs the app under a server, as a program of its own."""

    @asynccontextmanager
    async def serve(server: str) -> AsyncIterator[tuple[Program, str]]:
        if importlib.util.find_spec(server.split(maxsplit=1)[0]) is None:
            pytest.skip(f"no {server} on this machine")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = program(*SERVERS[server](str(port)), start_new_session=True)
        url = f"http://127.0.0.1:{port}/monitor"
        try:
            await reached(started, url)
            yield started, url
        finally:
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)  # some servers have processes of their own

    return serve


async def reached(started: Program, url: str) -> None:
    end = time.monotonic() + 20
    while True:
        try:
            await fetch(resolve(url), "5m")
            return
        except ConnectError:
            assert started.process.poll() is None, started.ended()
            assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def asked(url: str, request: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(url.split(":")[2].split("/", maxsplit=1)[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    return reader, writer


slow = pytest.mark.slow
ENDINGS = [
    pytest.param("uvicorn", signal.SIGTERM),
    pytest.param("uvicorn", signal.SIGINT),
    pytest.param("hypercorn", signal.SIGTERM),
    pytest.param("hypercorn", signal.SIGINT, marks=slow),
    pytest.param("granian", signal.SIGTERM),
    pytest.param("granian", signal.SIGINT, marks=slow),
    pytest.param("uvicorn workers", signal.SIGTERM, marks=slow),
    pytest.param("uvicorn workers", signal.SIGINT, marks=slow),
]


@pytest.mark.parametrize(("server", "number"), ENDINGS)
async def test_a_server_that_is_watched_ends_at_once_and_leaves_its_lifespan(serving, server, number):
    async with serving(server) as (started, url), AsyncExitStack() as open_:
        await heads_are_answered_and_over(url)
        readers = []
        for version in ("1.1", "1.1", "1.0"):
            reader, writer = await asked(url, f"GET /monitor/v1/stream HTTP/{version}\r\nhost: localhost\r\n\r\n")
            open_.callback(writer.close)
            await reader.readuntil(b"event: snapshot")
            readers.append(reader)
        frames = await open_.enter_async_context(aclosing(RemoteFeed(url).frames("5m")))
        assert isinstance(await anext(frames), Snapshot)

        began = time.monotonic()
        started.send(number)
        await eventually(lambda: started.process.poll() is not None)
        assert time.monotonic() - began < IN_TIME_S
        for reader in readers:
            await reader.read()  # up to its end
        async for frame in frames:
            if isinstance(frame, Lost):
                break
        said = started.ended()
        assert "left: the pool is closed" in said.err
        assert "Exception" not in said.err


async def heads_are_answered_and_over(url: str) -> None:
    for path in ("stream", "snapshot"):
        head = f"HEAD /monitor/v1/{path} HTTP/1.1\r\nhost: localhost\r\n\r\n"
        reader, writer = await asked(url, head + "GET /monitor/livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert (b"text/event-stream" in headers) is (path == "stream")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200"), "of the second request"
        writer.close()
    reader, writer = await asked(url, "HEAD /monitor/v1/stream HTTP/1.0\r\nhost: localhost\r\n\r\n")
    assert (await reader.read()).endswith(b"\r\n\r\n"), "headers alone"
    writer.close()
    async with connected(resolve(url)) as http:
        assert parse((await http.get("/v1/snapshot")).content).monitor.viewers == 0
        assert (await http.get("/v1/snapshot", headers={"host": "evil.example"})).status_code == 400


ANSWERS = [
    ("GET", "/livez", 200),
    ("GET", "/readyz", 200),
    ("GET", "/", 200),
    ("GET", "/metrics", 200),
    ("HEAD", "/metrics", 200),
    ("GET", "/v1/snapshot", 200),
    ("GET", "/v1/snapshot?window=7h", 400),
    ("GET", "/v1/range?start=x", 400),
    ("GET", "/v1/nothing", 404),
    ("POST", "/v1/snapshot", 405),
]


@pytest.mark.parametrize(
    "server", ["uvicorn", pytest.param("hypercorn", marks=slow), pytest.param("granian", marks=slow)]
)
async def test_every_server_answers_in_the_same_way(serving, server):
    async with serving(server) as (_started, url), httpx.AsyncClient(timeout=20) as http:
        for method, path, status in ANSWERS:
            response = await http.request(method, url + path)
            assert (method, path, response.status_code) == (method, path, status)
            assert bool(response.content) == (method != "HEAD")
            if status == 405:
                assert {word.strip() for word in response.headers["allow"].split(",")} == {"GET", "HEAD"}
        page = await http.get(f"{url}/metrics")
        assert page.headers["content-encoding"] == "gzip"
        async with http.stream("GET", f"{url}/v1/stream") as stream:
            assert "content-encoding" not in stream.headers
            lines = stream.aiter_lines()
            assert await anext(lines) == "event: snapshot"
