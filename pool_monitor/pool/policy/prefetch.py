"""How many calls a worker may be handed ahead of time. No I/O, no clock: durations are seconds.

A worker that has its next call already does not stand idle while its answer travels. That gain is a fixed time per
call, so it is worth something only for short operations; and what is handed over is out of the queue's order, so
it must be little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_WAKE = 30e-6  # what waking a sleeping worker takes, about
_AROUND = 5e-6  # what a worker takes for a call beside executing it
_AHEAD = 0.001  # what is handed to a worker takes about so long at most, unless it is one call


def depth(mean: float | None, limit: int, waiting: int, workers: int) -> int:
    """How many calls a worker may hold, the one it runs included: 1 to *limit*.

    *mean*: how long a call holds its worker, None if not known. *waiting*: calls that have not ended, those that
    were handed over included, so that handing one over does not change the answer. No worker is given more than its
    share of them.
    """
    if mean is None or mean >= _AHEAD or waiting <= workers or workers <= 0:
        return 1
    share = -(-waiting // workers)
    if share > limit:
        share = limit
    return share if share * mean <= _AHEAD else math.ceil(_AHEAD / mean)


def near(mean: float | None, limit: int) -> int:
    """How many calls a worker that is awake may hold before it is worth waking another one for the next call: 1 to
    *limit*.

    *mean*: how long a call is executed, None if not known. Until a sleeping worker is awake, one that is awake has done
    several short calls; and all that are short are done by two workers as fast as they can be handed out.
    """
    return 1 if mean is None else max(1, min(limit, int(_WAKE / (mean + _AROUND))))


def turns(executed: Sequence[int], total: int) -> list[int]:
    """For how long calls held a worker one after the other, all together for *total*: each was *executed* for so long,
    and what is left of the total is shared out evenly. Where they claim more than there was, that is shared out.
    """
    claimed = sum(executed)
    if claimed > total:
        return [total // len(executed)] * len(executed)
    between = (total - claimed) // len(executed)
    return [one + between for one in executed]
