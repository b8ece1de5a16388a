"""The course of an alert's value: equal distances, bounded, and nothing invented."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.lifecycle import Phase
from pool_monitor.alerts.measured import COURSES, LONGEST_S, POINTS, ValueCourse, ValueCourses
from tests.helpers.simulated import service


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
    for at, value in ((10.0, 0.1), (15.0, 0.0)):
        noted(courses, [alert(1, value, Phase.RESOLVED)], at)
        assert courses.of(f"{1:016x}") == ((0.5, 0.1), 10.0), "the value that resolved it is the last one"
    noted(courses, [], 20.0)
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


# -- what was before --------------------------------------------------------------------------------------------------


def test_what_was_before_comes_first_in_longer_steps() -> None:
    made = ValueCourse(6000.0, 5.0)
    made.note(6000.0, 9.0)
    made.note(6005.0, 11.0)
    made.precede([(6000.0 - 60.0 * number, float(number)) for number in range(5, 0, -1)])
    assert made.step == 80.0
    # Steps of 80 s begin at 5680, 5760, 5840, 5920 and 6000.
    assert made.values == (5.0, 3.5, 2.0, 1.0, 10.0)


def test_what_was_before_is_unknown_where_it_was_not_measured_and_has_a_bound() -> None:
    made = ValueCourse(6000.0, 60.0)
    made.note(6000.0, 9.0)
    made.precede([(5820.0, 1.0), (5880.0, None), (6030.0, 7.0)])
    assert made.values == (1.0, None, None, 9.0)
    made.precede([(float(at), 2.0) for at in range(0, 6000, 60)])
    assert len(made.values) == POINTS
    made.precede([(1.0, 2.0)])
    made.precede([])
    made.precede([(1.0, None)])
    assert len(made.values) == POINTS


@pytest.mark.usefixtures("no_leaks")
async def test_an_alert_shows_what_its_value_was_before_it_began() -> None:
    async with service() as made:

        def calls(*, failing: int) -> None:
            for number in range(4):
                made.pool.failed("op") if number < failing else made.pool.ended("op", 0.05, slot=number)

        await made.go_on(250, lambda: calls(failing=0))
        made.host |= {"memory_ratio": 0.97}
        await made.go_on(50, lambda: calls(failing=2))

        async def drawn() -> bool:
            await made.go_on(5, lambda: calls(failing=2))
            alerts = {one.alertname: one for one in made.monitor.snapshot().alerts}
            return all(alerts[name].values_s > 150 for name in ("FailingCalls", "HostMemory"))

        while not await drawn():
            await asyncio.sleep(0)  # what is read in a thread
        alerts = {one.alertname: one for one in made.monitor.snapshot().alerts}
        for name, before in (("FailingCalls", 0.0), ("HostMemory", 0.5)):
            values = [value for value in alerts[name].values if value is not None]
            assert values[0] == pytest.approx(before, abs=0.02)
            assert values[-1] > 5 * max(before, 0.01) or values[-1] == pytest.approx(0.97)
            assert len(alerts[name].values) <= POINTS


@pytest.mark.usefixtures("no_leaks")
async def test_what_cannot_be_read_costs_the_past_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a defect")

    async with service() as made:
        monkeypatch.setattr(type(made.monitor.metrics), "deferred_resources", fail)
        made.host |= {"memory_ratio": 0.97}
        await made.go_on(40)
        [alert] = [one for one in made.monitor.snapshot().alerts if one.alertname == "HostMemory"]
        assert {value for value in alert.values if value is not None} == {0.97}
        assert made.monitor.alerts.view().failing == {}
