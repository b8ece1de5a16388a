"""A series of values as a line of characters, for messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_STEPS = "▁▂▃▄▅▆▇█"
_GAP = "·"


def sparkline(values: Sequence[float | None], width: int = 24) -> str:
    """Return *values* as at most *width* characters, from the lowest (``▁``) to the highest (``█``); ``·`` is unknown.

    Where there are more values than characters, a character stands for the mean of its share of them. Without any
    known value the text is empty.
    """
    cells = _cells(values, width)
    some = known(cells)
    if not some:
        return ""
    low, span = min(some) / 2, max(some) / 2 - min(some) / 2  # halves: the whole may be beyond all numbers
    return "".join(
        _GAP if cell is None else _STEPS[round((cell / 2 - low) / span * (len(_STEPS) - 1)) if span > 0 else 0]
        for cell in cells
    )


def _cells(values: Sequence[float | None], width: int) -> list[float | None]:
    count = min(len(values), width)
    edges = [len(values) * number // count for number in range(count + 1)] if count > 0 else []
    return [_mean(values[start:end]) for start, end in pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    some = known(values)
    return sum(value / len(some) for value in some) if some else None


def known(values: Sequence[float | None]) -> list[float]:
    """Return those of *values* that are known."""
    return [value for value in values if value is not None and abs(value) < float("inf")]
