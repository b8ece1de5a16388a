"""The course of an alert's value: equal distances, bounded, and nothing invented."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.lifecycle import Phase
from pool_monitor.alerts.measured import COURSES, LONGEST_S, POINTS, ValueCourse, ValueCourses


def course(*values: float | None, step: float = 5.0) -> ValueCourse:
    made = ValueCourse(0.0, step)
    for number, value in enumerate(values):
        made.note(number * step, value)
    return made


def alert(number: int, value: float | None = 1.0, state: Phase = Phase.FIRING, *, unknown: bool = False) -> Alert:
    return Alert(
        alert="X", instance=(), labels={}, fingerprint=f"{number:016x}", state=state, value=value, unknown=unknown
    )


def noted(courses: ValueCourses, alerts: list[Alert], at: float) -> None:
    for _ in courses.note(alerts, at, 5.0):
        pass


def test_a_course_has_the_value_of_each_evaluation() -> None:
    assert course(1.0, None, 3.0).values == (1.0, None, 3.0)
    assert course(1.0, None, 3.0).seconds == 15.0


def test_a_course_that_is_full_has_the_means_of_two_values() -> None:
    made = course(*map(float, range(POINTS + 2)))
    assert made.values == tuple(number + 0.5 for number in range(0, POINTS + 2, 2))
    assert (made.step, made.seconds) == (10.0, (POINTS + 2) * 5.0)


def test_a_long_course_forgets_its_beginning() -> None:
    made = course(*map(float, range(10_000)))
    assert LONGEST_S <= made.step < 2 * LONGEST_S
    assert len(made.values) == POINTS
    assert made.values[-1] == pytest.approx(9_999 - 7.5, abs=8)
    assert made.values == tuple(sorted(made.values, key=lambda value: value or 0.0))


def test_a_time_without_evaluations_is_unknown() -> None:
    made = course(1.0, 2.0)
    made.note(50.0, 3.0)
    assert made.values == (1.0, 2.0, *[None] * 8, 3.0)
    made.note(1e9, 4.0)
    assert made.values == (*[None] * (POINTS - 1), 4.0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 400), st.none() | st.floats(-1e6, 1e6) | st.just(float("nan"))), max_size=150),
    st.sampled_from([0.5, 5.0, 7.3, 300.0]),
)
def test_a_course_is_bounded_and_has_no_value_that_was_not_measured(
    noted_values: list[tuple[float, float | None]], step: float
) -> None:
    at, made = 1e6, ValueCourse(1e6, step)
    known = []
    for later, value in noted_values:
        at += later
        made.note(at, value)
        if value is not None and value == value:
            known.append(value)
        assert len(made.values) <= POINTS
    for value in made.values:
        assert value is None or min(known) - 1e-6 <= value <= max(known) + 1e-6


def test_only_alerts_that_are_active_have_a_course_and_it_goes_with_them() -> None:
    courses = ValueCourses()
    noted(courses, [alert(1, 0.5), alert(2, state=Phase.INACTIVE), alert(3, 0.7, unknown=True)], 5.0)
    assert len(courses) == 2
    assert courses.of(f"{1:016x}") == ((0.5,), 5.0)
    assert courses.of(f"{2:016x}") == ((), 0.0)
    assert courses.of(f"{3:016x}") == ((None,), 5.0)
    noted(courses, [alert(1, 0.5, Phase.RESOLVED)], 10.0)
    assert courses.of(f"{1:016x}") == ((0.5,), 5.0)
    noted(courses, [], 15.0)
    assert len(courses) == 0


def test_there_are_at_most_so_many_courses() -> None:
    courses = ValueCourses()
    noted(courses, [alert(number) for number in range(COURSES + 50)], 5.0)
    assert len(courses) == COURSES
    assert courses.of(f"{COURSES:016x}") == ((), 0.0)
    assert 0 < courses.held_bytes < COURSES * 2000
    for at in (10.0, 15.0):  # the first one makes room
        noted(courses, [alert(number) for number in range(100, COURSES + 150)], at)
    assert len(courses) == COURSES
    assert courses.of(f"{COURSES:016x}") == ((1.0,), 5.0)
