"""Time behind one seam: a monotonic clock for durations and a wall clock for people, never mixed."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where a component takes its time from. Both values are integer nanoseconds."""

    def monotonic_ns(self) -> int:
        """Time that never steps: the only source of durations."""

    def wall_ns(self) -> int:
        """Time since the epoch, for people. May step."""


class SystemClock:
    """The clock of the machine."""

    __slots__ = ()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return time.time_ns()


class WakefulClock(SystemClock):
    """The clock of the machine, whose monotonic time also goes on while the machine is suspended.

    For windows: what happened before an hour of sleep is not in the last five minutes. Not for time-outs.
    """

    __slots__ = ()

    def monotonic_ns(self) -> int:
        return time.clock_gettime_ns(_WAKEFUL)


_WAKEFUL = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS has no such clock under this name


class SteadyClock:
    """A clock that is set by the wall clock once and then goes by the monotonic one, so that it never steps."""

    __slots__ = ("_monotonic_ns", "_offset_ns", "wall_ns")

    def __init__(self, clock: Clock) -> None:
        self._monotonic_ns = clock.monotonic_ns
        self.wall_ns = clock.wall_ns
        self.set()

    def set(self) -> None:
        """Set it anew."""
        self._offset_ns = self.wall_ns() - self._monotonic_ns()

    def now_ns(self) -> int:
        """Nanoseconds since the epoch, as the wall clock counted them when this one was set."""
        return self._monotonic_ns() + self._offset_ns


class ManualClock:
    """A clock for tests, such as ``Monitor(clock=)``: it stands still until `advance`; the wall clock can step on its
    own. *wall_s*: seconds since the epoch at which the wall clock begins. The deadlines of a pool's calls go by the
    event loop and not by this clock.
    """

    __slots__ = ("_monotonic_ns", "_offset_ns")

    def __init__(self, wall_s: float = 1_700_000_000.0) -> None:
        self._monotonic_ns = 0
        self._offset_ns = round(wall_s * 1e9)

    def monotonic_ns(self) -> int:
        return self._monotonic_ns

    def wall_ns(self) -> int:
        return self._monotonic_ns + self._offset_ns

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks."""
        self._monotonic_ns += round(seconds * 1e9)

    def step_wall(self, seconds: float) -> None:
        """Step the wall clock, as NTP or an operator does; the monotonic clock stands."""
        self._offset_ns += round(seconds * 1e9)
