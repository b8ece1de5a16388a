"""Keeps a collector within its memory budget: measures once a tick, steps the ladder, and puts its mode into effect."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pool_monitor.clock import SteadyClock
from pool_monitor.metrics.intake import BUFFER_EVENTS, Intake
from pool_monitor.metrics.ladder import ESSENTIAL, MODES, Ladder, Mode, Rungs
from pool_monitor.metrics.memory_forecast import needed
from pool_monitor.metrics.stores import Stores
from pool_monitor.metrics.window import SECOND_NS

ModeListener = Callable[[Mode, Mode, str], object]


class MemoryWatch:
    """The mode of one collector, and since when.

    *spare* is how many bytes the windows may give up for what other parts of the monitor hold. *attach* and *detach*
    attach and detach the handlers of *intake*.
    """

    def __init__(
        self,
        intake: Intake,
        stores: Stores,
        clock: SteadyClock,
        rungs: Rungs,
        spare: int,
        attach: Callable[[], object],
        detach: Callable[[], object],
    ) -> None:
        self._intake, self._stores, self._clock = intake, stores, clock
        self._ladder = Ladder(rungs)
        self._windows_limit = stores.windows_limit
        self.yielded_max = spare // 4
        """The most that the windows give way: histograms take at most half of their memory, so steps keep a quarter."""
        self._readings = 0
        self._attach, self._detach = attach, detach
        self.listener: ModeListener = lambda _before, _mode, _why: None
        """Is called when the mode changes, with the mode before, the mode, and why. It must not raise."""
        self.elsewhere = 0
        """Bytes that other parts of the monitor hold."""
        self._since_ns = self._off_ns = 0
        self._reduced_ns: int | None = None  # when the mode was last not full

    @property
    def mode(self) -> Mode:
        """What is kept of each call now."""
        return self._intake.mode

    def reset(self, now_ns: int) -> None:
        """Begin again in the mode ``full``. The collector resets the intake and the stores."""
        self._ladder.reset()
        self._since_ns, self._off_ns, self._reduced_ns = now_ns, 0, None

    def hold_elsewhere(self, nbytes: int) -> None:
        """Take *nbytes* into the budget that other parts of the monitor hold.

        The windows give way for it, but at most by `yielded_max`: whatever is held elsewhere, they keep the rest.
        """
        self.elsewhere = nbytes
        self._share()

    def hold_readings(self, nbytes: int) -> None:
        """The same for *nbytes* that the readings of resources take."""
        self._readings = nbytes
        self._share()

    def _share(self) -> None:
        yielded = min(self.elsewhere + self._readings, self.yielded_max)
        self._stores.windows.limit_bytes = self._windows_limit - yielded

    def tick(self) -> None:
        """Step the ladder."""
        windows, intake, before = self._stores.windows, self._intake, self._intake.mode
        squeezed, intake.squeezed = intake.squeezed, False
        sizes = [store.sizes(self._since_ns) for store in windows.stores()]
        room, wanted = max(windows.room_for_steps, 1), needed(sizes)
        must = needed(sizes, ESSENTIAL) if before is Mode.COUNTERS else wanted
        if self._ladder.step(math.inf if squeezed else must / room, self._clock.now_ns() / SECOND_NS, wanted / room):
            down = MODES.table[before].get("down") is self._ladder.mode
            self._change(self._ladder.mode, _reason(down, squeezed, must if down else wanted, room))

    def figures(self, now_ns: int) -> dict[str, Any]:
        """The figures of the mode and of the buffer, by the fields of `MonitorView`."""
        mode, lag = self._intake.mode, self._intake.lag()
        reduced_ns = now_ns if mode is not Mode.FULL else self._reduced_ns
        return {
            "mode": mode.value,
            "reduced_age": None if reduced_ns is None else (now_ns - reduced_ns) / SECOND_NS,
            "off_seconds": (self._off_ns + (now_ns - self._since_ns if mode is Mode.OFF else 0)) / SECOND_NS,
            "lag": None if lag is None else lag[0],
            "lag_median": None if lag is None else lag[1],
            "buffer_limit": BUFFER_EVENTS,
        }

    def _change(self, mode: Mode, why: str) -> None:
        now_ns, before, windows = self._intake.catch_up(), self._intake.mode, self._stores.windows
        if mode is Mode.OFF:
            windows.close_second(now_ns)
            self._detach()
        if before is not Mode.FULL:
            self._reduced_ns = now_ns
        if before is Mode.OFF:
            self._off_ns += now_ns - self._since_ns
        self._intake.mode, self._since_ns = mode, now_ns
        if Mode.OFF in (before, mode):
            windows.skip(now_ns)
            self._stores.error_groups.clear_windows()
        if before is Mode.OFF:
            self._attach()
        self.listener(before, mode, why)


def _reason(down: bool, squeezed: bool, wanted: float, room: int) -> str:
    """Why the mode has changed, in words."""
    left = f"{room / 2**20:.1f} MiB that the memory limit leaves for them"
    if not down:
        return f"the windows need {wanted / 2**20:.1f} of the {left}"
    if squeezed:
        return "the memory limit leaves no room for more histograms"
    return f"the windows would need {wanted / 2**20:.1f} MiB, more than the {left}"
