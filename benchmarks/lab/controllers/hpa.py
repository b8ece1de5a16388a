"""The horizontal pod autoscaler of Kubernetes, on the utilization of the workers.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/ (algorithm, default
behavior). The size that is wanted is ``ceil(busy / target)``: workers that start count as unused. Nothing happens while
the ratio of utilization to target is within the tolerance. A size is only lowered to the highest one that was wanted
within the window, and raised by the larger of 100 % and 4 in 15 s.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from pool_monitor.tuner.observation import Observation

TARGET, TOLERANCE = 0.7, 0.1
RAISE_S, RAISE_SHARE, RAISE_COUNT = 15.0, 2.0, 4


class Settings(NamedTuple):
    period_s: float
    window_s: float


HPA_UTIL = Settings(15.0, 300.0)
"""The defaults of Kubernetes."""
HPA_FAST = Settings(5.0, 60.0)
"""The same with samples three times as often, and a window a fifth as long."""


class Hpa:
    """One autoscaler."""

    def __init__(self, settings: Settings = HPA_UTIL) -> None:
        self._settings = settings
        self._busy: list[int] = []
        self._next = -math.inf
        self._wanted: deque[tuple[float, int]] = deque()
        self._sizes: deque[tuple[float, int]] = deque()

    def decide(self, observation: Observation) -> int | None:
        now = observation.now
        self._busy.append(observation.busy)
        if now < self._next:
            return None
        self._next = now + self._settings.period_s
        busy, self._busy = sum(self._busy) / len(self._busy), []
        size = observation.size
        ratio = busy / (size * TARGET)
        wanted = size if abs(ratio - 1.0) <= TOLERANCE else math.ceil(busy / TARGET)
        wanted = min(max(wanted, observation.low), observation.high)
        while self._wanted and self._wanted[0][0] <= now - self._settings.window_s:
            self._wanted.popleft()
        self._wanted.append((now, wanted))
        while len(self._sizes) > 1 and self._sizes[1][0] <= now - RAISE_S:
            self._sizes.popleft()
        if wanted > size:
            before = self._sizes[0][1] if self._sizes else size
            wanted = max(min(wanted, max(math.ceil(before * RAISE_SHARE), before + RAISE_COUNT)), size)
        elif wanted < size:
            wanted = min(size, max(one for _, one in self._wanted))
        self._sizes.append((now, wanted))
        return wanted
