"""Mute times: times of the week in which alerts of a rule are not told."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from pool_monitor.alerts.rule import MuteTime


class LocalTime(NamedTuple):
    """What a clock on the wall shows."""

    weekday: int
    """0 is Monday."""
    minute: int
    """Minutes after midnight."""


def local_time(at: float) -> LocalTime:
    """Return what a clock on the wall of this machine shows at *at*, seconds since the epoch.

    It follows the machine's time zone with its summer time: an hour that the clock shows twice counts twice, and one
    that it skips does not come.
    """
    found = time.localtime(at)
    return LocalTime(found.tm_wday, found.tm_hour * 60 + found.tm_min)


def is_muted(mute: Iterable[MuteTime], now: LocalTime) -> bool:
    """Whether one of the times lasts *now*. One that ends on the next day belongs to the day on which it begins."""
    day, minute = now
    for one in mute:
        if one.start < one.end:
            if day in one.days and one.start <= minute < one.end:
                return True
        elif (day in one.days and minute >= one.start) or ((day - 1) % 7 in one.days and minute < one.end):
            return True
    return False
