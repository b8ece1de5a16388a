"""A real HTTP server that answers each path as a test has scripted it: well, with an error, slowly, or not at all.

It is written on raw streams, so that it can break HTTP in ways that no server library would. Use it in a test:

    async with FaultServer() as server:
        server.script("/hook", status(503, retry_after="2"), ok())
        ...  # post to server.url("/hook")
        assert server.bodies("/hook") == [b"...", b"..."]

The answers of a path are used one after the other, and the last one for every request after it. A path without a
script is answered 200. Requests are kept, also those that get no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from email.utils import formatdate
from typing import Any, NamedTuple, Self

from tests.helpers.support import eventually

HEAD_MAX, BODY_MAX = 64 * 1024, 64 * 1024 * 1024
REQUESTS_MAX = 200_000


class Received(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    """By name in small letters."""
    body: bytes
    at: float
    """When it was read whole, by the monotonic clock."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Close(Exception):
    """The connection ends after this answer."""


Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Writes an answer. It raises `_Close` to end the connection."""


# -- answers ----------------------------------------------------------------------------------------------------------


def _head(code: int, headers: dict[str, str], version: str = "1.1") -> bytes:
    lines = [f"HTTP/{version} {code} Scripted", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def raw(data: bytes, *, close: bool = True) -> Answer:
    """Write *data* as it is."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        if close:
            raise _Close

    return answer


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    """Answer with *code*. An underscore in the name of a header stands for a hyphen: ``retry_after="2"``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return raw(_head(code, {**named, "content-length": str(len(body))}) + body, close=False)


def ok(body: bytes = b"ok") -> Answer:
    return status(200, body)


def busy_until(seconds: float, code: int = 429) -> Answer:
    """*code* with ``Retry-After`` as an HTTP-date, so many seconds after it is asked. Such a date has whole seconds."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        await status(code, retry_after=formatdate(time.time() + seconds, usegmt=True))(writer)

    return answer


def moved(to: str, code: int = 301) -> Answer:
    """A redirect to another path or URL."""
    return status(code, location=to)


def reset() -> Answer:
    """Drop the connection with RST."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Close

    return answer


def disconnect() -> Answer:
    """Close the connection without an answer."""
    return raw(b"")


def hang() -> Answer:
    """Never answer."""

    async def answer(_writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    return answer


def late(seconds: float, then: Answer) -> Answer:
    """Answer after a while."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await then(writer)

    return answer


def gated(gate: asyncio.Event, then: Answer) -> Answer:
    """Answer once *gate* is set."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await then(writer)

    return answer


def dripping_head(every: float = 0.05) -> Answer:
    """Send one byte of an endless header now and then."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        await _drip(writer, every)

    return answer


def dripping_body(every: float = 0.05) -> Answer:
    """Send one byte of a long body now and then."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(200, {"content-length": "1000000"}))
        await _drip(writer, every)

    return answer


async def _drip(writer: asyncio.StreamWriter, every: float) -> None:
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(every)


def huge_body(size: int = 200_000_000, code: int = 200) -> Answer:
    """A body that nobody should read whole."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(code, {"content-length": str(size)}))
        for _ in range(size // 65536 + 1):
            writer.write(b"x" * 65536)
            await writer.drain()
        raise _Close

    return answer


def huge_head(size: int = 50_000_000) -> Answer:
    """Headers that nobody should read whole."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(size // 65536 + 1):
            writer.write(f"x-{number}: ".encode() + b"x" * 65536 + b"\r\n")
            await writer.drain()
        raise _Close

    return answer


def truncated(code: int = 200) -> Answer:
    """Promise more body than is sent."""
    return raw(_head(code, {"content-length": "1000"}) + b"only this")


def old(code: int = 200, body: bytes = b"ok") -> Answer:
    """HTTP/1.0 without a length: the end of the connection is the end of the body."""
    return raw(_head(code, {}, "1.0") + body)


def informed(then: Answer) -> Answer:
    """Send answers 1xx before the real one."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(_head(103, {"link": "</style.css>"}) + _head(102, {}))
        await then(writer)

    return answer


def garbage() -> Answer:
    return raw(b"\x00\xff this is no HTTP at all \r\n\r\n")


# -- the server -------------------------------------------------------------------------------------------------------


class FaultServer:
    """Listens on loopback while entered. It keeps at most `REQUESTS_MAX` requests. *port*: 0 for any."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._tls, self.port = tls, port
        self._scripts: dict[str, deque[Answer]] = {}
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.requests: deque[Received] = deque(maxlen=REQUESTS_MAX)
        self.connections = 0
        self.open: defaultdict[str, int] = defaultdict(int)
        """Requests by path that are being answered."""
        self.open_max: defaultdict[str, int] = defaultdict(int)

    def script(self, path: str, *answers: Answer) -> None:
        """Answer requests for *path* (without its query) with *answers* from now on."""
        self._scripts[path] = deque(answers)

    def url(self, path: str = "/") -> str:
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}{path}"

    def of(self, path: str) -> list[Received]:
        """The requests for *path*, the first one first."""
        return [one for one in self.requests if one.path.partition("?")[0] == path]

    def bodies(self, path: str) -> list[bytes]:
        return [one.body for one in self.of(path)]

    async def received(self, path: str, count: int = 1, timeout: float = 20.0) -> list[Received]:
        """Wait until there are so many requests for *path*, and return all of them."""
        await eventually(lambda: len(self.of(path)) >= count, timeout=timeout)
        return self.of(path)

    async def __aenter__(self) -> Self:
        # A port that is given was used a moment ago, before the server was started anew.
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls, limit=HEAD_MAX, reuse_address=True, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(_Close, OSError, EOFError, ValueError, asyncio.CancelledError):
                while (received := await self._read(reader)) is not None:
                    self.requests.append(received)
                    with self._answering(received.path):
                        await self._next(received.path)(writer)
                        await writer.drain()
        finally:
            self._serving.discard(task)
            writer.transport.abort() if _lingers(writer) else writer.close()

    @contextlib.contextmanager
    def _answering(self, path: str) -> Iterator[None]:
        self.open[path] += 1
        self.open_max[path] = max(self.open_max[path], self.open[path])
        try:
            yield
        finally:
            self.open[path] -= 1

    async def _read(self, reader: asyncio.StreamReader) -> Received | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _version = first.split(" ", 2)
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        headers.pop("", None)
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = b"".join([chunk async for chunk in _chunks(reader)])
        else:
            body = await reader.readexactly(min(int(headers.get("content-length", "0")), BODY_MAX))
        return Received(method, path, headers, body, time.monotonic())

    def _next(self, path: str) -> Answer:
        answers = self._scripts.get(path.partition("?")[0])
        if not answers:
            return ok()
        return answers.popleft() if len(answers) > 1 else answers[0]


async def _chunks(reader: asyncio.StreamReader) -> Any:
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readline()
    await reader.readline()


def _lingers(writer: asyncio.StreamWriter) -> bool:
    """Whether `reset` has been asked for: then nothing that is buffered may be sent first."""
    connection = writer.get_extra_info("socket")
    if connection is None:
        return False
    with contextlib.suppress(OSError):
        return bool(struct.unpack("ii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0])
    return False
