"""The evaluation of alert rules as a part of the monitor."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from msgspec.structs import replace

from pool_monitor.alerts.hangup import Hangup
from pool_monitor.alerts.heartbeat import Heartbeat
from pool_monitor.errors import ConfigError
from pool_monitor.parts import PartUnavailable, raise_if_ended, retrieve_error, set_within

if TYPE_CHECKING:
    from pool_monitor.alerts.manager import AlertManager
    from pool_monitor.config import AlertsConfig
    from pool_monitor.parts import Context
    from pool_monitor.snapshot import AlertingView

POLL_S = 5.0
"""Seconds between two looks at the files of rules. A change is used after the second look that finds it the same."""
HANG_TICKS = 30
"""An evaluation that has not ended after so many ticks hangs. Ticks are counted: they pause with the process."""
LEAVE_S = 5.0
"""How long leaving waits for an evaluation that has begun."""


class AlertsPart:
    """Drives *manager* while entered: has the rules evaluated at multiples of the interval, and the files of rules
    read again when they change and on SIGHUP. Sends the heartbeat.
    """

    def __init__(self, manager: AlertManager, config: AlertsConfig, context: Context) -> None:
        self._manager, self._interval, self._context = manager, config.interval, context
        self._heartbeat = None if config.heartbeat is None else Heartbeat(config.heartbeat, context.service)
        self._failed = False
        self._evaluating: asyncio.Task[None] | None = None
        self._watching: list[asyncio.Task[None]] = []
        self._leaving, self._asked = asyncio.Event(), asyncio.Event()
        self._hangup: Hangup | None = None
        self._busy, self._busy_ticks = False, 0

    async def __aenter__(self) -> Self:
        if self._heartbeat is not None:
            await self._heartbeat.start()
        try:
            await self._manager.open()
        except BaseException:
            self._failed = True
            await self._end_heartbeat()
            raise
        self._evaluating = _task(self._evaluate(), "pool_monitor alerts")
        if self._manager.has_files:
            self._watching = [
                _task(self._watch(), "pool_monitor alerts files"),
                _task(self._reload_when_asked(), "pool_monitor alerts reload"),
            ]
            hangup = Hangup(self._asked.set)
            if hangup.install():
                self._hangup = hangup
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._hangup is not None:
            self._hangup.remove()
        for task in self._watching:
            task.cancel()
        self._leaving.set()
        evaluating = self._evaluating
        try:
            await self._end_heartbeat()
            if evaluating is not None:
                await asyncio.wait([evaluating], timeout=LEAVE_S)
                evaluating.cancel()
        finally:
            await self._manager.close()

    async def _end_heartbeat(self) -> None:
        if self._heartbeat is not None:
            await self._heartbeat.stop(in_order=not self._failed)

    @property
    def held_bytes(self) -> int:
        """Memory of the alerts, in bytes."""
        return self._manager.held_bytes

    def view(self) -> AlertingView:
        """The state of the evaluation."""
        view = self._manager.view()
        return view if self._heartbeat is None else replace(view, heartbeat=self._heartbeat.view())

    def tick(self) -> None:
        """Raise when a task has ended, or an evaluation hangs."""
        try:
            self._tick()
        except BaseException:
            self._failed = True
            raise

    def _tick(self) -> None:
        self._manager.tick()
        if self._heartbeat is not None:
            self._heartbeat.pulse(self._manager.view(), self._context.outages())
        self._busy_ticks = self._busy_ticks + 1 if self._busy else 0
        if self._busy_ticks > HANG_TICKS:
            raise PartUnavailable("an evaluation of the rules has not ended for half a minute")
        for task in (self._evaluating, *self._watching):
            if task is not None:
                raise_if_ended(task)

    async def _evaluate(self) -> None:
        now, interval, before = asyncio.get_running_loop().time, self._interval, -math.inf
        while not self._leaving.is_set():
            due = (math.floor(now() / interval) + 1) * interval
            if due <= before:  # a timer may be early by less than the clock tells
                due = before + interval
            self._manager.due = before = due
            if not await set_within(self._leaving, due - now()):
                self._busy, self._busy_ticks = True, 0
                await self._manager.evaluate_at_its_time()
                self._busy = False

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            with suppress(ConfigError):  # the manager shows and logs it
                await self._manager.reload_if_changed()

    async def _reload_when_asked(self) -> None:
        """Do what SIGHUP asks for. Several at once count once."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._manager.reopen_file()
            with suppress(ConfigError):
                await self._manager.reload()


def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(retrieve_error)
    return task
