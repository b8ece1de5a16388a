"""Decides how many calls a worker may be handed ahead of time. No I/O, no clock: durations are seconds.

A worker that already holds its next call is not idle while a result travels. This saves a fixed time per call, so it
pays for short operations only. A call that was handed over no longer follows the order of the queue, so only few are
handed ahead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_WAKE_UP = 30e-6  # about how long a sleeping worker takes to wake up
_OVERHEAD = 5e-6  # about what a worker spends on a call besides executing it
_AHEAD_MAX = 0.001  # about how long all calls that a worker holds may take together, if it holds several


def depth(mean: float | None, limit: int, waiting: int, workers: int) -> int:
    """Return how many calls a worker may hold, with the one it runs: 1 to *limit*.

    *mean* is how long a call holds its worker; None: not known. *waiting* is the number of calls that have not ended.
    It includes calls already handed over, so that handing a call over does not change the result. No worker gets more
    than its share of these calls.
    """
    if mean is None or mean >= _AHEAD_MAX or waiting <= workers or workers <= 0:
        return 1
    share = -(-waiting // workers)
    if share > limit:
        share = limit
    return share if share * mean <= _AHEAD_MAX else math.ceil(_AHEAD_MAX / mean)


def awake_depth(mean: float | None, limit: int) -> int:
    """Return how many calls an awake worker may hold before another worker is woken for the next call: 1 to *limit*.

    *mean* is how long a call is executed; None: not known. While a sleeping worker wakes up, an awake worker executes
    several short calls. Two workers execute short calls as fast as the pool can hand them over.
    """
    return 1 if mean is None else max(1, min(limit, int(_WAKE_UP / (mean + _OVERHEAD))))


def held_times(executed: Sequence[int], total: int) -> list[int]:
    """Return how long each of several calls held their worker. One after the other, they held it for *total* together:
    each for the time that it was *executed*, and for an equal share of the rest. If the executions exceed the total,
    each gets an equal share of the total.
    """
    claimed = sum(executed)
    if claimed > total:
        return [total // len(executed)] * len(executed)
    between = (total - claimed) // len(executed)
    return [execution + between for execution in executed]
