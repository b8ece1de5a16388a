"""Clocks that can be replaced in tests. Durations come from a monotonic clock, times for people from a wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol
from weakref import WeakMethod


class Clock(Protocol):
    """The source of time for a component. Both times are integer nanoseconds."""

    def monotonic_ns(self) -> int:
        """Time that never steps. All durations are computed from it."""

    def wall_ns(self) -> int:
        """Time since the epoch, for people. It may step."""


class SystemClock:
    """The clocks of the machine. They are read at every call of a pool, so no Python function stands in between."""

    __slots__ = ()

    monotonic_ns = staticmethod(time.monotonic_ns)
    wall_ns = staticmethod(time.time_ns)


_WAKEFUL = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS has no such clock under this name


class WakefulClock:
    """The clocks of the machine, with a monotonic time that also advances while the machine is suspended.

    Windows use it: after an hour of sleep, calls from before are no longer in the last five minutes. Not for timeouts.
    """

    __slots__ = ()

    monotonic_ns = staticmethod(partial(time.clock_gettime_ns, _WAKEFUL))
    wall_ns = staticmethod(time.time_ns)


class SteadyClock:
    """A clock that is set to the wall clock once and then follows the monotonic clock, so that it never steps."""

    __slots__ = ("_monotonic_ns", "_offset_ns", "wall_ns")

    def __init__(self, clock: Clock) -> None:
        self._monotonic_ns = clock.monotonic_ns
        self.wall_ns = clock.wall_ns
        self.set()

    def set(self) -> None:
        """Set the clock to the wall clock again."""
        self._offset_ns = self.wall_ns() - self._monotonic_ns()

    def now_ns(self) -> int:
        """Nanoseconds since the epoch. Later steps of the wall clock have no effect on it."""
        return self._monotonic_ns() + self._offset_ns


class ManualClock:
    """A clock for tests, such as ``Monitor(clock=)``. It moves only when `advance` or `step_wall` is called.

    For a monitor, a step of any length is time in which it ran and measured, and not one in which it was stopped.

    *wall_s* is where the wall clock begins, in seconds since the epoch. The deadlines of a pool's calls follow the
    event loop, not this clock.
    """

    __slots__ = ("_before", "_monotonic_ns", "_offset_ns")

    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self._monotonic_ns = 0
        self._offset_ns = round(wall_s * 1e9)
        self._before: list[WeakMethod[Callable[[], object]]] = []

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def wall_ns(self) -> int:
        return self._monotonic_ns + self._offset_ns

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks."""
        for reference in self._before:
            if (method := reference()) is not None:
                method()
        self._monotonic_ns += round(seconds * 1e9)

    def before_advance(self, method: Callable[[], object]) -> None:
        """Call the bound *method* at the beginning of each `advance`, before time passes, as long as its object exists.

        It counts what has happened by then. What counts in real time would do it too late: after the advance.
        """
        self._before = [reference for reference in self._before if reference() is not None]
        self._before.append(WeakMethod(method))

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock, as NTP or an operator does. The monotonic clock stays where it is."""
        self._offset_ns += round(seconds * 1e9)
