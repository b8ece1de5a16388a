"""How much counters have grown of late. A counter that only grows says for ever that something has happened once."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

SECONDS = 300
"""How far back *of late* reaches."""
STEP = 5
"""Seconds between two samples; what is returned reaches back by up to this much further."""


class RecentGrowth:
    """The growth of some counters in the last `SECONDS`. Keeps at most ``SECONDS / STEP + 1`` samples of them."""

    def __init__(self, counters: int) -> None:
        self._samples: deque[tuple[float, tuple[int, ...]]] = deque(maxlen=SECONDS // STEP + 1)
        self._first: tuple[int, ...] = (0,) * counters

    def sample(self, now_s: float, counters: Sequence[int]) -> None:
        """Take the values of the counters. *now_s* is of a clock that never steps."""
        while self._samples and now_s - self._samples[0][0] >= SECONDS:
            self._first = self._samples.popleft()[1]
        if not self._samples or now_s - self._samples[-1][0] >= STEP:
            self._samples.append((now_s, tuple(counters)))

    def growth(self, counters: Sequence[int]) -> tuple[int, ...]:
        """Return by how much each counter has grown, up to its present value in *counters*."""
        return tuple(now - before for now, before in zip(counters, self._first, strict=True))
