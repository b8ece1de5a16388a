"""Tells the changes of alerts: as events, in the log, and in a file."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pool_monitor.alerts.lifecycle import FIRING_PHASES
from pool_monitor.alerts.transition_file import TransitionFile
from pool_monitor.events import ALERT_TRANSITION
from pool_monitor.log import logger
from pool_monitor.parts import retrieve_error
from pool_monitor.side_thread import SideThread
from pool_monitor.telemetry import describe

if TYPE_CHECKING:
    from pool_monitor.alerts.outages import Outages
    from pool_monitor.alerts.slices import Slices
    from pool_monitor.config import AlertsConfig
    from pool_monitor.parts import Context
    from pool_monitor.snapshot import AlertTransition

BACKLOG = 10_000
"""Changes that wait to be written at most. Of more, the oldest are not written."""
WRITTEN_AT_ONCE = 500
LOGGED_AT_ONCE = 50
"""Lines of the log for one evaluation. Of more changes, their number is logged."""
RETRY_S = (1.0, 60.0)
"""The first and the longest pause before a file that could not be written is tried again. Each doubles the one before.
"""
CLOSE_S = 2.0
"""How long leaving waits for what is to be written."""
_FILE = "file"


class Announcer:
    """Tells changes, in their order. A file that cannot be written delays nothing else; what waits for it is bounded by
    `BACKLOG`.
    """

    def __init__(self, config: AlertsConfig, context: Context, outages: Outages) -> None:
        self._log, self._context, self._outages = config.log, context, outages
        self._file = None if config.file is None else TransitionFile(config.file)
        self._backlog: deque[AlertTransition] = deque(maxlen=BACKLOG)
        self._lost = 0
        self._thread = SideThread("alerts file")
        self._wake, self._closing = asyncio.Event(), False
        self._writing: asyncio.Task[None] | None = None
        self.told = 0
        """Changes since the monitor was made."""

    async def open(self, stored: Sequence[AlertTransition], seq: int) -> None:
        """Begin. *stored* are the changes that the state file keeps, the oldest first, and *seq* is the latest number:
        those that a killed process has not written are written now.
        """
        if self._file is None:
            return
        self._thread, self._wake, self._closing = SideThread("alerts file"), asyncio.Event(), False
        self._backlog.extend(stored)
        self._writing = asyncio.get_running_loop().create_task(self._write(seq), name="pool_monitor alerts file")
        self._writing.add_done_callback(retrieve_error)
        self._wake.set()

    async def tell(self, transitions: Iterable[AlertTransition], slices: Slices) -> None:
        """Emit, log and queue *transitions*. Never raises for a handler or the file."""
        number = 0
        for number, one in enumerate(transitions, 1):
            self.told += 1
            ALERT_TRANSITION.event.emit(*self._event(one))
            if self._log and number <= LOGGED_AT_ONCE:
                _log(one)
            if self._file is not None:
                self._lost += len(self._backlog) == BACKLOG
                self._backlog.append(one)
            await slices.pause()
        if self._log and number > LOGGED_AT_ONCE:
            logger("alerts").warning("more alerts have changed", count=number - LOGGED_AT_ONCE)
        if number:
            self._wake.set()

    @property
    def waiting(self) -> Sequence[AlertTransition]:
        """The changes that are to be written."""
        return self._backlog

    def reopen(self) -> None:
        """Another program may have rotated the file: look now."""
        self._wake.set()

    async def close(self) -> None:
        """End, and write what waits, if the disk takes it in time."""
        task, self._writing = self._writing, None
        if task is None or self._file is None:
            return
        self._closing = True
        self._wake.set()
        try:
            await asyncio.wait([task], timeout=CLOSE_S)
        finally:
            task.cancel()
        if task.done():
            self._file.close()
        await self._thread.close()

    def _event(self, one: AlertTransition) -> tuple[dict[str, Any], dict[str, Any]]:
        measurements: dict[str, Any] = {"system_time": round(one.at * 1e9)}
        if one.value is not None:
            measurements["value"] = one.value
        return measurements, {
            "monitor": self._context.monitor,
            "service": self._context.service,
            "alert": one.alert,
            "labels": dict(one.labels),
            "fingerprint": one.fingerprint,
            "from": one.from_state,
            "to": one.to_state,
            "severity": one.severity,
            "reason": one.reason,
            "summary": one.summary,
        }

    async def _write(self, seq: int) -> None:
        """Write what waits, again and again. *seq*: as of `open`."""
        assert self._file is not None
        pause = RETRY_S[0]
        known = False
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                if not known:
                    self._drop_written(await self._thread.run(self._file.last_seq), seq)
                    known = True
                await self._write_all(self._file)
            except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be had
                self._outages.begin(_FILE, f"{self._file.path}: changes of alerts are not written: {describe(error)}")
                if self._closing:
                    return
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_S[1])
                self._wake.set()
            else:
                pause = RETRY_S[0]
                lost, self._lost = self._lost, 0
                missing = f", {lost} changes are missing in it" if lost else ""
                self._outages.end(_FILE, f"{self._file.path} is written again{missing}")
                if self._closing and not self._backlog:
                    return

    def _drop_written(self, last: int | None, seq: int) -> None:
        """Drop what the file has. A file that ends beyond *seq* is of another state, and says nothing about this one;
        one without a change is new, and begins now.
        """
        if last is None or last > seq:
            last = seq
        while self._backlog and self._backlog[0].seq <= last:
            self._backlog.popleft()

    async def _write_all(self, file: TransitionFile) -> None:
        while self._backlog:
            some = list(self._backlog)[:WRITTEN_AT_ONCE]
            await self._thread.run(partial(file.append, some))
            while self._backlog and self._backlog[0].seq <= some[-1].seq:
                self._backlog.popleft()


def _log(one: AlertTransition) -> None:
    """Log a change. What begins or ends for those who are told is a warning."""
    heard = one.to_state == "firing" or (one.from_state in FIRING_PHASES and one.to_state != "recovering")
    log = logger("alerts").warning if heard else logger("alerts").info
    more: dict[str, Any] = {"reason": one.reason} if one.reason else {}
    if one.value_text:
        more["value"] = one.value_text
    if one.summary:
        more["summary"] = one.summary
    labels = {name: value for name, value in one.labels.items() if name != "severity"}
    log(f"alert {one.to_state}", alert=one.alert, severity=one.severity, labels=labels, **more)
