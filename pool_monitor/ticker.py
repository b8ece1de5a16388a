"""Keeps the task that ticks the monitor running.

Theory of operation
-------------------
A task can hang, end, or raise in every tick, and a monitor whose task does so shows old numbers that look like new
ones. `Ticker` runs the ticks in a task and looks after it from a timer of the event loop, which no task can hold up. A
task that has finished no tick for `STALE_CHECKS` looks in a row is cancelled, and another one takes its place; so is
one that has ended. A look that comes late counts once, so that a blocked event loop, which delays both, is not taken
for a hanging task. A task that ignores its cancellation keeps its place: two that tick would count twice.

Each of these, and a tick that raises, is reported once as degraded, and as recovered after the next whole tick. The
pools take no part in any of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pool_monitor.log import logger
from pool_monitor.parts import PartUnavailable, error_of, retrieve_error
from pool_monitor.telemetry import describe

CHECK_S = 1.0
"""Time between two looks at the task."""
STALE_CHECKS = 6
"""Looks in a row without a tick, after which the task counts as hanging: it did nothing for 5 to 6 s."""
LEAVE_S = 1.0
"""How long `Ticker.stop` waits for a task that ignores its cancellation."""
PART = "ticker"
"""Its name in ``monitor.degrade``."""


class Ticker:
    """Runs *tick* again and again while started, each after *pause* seconds.

    *degraded* and *recovered* are those of `pool_monitor.parts.Context`. No method raises.
    """

    def __init__(
        self,
        tick: Callable[[], Awaitable[object]],
        pause: Callable[[], float],
        degraded: Callable[[str, str], None],
        recovered: Callable[[str, str], None],
    ) -> None:
        self._tick, self._pause = tick, pause
        self._report_degraded, self._report_recovered = degraded, recovered
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._degraded = False
        self._ticked = False  # since the last look
        self._stale = 0  # looks in a row

    def start(self) -> None:
        """Begin, with a new task."""
        self._degraded = False
        self._begin()
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._look)

    async def stop(self) -> None:
        """End the task, within `LEAVE_S`."""
        if self._timer is not None:
            self._timer.cancel()
        task, self._task, self._timer = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=LEAVE_S)

    def _begin(self) -> None:
        self._stale = 0
        self._task = asyncio.get_running_loop().create_task(self._run(), name="pool_monitor tick")
        self._task.add_done_callback(retrieve_error)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._pause())
            try:
                await self._tick()
            except Exception as error:  # noqa: BLE001 - a defect of ours must not end the ticking, or the viewers' updates
                if not self._degraded:
                    logger("monitor").exception("tick failed")
                self._degrade(f"a tick failed: {describe(error)}")
            else:
                if self._degraded:
                    self._degraded = False
                    self._report_recovered(PART, "it ticks again")
            self._ticked = True

    def _look(self) -> None:
        """Look after the task. Run by the event loop."""
        try:
            self._look_after()
        finally:
            if self._timer is not None:  # not stopped
                self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._look)

    def _look_after(self) -> None:
        task = self._task
        if task is None:
            return
        if task.done():
            error = error_of(task)
            self._degrade(str(error) if isinstance(error, PartUnavailable) else describe(error))
            self._begin()
            return
        self._stale = 0 if self._ticked else self._stale + 1
        self._ticked = False
        if self._stale < STALE_CHECKS:
            return
        if not task.cancelling():
            self._degrade(f"no tick was finished for {self._stale - 1} s")
            task.cancel()  # its end is seen by the next look

    def _degrade(self, reason: str) -> None:
        if not self._degraded:
            self._degraded = True
            self._report_degraded(PART, reason)
