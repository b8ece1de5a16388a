"""How much the collector keeps of each call: a ladder of modes, from everything to nothing.

Theory of operation
-------------------
The steps of the windows take more memory the more operations, workers and different durations there are. Before they
would exceed the memory budget, the collector keeps less of each call:

- ``full``: everything.
- ``sampled``: one duration in `ONE_IN` enters the histograms, and stands for its neighbours. Counts, sums and maxima
  stay exact. Percentiles come from the sample.
- ``counters``: no duration is recorded. The counts of calls stay exact. If even they do not fit, the longer windows
  reach back less far.
- ``off``: nothing is counted, and the windows are emptied. This is for a budget that cannot hold the windows up to
  `ESSENTIAL` in the mode ``counters``.

*Pressure* is what the steps of all windows will need, as a share of the memory that the other stores leave them
(`pool_monitor.metrics.memory_forecast`). Above `Rungs.over` in several ticks in a row, or above `Rungs.far_over` once,
the ladder goes one step down. Below `Rungs.under` for some time, it goes one step up.

Nobody knows what a mode above would need: the durations that would show it are not kept. So a step up is a try. If the
ladder goes down again sooner than it had waited, it waits twice as long before the next try.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from pool_monitor.state_machine import StateMachine

ONE_IN = 16
"""In the mode ``sampled``, one duration in this many enters the histograms: at least one per series and fold."""


ESSENTIAL = 2
"""How many windows, from the shortest on, must fit in the mode ``counters``: ``1m`` and ``5m``, which Snapshots show if
nothing else is asked for."""


class Mode(StrEnum):
    """What the collector keeps."""

    FULL = "full"
    SAMPLED = "sampled"
    COUNTERS = "counters"
    OFF = "off"


KEPT = {
    Mode.FULL: "everything",
    Mode.SAMPLED: "exact counts, and a sample of the durations",
    Mode.COUNTERS: "exact counts, and no durations",
    Mode.OFF: "nothing",
}
"""What the collector keeps in each mode, in words."""

MODES: StateMachine[Mode] = StateMachine(
    "the collector's mode",
    Mode.FULL,
    {
        Mode.FULL: {"down": Mode.SAMPLED},
        Mode.SAMPLED: {"down": Mode.COUNTERS, "up": Mode.FULL},
        Mode.COUNTERS: {"down": Mode.OFF, "up": Mode.SAMPLED},
        Mode.OFF: {"up": Mode.COUNTERS},
    },
)


class Rungs(NamedTuple):
    """When the ladder steps. Pressures are shares, times are seconds."""

    over: float = 1.0
    over_ticks: int = 3
    """The ladder goes down when the pressure is above *over* in this many ticks in a row."""
    far_over: float = 1.2
    """Above this pressure it goes down at once."""
    under: float = 0.7
    """It goes up when the pressure has been below this one for the time that it waits."""
    wait: float = 30.0
    """How long it waits before it goes up, until a step up has failed."""
    wait_max: float = 480.0
    """The longest time that it waits, after many steps up that failed. A step up that holds makes it `wait` again."""


class Ladder:
    """The mode of one collector. Time is passed in and must not decrease. Nothing here does I/O."""

    def __init__(self, rungs: Rungs = Rungs()) -> None:  # noqa: B008 - immutable
        self._rungs = rungs
        self.reset()

    def reset(self) -> None:
        """Begin again in the mode ``full``."""
        self.mode = MODES.first
        self._over = 0
        self._calm_since: float | None = None
        self._up_at: float | None = None
        self._wait = self._rungs.wait

    def step(self, pressure: float, now_s: float, above: float | None = None) -> bool:
        """Take the *pressure* of one tick. Returns whether the mode has changed; it changes by one step at most.

        *above* is the pressure that must be low for a step up; None: the same.
        """
        rungs = self._rungs
        self._over = self._over + 1 if pressure > rungs.over else 0
        if (pressure if above is None else above) >= rungs.under:
            self._calm_since = None
        elif self._calm_since is None:
            self._calm_since = now_s
        allowed = MODES.table[self.mode]
        if "down" in allowed and (self._over >= rungs.over_ticks or pressure > rungs.far_over):
            failed = self._up_at is not None and now_s - self._up_at < self._wait
            self._wait = min(self._wait * 2, rungs.wait_max) if failed else rungs.wait
            self._up_at = None
            self._go("down")
            return True
        if "up" in allowed and self._calm_since is not None and now_s - self._calm_since >= self._wait:
            if self._up_at is not None:
                self._wait = rungs.wait  # the last step up has held
            self._up_at = now_s
            self._go("up")
            return True
        return False

    def _go(self, trigger: str) -> None:
        self.mode = MODES.step(self.mode, trigger)
        self._over, self._calm_since = 0, None
