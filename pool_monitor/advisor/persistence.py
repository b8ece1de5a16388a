"""Whether a detection lasts: advice that comes and goes with each pass is worth nothing."""

from __future__ import annotations

from collections import deque

PASSES = 5
"""The passes that count: the latest."""
TO_OPEN = 3
"""In so many of them it must have been found to begin."""


class Persistence:
    """What the latest passes said about one pattern and one subject."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: deque[bool] = deque(maxlen=PASSES)

    def note(self, *, found: bool) -> None:
        """Take the result of one pass."""
        self._found.append(found)

    def clear(self) -> None:
        """Forget all passes: what was found until now is over."""
        self._found.clear()

    @property
    def share(self) -> float:
        """The share of the latest `PASSES` passes that have found it. Passes that were not made have not."""
        return sum(self._found) / PASSES

    @property
    def holds(self) -> bool:
        """Whether it was found in 3 of the last 5 passes: it begins."""
        return sum(self._found) >= TO_OPEN

    @property
    def gone(self) -> bool:
        """Whether it was found in none of 5 passes: it ends."""
        return len(self._found) == PASSES and not any(self._found)

    @property
    def idle(self) -> bool:
        """Whether nothing is remembered that matters."""
        return not any(self._found)
