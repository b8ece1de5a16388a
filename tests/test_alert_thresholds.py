"""Thresholds, relative bounds and rates of change: what a rule says about each value."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.evaluation import NotRead, evaluate
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Sample
from pool_monitor.alerts.rule import CheckedRule, Matcher, OfLimit, OwnBaseline, RateOfChange
from tests.helpers.judging import BAD_VALUES, Judge, operation, pool, rule, threshold

VALUES = st.floats(-10, 10) | st.sampled_from([0.0, 1.0, 2.0, 3.0])


@pytest.mark.parametrize(("above", "sign"), [(True, 1), (False, -1)])
@pytest.mark.parametrize(
    ("value", "level"), [(0.0, 0), (1.0, 0), (math.nextafter(1, 2), 1), (2.0, 1), (math.nextafter(2, 3), 2), (9.0, 2)]
)
def test_a_level_is_reached_strictly_beyond_its_bound(above: bool, sign: int, value: float, level: int):
    judge = Judge(rule(threshold(sign * 1, sign * 2, above=above)))
    assert judge.level(sign * value) == level


@pytest.mark.parametrize(("above", "sign"), [(True, 1), (False, -1)])
def test_a_level_is_left_strictly_beyond_its_clear_bound(above: bool, sign: int):
    judge = Judge(rule(threshold(sign * 85, sign * 95, above=above, clear=(sign * 75, sign * 90))))
    steps = [(80, 0), (86, 1), (80, 1), (75, 1), (74, 0), (85, 0), (96, 2), (90, 2), (89, 1), (95, 1), (74.9, 0)]
    assert [judge.level(sign * value) for value, _ in steps] == [level for _, level in steps]


def test_levels_with_and_without_a_clear_bound_mix():
    judge = Judge(rule(threshold(5, 20, clear=(2, None))))
    assert [judge.level(value) for value in (21, 20, 4, 2, 1.9)] == [2, 1, 1, 1, 0]


def latched(values: list[float], bounds: list[float], clears: list[float]) -> list[int]:
    """Each level with a latch of its own, as Netdata has them: the highest that is on."""
    on = [False] * len(bounds)
    found = []
    for value in values:
        on = [
            value > bound or (was and not value < clear) for was, bound, clear in zip(on, bounds, clears, strict=True)
        ]
        found.append(max((level + 1 for level, is_on in enumerate(on) if is_on), default=0))
    return found


@settings(max_examples=40)
@given(
    values=st.lists(VALUES, max_size=30),
    bounds=st.lists(st.floats(-5, 5), min_size=1, max_size=3).map(sorted),
    widths=st.lists(st.floats(0, 4), min_size=3, max_size=3),
)
def test_hysteresis_equals_one_latch_for_each_level(values: list[float], bounds: list[float], widths: list[float]):
    clears = sorted(bound - width for bound, width in zip(bounds, widths, strict=False))
    judge = Judge(rule(threshold(*bounds, clear=clears)))
    assert [judge.level(value) for value in values] == latched(values, bounds, clears)


@pytest.mark.parametrize("value", BAD_VALUES)
def test_a_value_that_is_no_number_is_unknown_and_leaves_the_latch(value: float | None):
    judge = Judge(rule(threshold(5, clear=(2,))))
    assert [judge.level(one) for one in (6, value, 3, value, 1, 3)] == [1, None, 1, None, 0, 0]


def test_a_value_of_too_few_calls_is_unknown():
    judge = Judge(rule(threshold(0.05), min_samples=20))
    assert [judge.level(0.5, calls) for calls in (0, 19, 20, None)] == [None, None, 1, 1]


def test_the_bound_that_was_judged_against_is_told():
    judge = Judge(rule(threshold(1, 2)))
    one = Input(metric="operation.error_ratio", window="1m")
    limits = [judge.read({one: [Sample(pool(), value)]})[pool()].limit for value in (0, 1.5, 3)]
    assert limits == [1, 1, 2]


def test_an_alert_that_ended_forgets_its_latch():
    judge = Judge(rule(threshold(5, clear=(2,))))
    assert [judge.level(6), judge.level(3)] == [1, 1]
    judge.memory.forget(operation("a"))
    assert judge.level(3) == 0


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ({}, ["summarize", "summary", "translate"]),
        ({"operation": "summar*"}, ["summarize", "summary"]),
        ({"operation": "summar?"}, ["summary"]),
        ({"operation": "[st]*e", "pool": "p"}, ["summarize", "translate"]),
        ({"operation": "SUMMARY"}, []),
        ({"operation": "summar*", "pool": "q"}, []),
        ({"worker": ""}, ["summarize", "summary", "translate"]),
        ({"worker": "*"}, []),
    ],
)
def test_match_chooses_instances_by_shell_patterns(match: dict[str, str], found: list[str]):
    judge = Judge(rule(threshold(1), match))
    names = ["summarize", "summary", "translate"]
    assert sorted(judge.levels({operation(name): 0.0 for name in names})) == [operation(name) for name in found]


def test_a_matcher_that_is_no_pattern_matches_to_the_letter():
    checked = CheckedRule(alert="R", kind=threshold(1), match=(Matcher("operation", "a*", pattern=False),))
    assert list(Judge(checked).levels({operation("a*"): 0.0, operation("ab"): 0.0})) == [operation("a*")]


def test_match_follows_instances_that_come_go_and_move():
    judge = Judge(rule(threshold(1), {"operation": "a*"}))
    for names in (["a", "b"], ["b", "a"], ["b"], ["b", "ab", "a"]):
        found = judge.levels({operation(name): 0.0 for name in names})
        assert sorted(found) == sorted(operation(name) for name in names if name.startswith("a"))


@settings(max_examples=40)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_rules_without_relative_bounds_and_hysteresis_are_a_plain_loop(values: list[tuple[float, float]]):
    judge = Judge(rule(threshold(1, 2)))
    for one, two in values:
        assert judge.levels({pool("a"): one, pool("b"): two}) == {
            pool("a"): sum(one > bound for bound in (1, 2)),
            pool("b"): sum(two > bound for bound in (1, 2)),
        }


def test_an_input_that_was_not_read_is_an_error_in_words():
    checked = rule(threshold(1))
    one = Input(metric="operation.error_ratio", window="1m")
    nothing = Inputs(0.0, 5.0, {})
    with pytest.raises(NotRead, match=r"operation\.error_ratio was not read"):
        evaluate(checked, nothing, Judge(checked).memory, lambda _: [])
    with pytest.raises(NotRead, match="the disk is full"):
        evaluate(checked, nothing._replace(errors={one: "the disk is full"}), Judge(checked).memory, lambda _: [])


# -- bounds that are relative to a limit ------------------------------------------------------------------------------

WAITING, LIMIT = Input(metric="pool.waiting"), Input(metric="pool.queue_limit")


@pytest.mark.parametrize(
    ("limit", "waiting", "level", "bound"),
    [(100, 91, 1, 90), (100, 90, 0, 90), (10, 10, 1, 9), (0, 5, None, None), (None, 5, None, None)],
)
def test_a_bound_relative_to_a_limit_follows_it(limit: float | None, waiting: float, level: int, bound: float):
    judge = Judge(rule(threshold(OfLimit(0.9), metric="pool.waiting", window=None)))
    found = judge.read({WAITING: [Sample(pool(), waiting)], LIMIT: [Sample(pool("other"), 1), Sample(pool(), limit)]})
    assert found[pool()] == Judgement(pool(), level, waiting, "", bound)


def test_a_level_whose_bound_is_unknown_leaves_the_word_to_the_others():
    judge = Judge(rule(threshold(50, OfLimit(0.9), metric="pool.waiting", window=None)))
    levels = [judge.read({WAITING: [Sample(pool(), value)]})[pool()].level for value in (60, 40)]
    assert levels == [1, None]


# -- bounds that are relative to the past -----------------------------------------------------------------------------

OWN = OwnBaseline(2.0, 24 * 3600.0)


def days_of(judge: Judge, value: float, hours: float) -> set[int | None]:
    return {judge.level(value) for _ in range(round(hours * 3600 / judge.interval))}


def test_a_relative_bound_is_unknown_for_an_hour_of_a_day():
    judge = Judge(rule(threshold(OWN)), interval=60)
    assert [judge.level(1.0) for _ in range(60)] == [None] * 60
    assert judge.level(2.0) == 0
    assert judge.level(2.01) == 1


def test_a_relative_bound_is_the_same_after_three_bad_hours_and_follows_a_shift():
    judge = Judge(rule(threshold(OWN)), interval=60)
    days_of(judge, 1.0, 24)
    assert days_of(judge, 10.0, 3) == {1}
    assert [judge.level(2.0), judge.level(2.01)] == [0, 1]
    assert days_of(judge, 1.8, 13) == {0}
    assert [judge.level(3.6), judge.level(3.61)] == [0, 1]


def test_a_level_that_stays_bad_for_half_of_the_window_becomes_normal():
    judge = Judge(rule(threshold(OWN)), interval=60)
    days_of(judge, 1.0, 24)
    assert days_of(judge, 5.0, 12) == {1}
    judge.level(5.0)
    assert judge.level(5.0) == 0
    assert judge.level(10.1) == 1


def test_two_levels_share_one_baseline():
    judge = Judge(rule(threshold(OwnBaseline(2, 3600), OwnBaseline(4, 3600), clear=(OwnBaseline(1.5, 3600),))))
    days_of(judge, 1.0, 1)
    assert len(judge.memory.baselines) == 1
    assert [judge.level(value) for value in (2, 2.1, 1.5, 1.4, 4.1)] == [0, 1, 1, 0, 2]


def test_a_median_of_zero_gives_no_bound():
    judge = Judge(rule(threshold(OwnBaseline(2, 3600))))
    days_of(judge, 0.0, 1)
    assert judge.level(5.0) is None


def test_a_gap_teaches_nothing():
    judge = Judge(rule(threshold(OwnBaseline(2, 3600))))
    for _ in range(1000):
        judge.level(1.0, elapsed=0.0)
    assert judge.level(1.0) is None


def test_an_instance_without_room_for_a_baseline_is_unknown():
    judge = Judge(rule(threshold(OwnBaseline(2, 3600))))
    judge.memory.baselines.most = 2
    names = {operation(name): 1.0 for name in "abc"}
    for _ in range(720):
        judge.levels(names)
    assert list(judge.levels(names).values()) == [0, 0, None]
    for _ in range(3):  # b is gone, so c takes its place
        judge.levels({operation("a"): 1.0})
    for _ in range(720):
        found = judge.levels({operation(name): 1.0 for name in "ac"})
    assert list(found.values()) == [0, 0]
    assert len(judge.memory.baselines) == 2


# -- the rate of change -----------------------------------------------------------------------------------------------

NOW = Input(metric="pool.rate", window="5m")
BEFORE = Input(metric="pool.rate", window="5m", back=3600.0)


@pytest.mark.parametrize(
    ("now", "before", "level", "change"),
    [
        ((49, 900), (100, 900), 1, -0.51),
        ((50, 900), (100, 900), 0, -0.5),
        ((200, 900), (100, 900), 0, 1.0),
        ((201, 900), (100, 900), 1, 1.01),
        ((0, 900), (100, 900), 1, -1.0),
        ((50, 900), (0, 900), None, None),
        ((50, 19), (100, 900), None, None),
        ((50, 900), (100, 19), None, None),
        ((None, 900), (100, 900), None, None),
        ((50, 900), (None, 900), None, None),
        ((math.nan, 900), (100, 900), None, None),
        ((50, 900), (math.inf, 900), None, None),
        ((50, 900), None, None, None),
    ],
)
def test_a_rate_of_change_is_a_share_of_what_was(now, before, level, change):
    kind = RateOfChange(metric="pool.rate", window="5m", against=3600.0, falls_by=0.5, rises_by=1.0)
    samples = {NOW: [Sample(pool(), *now)], BEFORE: [] if before is None else [Sample(pool(), *before)]}
    found = Judge(rule(kind, min_samples=20)).read(samples)[pool()]
    assert (found.level, found.value) == (level, change)
    assert found.limit == (None if change is None else -0.5 if change < -0.5 else 1.0)


def test_a_rate_of_change_looks_to_one_side_only_if_asked_to():
    samples = {NOW: [Sample(pool(), 1000)], BEFORE: [Sample(pool(), 100)]}
    kind = RateOfChange(metric="pool.rate", window="5m", against=3600.0, falls_by=0.5)
    assert Judge(rule(kind)).read(samples)[pool()].level == 0
