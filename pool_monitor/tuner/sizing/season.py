"""`PoolSeason`: the shape of the days and weeks of one pool, learned from what its load has needed; what comes next.

A day is 288 rows of five minutes of the local wall clock. The size that is expected for a row is the largest that at
least 70 % of the comparable days have needed: so neither a holiday nor a flash crowd on one day teaches anything.
Comparable are, in turn, the same day of the week (from the third on), the working days or the days of the week-end, and
all days. The wider groups count only as far as the same day of the week has not shown something else.

On a day that is unlike the others the season is silent: see `DOUBT_S`.
"""

from __future__ import annotations

import math
import struct
from datetime import date, datetime, tzinfo
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.tuner.sizing.schedule import LEAD_S, local

ROW_S = 300
ROWS = 86400 // ROW_S
DAYS = 28
"""Days that are kept: 16 KiB."""
RECENT_DAYS = 14
"""The wider groups reach back so far: a shape that has changed for good is unlearned within five days."""
SHARE = 0.7
"""The share of the comparable days that must have needed a size."""
ENOUGH_SAME, ENOUGH_WORKING, ENOUGH_WEEKEND, ENOUGH_ALL = 3, 5, 4, 7
"""The fewest days of a group that count."""
DOUBT_S, DOUBT = 1800.0, 0.6
"""Half an hour in which less than this share of the expected size was needed: today is unlike the other days."""
RISE = 0.25
"""A growth by this share within a quarter of an hour is a rise that is worth a word."""
_SLACK = 0.2
"""A mean need of 5.2 is a size of 5."""
_MAGIC = b"season1\n"
_UNKNOWN = 0xFFFF
_TENTHS = 10.0

Floats = NDArray[np.float64]


class Rise(NamedTuple):
    """A rise that comes at this time on most days."""

    at: float
    """Wall-clock time by which the workers should be ready."""
    size: int
    days: int
    """Of the latest 14 days: those that have shown it."""
    of: int
    """And those that were seen."""


