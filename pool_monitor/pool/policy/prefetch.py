"""Decides how many calls a worker may be handed ahead of time. No I/O, no clock: durations are seconds.

A worker that already has its next call is not idle while its result travels. This saves a fixed time per call, so it
pays for short operations only. A call that was handed over has left the order of the queue, so few may be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_WAKE_UP = 30e-6  # about how long a sleeping worker takes to wake up
_OVERHEAD = 5e-6  # about what a worker spends on a call besides executing it
_AHEAD_MAX = 0.001  # the calls a worker holds take about so long at most, unless it is a single call


def depth(mean: float | None, limit: int, waiting: int, workers: int) -> int:
    """How many calls a worker may hold, the one it runs included: 1 to *limit*.

    *mean* is how long a call holds its worker; None: not known. *waiting* counts the calls that have not ended, those
    already handed over included, so that handing one over does not change the result. No worker gets more than its
    share of them.
    """
    if mean is None or mean >= _AHEAD_MAX or waiting <= workers or workers <= 0:
        return 1
    share = -(-waiting // workers)
    if share > limit:
        share = limit
    return share if share * mean <= _AHEAD_MAX else math.ceil(_AHEAD_MAX / mean)


def awake_depth(mean: float | None, limit: int) -> int:
    """How many calls a worker that is awake may hold before another one is woken for the next call: 1 to *limit*.

    *mean* is how long a call is executed; None: not known. While a sleeping worker wakes up, one that is awake executes
    several short calls; and two workers execute short calls as fast as they can be handed out.
    """
    return 1 if mean is None else max(1, min(limit, int(_WAKE_UP / (mean + _OVERHEAD))))


def held_times(executed: Sequence[int], total: int) -> list[int]:
    """How long each of several calls held their worker, one after the other, for *total* together. Each held it for
    the time that it was *executed*; the rest of the total is divided evenly. If the executions exceed the total, the
    total is divided evenly.
    """
    claimed = sum(executed)
    if claimed > total:
        return [total // len(executed)] * len(executed)
    between = (total - claimed) // len(executed)
    return [one + between for one in executed]
