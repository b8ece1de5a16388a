"""Serve the app on a Unix socket of our own binding, inside somebody else's event loop.

uvicorn's protocol does the HTTP; uvicorn's ``Server`` is left out, because it takes over the process's signal
handlers, logs as if it were the service, wakes the loop ten times a second, and makes a socket it binds itself
accessible to every user (0666). The loggers called ``uvicorn`` are left alone: they may be the service's own.
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

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_GOODBYE = 1.0  # seconds open responses get to end when the server closes
_IDLE = 10.0  # seconds a connection may be open without a request, or with one that is not complete


@asynccontextmanager
async def serve(app: ASGIApp, path: Path) -> AsyncIterator[None]:
    """Serve *app* on *path* (mode 0600) while the block is open; the file is gone afterwards.

    Before leaving the block, make endless responses end by themselves; what is left after a second is cancelled.
    A connection that asks for nothing is closed after 10 to 20 s. Raises OSError when the path cannot be bound.
    """
    # Not access_log=False: that would take the handlers off the access log of a service that runs on uvicorn.
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
                server.close()
                await _close(state)


class _Connection(H11Protocol):
    """Closed when it has asked for nothing in a while: each takes a descriptor, and the service needs those too.

    uvicorn closes what is idle after an answer. It waits for ever for a first request, and for the rest of one.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(_IDLE, self._look, self.cycle)

    def _look(self, before: RequestResponseCycle | None) -> None:
        """Close it if the last request there was is still the last one, and answered."""
        if self.cycle is before and (before is None or before.response_complete):
            self.transport.abort()
        else:
            self._look_again()


@contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    """A socket bound to *path*, which nobody else may use, and which is gone afterwards."""
    owner = os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        try:
            keep_from_children(listener)
            path.chmod(0o600)  # before it listens: nobody can have connected yet
            yield listener
        finally:
            if os.getpid() == owner:  # in a forked child, the file is its parent's
                path.unlink(missing_ok=True)


async def _close(state: ServerState) -> None:
    """End all connections: idle ones now, busy ones after their response. Cancelled meanwhile: all of them now."""
    for connection in list(state.connections):
        connection.shutdown()
    try:
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=_GOODBYE)
    finally:
        late = set(state.tasks)
        for task in late:
            task.cancel()
        for connection in list(state.connections):
            connection.transport.abort()
        # Also lets the loop close what was aborted.
        await asyncio.gather(asyncio.sleep(0), *late, return_exceptions=True)
