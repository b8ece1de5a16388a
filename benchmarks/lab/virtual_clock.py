"""A clock that stands still until the simulator sets it, and the events that lie ahead."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

Due: TypeAlias = tuple[float, int, Callable[[Any], object], Any]


class VirtualClock:
    """The clocks of a simulated service: both begin with the scenario."""

    __slots__ = ("_wall_s", "now")

    def __init__(self, wall_s: float) -> None:
        self.now = 0.0
        """Seconds since the beginning."""
        self._wall_s = wall_s

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)

    def wall_ns(self) -> int:
        return int((self._wall_s + self.now) * 1e9)


class Agenda:
    """What happens next. Of two things at one time, the one that was put first is first."""

    __slots__ = ("_number", "heap")

    def __init__(self) -> None:
        self.heap: list[Due] = []
        self._number = itertools.count()

    def put(self, at: float, function: Callable[[Any], object], argument: Any = None) -> None:
        """Call *function* with *argument* at *at*."""
        heapq.heappush(self.heap, (at, next(self._number), function, argument))
