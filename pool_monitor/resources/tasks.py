"""The tasks of the event loop: how many, and for how long the oldest one has been there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

_SHARE = 0.002  # of the event loop's time: 10,000 tasks take 2.3 ms to list
_OLDEST_NS = 30 * 10**9


class Counted(NamedTuple):
    """The tasks when they were counted last."""

    tasks: int
    oldest_ns: int | None
    """How long ago the oldest of them was first seen; None: there is none."""


class TaskCensus:
    """Counts the tasks of the running event loop, so seldom that it takes at most 0.2 % of the loop's time.

    It remembers the first *most* tasks it has seen, so the oldest one is always among them. When some of these have
    ended, younger ones take their places; a task that had to wait for a place counts from then on. So the age of the
    oldest task is never too high. A task is not kept alive by being remembered.
    """

    def __init__(
        self,
        *,
        most: int = 1024,
        list_tasks: Callable[[], Iterable[asyncio.Task[Any]]] = asyncio.all_tasks,
        cost_clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._most, self._list, self._cost_clock_ns = most, list_tasks, cost_clock_ns
        self._seen: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()  # oldest first
        self._tasks = 0
        self._again_ns: int | None = None

    def __len__(self) -> int:
        """How many tasks it remembers: at most *most*."""
        return len(self._seen)

    def count(self, now_ns: int) -> Counted:
        """Count the tasks, or return the last number if it is too early; it is at most 30 s old. Call on the loop."""
        if self._again_ns is None or not 0 < self._again_ns - now_ns <= _OLDEST_NS:
            began_ns = self._cost_clock_ns()
            self._look(now_ns)
            took_ns = self._cost_clock_ns() - began_ns
            self._again_ns = now_ns + min(round(took_ns / _SHARE), _OLDEST_NS)
        return Counted(self._tasks, self._oldest(now_ns))

    def _look(self, now_ns: int) -> None:
        tasks = list(self._list())
        self._tasks = len(tasks)
        for task in [task for task in self._seen if task.done()]:
            del self._seen[task]
        room = self._most - len(self._seen)
        for task in tasks if room > 0 else ():
            if task not in self._seen:
                self._seen[task] = now_ns
                room -= 1
                if room == 0:
                    break

    def _oldest(self, now_ns: int) -> int | None:
        first = next((since_ns for task, since_ns in self._seen.items() if not task.done()), None)
        return None if first is None else max(0, now_ns - first)
