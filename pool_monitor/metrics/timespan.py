"""The times of a query: moments, lengths, and spans of whole steps."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any, NamedTuple

from pool_monitor.errors import ConfigError

POINTS_LIMIT = 4000
"""Most points of a range."""
INSTANT_LIMIT = 6 * 10**10
"""Most seconds before or after the epoch that are accepted. A datetime of any time zone can hold them."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800}


class TimeSpan(NamedTuple):
    """A span of whole steps. ``start`` and ``end`` are seconds since the epoch, ``step`` is seconds."""

    start: int
    end: int
    step: int

    @property
    def steps(self) -> int:
        return (self.end - self.start) // self.step


def seconds_of(text: Any, what: str = "step") -> int:
    """Whole seconds from a text such as ``"10s"``, ``"5m"``, ``"1h"``, ``"7d"``, ``"2w"``, or from a number of seconds.

    Raises ConfigError for any other value, and for less than a second.
    """
    seconds = math.nan
    if isinstance(text, str):
        number, unit = (text, "s") if text.isdecimal() else (text[:-1], text[-1:])
        if number.isdecimal() and unit in _UNITS:
            seconds = float(number) * _UNITS[unit]
    elif isinstance(text, int | float) and not isinstance(text, bool):
        seconds = float(text)
    if not (1 <= seconds < 1e10 and seconds.is_integer()):
        raise ConfigError(f"{what}={text!r}: needs whole seconds, at least one: such as 10, '10s', '5m', '7d' or '2w'")
    return int(seconds)


def time_span(start: Any, end: Any, step: Any, limit: int | None = POINTS_LIMIT) -> TimeSpan:
    """The whole steps that contain all times from *start* to *end*. They begin at multiples of *step*.

    Times are seconds since the epoch, or datetimes with a time zone. Raises ConfigError for an invalid time, for an end
    that is not after the start, and for more than *limit* steps.
    """
    seconds = seconds_of(step)
    first, last = instant(start, "start"), instant(end, "end")
    if last <= first:
        raise ConfigError(f"range(start={start!r}, end={end!r}): needs an end after the start")
    found = TimeSpan(math.floor(first / seconds) * seconds, math.ceil(last / seconds) * seconds, seconds)
    if limit is not None and found.steps > limit:
        raise ConfigError(
            f"range(..., step={step!r}) would have {found.steps:,} points, more than {limit:,}; "
            f"ask for a step of at least {math.ceil((last - first) / (limit - 1))} s, or for less time"
        )
    return found


def instant(when: Any, what: str) -> float:
    """Seconds since the epoch, from such a number or a datetime with a time zone. Raises ConfigError for other values.

    *what* is the name of the argument in the error.
    """
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ConfigError(f"{what}={when!r}: needs a time zone, such as datetime.now(timezone.utc)")
        return when.timestamp()
    if isinstance(when, int | float) and not isinstance(when, bool) and abs(when) <= INSTANT_LIMIT:
        return float(when)
    raise ConfigError(f"{what}={when!r}: needs seconds since the epoch, such as time.time(), or a datetime")
