"""The hard bounds of a size: the range, the processors and the memory."""

from __future__ import annotations

import math
from typing import NamedTuple

from pool_monitor.tuner.observation import Observation

PROCESSORS = 1.1
"""Workers may be busy for so many times the processors: a little above 1, because no two measure the same."""


class Cap(NamedTuple):
    """The highest size that a resource allows."""

    size: int
    why: str


def processors(observation: Observation) -> Cap | None:
    """Return the size at which the busy workers use 1.1 times the processors; None: too little is known."""
    cpus, fraction = observation.cpus, observation.cpu_fraction
    if cpus is None or fraction is None or not (_usable(cpus) and _usable(fraction)):
        return None
    size = max(1, math.floor(PROCESSORS * cpus / fraction + 1e-9))
    return Cap(size, f"{cpus:g} processors, and a busy worker takes {fraction:.2g} of one")


def memory(observation: Observation) -> Cap | None:
    """Return the size whose workers fit into the memory; None: too little is known."""
    worker, free = observation.worker_memory, observation.memory_free
    if worker is None or free is None or not _usable(worker) or not math.isfinite(free):
        return None
    size = max(1, observation.size + math.floor(free / worker))
    return Cap(size, f"memory for {max(0, math.floor(free / worker))} more workers")


def lowest(observation: Observation) -> Cap | None:
    """Return the lower of both."""
    caps = [cap for cap in (processors(observation), memory(observation)) if cap is not None]
    return min(caps, key=lambda cap: cap.size, default=None)


def _usable(value: float) -> bool:
    return math.isfinite(value) and value > 0
