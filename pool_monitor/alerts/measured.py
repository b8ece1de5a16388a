"""The course of the value of each alert: what messages and pages draw as a sparkline."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from math import floor, isfinite

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES

POINTS = 60
"""Most values of a course."""
LONGEST_S = 60.0
"""From this step on, a course forgets its oldest value where it would be too long."""
COURSES = 1000
"""Most courses. Alerts beyond them have none."""
_AT_ONCE = 50  # alerts between two moments at which others may work


class ValueCourse:
    """The values of one alert at equal distances, at most `POINTS`. Times are seconds of a clock that does not go back.

    It begins with steps of *step* seconds. Where it would be too long, two values become one, their mean, until a step
    has `LONGEST_S` or more. From then on the oldest value is forgotten, so it shows an hour or somewhat more.
    """

    __slots__ = ("_counts", "_first", "_sums", "ended", "step")

    def __init__(self, at: float, step: float) -> None:
        self.step = step
        """The distance of two values."""
        self.ended = False
        """Whether its latest value is the one that resolved the alert."""
        self._first = floor(at / step)  # steps are counted from 0 of the clock
        self._sums, self._counts = array("d"), array("L")

    @property
    def values(self) -> tuple[float | None, ...]:
        """The mean of each step, the oldest first; None: nothing was measured in it, or the value was unknown."""
        return tuple([total / count if count else None for total, count in zip(self._sums, self._counts, strict=True)])

    @property
    def seconds(self) -> float:
        """The time that the values span."""
        return self.step * len(self._sums)

    @property
    def held_bytes(self) -> int:
        """Its memory, in bytes."""
        return sum(map(sys.getsizeof, (self, self._sums, self._counts)))

    def note(self, at: float, value: float | None) -> None:
        """Add *value*, which was measured *at* this moment; None: it is unknown."""
        while (number := floor(at / self.step) - self._first) >= POINTS:
            if self.step < LONGEST_S:
                self._halve()
            else:
                self._forget(number + 1 - POINTS)
        missing = number + 1 - len(self._sums)
        if missing > 0:
            self._sums.extend([0.0] * missing)
            self._counts.extend([0] * missing)
        if value is not None and isfinite(value):
            self._sums[-1] += value
            self._counts[-1] += 1

    def precede(self, before: Sequence[tuple[float, float | None]]) -> None:
        """Put values from *before* the course at its beginning, as far as there is room: moments and values, the oldest
        first. Their steps are as long as those of a long course.
        """
        if all(value is None for _, value in before):
            return
        while self.step < LONGEST_S:
            self._halve()
        room, first = POINTS - len(self._sums), self._first
        numbered = [(floor(at / self.step), value) for at, value in before if value is None or isfinite(value)]
        placed = [(number, value) for number, value in numbered if first - room <= number < first]
        self._first = min([first, *(number for number, _ in placed)])
        sums, counts = array("d", [0.0] * (first - self._first)), array("L", [0] * (first - self._first))
        for number, value in placed:
            if value is not None:
                sums[number - self._first] += value
                counts[number - self._first] += 1
        self._sums, self._counts = sums + self._sums, counts + self._counts

    def _halve(self) -> None:
        """Make the steps twice as long."""
        sums, counts, first = self._sums, self._counts, self._first // 2
        length = (self._first + len(sums) - 1) // 2 + 1 - first
        self._sums, self._counts = array("d", [0.0] * length), array("L", [0] * length)
        for number, (total, count) in enumerate(zip(sums, counts, strict=True), self._first):
            self._sums[number // 2 - first] += total
            self._counts[number // 2 - first] += count
        self._first, self.step = first, self.step * 2

    def _forget(self, steps: int) -> None:
        """Forget the oldest *steps*."""
        del self._sums[:steps], self._counts[:steps]
        self._first += steps


class ValueCourses:
    """The courses of the alerts that are pending or fire, and of those that were resolved of late, by fingerprint. At
    most `COURSES`. A restart forgets them.
    """

    def __init__(self) -> None:
        self._courses: dict[str, ValueCourse] = {}
        self.begun: list[tuple[Alert, ValueCourse]] = []
        """The courses that `note` began when it was called last, and their alerts."""

    def __len__(self) -> int:
        return len(self._courses)

    @property
    def held_bytes(self) -> int:
        """Their memory, in bytes."""
        return sum(course.held_bytes for course in self._courses.values())

    def note(self, alerts: Iterable[Alert], at: float, step: float) -> Iterator[None]:
        """Add the values that an evaluation has left *alerts* with: all that there are. *step*: from one evaluation to
        the next. Yields where others may work. Courses of alerts that are gone are forgotten.
        """
        gone, self.begun = dict(self._courses), []
        for number, alert in enumerate(alerts, 1):
            course, active = gone.pop(alert.fingerprint, None), alert.state in ACTIVE_PHASES
            if active and course is None and len(self._courses) < COURSES:
                course = self._courses[alert.fingerprint] = ValueCourse(at, step)
                self.begun.append((alert, course))
            if course is not None and (active or not course.ended):
                course.note(at, None if alert.unknown else alert.value)
                course.ended = not active  # the value that ended it is the last one
            if not number % _AT_ONCE:
                yield
        for fingerprint in gone:
            del self._courses[fingerprint]

    def of(self, fingerprint: str) -> tuple[tuple[float | None, ...], float]:
        """Return the values of an alert and the time that they span. Empty: it has no course."""
        course = self._courses.get(fingerprint)
        return ((), 0.0) if course is None else (course.values, course.seconds)
