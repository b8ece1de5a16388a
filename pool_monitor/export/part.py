"""Pushes to an OTLP receiver, as a part of the monitor."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Self

from pool_monitor.export.otlp import OtlpExporter
from pool_monitor.parts import raise_if_ended, view_from
from pool_monitor.snapshot import OtlpView

if TYPE_CHECKING:
    from pool_monitor.config import OtlpConfig
    from pool_monitor.parts import Context


class OtlpPart:
    """Pushes everything that the monitor counted, while entered. *config* must have an endpoint."""

    def __init__(self, config: OtlpConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._exporter: OtlpExporter | None = None
        self._pushing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        config, context = self._config, self._context
        assert config.endpoint is not None
        exporter = self._exporter = OtlpExporter(
            config.endpoint,
            interval=config.interval,
            timeout=config.timeout,
            headers=config.headers,
            compression=config.compression,
            on_outage=lambda reason: context.degraded("otlp", f"pushes to {exporter.endpoint} fail: {reason}"),
            on_recovery=partial(context.recovered, "otlp"),
        )
        pushes = exporter.run(lambda: (context.snapshot(), context.metrics.totals()))
        self._pushing = asyncio.get_running_loop().create_task(pushes, name="pool_monitor otlp pushes")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._pushing is not None:
            self._pushing.cancel()  # the task then pushes a last time
            await asyncio.wait([self._pushing])

    def view(self) -> OtlpView | None:
        """The state of the pushes."""
        return None if self._exporter is None else view_from(OtlpView, self._exporter)

    def tick(self) -> None:
        """Raise when the task that pushes has ended."""
        if self._pushing is not None:
            raise_if_ended(self._pushing)
