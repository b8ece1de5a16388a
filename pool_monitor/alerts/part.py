"""The evaluation of alert rules as a part of the monitor."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from pool_monitor.parts import raise_if_ended

if TYPE_CHECKING:
    from pool_monitor.alerts.manager import AlertManager
    from pool_monitor.snapshot import AlertingView


class AlertsPart:
    """Evaluates the rules of *manager* at its interval while entered."""

    def __init__(self, manager: AlertManager, interval: float) -> None:
        self._manager, self._interval = manager, interval
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="pool_monitor alerts")
        return self

    async def __aexit__(self, *_: object) -> None:
        task = self._task
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def view(self) -> AlertingView:
        """The state of the evaluation."""
        return self._manager.view()

    def tick(self) -> None:
        """Raise when the task that evaluates has ended."""
        if self._task is not None:
            raise_if_ended(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._manager.evaluate()
