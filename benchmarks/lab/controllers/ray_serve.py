"""The autoscaler of Ray Serve, on the calls that are under way or wait.

Source: https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html. The size that is wanted is
``ceil(ongoing / target)``. It must be wanted in one direction for the whole of a delay; a change of direction begins
the delay again.
"""

from __future__ import annotations

import math
from collections import deque

from pool_monitor.tuner.observation import Observation

TARGET = 0.8
"""Calls per worker. The default of Ray Serve is 2, for replicas that run several calls at once."""
UP_S, DOWN_S, LOOK_BACK_S = 30.0, 600.0, 30.0


class RayServe:
    """One autoscaler."""

    def __init__(self) -> None:
        self._ongoing: deque[tuple[float, int]] = deque()
        self._direction, self._since = 0, 0.0

    def decide(self, observation: Observation) -> int | None:
        now, size = observation.now, observation.size
        self._ongoing.append((now, observation.busy + observation.waiting))
        while self._ongoing[0][0] <= now - LOOK_BACK_S:
            self._ongoing.popleft()
        ongoing = sum(count for _, count in self._ongoing) / len(self._ongoing)
        wanted = min(max(math.ceil(ongoing / TARGET), observation.low), observation.high)
        direction = (wanted > size) - (wanted < size)
        if direction != self._direction:
            self._direction, self._since = direction, now
        if direction == 0 or now - self._since < (UP_S if direction > 0 else DOWN_S):
            return None
        self._since = now
        return wanted
