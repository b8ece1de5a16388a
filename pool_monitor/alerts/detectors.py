"""Detectors of anomalies: is a value far from what the series usually is? No I/O and no clock.

Theory of operation
-------------------
A detector gets one value after another, and answers two questions about each:

- *Is it abnormal now?* `AnomalyDetector.direction`: a rule fires while it is ``up`` or ``down``. A value deviates if it
  is more than `LIMIT` robust standard deviations from the median of the baseline. One deviating value is no anomaly,
  because healthy latencies are heavy-tailed: `CONFIRM` values in a row, on one side, begin one, and as many in a row
  that do not deviate end it.
- *Is it news?* The score that `AnomalyDetector.handle` returns: how far the value jumped from the one before, and 0 if
  the jump is no larger than one that was news in the last `QUIET` values. A score is for people and programs that want
  to be told once: a long anomaly would be reported with each of its values otherwise.

The deviation is the modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993): ``0.6745 * (x -
median) / MAD``, where MAD is the median of the absolute differences from the median. Up to half of the window may be
anything before the two mean nothing, so a second burst is found while the first is still in the window. Positive values
are compared by their logarithms. The jump is measured in standard deviations from the mean of earlier jumps; both are
exponentially weighted with `MEMORY` (West, Updating mean and variance estimates, 1979; Finch, Incremental calculation
of weighted mean and variance, 2009).

A baseline learns only while there is no anomaly: an incident must not become the normal state. A level that has stayed
for `ACCEPT_S` does become it: then the values of the anomaly replace the baseline. So no detector is stuck for ever.
An anomaly that ends before that, and comes back, is a new anomaly each time.

A better default takes the place of the present one in the line ``Detector = ...`` at the end.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta, Struct, field

WINDOW = 240
"""Values in a baseline: an hour, with a value each 15 s."""
EVERY_S = 15.0
"""Seconds between two values of a rule, at least."""
ENOUGH = 60
"""Values that a baseline needs before it says anything."""
LIMIT = 3.5
"""Robust standard deviations from the median beyond which a value deviates."""
CONFIRM = 4
"""Values in a row that begin an anomaly, or end it."""
ACCEPT_S = 6 * 3600.0
"""How long an anomaly lasts, in seconds, until it is the normal state."""
STEP_S = (1.0, 300.0)
"""What a value adds to the length of an anomaly, at least and at most, in seconds. So neither a clock that stands still
or is set back nor a gap in the values decides what is normal."""
RELATIVE_FLOOR = 0.01
"""The least MAD, as a share of the median. A duration is known to 1 %: it is the estimate for a bucket of a histogram,
and the next bucket is 2 % away. With this floor, a change of less than 5 % is no anomaly."""
FLOOR = 1e-9
"""The least MAD of values around 0."""
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
"""Values during which a jump is news only if it is larger than the last that was news."""
JUMPS_ENOUGH = 30
"""Jumps before the first score."""

SEASON_DAYS = 4
"""Days before, to which a seasonal baseline compares."""
SEASON_LEAST = 3
"""How many of these days must have values."""
SEASON_MINUTES = 5
"""Minutes before and after the same time of day that count."""
SEASON_ENOUGH = 9
"""Values that these minutes must have."""

_DAY_MINUTES = 24 * 60
_SIGMAS = 0.6745  # MAD of a normal distribution, in standard deviations

Direction = Literal["up", "down"]
Basis = Literal["robust", "seasonal"]


class AnomalyDetector(Protocol):
    """What rules and the benchmark use. Memory and time for a value are bounded, whatever the values are. Equal values
    at equal times give equal answers. One detector watches one series.
    """

    def handle(self, timestamp: float | datetime, value: float) -> float:
        """Take *value*, and return its score: from 0 to below 1; from `THRESHOLD` on, an anomaly is declared.

        The score is ``d / (1 + d)`` for a deviation *d*, so it has no end that large deviations reach: those of 1,000
        and 1,001 differ in the sixth digit. *timestamp* is in seconds since the epoch; a datetime without a time zone
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
    """What `DETECTORS` has."""

    def __call__(self, *, every: float = 0.0) -> AnomalyDetector:
        """Return a new detector, which ignores values that come less than *every* seconds after the last it took."""
        ...


def spacing(window: float) -> float:
    """Return the *every* for values that are each from the last *window* seconds: a quarter, and `EVERY_S` at least.

    Values of windows that overlap more depend on each other. So one odd minute would count as many values in a row:
    with a value of the last minute each 5 s, healthy latencies have four anomalies a day; each 15 s, one in ten days.
    """
    return max(EVERY_S, window / 4)


