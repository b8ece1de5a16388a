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
    known = [cell for cell in cells if cell is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    return "".join(
        _GAP if cell is None else _STEPS[round((cell - low) / span * (len(_STEPS) - 1)) if span > 0 else 0]
        for cell in cells
    )


def _cells(values: Sequence[float | None], width: int) -> list[float | None]:
    count = min(len(values), width)
    edges = [len(values) * number // count for number in range(count + 1)] if count > 0 else []
    return [_mean(values[start:end]) for start, end in pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and abs(value) < float("inf")]
    return sum(known) / len(known) if known else None
