"""The section ``[tuner]``: what the tuner may change, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from pool_monitor.config.fields import Seconds, Validated
from pool_monitor.errors import ConfigError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""The days of the week as a schedule names them; the first is day 0."""

_Clock = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="a time of day, such as '08:55'")]

_Policy = Annotated[
    str,
    Meta(
        pattern=r"^(conservative|balanced|aggressive|[^:\s]+:[^:\s]+)$",
        description="'conservative', 'balanced', 'aggressive', or 'module:Policy' for one of your own",
    ),
]


class ScheduleEntry(
    Validated, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"start": "from", "end": "to"}
):
    """A lowest size for some hours of some days, in the local time of the service."""

    days: Annotated[str, Meta(min_length=1)] = "mon-sun"
    """Days of the week: one, a range or a list, such as ``mon-fri`` or ``sat,sun``. The day is that of *from*."""
    start: _Clock
    """``from``: when it begins. The workers are ready then, not started then."""
    end: _Clock
    """``to``: when it ends. Not after *from*: on the next day."""
    min_size: Annotated[int, Meta(ge=1)]
    """The lowest size."""
    pool: str | None = None
    """The pool; None: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        days_of(self.days)


def days_of(text: str) -> frozenset[int]:
    """Return the days of the week that *text* names, 0 for Monday: days and ranges, with commas between them.

    A range may go over the end of the week: ``sat-mon``. Raises ConfigError for a text that is none.
    """
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().lower().partition("-")
        first, last = first.strip(), last.strip() if dash else first.strip()
        for name in (first, last):
            if name not in DAYS:
                raise ConfigError(
                    f"ScheduleEntry: days = {text!r}: {name!r} is no day: write mon, tue, wed, thu, fri, sat or sun, a "
                    "range such as mon-fri, or a list such as sat,sun"
                )
        begin, end = DAYS.index(first), DAYS.index(last)
        days.update(day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0)))
    return frozenset(days)


class TunerConfig(Validated, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the tuner may change, and how. Times are seconds."""

    mode: Literal["off", "recommend", "auto"] = "recommend"
    """``off``: nothing is proposed. ``recommend``: changes are proposed, and made when a person approves. ``auto``:
    they are made, validated, and rolled back if they do harm."""
    policy: _Policy = "balanced"
    """How the size is chosen: ``conservative``, ``balanced``, ``aggressive``, or the ``module:Policy`` of your own."""
    interval: Annotated[float, Meta(ge=0.1, le=3600)] = 1.0
    """Time between two observations."""
    knobs: dict[str, tuple[float, float]] = {}
    """Setting -> the range that the tuner may use, within what the pool allows. A setting that is not here has the
    range of the pool; an empty range, such as ``[4, 4]``, keeps it where it is."""
    wait_target: Seconds | None = None
    """The wait that 95 % of the calls may have at most. None: the mean execution time of the pool's calls."""
    schedule: tuple[ScheduleEntry, ...] = ()
    """Lowest sizes by time of day and week."""
    season: bool = True
    """Learn the shape of days and weeks, and have the workers ready before a rise that comes every time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (low, high) in self.knobs.items():
            if not low <= high:
                raise ConfigError(f"TunerConfig: knobs.{name} = [{low:g}, {high:g}]: put the lower bound first")
