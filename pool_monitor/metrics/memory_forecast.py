"""How much memory the steps of the windows will need, if it goes on as in their latest steps. Pure functions.

Two estimates are made. One is what the steps need once every window reaches back in full. The other is what they need a
minute from now. The smaller one counts: a burst of a minute does not fill an hour, and a load that has ended takes no
more room however full the windows are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

AHEAD_S = 60
"""How far the nearer estimate looks ahead: the longest step."""


class StepSizes(NamedTuple):
    """The steps of one window. Sizes are bytes."""

    steps: int
    """How many steps the window has when it is full."""
    seconds: int
    """Length of a step."""
    held: int
    """Size of the steps that it has."""
    newest: float | None
    """Mean size of the newest complete steps since the mode changed; None: there is none yet."""
    leaving: int
    """Size of the steps that leave the window within `AHEAD_S`."""


def step_sizes(windows: Sequence[StepSizes]) -> list[float]:
    """The expected size of a step of each window. *windows* have ascending lengths of steps.

    A step holds at least what the latest finer step holds, and at most as much as the finer steps in it together.
    """
    sizes: list[float] = []
    finer: tuple[float, int] | None = None
    for window in windows:
        size = window.newest
        if finer is not None:
            least, seconds = finer
            size = least if size is None else min(max(size, least), least * window.seconds / seconds)
        size = size or 0.0
        sizes.append(size)
        finer = size, window.seconds
    return sizes


def needed(windows: Sequence[StepSizes], essential: int | None = None) -> float:
    """The bytes that the steps of *windows* will need: the smaller of the two estimates.

    Only the first *essential* windows need all their steps, each of the others one. None: all need all.
    """
    sizes = step_sizes(windows)
    whole = len(windows) if essential is None else essential
    full = sum(
        size * (window.steps if number < whole else 1)
        for number, (size, window) in enumerate(zip(sizes, windows, strict=True))
    )
    soon = sum(
        window.held - window.leaving + size * (AHEAD_S / window.seconds)
        for size, window in zip(sizes, windows, strict=True)
    )
    return min(full, soon)
