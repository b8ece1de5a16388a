"""A fixed size: what most pools have."""

from __future__ import annotations

import math

from pool_monitor.tuner.observation import Observation


class Fixed:
    """Keeps *size*."""

    def __init__(self, size: int) -> None:
        self.size = size

    @classmethod
    def of_equal_hours(cls, worker_hours: float, duration_s: float, low: int, high: int) -> Fixed:
        """The fixed size that costs what another controller did. A part of a worker is rounded up, in its favour."""
        size = math.ceil(worker_hours * 3600.0 / duration_s - 1e-9)
        return cls(min(max(size, low), high))

    def decide(self, _observation: Observation) -> int:
        return self.size
