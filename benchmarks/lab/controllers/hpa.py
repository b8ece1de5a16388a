"""The horizontal pod autoscaler of Kubernetes, on the utilisation of the workers.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/ (algorithm, default
behavior). The size that is wanted is ``ceil(busy / target)``: workers that start count as unused. Nothing happens while
the ratio of utilisation to target is within the tolerance. A size is only lowered to the highest one that was wanted
within the window, and raised by the larger of 100 % and 4 in a period.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from pool_monitor.tuner.observation import Observation

TARGET, TOLERANCE = 0.7, 0.1
RAISE_SHARE, RAISE_COUNT = 2.0, 4


class Settings(NamedTuple):
    period_s: float
    window_s: float


HPA_UTIL = Settings(15.0, 300.0)
"""The defaults of Kubernetes."""
HPA_FAST = Settings(5.0, 60.0)
"""The same with samples three times as often, and a window a fifth as long."""


class BusyTime:
    """Adds up the seconds that workers were busy, as the accounting of the kernel does.

    Where calls are shorter than the interval, samples of the busy workers would be several times as noisy: then the
    times of the calls that ended are added, and the age of those that run, which is ``E[S^2] / 2 E[S]`` on the average.
    """

    def __init__(self) -> None:
        self._mean = self._square = 0.0
        self._busy: int | None = None

    def of(self, observation: Observation) -> float:
        """The seconds in the interval of *observation*."""
        services = [call.service for call in observation.calls]
        if services:
            kept = 0.99 ** len(services)
            self._mean = kept * self._mean + (1 - kept) * sum(services) / len(services)
            self._square = kept * self._square + (1 - kept) * sum(one * one for one in services) / len(services)
        age = self._square / (2 * self._mean) if self._mean else observation.interval
        before, self._busy = self._busy, observation.busy
        if age >= observation.interval / 2:
            return observation.interval * (observation.busy if before is None else (before + observation.busy) / 2)
        begin = observation.now - observation.interval
        return sum(call.ended - max(call.started, begin) for call in observation.calls) + observation.busy * age


class Hpa:
    """One autoscaler."""

    def __init__(self, settings: Settings = HPA_UTIL) -> None:
        self._settings = settings
        self._busy, self._seconds = 0.0, 0.0
        self._time = BusyTime()
        self._next: float | None = None
        self._wanted: deque[tuple[float, int]] = deque()
        self._sizes: deque[tuple[float, int]] = deque()

    def decide(self, observation: Observation) -> int | None:
        now = observation.now
        self._busy += self._time.of(observation)
        self._seconds += observation.interval
        if self._next is None:  # the size that it begins with counts as one that was wanted
            self._next = now + self._settings.period_s
            self._wanted.append((now, observation.size))
        if now < self._next or not self._seconds:
            return None
        self._next = now + self._settings.period_s
        busy = self._busy / self._seconds
        self._busy = self._seconds = 0.0
        size = observation.size
        ratio = busy / (size * TARGET)
        wanted = size if abs(ratio - 1.0) <= TOLERANCE else math.ceil(busy / TARGET)
        wanted = min(max(wanted, observation.low), observation.high)
        while self._wanted and self._wanted[0][0] <= now - self._settings.window_s:
            self._wanted.popleft()
        self._wanted.append((now, wanted))
        while len(self._sizes) > 1 and self._sizes[1][0] <= now - self._settings.period_s:
            self._sizes.popleft()
        if wanted > size:
            before = self._sizes[0][1] if self._sizes else size
            wanted = max(min(wanted, max(math.ceil(before * RAISE_SHARE), before + RAISE_COUNT)), size)
        elif wanted < size:
            wanted = min(size, max(one for _, one in self._wanted))
        self._sizes.append((now, wanted))
        return wanted
