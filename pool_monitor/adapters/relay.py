"""Brings events to the thread they are to be told in.

Theory of operation
-------------------
Calls of somebody else's pool begin and end in any thread, but who listens (a Monitor's collector first of all) is used
from one thread, that of its event loop. So every event goes into a queue; in the loop's thread the queue is told at
once, and elsewhere the loop is woken to do it, once for all that wait. Reading the gauges in the loop's thread tells it
too, so a Snapshot counts every call whose answer somebody has seen.

The loop is the one that runs where the adapter is made, used or looked at; when it has stopped, the next such one takes
its place. Without one, events are told where they happen, one at a time: whoever finds somebody telling leaves its own
to them and goes on, so a handler that waits for another call cannot block that call's end.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias

from pool_monitor.events import POOL_ERROR
from pool_monitor.telemetry import Event

Entry: TypeAlias = tuple[Event, Mapping[str, int], Mapping[str, Any]]

WAITING_MAX = 100_000
"""Events that wait at most, beside the ends of calls that are open: some 60 MB, and several seconds of an event loop
that stands still. While so many wait, further calls run untold; `pool.error` says how many when it moves again."""


class Relay:
    """The events of one pool, in order, on their way to the thread of an event loop."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._waiting: deque[Entry] = deque()
        self._telling = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._woken = False
        self._left_out = 0  # calls, ever: counted up by `room` alone
        self._left_out_told = 0
        self._find_loop()

    def room(self) -> bool:
        """Whether one more call can be told of; one that cannot is counted. Not safe from two threads at once."""
        self._find_loop()
        if len(self._waiting) < WAITING_MAX:
            return True
        self._left_out += 1
        return False

    def tell(self, event: Event, measurements: Mapping[str, int], metadata: Mapping[str, Any]) -> None:
        """Emit *event*: now if this is the place, else there and soon."""
        self._waiting.append((event, measurements, metadata))
        loop = self._loop
        if loop is None or self._here(loop):
            self._tell_waiting()
        elif not self._woken:
            self._woken = True
            try:
                loop.call_soon_threadsafe(self._on_woken)
            except RuntimeError:  # closed just now
                self._tell_waiting()

    def catch_up(self) -> None:
        """Tell what waits, if this is the place for it."""
        self._find_loop()
        if self._loop is None or self._here(self._loop):
            self._tell_waiting()

    def _find_loop(self) -> None:
        """Have the event loop that runs here, if the one until now does not."""
        if self._loop is not None and self._loop.is_running():
            return
        running = asyncio._get_running_loop()  # the one that returns None instead of raising
        if running is not None:
            self._loop, self._thread, self._woken = running, threading.get_ident(), False

    def _here(self, loop: asyncio.AbstractEventLoop) -> bool:
        return threading.get_ident() == self._thread or loop.is_closed()

    def _on_woken(self) -> None:
        self._woken = False  # first of all: what comes from now on wakes us again
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        # Whoever fails to get the lock has put its event in the queue before, and the one that has it looks again.
        while self._waiting and self._telling.acquire(blocking=False):
            try:
                while self._waiting:
                    event, measurements, metadata = self._waiting.popleft()
                    event.emit(measurements, metadata)
                self._tell_left_out()
            finally:
                self._telling.release()

    def _tell_left_out(self) -> None:
        count = self._left_out - self._left_out_told
        if count:
            self._left_out_told += count
            about = {"pool": self._pool, "category": "resource", "severity": "warning"}
            reason = f"{count} calls were not told of: the event loop did not get round to listening"
            POOL_ERROR.event.emit({"system_time": time.time_ns()}, {**about, "reason": reason})
