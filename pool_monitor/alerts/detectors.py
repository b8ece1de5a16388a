"""Detectors of anomalies: is a value far from what the series usually is? No I/O and no clock.

Theory of operation
-------------------
A detector gets one value after another, and answers two questions about each:

- *Is it abnormal now?* `AnomalyDetector.direction`: a rule fires while it is ``up`` or ``down``. A value deviates if it
  is more than `LIMIT` robust standard deviations from the median of the baseline. One deviating value is no anomaly,
  because healthy latencies are heavy-tailed: `CONFIRM` values in a row, on one side, begin one, and as many in a row
  that do not deviate end it.
- *Is it news?* The score that `AnomalyDetector.handle` returns: how far the value jumped from the one before, and 0
  unless that is the largest jump of the last `QUIET`. A score is for people and programs that want to be told once: a
  long anomaly would be reported with each of its values otherwise.

The baselines are in `pool_monitor.alerts.deviation`. The jump is measured in standard deviations from the mean of
earlier jumps; both are exponentially weighted with `MEMORY` (Finch, Incremental calculation of weighted mean and
variance, 2009).

A baseline learns only while there is no anomaly: an incident must not become the normal state. A level that has stayed
for `ACCEPT_S` does become it: then the values of the anomaly replace the baseline. So no detector is stuck for ever.
An anomaly that ends before that, and comes back, is a new anomaly each time.

A better default takes the place of the present one in the line ``Detector = ...`` at the end.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, Protocol

import msgspec
from msgspec import Meta, Struct, field

from pool_monitor.alerts.deviation import (
    DAY_MINUTES,
    FLOOR,
    RELATIVE_FLOOR,
    SEASON_DAYS,
    WINDOW,
    Season,
    SortedWindow,
    deviation,
)

EVERY_S = 15.0
"""Seconds between two values of a rule, at least."""
ENOUGH = 30
"""Values that a baseline needs before it says anything: a quarter of an hour, for windows of a minute."""
LIMIT = 3.5
"""Robust standard deviations from the median beyond which a value deviates."""
CONFIRM = 4
"""Values in a row that begin an anomaly, or end it."""
ACCEPT_S = 6 * 3600.0
"""How long an anomaly lasts, in seconds, until it is the normal state."""
STEP_S = (1.0, 300.0)
"""What a value adds to the length of an anomaly, at least and at most, in seconds. So neither a clock that stands still
or is set back nor a gap in the values decides what is normal."""
LARGEST = 1e100
"""Larger values are unknown, as infinity is."""
LATEST_S = 1e12
"""A later time is that of the value before: 30,000 years."""

JUMP = 6.0
"""Standard deviations from the mean jump from which on a jump is declared an anomaly."""
THRESHOLD = JUMP / (1 + JUMP)
"""The score from which on an anomaly is declared."""
MEMORY = 0.002
"""Weight of the latest jump in the mean and variance of jumps."""
QUIET = 300
"""Jumps of which the largest is news."""
JUMPS_ENOUGH = 30
"""Jumps before the first score."""

Direction = Literal["up", "down"]
Basis = Literal["robust", "seasonal"]


class AnomalyDetector(Protocol):
    """What rules and the benchmark use. Memory and time for a value are bounded, whatever the values are. Equal values
    at equal times give equal answers. One detector watches one series.
    """

    def handle(self, timestamp: float | datetime, value: float) -> float:
        """Take *value*, and return its score: from 0 to 1; from `THRESHOLD` on, an anomaly is declared.

        The score is ``d / (1 + d)`` for a deviation *d*, so it keeps apart what is very odd: deviations of 1,000 and
        1,001 differ in the sixth digit. *timestamp* is in seconds since the epoch; a datetime without a time zone
        is in UTC. NaN, infinity and numbers beyond `LARGEST` are unknown values: the score is 0, and nothing is
        learned.
        """
        ...

    @property
    def direction(self) -> Direction | None:
        """On which side of the baseline the series is while it is abnormal; None: it is not abnormal."""
        ...

    @property
    def deviation(self) -> float | None:
        """How far the latest value was from the baseline, in robust standard deviations; below 0: lower. None: it was
        unknown, or there are too few values to compare it with.
        """
        ...

    @property
    def basis(self) -> Basis | None:
        """Which baseline the deviation is from. None: the deviation is unknown."""
        ...

    def state(self) -> dict[str, Any]:
        """Return everything that the detector knows, as values that JSON can express. Of bounded size."""
        ...

    def restore(self, state: Any) -> None:
        """Take over what `state` returned: from then on, both answer the same. Raises ValueError for anything else;
        then nothing has changed.
        """
        ...


class DetectorMaker(Protocol):
    """What `DETECTORS` has: the class of a detector."""

    @property
    def name(self) -> str:
        """What rules call it."""
        ...

    def __call__(self, *, every: float = 0.0) -> AnomalyDetector:
        """Return a new detector, which ignores values that come less than *every* seconds after the last it took."""
        ...


def spacing(window: float) -> float:
    """Return the *every* for values that are each from the last *window* seconds: a half, and `EVERY_S` at least.

    Values of windows that overlap depend on each other, and one odd minute counts as many values in a row. With a value
    of the last minute each 5 s, healthy latencies have four anomalies a day; each 15 s, one in four days; each 30 s,
    none in 56 days.
    """
    return max(EVERY_S, window / 2)


_Known = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
_Time = Annotated[float, Meta(ge=-LATEST_S, le=LATEST_S)]
_AtLeast0 = Annotated[float, Meta(ge=0, le=1e300)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Day = Annotated[int, Meta(ge=-(2**40), le=2**40)]
_Side = Literal[-1, 0, 1]


class Moments(Struct, forbid_unknown_fields=True):
    """Exponentially weighted mean and variance; the plain ones until there are ``1 / MEMORY`` values."""

    mean: _Known = 0.0
    variance: _AtLeast0 = 0.0
    count: _Count = 0

    def take(self, value: float, floor: float) -> float:
        """Return how many standard deviations, of *floor* at least, *value* is above the mean. Then learn it."""
        difference = value - self.mean
        found = difference / max(math.sqrt(self.variance), floor) if self.count >= JUMPS_ENOUGH else 0.0
        self.count += 1
        weight = max(MEMORY, 1 / self.count)
        self.mean += weight * difference
        self.variance = (1 - weight) * (self.variance + weight * difference * difference)
        return max(found, 0.0)


class Jumps(Struct, forbid_unknown_fields=True):
    """How far each value is from the one before, compared with what is usual. Constant memory."""

    last: _Known | None = None
    positive: bool = True
    """All values were positive, so logarithms are compared."""
    size: _AtLeast0 = 0.0
    """The usual size of values, without sign."""
    plain: Moments = field(default_factory=Moments)
    logs: Moments = field(default_factory=Moments)

    def __post_init__(self) -> None:
        if self.positive and self.last is not None and self.last <= 0:
            raise ValueError("positive values whose last is not")

    def take(self, value: float) -> float:
        """Return how many standard deviations the jump to *value* is above the mean jump; 0 if it is below."""
        last, self.last = self.last, value
        self.positive = self.positive and value > 0
        if last is None:
            self.size = abs(value)
            return 0.0
        self.size += MEMORY * (abs(value) - self.size)
        plain = self.plain.take(abs(value - last), max(RELATIVE_FLOOR * self.size, FLOOR))
        if not self.positive:
            return plain
        return self.logs.take(abs(math.log(value) - math.log(last)), RELATIVE_FLOOR)


class _Saved(Struct, forbid_unknown_fields=True):
    """The state of a detector outside of it."""

    window: Annotated[list[_Known], Meta(max_length=WINDOW)]
    abnormal: Annotated[list[_Known], Meta(max_length=WINDOW)]
    abnormal_s: _AtLeast0
    side: _Side
    latest_side: _Side
    run: _Count
    time: _Time | None
    jumps: Jumps
    recent: Annotated[list[_AtLeast0], Meta(max_length=QUIET)]
    days: Annotated[
        list[tuple[_Day, Annotated[list[_Known | None], Meta(min_length=DAY_MINUTES, max_length=DAY_MINUTES)]]],
        Meta(max_length=SEASON_DAYS + 1),
    ]


class RobustDetector:
    """Compares with the last `WINDOW` values that were normal. See the top of the file.

    Bounded: twice `WINDOW` values and `QUIET` jumps. A value takes some microseconds.
    """

    name: ClassVar[str] = "robust"

    def __init__(self, *, every: float = 0.0) -> None:
        self._every = every
        self._window = SortedWindow()
        self._jumps = Jumps()
        self._recent = SortedWindow(QUIET)
        """Jumps."""
        self._abnormal: deque[float] = deque(maxlen=WINDOW)
        """The values of the anomaly that lasts."""
        self._abnormal_s = 0.0
        self._side: _Side = 0
        """Above the baseline (1), below it, or neither: confirmed."""
        self._latest_side: _Side = 0
        self._run = 0
        """Values in a row on the latest side."""
        self._time: float | None = None
        self._deviation: float | None = None
        self._basis: Basis | None = None

    @property
    def direction(self) -> Direction | None:
        return _DIRECTIONS[self._side]

    @property
    def deviation(self) -> float | None:
        return self._deviation

    @property
    def basis(self) -> Basis | None:
        return self._basis

    def handle(self, timestamp: float | datetime, value: float) -> float:
        if not abs(value) <= LARGEST:  # NaN too
            self._deviation = self._basis = None
            return 0.0
        value = float(value)
        now = self._now(timestamp)
        if self._time is not None and 0 <= now - self._time < self._every:
            return 0.0
        passed = self._pass(now)
        self._deviation, self._basis = self._compare(now, value)
        self._confirm(0 if self._deviation is None else _side(self._deviation))
        if self._side:
            self._abnormal.append(value)
            self._abnormal_s += passed
        self._learn(now, value)
        if self._abnormal_s >= ACCEPT_S:
            self._accept()
        return self._score(value)

    def _score(self, value: float) -> float:
        jump = self._jumps.take(value)
        recent = self._recent.ordered
        news = not recent or jump > recent[-1]
        self._recent.add(jump)
        return jump / (1 + jump) if news else 0.0

    def _now(self, timestamp: float | datetime) -> float:
        now = _seconds(timestamp)
        return now if abs(now) <= LATEST_S else self._time or 0.0

    def _pass(self, now: float) -> float:
        """Go on to *now*. Return what this adds to the length of an anomaly, in seconds."""
        least, most = STEP_S
        passed = least if self._time is None else min(max(now - self._time, least), most)
        self._time = now
        return passed

    def _compare(self, now: float, value: float) -> tuple[float, Basis] | tuple[None, None]:  # noqa: ARG002
        """Return the deviation of *value* from the baseline, and which baseline that is."""
        ordered = self._window.ordered
        return (None, None) if len(ordered) < ENOUGH else (deviation(ordered, value), "robust")

    def _confirm(self, side: _Side) -> None:
        self._run = self._run + 1 if side == self._latest_side else 1
        self._latest_side = side
        if side != self._side and self._run >= CONFIRM:
            self._side = side
            if side == 0:
                self._forget_anomaly()

    def _learn(self, now: float, value: float) -> None:  # noqa: ARG002
        if not self._side:
            self._window.add(value)

    def _accept(self) -> None:
        """Make the values of the anomaly the baseline."""
        self._window.replace(self._abnormal)
        self._side = self._latest_side = 0
        self._run = 0
        self._forget_anomaly()

    def _forget_anomaly(self) -> None:
        self._abnormal.clear()
        self._abnormal_s = 0.0

    def state(self) -> dict[str, Any]:
        saved: dict[str, Any] = msgspec.to_builtins(
            _Saved(
                window=list(self._window.values),
                abnormal=list(self._abnormal),
                abnormal_s=self._abnormal_s,
                side=self._side,
                latest_side=self._latest_side,
                run=self._run,
                time=self._time,
                jumps=self._jumps,
                recent=list(self._recent.values),
                days=self._days(),
            )
        )
        return saved

    def _days(self) -> list[tuple[int, list[float | None]]]:
        return []

    def restore(self, state: Any) -> None:
        try:
            saved = msgspec.convert(state, _Saved)
        except msgspec.ValidationError as error:
            raise ValueError(f"not the state of a detector: {error}") from None
        self._take_over(saved)

    def _take_over(self, saved: _Saved) -> None:
        self._window.replace(saved.window)
        self._abnormal = deque(saved.abnormal, WINDOW)
        self._abnormal_s = saved.abnormal_s
        self._side, self._latest_side, self._run = saved.side, saved.latest_side, saved.run
        self._time = saved.time
        self._jumps = saved.jumps
        self._recent.replace(saved.recent)
        self._deviation = self._basis = None


class SeasonalDetector(RobustDetector):
    """Compares with the values at the same time of day on the days before; as `RobustDetector` does while there are
    not enough of them. `basis` says which.

    It is for what is different at night. On other series it is less exact, because fewer values are compared. Bounded:
    what `RobustDetector` and `Season` keep. `state` has up to 8,000 numbers.
    """

    name: ClassVar[str] = "seasonal"

    def __init__(self, *, every: float = 0.0) -> None:
        super().__init__(every=every)
        self._season = Season()

    def _compare(self, now: float, value: float) -> tuple[float, Basis] | tuple[None, None]:
        usual = self._season.usual(int(now // 60))
        return (deviation(usual, value), "seasonal") if usual else super()._compare(now, value)

    def _learn(self, now: float, value: float) -> None:
        super()._learn(now, value)
        if not self._side or self._basis != "seasonal":  # a first night is abnormal to the robust baseline only
            self._season.add(int(now // 60), value)

    def _accept(self) -> None:
        super()._accept()
        if self._basis == "seasonal":
            self._season = Season()  # what was usual on the days before is usual no more

    def _days(self) -> list[tuple[int, list[float | None]]]:
        rows = self._season.days.items()
        return [(day, [None if math.isnan(each) else each for each in row]) for day, row in rows]

    def _take_over(self, saved: _Saved) -> None:
        super()._take_over(saved)
        self._season = Season()
        self._season.days = {
            day: array("d", [math.nan if each is None else each for each in row]) for day, row in saved.days
        }


_DIRECTIONS: Mapping[int, Direction | None] = MappingProxyType({-1: "down", 0: None, 1: "up"})


def _side(found: float) -> _Side:
    return 1 if found > LIMIT else -1 if found < -LIMIT else 0


def _seconds(timestamp: float | datetime) -> float:
    if isinstance(timestamp, datetime):
        return (timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)).timestamp()
    return float(timestamp)


Detector = RobustDetector
"""The detector of a rule that names none, and the one that benchmarks score."""

DETECTORS: Mapping[str, DetectorMaker] = MappingProxyType(
    {maker.name: maker for maker in (RobustDetector, SeasonalDetector)}
)
"""The detectors that a rule can name."""
