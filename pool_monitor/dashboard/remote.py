"""The feed of a service in another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from pool_monitor.dashboard.alert_actions import SILENCE_FOR, AlertRequest
from pool_monitor.dashboard.feed import Frame, Lost
from pool_monitor.dashboard.tuning_actions import TuningRequest
from pool_monitor.errors import ConnectError
from pool_monitor.service.client import follow, open_client, resolve
from pool_monitor.service.stacks import StackReading

_RETRY = 2.0  # seconds between tries to find the service again
_AGAIN = 0.1  # seconds before the next request after a stream has ended normally


class RemoteFeed:
    """Follows the service at *address* (see `pool_monitor.service.client.resolve`), also after the service restarts:
    every try resolves the address again.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    async def frames(self, window: str) -> AsyncIterator[Frame]:
        """See `Feed.frames`."""
        while True:
            try:
                async with aclosing(follow(resolve(self.address), window)) as snapshots:
                    async for snapshot in snapshots:
                        yield snapshot
                pause = _AGAIN
            except ConnectError as error:
                yield Lost(str(error), _RETRY)
                pause = _RETRY
            await asyncio.sleep(pause)

    async def act(self, request: AlertRequest) -> str:
        """See `AlertFeed.act`. Raises ConnectError and, where the service refuses it, ConfigError."""
        async with open_client(resolve(self.address)) as service:
            if request.action == "ack":
                await service.ack(request.alert.fingerprint, author=request.author)
                return "acknowledged"
            silence = await service.silence(request.matchers, duration=SILENCE_FOR, author=request.author)
            return f"silenced for {SILENCE_FOR}; to end it: pool-monitor alerts unsilence {silence}"

    async def tune(self, request: TuningRequest) -> str:
        """See `TuningFeed.tune`. Raises ConnectError and, where the service refuses it, ConfigError."""
        async with open_client(resolve(self.address)) as service:
            match request.action:
                case "explain":
                    return await service.explain(
                        "tuning" if request.row.trial is not None else "recommendations", request.row.id
                    )
                case "dismiss":
                    await service.dismiss(request.row.id, author=request.author)
                    return "dismissed"
                case verb:
                    await service.tune(verb, request.row.id, author=request.author)
                    return {"approve": "approved", "reject": "rejected", "rollback": "it is rolled back"}[verb]

    async def stack(self, pool: str, slot: str) -> StackReading:
        """See `StackFeed.stack`. Raises ConnectError and, where the service refuses the question, ConfigError."""
        async with open_client(resolve(self.address)) as service:
            return await service.stack(pool, slot)
