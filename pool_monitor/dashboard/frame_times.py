"""How long the frames of a dashboard take to draw."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KEPT = 32
"""The number of frames that the figure is taken from."""


class FrameTimes:
    """Sums up the time of the pieces of each frame: making its lines, painting them, and writing them to the terminal.

    It keeps the last `KEPT` frames. *clock* returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.pieces = 0
        """The number of pieces measured so far."""
        self._frames: deque[float] = deque(maxlen=KEPT)
        self._current = 0.0

    def begin(self) -> float | None:
        """Begin a frame. Return the median time of the frames before it, in seconds; None: there was none."""
        if self._current:
            self._frames.append(self._current)
        self._current = 0.0
        return statistics.median(self._frames) if self._frames else None

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Add the time of the block to the current frame."""
        began = self._clock()
        try:
            yield
        finally:
            self._current += self._clock() - began
            self.pieces += 1
