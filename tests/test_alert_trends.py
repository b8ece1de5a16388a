"""Rules of error budgets, forecasts and anomalies."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.detectors import DETECTORS, ENOUGH, Detector, spacing
from pool_monitor.alerts.evaluation.slo_burn import rows_of
from pool_monitor.alerts.inputs import Input, Judgement, Labels, Sample
from pool_monitor.alerts.rule import Absolute, Anomaly, Forecast, OfLimit, SloBurn
from tests.helpers.judging import BAD_VALUES, DAY, Judge, operation, pool, rule

HOUR = 3600.0
MONTH = 30 * DAY
WORKBOOK = [(2, HOUR, 300.0, 14.4), (2, 6 * HOUR, 1800.0, 6.0), (1, DAY, 7200.0, 3.0), (1, 3 * DAY, 21_600.0, 1.0)]

# -- error budgets ----------------------------------------------------------------------------------------------------


def test_the_table_for_a_month_is_that_of_the_workbook():
    assert [tuple(row) for row in rows_of(MONTH)] == WORKBOOK


@pytest.mark.parametrize("days", [7, 28, 90])
def test_windows_follow_the_period_and_factors_stay(days: int):
    for row, (level, long, short, factor) in zip(rows_of(days * DAY), WORKBOOK, strict=True):
        assert row == pytest.approx((level, long * days / 30, short * days / 30, factor))


@settings(max_examples=40)
@given(st.floats(HOUR, 365 * DAY))
def test_every_row_stands_for_its_share_of_the_budget(period: float):
    for row, share in zip(rows_of(period), (0.02, 0.05, 0.1, 0.1), strict=True):
        assert row.factor * row.long / period == pytest.approx(share)
        assert row.short == pytest.approx(row.long / 12)
        assert row.short >= 60


def burn(objective: float = 0.999, **fields: object) -> Judge:
    return Judge(rule(SloBurn(pool="p*", objective=objective, period=MONTH), **fields))


def read(judge: Judge, seconds: dict[float, tuple[float, ...] | None], labels: Labels | None = None) -> Judgement:
    """Judge calls, failed calls and measured seconds by the length of the window."""
    samples = {
        Input(metric="pool.error_ratio", kind="calls", over=over): []
        if more is None
        else [Sample(labels or pool(), more[1] / more[0] if more[0] else None, int(more[0]), more)]
        for over, more in seconds.items()
    }
    return judge.read(samples)[labels or pool()]


def steady(
    error_ratio: float, rate: float = 1.0, since: float = 1e9, quiet: float = 0.0
) -> dict[float, tuple[float, ...]]:
    """*rate* calls a second, of which *error_ratio* fail: for *since* seconds, until *quiet* seconds ago."""
    windows = {over for _, long, short, _ in WORKBOOK for over in (long, short)}
    found = {}
    for over in windows:
        failing = max(0.0, min(over, since) - quiet)
        found[over] = (over * rate, failing * rate * error_ratio)
    return found


@pytest.mark.parametrize(
    ("error_ratio", "rate", "level"),
    [
        (0.0, 1.0, 0),
        (0.0009, 1.0, 0),
        (0.0011, 1.0, 1),
        (0.0061, 1.0, 2),
        (0.0145, 1.0, 2),
        (1.0, 1.0, 2),
        (0.0, 0.0, None),
    ],
)
def test_a_steady_share_of_failures_burns_at_its_rate(error_ratio: float, rate: float, level: int | None):
    assert read(burn(), steady(error_ratio, rate)).level == level


@pytest.mark.parametrize(
    ("error_ratio", "long", "factor"),
    [(1.0, HOUR, 14.4), (0.1, HOUR, 14.4), (0.02, HOUR, 14.4), (0.007, 6 * HOUR, 6.0), (0.004, DAY, 3.0)],
)
def test_it_is_detected_when_the_workbook_says(error_ratio: float, long: float, factor: float):
    """long x factor x (1 - objective) / error ratio after the failures began, in a pool that was healthy before."""
    expected = long * factor * 0.001 / error_ratio
    level = 2 if factor >= 6 else 1
    assert (read(burn(), steady(error_ratio, 1000.0, since=expected * 0.98)).level or 0) < level
    assert read(burn(), steady(error_ratio, 1000.0, since=expected * 1.02)).level == level


def test_it_ends_soon_after_the_failures_do():
    """With all calls failing, the short window of five minutes is good again when they are over for 4.9 minutes."""
    judge = burn()
    ended = 300.0 * (1 - 14.4 * 0.001)
    assert read(judge, steady(1.0, 1000.0, since=600, quiet=ended * 0.99)).level == 2
    assert read(judge, steady(1.0, 1000.0, since=600, quiet=ended * 1.01)).limit != 14.4


def test_what_was_not_measured_counts_as_healthy():
    """A service that fails from its start is told after 52 s, and not before: as one that was healthy for a month."""
    for measured, level in ((51.0, 0), (53.0, 2)):
        windows = dict.fromkeys(steady(1.0), (measured * 10, measured * 10, measured))
        assert read(burn(), windows).level == level
    month_old = {over: (over * 10, over * 10 * 0.0012, over) for over in steady(1.0)}
    young = {over: (600 * 10, 600 * 10 * 0.0012, min(over, 600)) for over in steady(1.0)}
    assert (read(burn(), month_old).level, read(burn(), young).level) == (1, 0)


@pytest.mark.parametrize(
    ("objective", "min_samples", "calls", "level"),
    [
        (0.9, 0, 9, None),
        (0.9, 0, 10, 2),
        (0.999, 0, 99, None),
        (0.999, 0, 100, 2),
        (0.99999, 0, 9_999, None),
        (0.99999, 0, 10_000, 2),
        (0.999, 5, 4, None),
        (0.999, 5, 5, 2),
    ],
)
def test_a_window_needs_enough_calls(objective: float, min_samples: int, calls: int, level: int | None):
    windows = dict.fromkeys(steady(1.0), (float(calls), float(calls)))
    assert read(burn(objective, min_samples=min_samples), windows).level == level


def test_one_failure_wakes_nobody():
    assert read(burn(), dict.fromkeys(steady(0), (120.0, 1.0))).level == 0
    assert read(burn(), dict.fromkeys(steady(0), (120.0, 2.0))).level == 2


def test_a_short_window_without_calls_is_unknown_once_the_long_one_is_bad():
    quiet = dict.fromkeys([300.0, 1800.0, 7200.0], (0.0, 0.0))
    assert read(burn(), dict.fromkeys(steady(0), (1000.0, 5.0)) | quiet).level == 1  # 6 hours of 3 days
    assert read(burn(), dict.fromkeys(steady(0), (1000.0, 5.0)) | quiet | {21_600.0: (0.0, 0.0)}).level is None
    assert read(burn(), dict.fromkeys(steady(0), (1000.0, 0.0)) | quiet).level == 0


def test_a_row_that_is_reached_outweighs_one_that_is_unknown():
    windows = steady(0.005) | {HOUR: None, 300.0: None}
    one = read(burn(), windows)
    assert (one.level, one.limit, one.value) == (1, 3.0, pytest.approx(5.0))


def test_operations_are_instances_of_their_own():
    judge = Judge(rule(SloBurn(pool="p", operation="a*", objective=0.999, period=MONTH)))
    windows = steady(1.0)
    samples = {
        Input(metric="operation.error_ratio", kind="calls", over=over): [
            Sample(operation("a"), 1.0, None, more),
            Sample(operation("b"), 1.0, None, more),
            Sample(operation("a", "q"), 1.0, None, more),
        ]
        for over, more in windows.items()
    }
    assert {labels: one.level for labels, one in judge.read(samples).items()} == {operation("a"): 2}


@settings(max_examples=40)
@given(
    counts=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 100)), min_size=7, max_size=7),
    objective=st.sampled_from([Fraction(9, 10), Fraction(99, 100), Fraction(999, 1000)]),
)
def test_it_equals_the_table_in_exact_arithmetic(counts: list[tuple[int, int]], objective: Fraction):
    overs = sorted({over for _, long, short, _ in WORKBOOK for over in (long, short)})
    windows = {over: (calls, min(failed, calls)) for over, (calls, failed) in zip(overs, counts, strict=True)}
    least = max(10, math.ceil(Fraction(1, 10) / (1 - objective)))

    def rate(over: float) -> Fraction | None:
        calls, failed = windows[over]
        return Fraction(failed, calls) / (1 - objective) if calls else None

    verdicts: list[tuple[int, bool | None]] = []
    for level, long, short, factor in WORKBOOK:
        exact = Fraction(factor).limit_denominator(10)
        calls, failed = windows[long]
        long_rate, short_rate = rate(long), rate(short)
        if long_rate is None or calls < least:
            verdicts.append((level, None))
        elif failed < 2 or long_rate <= exact:
            verdicts.append((level, False))
        else:
            verdicts.append((level, None if short_rate is None else short_rate > exact))
        if any(one is not None and abs(one - exact) < Fraction(1, 10**9) for one in (long_rate, short_rate)):
            return  # a tie, which rounding may decide
    reached = [level for level, verdict in verdicts if verdict]
    expected = max(reached) if reached else None if None in [verdict for _, verdict in verdicts] else 0
    windows_in = {over: (float(calls), float(failed)) for over, (calls, failed) in windows.items()}
    assert read(burn(float(objective)), windows_in).level == expected


# -- forecasts --------------------------------------------------------------------------------------------------------

RSS = Input(metric="pool.waiting", kind="fit", over=HOUR)
LIMIT = Input(metric="pool.queue_limit")


def forecast(value: float | None, more: tuple[float, ...], limit: float | None = None) -> Judgement:
    reaches = Absolute(1000.0) if limit is None else OfLimit(0.5)
    judge = Judge(rule(Forecast(metric="pool.waiting", reaches=reaches, within=6 * HOUR)))
    return judge.read({RSS: [Sample(pool(), value, None, more)], LIMIT: [Sample(pool(), limit)]})[pool()]


STEEP, SURE = 600 / (6 * HOUR), (0.001, 0.9, 60.0)


@pytest.mark.parametrize(
    ("value", "more", "level"),
    [
        (400.0, (STEEP * 1.01, *SURE), 1),
        (400.0, (STEEP * 0.99, *SURE), 0),
        (400.0, (-STEEP * 10, *SURE), 0),
        (400.0, (0.0, 0.0, 1.0, 60.0), 0),
        (400.0, (STEEP * 2, STEEP * 0.7, 0.49, 60.0), 0),  # neither explained nor certain
        (400.0, (STEEP * 2, STEEP * 0.7, 0.5, 60.0), 1),
        (400.0, (STEEP * 2, STEEP * 0.6, 0.1, 60.0), 1),
        (400.0, (STEEP * 2, *SURE[:2], 9.0), None),
        (400.0, (STEEP * 2, *SURE[:2], 10.0), 1),
        (400.0, (), None),
        (1000.0, (), 1),
        (1500.0, (-STEEP, *SURE), 1),
        *((value, (STEEP * 2, *SURE), None) for value in BAD_VALUES),
    ],
)
def test_a_forecast_needs_a_trend_that_leads_to_the_bound_in_time(value, more, level):
    assert forecast(value, more).level == level


def test_the_value_of_a_forecast_is_the_time_that_is_left():
    assert forecast(400.0, (STEEP * 4, *SURE)) == Judgement(pool(), 1, pytest.approx(1.5 * HOUR), "", 6 * HOUR)
    assert forecast(400.0, (STEEP / 2, *SURE)).value == pytest.approx(12 * HOUR)
    assert forecast(1000.0, ()).value == 0
    assert forecast(400.0, (-STEEP, *SURE)).value is None


@pytest.mark.parametrize(("limit", "level"), [(1000.0, 1), (5000.0, 0), (0.0, None), (800.0, 1)])
def test_a_forecast_may_reach_a_share_of_the_limit(limit: float, level: int | None):
    assert forecast(450.0, (STEEP / 10, *SURE), limit).level == level


def test_what_is_free_runs_down():
    judge = Judge(rule(Forecast(metric="host.disk_free", reaches=Absolute(100.0), within=HOUR, window=HOUR)))
    one = Input(metric="host.disk_free", kind="fit", over=HOUR)
    cases = [(1000.0, -0.3, 1), (1000.0, -0.2, 0), (1000.0, 0.3, 0), (100.0, 0.0, 1), (50.0, 0.0, 1)]
    assert [judge.read({one: [Sample((), value, None, (slope, *SURE))]})[()].level for value, slope, _ in cases] == [
        level for *_, level in cases
    ]


# -- anomalies --------------------------------------------------------------------------------------------------------

P50 = Input(metric="operation.latency.p50", window="1m")


def anomaly(direction: str = "both", **fields: object) -> Judge:
    kind = Anomaly(metric="operation.latency.p50", window="1m", direction=direction)  # type: ignore[arg-type]
    return Judge(rule(kind, **fields), interval=15.0)


def one(judge: Judge, value: float | None, calls: int | None = None) -> int | None:
    return judge.read({P50: [Sample(operation("a"), value, calls)]})[operation("a")].level


def healthy(made: random.Random) -> float:
    return made.lognormvariate(math.log(0.1), 0.1)


def test_an_anomaly_is_unknown_until_the_detector_knows_what_is_usual():
    judge, made = anomaly(), random.Random(1)
    judge.interval = spacing(60)
    assert [one(judge, healthy(made)) for _ in range(ENOUGH + 1)] == [None] * ENOUGH + [0]


@pytest.mark.parametrize(
    ("direction", "factor", "level"),
    [("up", 5, 1), ("up", 0.2, 0), ("down", 5, 0), ("down", 0.2, 1), ("both", 5, 1), ("both", 0.2, 1)],
)
def test_an_anomaly_is_told_on_the_side_of_the_rule_and_until_it_is_over(direction: str, factor: float, level: int):
    judge, made = anomaly(direction), random.Random(2)
    for _ in range(ENOUGH * 2):
        one(judge, healthy(made))
    told = [one(judge, factor * healthy(made)) for _ in range(200)]
    assert told[-1] == level
    assert {one(judge, healthy(made)) for _ in range(20)} <= {0, level}
    assert one(judge, healthy(made)) == 0


@pytest.mark.parametrize("value", [*BAD_VALUES, 0.1])
def test_what_is_unknown_is_never_shown_to_the_detector(value: float | None):
    judge, made = anomaly(min_samples=20), random.Random(3)
    for _ in range(ENOUGH + 1):
        one(judge, healthy(made), 20)
    before = judge.memory.dump()["watches"]
    assert [one(judge, value, 19) for _ in range(100)] == [None] * 100
    assert judge.memory.dump()["watches"] == before


def test_values_of_overlapping_windows_reach_the_detector_at_its_pace():
    judge, made = anomaly(), random.Random(4)
    judge.interval = 5.0
    for _ in range(30):
        one(judge, healthy(made))
    [(_, watch)] = judge.memory.watches
    assert len(watch.detector.state()["window"]) == 30 * 5 / spacing(60)


def test_a_stepped_wall_clock_makes_no_anomaly():
    judge, made = anomaly(), random.Random(5)
    found = set()
    for number in range(400):
        judge.at += {150: 8 * HOUR, 250: -2 * DAY, 350: 400 * DAY}.get(number, 0.0)
        found.add(one(judge, healthy(made)))
    assert found == {None, 0}


def test_healthy_heavy_tailed_latencies_are_no_anomaly():
    """A day of medians of a minute, each from 60 calls of which one in a hundred takes ten times as long."""
    judge, made = anomaly("up"), random.Random(6)
    recent: list[float] = []
    bad = 0
    for _ in range(4 * 60 * 24):
        recent = [*recent, *(made.lognormvariate(0, 0.6) * (10 if made.random() < 0.01 else 1) for _ in range(15))][
            -60:
        ]
        bad += one(judge, sorted(recent)[len(recent) // 2]) == 1
    assert bad <= 4


def test_a_rule_without_a_detector_has_the_default_one():
    judge = anomaly()
    one(judge, 1.0)
    [(_, watch)] = judge.memory.watches
    assert type(watch.detector) is Detector is DETECTORS[watch.name]