class PoolSeason:
    """What is learned of one pool. Bound: 28 days of 288 numbers."""

    def __init__(self, zone: tzinfo | None = None) -> None:
        """*zone* None: the time zone of this machine."""
        self._zone = zone
        self._days: dict[int, Floats] = {}  # by the ordinal of the date
        self._row: tuple[int, int] | None = None
        self._sum = self._seconds = 0.0
        self._cache: dict[int, Floats] = {}  # what is expected of today and of the days beside it
        self._doubt_since: float | None = None
        self._silent_on = 0  # the ordinal of a date

    def observe(self, wall: float, interval: float, needed: int | None) -> None:
        """Take the size that the load *needed* in the *interval* seconds before *wall*; None: it is not known."""
        known = 0 < interval < math.inf
        moment = local(wall - min(interval, ROW_S) / 2 if known else wall, self._zone)
        row = _row_of(moment)
        if row != self._row:
            self._close()
            if self._row is None or row[0] != self._row[0]:
                self._cache.clear()
            self._row = row
        if needed is None or not known:
            return
        seconds = min(interval, ROW_S)
        self._sum += needed * seconds
        self._seconds += seconds
        self._doubt(wall, moment, needed)

    def floor_at(self, wall: float, cold_start: float) -> int | None:
        """Return the lowest size at *wall*, so that the workers are ready five minutes before they are needed; None:
        nothing is expected, or today is unlike other days.
        """
        moment = local(wall, self._zone)
        if self._silent_on == moment.toordinal():
            return None
        lead = min(max(LEAD_S, 2 * cold_start) + ROW_S, 86400.0)
        rows = range(int(lead // ROW_S) + 2)
        expected = [
            self._at(local(wall + min(step * ROW_S, lead), self._zone)) for step in rows if (step - 1) * ROW_S < lead
        ]
        return max((size for size in expected if size is not None), default=None)

    def upcoming(self, wall: float) -> Rise | None:
        """Return the next rise within a day of *wall*; None: none is expected."""
        begin = math.floor(wall / ROW_S) * ROW_S
        steps = [begin + step * ROW_S for step in range(-3, ROWS + 6)]
        sizes = [self._at(local(at, self._zone)) for at in steps]
        for index in range(4, ROWS + 1):
            size, last = sizes[index], sizes[index - 1]
            ready = steps[index] - ROW_S
            if size is None or last is None or size <= last or ready < wall:
                continue
            before = min(one for one in sizes[index - 3 : index] if one is not None)
            if size - before >= max(1.0, RISE * size):
                top = max(one for one in sizes[index : index + 6] if one is not None)
                return Rise(ready, top, *self._shown(local(steps[index], self._zone), size))
        return None

    def state(self) -> bytes:
        """Return what was learned: at most 17 KiB."""
        rows = [_MAGIC]
        for ordinal, values in sorted(self._days.items()):
            tenths = np.where(np.isnan(values), _UNKNOWN, np.minimum(np.round(values * _TENTHS), _UNKNOWN - 1))
            rows.append(struct.pack("<I", ordinal) + tenths.astype("<u2").tobytes())
        return b"".join(rows)

    def restore(self, state: bytes) -> None:
        """Take over what `state` returned. Other bytes are ignored."""
        body, size = state[len(_MAGIC) :], 4 + 2 * ROWS
        if not state.startswith(_MAGIC) or len(body) % size or len(body) > DAYS * size:
            return
        days = {}
        for begin in range(0, len(body), size):
            (ordinal,) = struct.unpack_from("<I", body, begin)
            tenths = np.frombuffer(body, "<u2", ROWS, begin + 4).astype(np.float64)
            if not 1 <= ordinal <= date.max.toordinal():
                return
            days[ordinal] = np.where(tenths == _UNKNOWN, np.nan, tenths / _TENTHS)
        self._days = days
        self._cache.clear()

    # -- learning -----------------------------------------------------------------------------------------------------

    def _close(self) -> None:
        """Keep the mean of the row that has ended."""
        if self._row is not None and self._seconds > 0:
            ordinal, row = self._row
            values = self._days.get(ordinal)
            if values is None:
                values = self._days[ordinal] = np.full(ROWS, np.nan)
                while len(self._days) > DAYS:
                    del self._days[min(self._days)]
            values[row] = np.fmax(values[row], self._sum / self._seconds)  # an hour that comes twice: the larger need
        self._sum = self._seconds = 0.0

    def _doubt(self, wall: float, moment: datetime, needed: int) -> None:
        expected = self._at(moment)
        today = moment.toordinal()
        if expected is None or expected < 2 or needed > DOUBT * expected:
            self._doubt_since = None
            if self._silent_on == today and expected is not None and needed > DOUBT * expected:
                self._silent_on = 0
        elif self._doubt_since is None or wall < self._doubt_since:
            self._doubt_since = wall
        elif wall - self._doubt_since >= DOUBT_S:
            self._silent_on = today

    # -- what is expected ---------------------------------------------------------------------------------------------

    def _at(self, moment: datetime) -> int | None:
        """Return the size that is expected in the row of *moment*."""
        ordinal, row = _row_of(moment)
        if not self._days:
            return None
        values = self._cache.get(ordinal)
        if values is None:
            values = self._cache[ordinal] = self._expect(ordinal)
        value = float(values[row])
        return None if math.isnan(value) else max(1, math.ceil(value - _SLACK))

    def _expect(self, ordinal: int) -> Floats:
        """Return the expected need of a day, a number a row; NaN: none. Takes about a millisecond, once a day."""
        days = self._before(ordinal)
        recent = [day for day in days if day >= ordinal - RECENT_DAYS]
        same = [day for day in days if (ordinal - day) % 7 == 0]
        alike = [day for day in recent if _weekend(day) == _weekend(ordinal)]
        at_least = self._needed_by(same, 0.5, 1)  # by half of the same days of the week
        alike_half = self._needed_by(alike, 0.5, 1)
        groups = (
            self._needed_by(same, SHARE, ENOUGH_SAME),
            np.minimum(
                self._needed_by(alike, SHARE, ENOUGH_WEEKEND if _weekend(ordinal) else ENOUGH_WORKING), at_least
            ),
            np.minimum(np.minimum(self._needed_by(recent, SHARE, ENOUGH_ALL), at_least), alike_half),
        )
        return np.fmax(np.fmax(groups[0], groups[1]), groups[2])

    def _before(self, ordinal: int) -> list[int]:
        """Return the days before one, without today, which is not over."""
        today = self._row[0] if self._row is not None else ordinal
        return [day for day in self._days if day < min(ordinal, today)]

    def _needed_by(self, days: list[int], share: float, enough: int) -> Floats:
        """Return the largest need that *share* of *days* had in each row; NaN where fewer than *enough* were seen."""
        if len(days) < enough:
            return np.full(ROWS, np.nan)
        falling = -np.sort(-np.stack([self._days[day] for day in days]), axis=0)  # NaN last
        seen = np.count_nonzero(~np.isnan(falling), axis=0)
        rank = np.maximum(np.ceil(share * seen).astype(np.int64) - 1, 0)
        values = np.take_along_axis(falling, rank[None, :], axis=0)[0]
        return np.where(seen >= enough, values, np.nan)

    def _shown(self, moment: datetime, size: int) -> tuple[int, int]:
        """Return how many of the latest days have needed *size* at that time of day, and how many were seen."""
        ordinal, row = _row_of(moment)
        values = [float(self._days[day][row]) for day in self._before(ordinal) if day >= ordinal - RECENT_DAYS]
        alike = [value for value in values if not math.isnan(value)]
        return sum(value >= size - 1 + _SLACK for value in alike), len(alike)


def _row_of(moment: datetime) -> tuple[int, int]:
    return moment.toordinal(), (moment.hour * 3600 + moment.minute * 60 + moment.second) // ROW_S


def _weekend(ordinal: int) -> bool:
    return date.fromordinal(ordinal).weekday() >= 5
