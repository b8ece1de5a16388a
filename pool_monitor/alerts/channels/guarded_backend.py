"""Connects to receivers: the addresses of a name are looked up once, checked, and connected to as they were checked."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import anyio
import httpcore

from pool_monitor.alerts.channels.address_guard import Reach, address_problem
from pool_monitor.side_thread import SideThread

_TRIED_MAX = 4
"""Most addresses of a name that are tried."""
READ_MAX, PIECE_MAX = 64 * 1024, 2048
"""Most bytes that are read of one answer, and at once."""


class Forbidden(Exception):
    """Nothing is sent to this address. The text says why, and has nothing secret."""


async def addresses_of(
    host: str, port: int, side_thread: SideThread, reach: Reach = Reach.ANY_BUT_METADATA
) -> list[str]:
    """Return the first addresses of *host*. It is looked up in *side_thread*, where a resolver that hangs delays nobody
    else and does not keep the program from ending.

    Every address of a name must be allowed: of a mixed answer, nobody knows which one is meant. Raises Forbidden, and
    OSError and UnicodeError for a name that is not known.
    """
    found = await side_thread.run(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if problem := address_problem(address, reach):
            raise Forbidden(problem)
    return addresses[:_TRIED_MAX]


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """The network for httpcore. A name is looked up in *side_thread*."""

    def __init__(self, side_thread: SideThread, reach: Reach = Reach.ANY_BUT_METADATA) -> None:
        self._side_thread, self._reach = side_thread, reach
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to one of the addresses of *host*. Raises Forbidden, and the errors of httpcore."""
        end = None if timeout is None else time.monotonic() + timeout
        try:
            with anyio.fail_after(timeout):
                tried = await addresses_of(host, port, self._side_thread, self._reach)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("the name was not found in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(error) from error
        for left in range(len(tried), 0, -1):
            # One that does not answer leaves time for those after it.
            share = None if end is None else max(end - time.monotonic(), 0.01) / left
            try:
                stream = await self._network.connect_tcp(tried[-left], port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if left == 1:
                    raise
            else:
                return _Bounded(stream)
        raise httpcore.ConnectError("the name has no address")

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Refuse: a receiver is never there."""
        raise Forbidden("leads to a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await self._network.sleep(seconds)


class _Bounded(httpcore.AsyncNetworkStream):
    """A connection of which little is read: at most `READ_MAX` bytes after what was written last, in small pieces.

    The parser of HTTP handles all that one read has returned without a pause. So a receiver that sends thousands of
    answers 1xx or tiny chunks would hold the event loop.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream, self._left = stream, READ_MAX

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read a piece. Raises ReadError when it was too much."""
        if self._left <= 0:
            raise httpcore.ReadError("the answer has too many bytes")
        content = await self._stream.read(min(max_bytes, PIECE_MAX), timeout)
        self._left -= len(content)
        return content

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write, and begin to count anew."""
        self._left = READ_MAX
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Begin TLS. What it carries is bounded in the same way."""
        return _Bounded(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """Return what is known of the connection."""
        return self._stream.get_extra_info(info)
