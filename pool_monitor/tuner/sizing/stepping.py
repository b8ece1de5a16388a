"""`Stepping`: how fast a size may change. Up at once; down late, in small steps, and only to what was needed lately."""

from __future__ import annotations

import math
from collections import deque

from pool_monitor.tuner.sizing.presets import Preset

LONGEST_HOLD_S = 300.0
"""A size is not held longer than this because of cold starts, unless they take more than a minute."""
DEADBAND = 0.1
"""A size that is too large by less than this share is kept."""
SMALL = 0.1
SMALL_S = 3.0
"""A growth by at most this share, or by one worker, is made once it has been needed for so many seconds."""


class Stepping:
    """The decisions of one pool. Remembers the needs of the time that a size is held: at most one row for each size."""

    def __init__(self, preset: Preset) -> None:
        self._preset = preset
        self._needs: deque[tuple[float, int]] = deque()  # times that rise, needs that fall
        self._down_at = -math.inf
        self._since: float | None = None
        self._short_since: float | None = None
        self._size = self._asked = 0
        """The size seen last, and the one that was returned then."""
        self._grown_from: int | None = None
        """The size for which a growth was decided: it is decided again until it is made. None: none is."""
        self._shrunk_from: int | None = None
        """The same of a step down."""

    def hold(self, cold_start: float) -> float:
        """Return for how many seconds a size is held that nothing needs."""
        preset = self._preset
        return max(preset.hold, min(preset.hold_cold_starts * cold_start, max(LONGEST_HOLD_S, 5 * cold_start)))

    def recent(self) -> int:
        """Return the largest need that is remembered; 0: none is."""
        return self._needs[0][1] if self._needs else 0

    def rest(self, now: float) -> None:
        """Count the time that a size is held from *now* on: what was before is not known."""
        self._since, self._shrunk_from = now, None
        self._down_at = max(self._down_at, now) if now >= self._down_at else now

    def step(self, now: float, size: int, need: int, cold_start: float) -> int:
        """Return the size that follows *size* when *need* workers are needed at the time *now*."""
        if self._since is None or (size > self._size and size != self._asked):
            self._since = now  # somebody else has set a larger size, and may know why
        self._size = size
        self._asked = asked = self._next(now, size, need, cold_start)
        return asked

    def _next(self, now: float, size: int, need: int, cold_start: float) -> int:
        since = self._since if self._since is not None else now
        hold = self.hold(cold_start)
        needs = self._needs
        while needs and needs[-1][1] <= need:
            needs.pop()
        needs.append((now, need))
        while needs[0][0] < now - hold:
            needs.popleft()
        if need <= size:
            self._short_since = self._grown_from = None
        else:
            if self._short_since is None or self._grown_from not in (None, size):
                self._short_since, self._grown_from = now, None
            if need - size <= max(1, SMALL * size) and now - self._short_since < SMALL_S:
                return size
            self._grown_from = size
            return min(need, max(2 * size, size + 4))
        most = needs[0][1]
        share = max(1, math.ceil(DEADBAND * size))
        if self._shrunk_from != size:
            self._shrunk_from = None
        pausing = self._shrunk_from is None and now - self._down_at < self._preset.down_pause
        if now - since < hold or most > size - share or pausing:
            return size
        self._down_at, self._shrunk_from = now, size
        return max(most, size - max(1, math.ceil(self._preset.down_share * size)))
