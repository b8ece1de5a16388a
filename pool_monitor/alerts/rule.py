"""The types of a checked rule. `rule_file` makes them from files and from Python values, and checks them.

All values are in base units: seconds, bytes, shares from 0 to 1, counts, and rates per second.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

OnNoData = Literal["resolve", "keep", "fire"]
OnError = Literal["keep", "resolve", "fire"]
Direction = Literal["up", "down", "both"]
DEFAULT_WINDOW = "5m"
"""The window of a metric over calls where a rule names none, as of a Snapshot."""


class Origin(NamedTuple):
    """Where a rule stands."""

    file: str
    line: int
    column: int


# -- bounds -----------------------------------------------------------------------------------------------------------


class OwnBaseline(Struct, frozen=True, tag="own"):
    """*times* the median of the instance's own values of the last *seconds*, without those that were bad."""

    times: float
    seconds: float
    statistic: Literal["median"] = "median"


class OfLimit(Struct, frozen=True, tag="limit"):
    """*ratio* of the limit that the catalogue names for the metric."""

    ratio: float


class Absolute(Struct, frozen=True, tag="absolute"):
    value: float


Bound = Absolute | OwnBaseline | OfLimit


class Level(Struct, frozen=True):
    """One level of a threshold. It is reached beyond *bound*, and left beyond *clear*; None: back at *bound*."""

    severity: str
    bound: Bound
    clear: Bound | None = None


# -- kinds ------------------------------------------------------------------------------------------------------------


class Threshold(Struct, frozen=True, kw_only=True, tag="threshold"):
    """A metric is beyond bounds: of a rule, and one condition of a composite rule."""

    metric: str
    window: str | None = None
    """None for a metric of one moment."""
    above: bool
    """Whether values above the bounds are bad, or values below them. Both are strict."""
    levels: tuple[Level, ...]
    """The mildest first. A condition of a composite rule has one."""


class RateOfChange(Struct, frozen=True, kw_only=True, tag="rate_of_change"):
    """A metric has changed by a share of what it was *against* seconds before."""

    metric: str
    window: str | None
    against: float
    falls_by: float | None = None
    rises_by: float | None = None


class Anomaly(Struct, frozen=True, kw_only=True, tag="anomaly"):
    """A metric is far from what it usually is."""

    metric: str
    window: str | None
    direction: Direction = "both"
    detector: str | None = None
    """A name of `detectors.DETECTORS`; None: the default."""


class Absence(Struct, frozen=True, kw_only=True, tag="absence"):
    """A metric has nothing to show: its instance is gone, it is unknown, or, of a count or a rate, it is 0."""

    metric: str
    window: str | None


class SloBurn(Struct, frozen=True, kw_only=True, tag="slo_burn"):
    """The error budget of an objective is used up too fast. Windows and factors are those of the SRE workbook."""

    pool: str
    """A shell pattern."""
    operation: str | None = None
    """None: all calls of the pool."""
    objective: float
    period: float


class Forecast(Struct, frozen=True, kw_only=True, tag="forecast"):
    """A metric that goes on as in the last *window* seconds reaches a bound *within* seconds."""

    metric: str
    reaches: Bound
    within: float
    window: float = 3600.0


class FindingIs(Struct, frozen=True, kw_only=True, tag="finding"):
    """A finding of one of these kinds is there. Its level ``warn`` is the first level, ``bad`` the second."""

    kinds: tuple[str, ...]


class AlertFires(Struct, frozen=True, kw_only=True, tag="alert"):
    """Another rule has a firing alert with the same values of the labels that both have."""

    alert: str


class AllOf(Struct, frozen=True, kw_only=True, tag="all"):
    conditions: tuple[Condition, ...]


class AnyOf(Struct, frozen=True, kw_only=True, tag="any"):
    conditions: tuple[Condition, ...]


class Not(Struct, frozen=True, kw_only=True, tag="not"):
    condition: Condition


Condition = Threshold | FindingIs | AlertFires | AllOf | AnyOf | Not
Kind = Threshold | RateOfChange | Anomaly | Absence | SloBurn | Forecast | FindingIs | AllOf | AnyOf | Not


# -- mute times -------------------------------------------------------------------------------------------------------


DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""The days as a file names them."""


class MuteTime(Struct, frozen=True, kw_only=True):
    """A time of the week in which alerts are not told, in the time zone of the service's machine."""

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    """Days on which it begins; 0 is Monday."""
    start: int = 0
    """Minutes after midnight."""
    end: int = 24 * 60
    """The same. Not above *start*: it ends on the next day."""


# -- the rule ---------------------------------------------------------------------------------------------------------


class Matcher(Struct, frozen=True):
    """A label must match a text: see `pattern.matching`. A label that is absent is the empty text."""

    label: str
    value: str
    pattern: bool = True
    """Whether *value* is a shell pattern, or matches itself alone."""


class CheckedRule(Struct, frozen=True, kw_only=True):
    """One checked rule. Times are seconds."""

    alert: str
    kind: Kind
    match: tuple[Matcher, ...] = ()
    for_: float = 0.0
    """For how long a level must be reached before the alert has it."""
    keep_firing_for: float = 0.0
    min_samples: int = 0
    """A value from fewer calls is unknown."""
    on_no_data: OnNoData = "resolve"
    no_data_for: float | None = None
    """None: three intervals."""
    on_error: OnError = "keep"
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    severities: tuple[str, ...] = ("warning",)
    """The value of the label ``severity`` at each level."""
    mute: tuple[MuteTime, ...] = ()
    limit: int = 1000
    """Most alerts of the rule. Those that exist stay; further ones are refused and counted."""
    default: bool = False
    """Whether it comes with the package."""
    origin: Origin | None = None


class Inhibition(Struct, frozen=True, kw_only=True):
    """A firing alert that matches *one* inhibits those that match *target*, if the labels *equal* agree."""

    one: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()
