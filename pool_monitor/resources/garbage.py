"""The pauses of the garbage collector, measured by its own callbacks."""

from __future__ import annotations

import gc
import time
from collections import deque
from typing import Literal, NamedTuple


class Pauses(NamedTuple):
    """Pauses since they were taken before. Durations in nanoseconds."""

    gc_pause_duration: int
    """The longest one; 0: there was none."""
    gc_duration: int
    """All of them together."""
    gc_collections: int


class GarbagePauses:
    """Measures the pauses while started. While one thread collects, the interpreter starts no second collection.

    A collection runs in the thread that happened to need memory, so the callback takes no lock: it reads the clock
    twice and appends a number. At most *most* pauses wait to be taken; of more, the last ones count for the longest.
    """

    def __init__(self, most: int = 4096) -> None:
        self._waiting: deque[int] = deque(maxlen=most)
        self._began_ns: int | None = None
        self._count = self._total_ns = 0
        self._taken = (0, 0)
        self._started = False

    def start(self) -> None:
        """Begin to measure."""
        if not self._started:
            self._started = True
            gc.callbacks.append(self.measuring)

    def stop(self) -> None:
        """Measure no more. Does nothing if it does not."""
        self._started, self._began_ns = False, None
        if self.measuring in gc.callbacks:
            gc.callbacks.remove(self.measuring)

    def take(self) -> Pauses | None:
        """Return the pauses since the last time. Callable from any thread, but one at a time. None: not started."""
        if not self._started:
            return None
        longest = 0
        for _ in range(len(self._waiting)):
            longest = max(longest, self._waiting.popleft())
        now = self._total_ns, self._count
        (total, count), self._taken = self._taken, now
        return Pauses(longest, now[0] - total, now[1] - count)

    def measuring(self, phase: Literal["start", "stop"], _info: object) -> None:
        """Called by the interpreter when a collection begins and ends."""
        if phase == "start":
            self._began_ns = time.perf_counter_ns()
        elif self._began_ns is not None:  # else measuring began within this pause
            took_ns = time.perf_counter_ns() - self._began_ns
            self._began_ns = None
            self._total_ns += took_ns
            self._count += 1
            self._waiting.append(took_ns)
