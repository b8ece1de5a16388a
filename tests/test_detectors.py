"""Detectors of anomalies: what they find, what they do not, and that nothing makes them stick, grow or fail."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import healthy
from pool_monitor.alerts import DETECTORS, THRESHOLD, AnomalyDetector, Detector
from pool_monitor.alerts import detectors as module
from pool_monitor.alerts.detectors import (
    ACCEPT_S,
    CONFIRM,
    ENOUGH,
    LARGEST,
    LIMIT,
    QUIET,
    RobustDetector,
    SeasonalDetector,
    spacing,
)
from pool_monitor.alerts.deviation import FLOOR, RELATIVE_FLOOR, SEASON_DAYS, WINDOW, SortedWindow, deviation

DAY_S = 86_400.0
STEP_S = healthy.STEP_S
BEGIN_S = healthy.BEGIN_S
BOTH = pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)


def feed(
    detector: AnomalyDetector, values: Iterable[float], begin: float = BEGIN_S, step: float = STEP_S
) -> list[float]:
    return [detector.handle(begin + nth * step, value) for nth, value in enumerate(values)]


def sides(detector: AnomalyDetector, values: Iterable[float], begin: float = BEGIN_S, step: float = STEP_S) -> str:
    """``^``, ``v`` or ``.`` for each value: the direction that the detector has afterwards."""
    found = ""
    for nth, value in enumerate(values):
        detector.handle(begin + nth * step, value)
        found += {"up": "^", "down": "v", None: "."}[detector.direction]
    return found


def usual(seed: int = 0, count: int = WINDOW) -> list[float]:
    return healthy.made("Gaussian", count / healthy.DAY, seed)  # 100 +- 5


def learnt(values: Iterable[float] | None = None) -> RobustDetector:
    """A detector that knows a usual hour, which ends at `BEGIN_S`."""
    detector = RobustDetector()
    values = usual() if values is None else list(values)
    feed(detector, values, BEGIN_S - len(values) * STEP_S)
    return detector


class TestFalseAlarms:
    """The bounds are those of the study: at 3.5 deviations, four in a row, about none a day."""

    @pytest.mark.parametrize(
        ("shape", "begun", "news"),
        [
            ("Gaussian", 0, 1),
            ("AR(1)", 3, 1),
            ("log-normal", 0, 1),
            ("Pareto", 1, 9),
            ("daily wave", 0, 1),
            ("in buckets", 0, 0),
            ("sliding mean", 0, 7),
        ],
    )
    def test_two_healthy_days_have_about_no_anomaly(self, shape: str, begun: int, news: int):
        found = healthy.watch(Detector(), healthy.made(shape, 2, 1))
        assert found.anomalies <= begun
        assert found.news <= news

    def test_the_spacing_of_rules_keeps_overlapping_windows_from_being_anomalies(self):
        assert [spacing(window) for window in (0, 60, 3600)] == [15, 30, 1800]
        dense, spaced = RobustDetector(), RobustDetector(every=spacing(60))
        draws = healthy.made("log-normal", 2, 0)
        values = [statistics.fmean(window) for window in zip(*(draws[at:] for at in range(12)), strict=False)]
        begun = {"dense": 0, "spaced": 0}
        for nth, value in enumerate(values):  # a mean of the last minute each 5 s
            for name, detector in (("dense", dense), ("spaced", spaced)):
                before = detector.direction
                detector.handle(BEGIN_S + 5 * nth, value)
                begun[name] += detector.direction is not None and before is None
        assert begun["spaced"] == 0 < begun["dense"]


class TestDirection:
    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([200] * 3, "..."),
            ([200] * 5, "...^^"),
            ([10] * 5, "...vv"),
            ([200, 10] * 4, "........"),
            ([200, 200, 200, 100, 200, 200, 200], "......."),
            ([200] * 4 + [100] * 5, "...^^^^.."),
            ([200] * 4 + [100, 200, 100, 100, 100, 100], "...^^^^^^."),
            ([200] * 4 + [10] * 5, "...^^^^vv"),
        ],
    )
    def test_as_many_in_a_row_begin_an_anomaly_as_end_it(self, values: list[float], expected: str):
        assert CONFIRM == 4
        assert sides(learnt(), values) == expected

    @pytest.mark.parametrize(("factor", "direction"), [(0.98, None), (1.02, "up"), (-0.98, None), (-1.02, "down")])
    def test_values_beyond_the_limit_deviate(self, factor: float, direction: str | None):
        detector = learnt()
        logs = list(map(math.log, detector.state()["window"]))
        middle = statistics.median(logs)
        mad = statistics.median(abs(each - middle) for each in logs)
        value = math.exp(middle + factor * LIMIT * mad / 0.6745)
        state = detector.state()
        for run in range(CONFIRM):
            detector.restore(state | {"run": run, "latest_side": 1 if factor > 0 else -1})
            detector.handle(BEGIN_S, value)
            assert detector.deviation == pytest.approx(factor * LIMIT)
        assert detector.direction == direction

    def test_a_second_burst_is_found_while_the_first_is_in_the_window(self):
        detector = learnt(usual(count=120))
        burst, between = [150.0] * 10, usual(1, 100)
        found = sides(detector, [*burst, *between, *burst])
        assert found[:10] == "..." + "^" * 7
        assert "^" not in found[14:110]
        assert found[110:] == "..." + "^" * 7

    def test_there_is_no_answer_before_there_are_enough_values(self):
        detector = RobustDetector()
        feed(detector, usual(count=ENOUGH))
        assert detector.deviation is None
        assert detector.basis is None
        detector.handle(BEGIN_S, 100)
        assert detector.deviation is not None
        assert detector.basis == "robust"


class TestBaseline:
    def test_it_is_the_same_before_and_after_an_anomaly_of_three_hours(self):
        detector = learnt()
        before = detector.state()["window"]
        assert set(sides(detector, [500.0] * 720)[3:]) == {"^"}
        after = detector.state()["window"]
        assert after == [*before[CONFIRM - 1 :], *[500.0] * (CONFIRM - 1)]

    def test_a_level_that_stays_for_hours_becomes_the_normal_one(self):
        detector = learnt()
        values = int(ACCEPT_S / STEP_S) + CONFIRM - 1
        found = sides(detector, repeat(500.0, values - 1))
        assert found.count(".") == CONFIRM - 1
        assert found[-1] == "^"
        feed(detector, [500.0] * 2, BEGIN_S + values * STEP_S)
        assert detector.direction is None
        assert detector.deviation == 0.0
        assert sides(detector, usual(), BEGIN_S + 2 * values * STEP_S)[CONFIRM - 1] == "v"

    @pytest.mark.parametrize("step", [-1.0, math.nan], ids=str)
    def test_no_clock_keeps_a_level_from_becoming_normal(self, step: float):
        detector = learnt()
        found = sides(detector, repeat(500.0, int(ACCEPT_S) + 10), step=step)
        assert found[-1] == "."
        assert found.count("^") == pytest.approx(ACCEPT_S, abs=10)

    def test_a_gap_does_not_make_a_level_normal(self):
        detector = learnt()
        feed(detector, [500.0] * 10)
        assert set(sides(detector, [500.0] * 10, BEGIN_S + 30 * DAY_S)) == {"^"}

    def test_a_slow_change_is_followed(self):
        detector = learnt()
        values = [value * (1 + nth / 5_000) for nth, value in enumerate(usual(3, 5_000))]
        assert set(sides(detector, values)) == {"."}

    def test_values_that_come_too_early_are_not_taken(self):
        detector = RobustDetector(every=15.0)
        feed(detector, usual(count=300), step=5.0)
        assert len(detector.state()["window"]) == 100
        detector.handle(BEGIN_S - 1, 100)  # the clock was set back
        assert len(detector.state()["window"]) == 101


class TestOddValues:
    @BOTH
    @pytest.mark.parametrize("value", [0.0, 5.0, -5.0, LARGEST, -LARGEST, 5e-324], ids=str)
    def test_a_constant_series_has_no_anomaly_and_no_infinite_number(self, make: Any, value: float):
        detector = make()
        assert set(feed(detector, [value] * (ENOUGH + 10))) == {0.0}
        assert detector.deviation == 0.0
        for other in (0.0, 1.0, -1.0, LARGEST, -LARGEST, 5e-324):
            assert 0 <= detector.handle(BEGIN_S, other) <= 1
            assert math.isfinite(detector.deviation)

    @pytest.mark.parametrize(("value", "found"), [(1.03, "....."), (0.97, "....."), (1.08, "...^^"), (0.92, "...vv")])
    def test_a_constant_series_may_change_by_a_few_percent(self, value: float, found: str):
        assert sides(learnt([100.0] * WINDOW), [100 * value] * 5) == found

    @BOTH
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e101, -1e101, 10**400], ids=repr)
    def test_what_is_no_number_is_unknown_and_not_learned(self, make: Any, value: float):
        detector = make()
        feed(detector, [*usual(), *[500.0] * 4])
        before = detector.state()
        assert detector.handle(BEGIN_S + DAY_S, value) == 0.0
        assert detector.deviation is None
        assert detector.basis is None
        assert detector.direction == "up"
        assert detector.state() == before

    def test_a_series_around_zero_is_compared_as_it_is(self):
        detector = learnt(value - 100 for value in usual())
        assert sides(detector, [40.0] * 4 + [0.0] * 4 + [-40.0] * 4) == "...^^^^....v"

    def test_a_rate_that_falls_to_nothing_is_found(self):
        assert sides(learnt(), [0.0] * 4) == "...v"

    @BOTH
    @given(
        st.lists(st.tuples(st.floats() | st.floats(0, 1e9), st.floats() | st.integers() | st.just(0.0)), max_size=150)
    )
    @settings(max_examples=20, deadline=None)
    def test_whatever_comes_the_score_is_from_0_to_1(self, make: Any, points: list[tuple[float, float]]):
        detector = make()
        for at, value in points:
            assert 0.0 <= detector.handle(at, value) <= 1.0
            assert detector.deviation is None or math.isfinite(detector.deviation)


class TestScore:
    def test_a_jump_is_news_once(self):
        scores = feed(learnt(), [*[200.0] * 20, *[100.0] * 20])
        assert [nth for nth, score in enumerate(scores) if score >= THRESHOLD] == [0]

    def test_a_larger_jump_is_news_again_and_the_same_after_a_while(self):
        scores = feed(learnt(), [200.0, 100.0, 100.0, 400.0, *usual(1, QUIET), 900.0])
        assert [nth for nth, score in enumerate(scores) if score >= THRESHOLD] == [0, 3, QUIET + 4]

    def test_scores_have_no_end_that_is_reached(self):
        scores = [feed(learnt([100.0] * WINDOW), [100 * 10.0**size])[0] for size in (1, 10, 50, 98)]
        assert scores == sorted(set(scores))
        assert scores[-1] < 1

    def test_a_datetime_is_the_same_as_seconds(self):
        one, other, third = SeasonalDetector(), SeasonalDetector(), SeasonalDetector()
        for nth, value in enumerate(usual()):
            at = BEGIN_S + nth * 60
            aware = datetime.fromtimestamp(at, UTC)
            scores = {
                one.handle(at, value),
                other.handle(aware, value),
                third.handle(aware.replace(tzinfo=None), value),
            }
            assert len(scores) == 1
        assert one.state() == other.state() == third.state()


class TestSeason:
    STEP = 60.0
    DAY = 1440

    def days(self, count: int, seed: int = 0) -> list[float]:
        """At night, a twentieth of the load."""
        noise = healthy.made("Gaussian", count * self.DAY / healthy.DAY, seed)
        return [value / (20 if nth % self.DAY < 400 else 1) for nth, value in enumerate(noise)]

    def test_what_is_usual_at_night_is_no_anomaly_when_nights_are_known(self):
        begin = BEGIN_S // DAY_S * DAY_S
        seasonal, robust = SeasonalDetector(), RobustDetector()
        for detector in (seasonal, robust):
            feed(detector, self.days(4), begin, self.STEP)
        later = begin + 4 * DAY_S
        assert set(sides(seasonal, self.days(1, 7), later, self.STEP)) == {"."}
        assert seasonal.basis == "seasonal"
        assert set(sides(robust, self.days(1, 7), later, self.STEP)) != {"."}
        night = later + DAY_S
        assert sides(seasonal, [100.0] * 5, night, self.STEP) == "...^^"  # the load of the day

    def test_without_enough_days_it_is_the_robust_one_and_says_so(self):
        seasonal, robust = SeasonalDetector(), RobustDetector()
        values = usual(2, 2 * self.DAY)
        assert feed(seasonal, values, step=self.STEP) == feed(robust, values, step=self.STEP)
        assert seasonal.basis == robust.basis == "robust"
        assert seasonal.deviation == robust.deviation
        feed(seasonal, usual(3, 2 * self.DAY), BEGIN_S + 2 * DAY_S, self.STEP)
        assert seasonal.basis == "seasonal"

    def test_a_level_that_stays_becomes_normal_in_spite_of_the_days_before(self):
        seasonal = SeasonalDetector()
        feed(seasonal, usual(2, 4 * self.DAY), step=self.STEP)
        found = sides(seasonal, [300.0] * self.DAY, BEGIN_S + 4 * DAY_S, self.STEP)
        assert found.count("^") == pytest.approx(ACCEPT_S / self.STEP, abs=2)
        assert found[-1] == "."

    def test_days_are_bounded_whatever_the_clock_does(self):
        seasonal = SeasonalDetector()
        for day in (0, 1, 2, 3, 4, 5, 6, 900, 7, 901, -5, 902, 903, 904, 905, 906, 907):
            feed(seasonal, usual(count=5), day * DAY_S)
            assert len(seasonal.state()["days"]) <= SEASON_DAYS + 1


class TestState:
    @BOTH
    @given(st.data())
    @settings(max_examples=15, deadline=None)
    def test_a_restored_detector_answers_as_the_first_would(self, make: Any, data: st.DataObject):
        number = st.one_of(st.floats(90, 110), st.floats(), st.just(500.0))
        step = data.draw(st.sampled_from([15.0, 60.0, 600.0, 3600.0]))
        first = make()
        feed(first, usual(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 400))), step=step)
        feed(first, data.draw(st.lists(number, max_size=12)), BEGIN_S + 400 * step, step)
        second = make()
        second.restore(json.loads(json.dumps(first.state())))
        assert second.state() == first.state()
        assert second.direction == first.direction
        for nth, value in enumerate([*data.draw(st.lists(number, max_size=12)), *usual(9, 20)]):
            at = BEGIN_S + (412 + nth) * step
            assert first.handle(at, value) == second.handle(at, value)
            assert (first.deviation, first.direction, first.basis) == (
                second.deviation,
                second.direction,
                second.basis,
            )
        assert second.state() == first.state()

    def test_a_state_is_no_view_of_the_detector(self):
        detector = learnt()
        state = detector.state()
        text = json.dumps(state)
        feed(detector, [500.0] * 10)
        assert json.dumps(state) == text
        other = RobustDetector()
        other.restore(state)
        feed(other, [500.0] * 10)
        assert json.dumps(state) == text

    @pytest.mark.parametrize(
        "change",
        [
            {"window": [1.0] * (WINDOW + 1)},
            {"window": [math.nan]},
            {"window": ["1"]},
            {"window": None},
            {"abnormal": [1e300]},
            {"abnormal_s": -1},
            {"side": 2},
            {"run": -1},
            {"time": math.inf},
            {"jumps": {"last": math.nan}},
            {"jumps": {"last": 0.0, "positive": True}},
            {"jumps": []},
            {"recent": [0.0] * (QUIET + 1)},
            {"recent": [-1.0]},
            {"days": [[1, [None]]]},
            {"days": [[1, [None] * 1440]] * (SEASON_DAYS + 2)},
            {"days": [[2**80, [None] * 1440]]},
            {"more": 1},
        ],
        ids=lambda change: "-".join(map(str, change)),
    )
    @BOTH
    def test_a_bad_state_is_refused_and_changes_nothing(self, make: Any, change: dict[str, Any]):
        detector = make()
        feed(detector, usual())
        before = detector.state()
        with pytest.raises(ValueError, match="not the state of a detector"):
            detector.restore(before | change)
        assert detector.state() == before

    @pytest.mark.parametrize("state", [None, [], {}, "state", 3])
    def test_what_is_no_state_is_refused(self, state: Any):
        with pytest.raises(ValueError, match="not the state of a detector"):
            RobustDetector().restore(state)

    def test_its_size_is_bounded(self):
        detector = RobustDetector()
        values = chain(usual(count=1_000), [1e9 + nth for nth in range(1_000)], repeat(1e-9, 2_000))
        feed(detector, values)
        state = detector.state()
        assert len(state["window"]) == WINDOW
        assert len(state["abnormal"]) <= WINDOW
        assert len(state["recent"]) == QUIET
        assert len(json.dumps(state)) < 25_000


class TestWindow:
    @given(st.lists(st.floats(-100, 100) | st.integers(-3, 3).map(float), max_size=60), st.integers(1, 9))
    @settings(max_examples=60, deadline=None)
    def test_it_has_the_last_values_sorted(self, values: list[float], size: int):
        window = SortedWindow(size)
        for nth, value in enumerate(values, 1):
            window.add(value)
            assert list(window.values) == values[max(nth - size, 0) : nth]
            assert window.ordered == sorted(window.values)
        other = SortedWindow(size)
        other.replace(values)
        assert (other.values, other.ordered) == (window.values, window.ordered)

    @given(
        st.lists(st.floats(-1e6, 1e6) | st.integers(-5, 5).map(float), min_size=1, max_size=40)
        | st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40),
        st.floats(-1e6, 1e6),
    )
    @settings(max_examples=150, deadline=None)
    def test_the_deviation_is_that_of_the_plain_definition(self, values: list[float], value: float):
        assert deviation(sorted(values), value) == pytest.approx(naive(values, value), rel=1e-12, abs=1e-300)


def naive(values: Sequence[float], value: float) -> float:
    logs = min(values) > 0 and value > 0
    if logs:
        values, value = [math.log(each) for each in values], math.log(value)
    middle = statistics.median(values)
    mad = statistics.median(abs(each - middle) for each in values)
    floor = RELATIVE_FLOOR if logs else max(RELATIVE_FLOOR * abs(middle), FLOOR)
    return 0.6745 * (value - middle) / max(mad, floor)


def test_the_default_is_one_of_the_table_and_needs_no_argument():
    assert Detector in DETECTORS.values()
    assert Detector().direction is None
    assert module.Detector is Detector
    assert 0 < THRESHOLD < 1
