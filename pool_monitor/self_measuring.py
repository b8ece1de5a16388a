"""What the monitor costs: the processor time of its own work, and how long its steps take.

Work on the event loop is measured where it is done, by the time that the loop's thread spends on the processor. Parts
that work in threads measure themselves (`WorkMeter.add`). The handlers that run when an event is emitted are not
measured: two readings of a clock would cost more than such a handler.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

Work = Literal["tick", "snapshot", "encode", "part"]


class WorkMeter:
    """Adds up the processor time of the monitor's work. `measure` is for the event loop's thread, `add` for any."""

    def __init__(self) -> None:
        self.took: dict[Work, float] = {}
        """How long the last piece of each kind of work took, in seconds."""
        self.encoded_bytes: int | None = None
        """Size of the last Snapshot that was encoded for a viewer."""
        self.tick_late: float | None = None
        """By how many seconds the last tick was late."""
        self.cpu_ratio: float | None = None
        """Processor time between the last two calls of `turn`, as a share of the time between them."""
        self._cpu_s = 0.0
        self._lock = threading.Lock()
        self._depth = 0
        self._turned: tuple[float, float] | None = None  # the time and the processor time at the last turn

    @contextmanager
    def measure(self, work: Work, *, goes_on: bool = False) -> Iterator[None]:
        """Count the block as *work*. It must not await anything. Work inside other work counts once.

        *goes_on*: the block continues the last piece of this kind, and its time is added to it.
        """
        outermost, self._depth = not self._depth, self._depth + 1
        began, began_cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self._depth -= 1
            if outermost:
                self.add(time.thread_time() - began_cpu)
            before = self.took.get(work, 0.0) if goes_on else 0.0
            self.took[work] = before + time.perf_counter() - began

    def add(self, cpu_s: float) -> None:
        """Add processor time that a thread of the monitor has spent, in seconds."""
        with self._lock:
            self._cpu_s += cpu_s

    def turn(self) -> None:
        """Compute `cpu_ratio`, once a tick."""
        now, cpu_s = time.monotonic(), self._cpu_s
        if self._turned is not None and now > self._turned[0]:
            self.cpu_ratio = (cpu_s - self._turned[1]) / (now - self._turned[0])
        self._turned = now, cpu_s

    def figures(self) -> dict[str, Any]:
        """The figures, by the fields of `MonitorView`."""
        return {
            "cpu_ratio": self.cpu_ratio,
            "tick_seconds": self.took.get("tick"),
            "tick_late": self.tick_late,
            "snapshot_seconds": self.took.get("snapshot"),
            "encode_seconds": self.took.get("encode"),
            "encode_bytes": self.encoded_bytes,
        }
