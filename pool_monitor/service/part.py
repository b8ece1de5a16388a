"""The local socket as a part of the monitor."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from pool_monitor.parts import PartUnavailable
from pool_monitor.service import server
from pool_monitor.service.discovery import socket_path
from pool_monitor.telemetry import describe

if TYPE_CHECKING:
    from pathlib import Path

    from pool_monitor.parts import Context


class SocketPart:
    """Serves the monitor's HTTP interface on a Unix socket while entered."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stack = AsyncExitStack()
        self.address: Path | None = None
        """The socket; None while it is not served."""

    async def __aenter__(self) -> Self:
        try:
            path = socket_path(self._context.service)
            await self._stack.enter_async_context(server.serve(self._context.asgi(), path))
        except Exception as error:
            raise PartUnavailable(f"no local socket, so dashboards cannot attach: {describe(error)}") from error
        self.address = path
        return self

    async def __aexit__(self, *_: object) -> None:
        self.address = None
        await self._stack.aclose()

    def view(self) -> None:
        """Return nothing: the monitor counts the viewers."""

    def tick(self) -> None:
        """Raise when the file of the socket is gone, as when its directory is cleared: no dashboard finds it then."""
        if self.address is None:
            return
        try:
            self.address.lstat()
        except OSError as error:
            raise PartUnavailable(f"{self.address}: dashboards cannot attach: {error.strerror}") from error
