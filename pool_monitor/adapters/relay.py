"""Brings events to the thread in which they must be emitted.

Theory of operation
-------------------
Calls of another pool begin and end in any thread. Handlers, above all a Monitor's collector, run in one thread only,
that of an event loop. So every event goes into a queue. In the thread of the loop the queue is emitted at once; any
other thread wakes the loop to emit it, once for all events that wait. Reading the gauges in the thread of the loop
emits the queue too, so a Snapshot counts every call whose result has been returned.

The loop is the event loop that runs where the adapter is made, used or read. When it has stopped, the next such loop
takes its place. Without a loop, events are emitted where they happen, one at a time. A thread that finds another thread
emitting leaves its event in the queue and goes on. So a handler that waits for another call cannot block the end of
that call.
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
"""The highest number of events that wait, besides the ends of open calls: some 60 MB, or several seconds during which
the event loop is blocked. While this many wait, further calls emit no events. When the loop runs again, `pool.error`
reports the number of these calls."""


class Relay:
    """Keeps the events of one pool in order until they are emitted in the thread of an event loop."""

    def __init__(self, identity: PoolIdentity) -> None:
        self._identity = identity
        self._waiting: deque[Entry] = deque()
        self._emitting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._woken = False
        self._left_out = 0  # all calls without events so far; only `has_room` changes it
        self._left_out_reported = 0
        self._find_loop()

    def has_room(self) -> bool:
        """Whether there is room for the events of one more call. If not, count it as left out. Not thread-safe."""
        self._find_loop()
        if len(self._waiting) < WAITING_MAX:
            return True
        self._left_out += 1
        return False

    def emit(self, event: Event, measurements: Mapping[str, int], metadata: Mapping[str, Any]) -> None:
        """Emit *event*: at once in the thread of the loop, else soon, in that thread."""
        self._waiting.append((event, measurements, metadata))
        loop = self._loop
        if loop is None or self._is_thread_of(loop):
            self._emit_waiting()
        elif not self._woken:
            self._woken = True
            try:
                loop.call_soon_threadsafe(self._on_woken)
            except RuntimeError:  # the loop was closed just now
                self._emit_waiting()

    def flush(self) -> None:
        """Emit the waiting events if this is the thread of the loop."""
        self._find_loop()
        if self._loop is None or self._is_thread_of(self._loop):
            self._emit_waiting()

    def _find_loop(self) -> None:
        """Use the event loop that runs here, unless the present loop still runs."""
        if self._loop is not None and self._loop.is_running():
            return
        running = asyncio._get_running_loop()  # returns None, where `asyncio.get_running_loop` raises
        if running is not None:
            self._loop, self._thread, self._woken = running, threading.get_ident(), False

    def _is_thread_of(self, loop: asyncio.AbstractEventLoop) -> bool:
        return threading.get_ident() == self._thread or loop.is_closed()

    def _on_woken(self) -> None:
        self._woken = False  # before emitting, so that later events wake the loop again
        self._emit_waiting()

    def _emit_waiting(self) -> None:
        # A thread that fails to get the lock has queued its event before; the thread that holds the lock checks again.
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
            reason = f"{count} calls emitted no events: the event loop was blocked, and too many events waited for it"
            emit.error(self._identity, category="resource", severity="warning", reason=reason)
