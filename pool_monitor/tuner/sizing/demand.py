"""How many workers a load needs so that few calls wait longer than the target."""

from __future__ import annotations

import math

from pool_monitor.advisor import queueing


def needed(rate: float, service: float, cv2: float, target: float, miss: float, most: int) -> int:
    """Return the smallest size with which at most the share *miss* of the calls waits longer than *target* seconds.

    By Erlang C with the factor of Allen and Cunneen for service times whose squared coefficient of variation is *cv2*.
    *most* where not even that is enough.
    """
    load = rate * service
    if load <= 0:
        return 1
    factor = queueing.variability(1.0, cv2)
    return queueing.size_for(load, service, target, 1 - miss, factor, most=most) or most


def falls_short(rate: float, service: float, cv2: float, target: float, miss: float, size: int) -> bool:
    """Return whether a larger share than *miss* waits longer than *target* seconds at *size*."""
    load = rate * service
    factor = queueing.variability(1.0, cv2)
    return load > 0 and queueing.size_for(load, service, target, 1 - miss, factor, most=size) is None


def backlog(waiting: int, rate: float, service: float, target: float, seconds: float) -> int:
    """Return the workers that, beside those of the steady load, end the backlog within *seconds*.

    The backlog is what waits beyond the calls that may wait: those that arrive within *target*. One worker for each of
    them is the most that helps, however long a call takes.
    """
    beyond = waiting - rate * target
    return math.ceil(beyond * min(1.0, service / seconds)) if beyond > 0 and seconds > 0 else 0
