"""`Schedule`: the lowest sizes that the operator has written down, by time of day and week.

All times of day are those of the wall clock in one time zone. Where the clock is put forward, a time of day that does
not exist is taken as early as it may be meant, and as late for the end of an entry; where it is put back, a time that
comes twice is the first for a beginning and the second for an end. So no entry is ever shorter than written.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta, tzinfo
from typing import NamedTuple

from pool_monitor.config.tuner import ScheduleEntry, days_of

LEAD_S = 60.0
"""The workers are asked for so long before an entry begins, or two cold starts, whichever is longer."""


class _Entry(NamedTuple):
    days: frozenset[int]
    start: time
    end: time
    size: int


class Schedule:
    """The entries of one pool. Immutable; where entries overlap, the highest size counts."""

    def __init__(self, pool: str, entries: Iterable[ScheduleEntry], zone: tzinfo | None = None) -> None:
        """Take the *entries* for *pool* and for all pools. *zone* None: the time zone of this machine."""
        self._zone = zone
        self._entries = tuple(
            _Entry(days_of(entry.days), time.fromisoformat(entry.start), time.fromisoformat(entry.end), entry.min_size)
            for entry in entries
            if entry.pool in (None, pool)
        )

    def floor_at(self, wall: float, cold_start: float) -> int | None:
        """Return the lowest size at *wall* (seconds since the epoch), or that begins so soon that the workers must be
        started now; None: there is none. *cold_start* is in seconds.
        """
        if not self._entries:
            return None
        lead = max(LEAD_S, 2 * cold_start)
        days = _days_around(local(wall, self._zone).date(), lead)
        return max(
            (
                entry.size
                for entry in self._entries
                for day in days
                if day.weekday() in entry.days and self._holds(entry, day, wall, lead)
            ),
            default=None,
        )

    def _holds(self, entry: _Entry, day: date, wall: float, lead: float) -> bool:
        last = day if entry.end > entry.start else day + timedelta(days=1)
        start = min(instants(day, entry.start, self._zone))
        return start - lead <= wall < max(instants(last, entry.end, self._zone))


def local(wall: float, zone: tzinfo | None) -> datetime:
    """Return the time of the wall clock; naive where *zone* is None, which means the time zone of this machine."""
    return datetime.fromtimestamp(wall, zone)


def instants(day: date, clock: time, zone: tzinfo | None) -> tuple[float, float]:
    """Return both moments that *clock* on *day* may mean, seconds since the epoch. On most days they are the same."""
    first = datetime.combine(day, clock, zone)
    return first.timestamp(), first.replace(fold=1).timestamp()


def _days_around(today: date, lead: float) -> tuple[date, ...]:
    """Return the days whose entries may hold: from yesterday, which may end today, to the last that *lead* reaches."""
    return tuple(today + timedelta(days=day) for day in range(-1, 2 + int(lead // 86400)))
