"""The network for httpcore, which connects to receivers as `reaching` does."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from pool_monitor.alerts.channels.address_guard import Reach
from pool_monitor.alerts.channels.reaching import Forbidden, addresses_of, first_connected
from pool_monitor.side_thread import SideThread

READ_MAX, PIECE_MAX = 64 * 1024, 2048
"""Most bytes that are read of one answer, and at once."""


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses of a name that *reach* allows. Names are looked up in *side_thread*."""

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
        """Connect to one of the addresses of *host*. *timeout* begins when its name has been looked up. Raises
        Forbidden, LookupTimeout, and the errors of httpcore.
        """
        try:
            addresses = await addresses_of(host, port, self._side_thread, self._reach)
        except OSError as error:
            raise httpcore.ConnectError(error) from error
        stream = await first_connected(
            addresses,
            timeout,
            lambda address, share: self._network.connect_tcp(address, port, share, local_address, socket_options),
            (httpcore.ConnectError, httpcore.ConnectTimeout),
        )
        return _Bounded(stream)

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
