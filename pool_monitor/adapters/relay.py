"""Brings events to the thread in which they are to be emitted.

Theory of operation
-------------------
Calls of another pool begin and end in any thread, but handlers (a Monitor's collector above all) are used from one
thread, that of its event loop. So every event goes into a queue. In the thread of the loop the queue is emitted at
once; in any other thread the loop is woken to emit it, once for all events that wait. Reading the gauges in the thread
of the loop emits the queue too, so a Snapshot counts every call whose result has been returned.

The loop is the one that runs where the adapter is made, used or read; when it has stopped, the next such loop takes its
place. Without a loop, events are emitted where they happen, one at a time: a thread that finds another one emitting
leaves its event in the queue and goes on, so a handler that waits for another call cannot block the end of that call.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias

from pool_monitor import emit
from pool_monitor.emit import PoolIdentity
from pool_monitor.telemetry import Event

Entry: TypeAlias = tuple[Event, Mapping[str, int], Mapping[str, Any]]

WAITING_MAX = 100_000
"""Events that wait at most, beside the ends of open calls: some 60 MB, and several seconds of an event loop that stands
still. While so many wait, further calls emit no events; `pool.error` says how many when the loop moves again."""


class Relay:
    """The events of one pool, in order, on their way to the thread of an event loop."""

    def __init__(self, identity: PoolIdentity) -> None:
        self._identity = identity
        self._waiting: deque[Entry] = deque()
        self._emitting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._woken = False
        self._left_out = 0  # calls, ever: counted up by `has_room` alone
        self._left_out_reported = 0
        self._find_loop()

    def has_room(self) -> bool:
        """Whether events can be emitted for one more call; counts a call for which they cannot. Not thread-safe."""
        self._find_loop()
        if len(self._waiting) < WAITING_MAX:
            return True
        self._left_out += 1
        return False

    def emit(self, event: Event, measurements: Mapping[str, int], metadata: Mapping[str, Any]) -> None:
        """Emit *event*: now in the thread of the loop, else soon after, in that thread."""
        self._waiting.append((event, measurements, metadata))
        loop = self._loop
        if loop is None or self._is_thread_of(loop):
            self._emit_waiting()
        elif not self._woken:
            self._woken = True
            try:
                loop.call_soon_threadsafe(self._on_woken)
            except RuntimeError:  # closed just now
                self._emit_waiting()

    def flush(self) -> None:
        """Emit the events that wait, if this is the thread of the loop."""
        self._find_loop()
        if self._loop is None or self._is_thread_of(self._loop):
            self._emit_waiting()

    def _find_loop(self) -> None:
        """Use the event loop that runs here, unless the present one still runs."""
        if self._loop is not None and self._loop.is_running():
            return
        running = asyncio._get_running_loop()  # the one that returns None instead of raising
        if running is not None:
            self._loop, self._thread, self._woken = running, threading.get_ident(), False

    def _is_thread_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        return threading.get_ident() == self._thread or loop.is_closed()

    def _on_woken(self) -> None:
        self._woken = False  # first of all: events that come from now on wake the loop again
        self._emit_waiting()

    def _emit_waiting(self) -> None:
        # A thread that fails to get the lock has queued its event before, and the thread that has it looks again.
        while self._waiting and self._emitting.acquire(blocking=False):
            try:
                while self._waiting:
                    event, measurements, metadata = self._waiting.popleft()
                    event.emit(measurements, metadata)
                self._report_left_out()
            finally:
                self._emitting.release()

    def _report_left_out(self) -> None:
        count = self._left_out - self._left_out_reported
        if count:
            self._left_out_reported += count
            reason = f"{count} calls were not told of: the event loop did not get round to listening"
            emit.error(self._identity, category="resource", severity="warning", reason=reason)
