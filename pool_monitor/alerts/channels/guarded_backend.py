"""The network for httpcore, which connects to receivers as `reaching` does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpcore

from pool_monitor.alerts.channels.address_guard import Reach
from pool_monitor.alerts.channels.reaching import Forbidden, addresses_of, first_connected
from pool_monitor.side_thread import SideThread


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
        return await first_connected(
            addresses,
            timeout,
            lambda address, share: self._network.connect_tcp(address, port, share, local_address, socket_options),
            (httpcore.ConnectError, httpcore.ConnectTimeout),
        )

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Refuse: a receiver is never there."""
        raise Forbidden("leads to a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await self._network.sleep(seconds)
