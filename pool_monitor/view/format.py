"""Numbers for people: short, of bounded width, with units, and never an invented zero.

Functions of a value that may be None return `UNKNOWN` for None, and for infinity and NaN: what was not measured must
not look like 0.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from math import ceil, floor, isfinite, log10

UNKNOWN = "\N{EN DASH}"
FEW = 20
"""With fewer samples than this, a percentile is unreliable and marked with ``~``."""


def duration(seconds: float | None) -> str:
    """Format a measured duration with its unit, in at most 6 cells: ``420µs 8.4ms 84ms 1.3s 2m04s 3h05m``.

    It has two to three digits: percentiles are exact to 1.1 %, so more digits would mean nothing.
    """
    if seconds is None or not isfinite(seconds):
        return UNKNOWN
    if seconds <= 0:
        return "0s"
    for limit, scale, unit in ((999.5e-6, 1e6, "µs"), (999.5e-3, 1e3, "ms"), (99.5, 1.0, "s")):
        if seconds < limit:
            scaled = seconds * scale
            return f"{scaled:.1f}{unit}" if scaled < 9.95 else f"{scaled:.0f}{unit}"
    return age(seconds)


def axis_duration(seconds: float | None) -> str:
    """Format the limit of an axis, which is a round number: ``5ms``, not ``5.0ms``."""
    return duration(seconds).replace(".0", "")


def at_most(seconds: float) -> str:
    """Format the upper bound of a bar, rounded up to three digits: a value below the bound is below the label too."""
    return f"≤{_three_digits(seconds, ceil)}"


def more_than(seconds: float) -> str:
    """Format the lower bound of a bar, rounded down to three digits: a value above the bound is above the label too."""
    return f">{_three_digits(seconds, floor)}"


def _three_digits(seconds: float, rounded: Callable[[float], int]) -> str:
    for limit, scale, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (100.0, 1.0, "s")):
        if 0 < seconds < limit:
            scaled = seconds * scale
            grain = 10 ** (2 - floor(log10(scaled)))
            return f"{rounded(scaled * grain) / grain:g}{unit}"
    return age(rounded(seconds))


def percentile(seconds: float | None, samples: int) -> str:
    """Format a percentile like `duration`, with ``~`` before it if there are fewer than `FEW` samples."""
    return f"~{duration(seconds)}" if seconds is not None and samples < FEW else duration(seconds)


def age(seconds: float | None) -> str:
    """Format how long something has lasted, rounded down, in at most 6 cells: ``0.3s 42s 2m04s 3h05m 12d07h``.

    More than 99999 days are unknown: no clock measures them.
    """
    if seconds is None or not isfinite(seconds) or seconds >= 100_000 * 86_400:
        return UNKNOWN
    if seconds < 10:
        return f"{int(max(seconds, 0.0) * 10) / 10:.1f}s"
    minutes, secs = divmod(int(seconds), 60)
    hours, mins = divmod(minutes, 60)
    days, hrs = divmod(hours, 24)
    if not minutes:
        return f"{secs}s"
    if not hours:
        return f"{minutes}m{secs:02}s"
    if not days:
        return f"{hours}h{mins:02}m"
    return f"{days}d{hrs:02}h" if days < 100 else f"{days}d"


def whole_age(seconds: float) -> str:
    """Format like `age`, but without tenths: for text that is repainted once a second."""
    return age(seconds) if seconds >= 10 else f"{int(max(seconds, 0.0))}s"


def period(seconds: float) -> str:
    """Format a duration that was chosen, not measured: ``30s``, ``5m``, ``1h``; others like `age`."""
    for unit, letter in ((3600, "h"), (60, "m"), (1, "s")):
        if seconds >= unit and seconds % unit == 0 and seconds < 100 * unit:
            return f"{int(seconds // unit)}{letter}"
    return age(seconds)


def timestamp(at: float, zone: tzinfo | None = None) -> str:
    """Format a point in time as ISO 8601: ``2026-03-01 02:59:30+01:00``. None: in the zone of this machine.

    A time that no calendar has, as a damaged file may have one, is unknown. So it is for `short_time`.
    """
    local = _local(at, zone)
    return UNKNOWN if local is None else local.isoformat(" ", "seconds")


def short_time(at: float, length: float, grain: float, zone: tzinfo | None = None) -> str:
    """Format one of several points in time, *grain* seconds apart and all within *length* seconds, as short as they
    stay distinct: ``02:59:30``, ``02:59``, ``03-01 02:59`` or ``2026-03-01``.
    """
    local = _local(at, zone)
    if local is None:
        return UNKNOWN
    if grain % 86_400 == 0:
        return f"{local:%Y-%m-%d}"
    day = "" if length <= 86_400 else "%m-%d "
    return local.strftime(f"{day}%H:%M{':%S' if grain % 60 else ''}")


def _local(at: float, zone: tzinfo | None) -> datetime | None:
    try:
        return datetime.fromtimestamp(at, UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return None


def mean(value: float | None) -> str:
    """Format a mean of whole numbers like `rate`, but without decimals if it is whole."""
    return str(int(value)) if value is not None and value == int(value) else rate(value)


def count(number: int | None) -> str:
    """Format a count, exact up to 99999, in at most 5 cells up to a trillion: ``12840 128k 1.3M``."""
    if number is None:
        return UNKNOWN
    if number < 100_000:
        return str(number)
    scaled = float(number)
    for letter in "kMG":
        scaled /= 1000
        if scaled < 9.95:
            return f"{scaled:.1f}{letter}"
        if scaled < 999.5:
            return f"{scaled:.0f}{letter}"
    return f"{scaled / 1000:.1f}T"


def size(number: int | None) -> str:
    """Format bytes in powers of 1024, in at most 6 cells: ``812K 48.3M 1.2G``."""
    if number is None:
        return UNKNOWN
    scaled = float(number)
    for letter in "BKMGT":
        if scaled < 999.5 or letter == "T":
            break
        scaled /= 1024
    return f"{scaled:.1f}{letter}" if scaled < 99.95 and letter not in "BK" else f"{scaled:.0f}{letter}"


def rate(per_second: float | None) -> str:
    """Format a rate to three digits, without its unit, in at most 5 cells: ``0 <0.01 1.84 11.8 412 1840``."""
    if per_second is None or not isfinite(per_second):
        return UNKNOWN
    if per_second == 0:
        return "0"
    if per_second < 0.005:
        return "<0.01"
    if per_second < 9.995:
        return f"{per_second:.2f}"
    return f"{per_second:.1f}" if per_second < 99.95 else count(round(per_second))


def axis_number(value: float) -> str:
    """Format a round number on an axis, in full below a thousand: ``0 0.75 20 1.5k 3M``."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:g}{letter}"
    return f"{value:g}"


def percent(share: float | None) -> str:
    """Format a share (1 is all) in percent, in at most 5 cells. ``0%`` and ``100%`` appear only if they are exact."""
    if share is None or not isfinite(share):
        return UNKNOWN
    percent = share * 100
    if percent in {0, 100}:
        return f"{percent:.0f}%"
    if percent < 0.05:
        return "<0.1%"
    if percent < 9.95:
        return f"{percent:.1f}%"
    return ">99%" if 99.5 <= percent < 100 else f"{percent:.0f}%"


def plural(number: int, noun: str) -> str:
    """Format a number with its noun: ``1 worker``, ``2 workers``."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"
