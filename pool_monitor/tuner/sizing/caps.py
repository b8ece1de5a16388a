"""The hard bounds of a size: the range, the processors and the memory."""

from __future__ import annotations

import math
from typing import NamedTuple

from pool_monitor.tuner.observation import Observation

PROCESSORS = 1.1
"""Workers may be busy for so many times the processors: a little above 1, because no two measure the same."""
CROWDED = 0.7
"""Above this share of the processors in use, workers may be waiting for one."""
MOST_CROWDED = 2.0
"""What is remembered counts up to so many times what is measured."""
IDLE = 0.3
"""Nothing is remembered from a pool of which a smaller share is busy."""
FRACTION_HALF_LIFE_S = 600.0


class Cap(NamedTuple):
    """The highest size that a resource allows."""

    size: int
    why: str


class Processors:
    """The cap by the processors. Remembers what a busy worker takes of one while it can have it.

    Workers that wait for a processor take less of it each: what is measured then would allow ever more of them.
    """

    def __init__(self) -> None:
        self._fraction = 0.0
        self._at: float | None = None

    def cap(self, observation: Observation) -> Cap | None:
        """Return the size at which the busy workers use 1.1 times the processors; None: too little is known."""
        cpus, measured = observation.cpus, observation.cpu_fraction
        if cpus is None or measured is None or not (_usable(cpus) and _usable(measured)):
            return None
        self._remember(observation, measured, cpus)
        fraction = max(measured, min(self._fraction, MOST_CROWDED * measured))
        size = max(1, math.floor(PROCESSORS * cpus / fraction + 1e-9))
        return Cap(size, f"{cpus:g} processors, and a busy worker takes {fraction:.2g} of one")

    def _remember(self, observation: Observation, measured: float, cpus: float) -> None:
        now, busy = observation.now, observation.busy
        if busy * measured > CROWDED * cpus:
            return
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._fraction *= 0.5 ** (passed / FRACTION_HALF_LIFE_S)
        self._at = now
        if busy > IDLE * observation.size:  # else it may be what workers take that do nothing
            self._fraction = max(self._fraction, measured)


def memory(observation: Observation) -> Cap | None:
    """Return the size whose workers fit into the memory; None: too little is known."""
    worker, free = observation.worker_memory, observation.memory_free
    if worker is None or free is None or not _usable(worker) or not math.isfinite(free):
        return None
    size = max(1, observation.size + math.floor(free / worker))
    return Cap(size, f"memory for {max(0, math.floor(free / worker))} more workers")


def lowest(*caps: Cap | None) -> Cap | None:
    """Return the lowest of those that are known."""
    return min((cap for cap in caps if cap is not None), key=lambda cap: cap.size, default=None)


def _usable(value: float) -> bool:
    return math.isfinite(value) and value > 0