def deviation(ordered: Sequence[float], value: float) -> float:
    """Return how far *value* is from the median of *ordered*, in robust standard deviations. O(log n).

    *ordered* is sorted and not empty. If all of it and *value* are positive, logarithms are compared.
    """
    if ordered[0] > 0 and value > 0:
        middle, mad = _middle(ordered, math.log)
        return _SIGMAS * (math.log(value) - middle) / max(mad, RELATIVE_FLOOR)
    middle, mad = _middle(ordered, float)
    return _SIGMAS * (value - middle) / max(mad, RELATIVE_FLOOR * abs(middle), FLOOR)


def _middle(ordered: Sequence[float], scale: Callable[[float], float]) -> tuple[float, float]:
    """Return the median and the MAD of *ordered* on a monotonic *scale*.

    The half of the values that is nearest to the median lies together in *ordered*, so a search finds where it begins;
    one of its ends is the farthest.
    """
    count = len(ordered)
    half = count // 2
    even = count % 2 == 0
    median = (scale(ordered[half - 1]) + scale(ordered[half])) / 2 if even else scale(ordered[half])
    low, high = 0, count - half - 1
    while low < high:
        at = (low + high) // 2
        if median - scale(ordered[at]) > scale(ordered[at + half + 1]) - median:
            low = at + 1
        else:
            high = at
    left, right = median - scale(ordered[low]), scale(ordered[low + half]) - median
    if not even:
        return median, max(left, right)
    if left > right:
        return median, (left + max(right, median - scale(ordered[low + 1]))) / 2
    return median, (right + max(left, scale(ordered[low + half - 1]) - median)) / 2


class SortedWindow:
    """The last *size* values, in the order of their arrival and sorted. A new value costs a search and two moves of
    memory.
    """

    def __init__(self, size: int = WINDOW) -> None:
        self.size = size
        self.values: deque[float] = deque()
        self.ordered: list[float] = []

    def add(self, value: float) -> None:
        if len(self.values) == self.size:
            del self.ordered[bisect_left(self.ordered, self.values.popleft())]
        self.values.append(value)
        insort(self.ordered, value)

    def replace(self, values: Iterable[float]) -> None:
        """Forget everything but the last of *values*."""
        self.values = deque(list(values)[-self.size :])
        self.ordered = sorted(self.values)


class Season:
    """A value for each minute of the last days: what is usual at a time of day. Days are those of UTC.

    Bounded: `SEASON_DAYS` + 1 rows of 1,440 numbers, 58 KB. A clock that jumps by days empties it.
    """

    def __init__(self) -> None:
        self.days: dict[int, array[float]] = {}
        """For each day since the epoch, the value of each minute; NaN: none."""

    def add(self, minute: int, value: float) -> None:
        """Learn the value of a *minute* since the epoch. The last of a minute counts."""
        day, of_day = divmod(minute, _DAY_MINUTES)
        if day not in self.days:
            self.days = {each: row for each, row in self.days.items() if day - SEASON_DAYS <= each < day}
            self.days[day] = array("d", [math.nan]) * _DAY_MINUTES
        self.days[day][of_day] = value

    def usual(self, minute: int) -> list[float]:
        """Return the values at the same time of day on the days before, sorted; an empty list if they are too few."""
        found: list[float] = []
        days = 0
        for back in range(1, SEASON_DAYS + 1):
            before = len(found)
            centre = minute - back * _DAY_MINUTES
            for each in range(centre - SEASON_MINUTES, centre + SEASON_MINUTES + 1):
                day, of_day = divmod(each, _DAY_MINUTES)
                row = self.days.get(day)
                if row is not None and row[of_day] == row[of_day]:
                    found.append(row[of_day])
            days += len(found) > before
        return sorted(found) if days >= SEASON_LEAST and len(found) >= SEASON_ENOUGH else []


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
        list[tuple[_Day, Annotated[list[_Known | None], Meta(min_length=_DAY_MINUTES, max_length=_DAY_MINUTES)]]],
        Meta(max_length=SEASON_DAYS + 1),
    ]


class RobustDetector:
    """Compares with the last `WINDOW` values that were normal. See the top of the file.

    Bounded: twice `WINDOW` values. A value takes some microseconds.
    """

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
    what `RobustDetector` and `Season` keep. `state` has up to 7,200 numbers.
    """

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

DETECTORS: Mapping[str, DetectorMaker] = MappingProxyType({"robust": RobustDetector, "seasonal": SeasonalDetector})
"""The detectors that a rule can name."""
