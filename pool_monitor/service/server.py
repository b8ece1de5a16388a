"""Serve the app on a Unix socket, inside the event loop of the user's service.

uvicorn's protocol handles HTTP. uvicorn's ``Server`` is not used: it replaces the signal handlers of the process, logs
as if it were the service, wakes the event loop ten times a second, and makes a socket that it binds accessible to every
user (0666). The loggers called ``uvicorn`` are not touched, because the service may use them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from pool_monitor.after_fork import keep_from_children
from pool_monitor.service.requester import PEER, peer_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_CLOSE_MAX = 1.0  # seconds that open responses get to end when the server closes
_IDLE = 10.0  # seconds that a connection may be open without a request, or with an incomplete one


@asynccontextmanager
async def serve(app: ASGIApp, path: Path) -> AsyncIterator[None]:
    """Serve *app* on *path* (mode 0600) while the block is open. The file is removed at the end.

    The caller must make endless responses end before it leaves the block; responses that are left after a second are
    cancelled. A connection without a request is closed after 10 to 20 s. Raises OSError when *path* cannot be bound.
    """
    # Not access_log=False: it would remove the handlers of the access log of a service that runs on uvicorn.
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", ws="none", proxy_headers=False, date_header=False, server_header=False
    )
    config.load()
    state = ServerState()

    def protocol() -> asyncio.Protocol:
        made: Any = _Connection(config=config, server_state=state, app_state={})
        made.logger, made.access_log = logging.getLogger("pool_monitor.service"), False
        return made  # type: ignore[no-any-return]

    owner = os.getpid()
    with _bound(path) as listener:
        server = await asyncio.get_running_loop().create_unix_server(protocol, sock=listener)
        try:
            yield
        finally:
            if os.getpid() == owner:
                # A socket that nobody listens on looks like one of a dead process.
                path.unlink(missing_ok=True)  # noqa: ASYNC240
                server.close()
                await _close(state)


class _Connection(H11Protocol):
    """A connection that is closed when it is idle: each takes a descriptor, which the service may need.

    uvicorn itself closes a connection that is idle after a response. But it waits for ever for a first request, and for
    the rest of an incomplete one.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state[PEER] = peer_of(transport.get_extra_info("socket"))
        self._schedule_check()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _schedule_check(self) -> None:
        self._timer = self.loop.call_later(_IDLE, self._close_if_idle, self.cycle)

    def _close_if_idle(self, last: RequestResponseCycle | None) -> None:
        """Close the connection if no request has come since *last*, and *last* is answered."""
        if self.cycle is last and (last is None or last.response_complete):
            self.transport.abort()
        else:
            self._schedule_check()


@contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    """A socket bound to *path*, with access for our user alone. The file is removed at the end."""
    owner = os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        try:
            keep_from_children(listener)
            path.chmod(0o600)  # before the socket listens, so no process can have connected
            yield listener
        finally:
            if os.getpid() == owner:  # not in a forked child: the file belongs to its parent
                path.unlink(missing_ok=True)


async def _close(state: ServerState) -> None:
    """Close all connections: idle ones now, busy ones after their response. If cancelled, close all of them now."""
    for connection in list(state.connections):
        connection.shutdown()
    try:
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=_CLOSE_MAX)
    finally:
        late = set(state.tasks)
        for task in late:
            task.cancel()
        for connection in list(state.connections):
            connection.transport.abort()
        # sleep(0) lets the event loop close the aborted connections.
        await asyncio.gather(asyncio.sleep(0), *late, return_exceptions=True)
