"""Composite rules, rules of absence and rules of findings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.evaluation import composite
from pool_monitor.alerts.evaluation.absence import FORGET_S, START_S
from pool_monitor.alerts.evaluation.composite import all_of, any_of, negated
from pool_monitor.alerts.inputs import Input, Judgement, Labels, Sample, labels_of
from pool_monitor.alerts.rule import Absence, AlertFires, AllOf, AnyOf, Condition, FindingIs, Kind, Matcher, Not
from tests.helpers.judging import BAD_VALUES, Judge, operation, pool, rule, threshold

TRUTHS = [True, False, None]
ERRORS = Input(metric="operation.error_ratio", window="1m")
BUSY = Input(metric="pool.utilisation")
LATENCY = threshold(0.5)
BUSY_90 = threshold(0.9, metric="pool.utilisation", window=None)

# -- the logic of three values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two", "both", "either"),
    [
        (True, True, True, True),
        (True, False, False, True),
        (True, None, None, True),
        (False, True, False, True),
        (False, False, False, False),
        (False, None, False, None),
        (None, True, None, True),
        (None, False, False, None),
        (None, None, None, None),
    ],
)
def test_the_table_of_three_values(one: bool | None, two: bool | None, both: bool | None, either: bool | None):
    assert all_of([one, two]) is both
    assert any_of([one, two]) is either


def test_what_is_unknown_stays_so_under_not():
    assert [negated(one) for one in TRUTHS] == [False, True, None]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(TRUTHS), max_size=6))
def test_an_unknown_value_is_one_that_could_be_either(truths: list[bool | None]):
    """The logic says true or false exactly where all that the unknown ones could be agree."""
    worlds = list(itertools.product(*([True, False] if one is None else [one] for one in truths)))
    for combine, plain in ((all_of, all), (any_of, any)):
        results = {plain(world) for world in worlds}
        assert combine(truths) == (results.pop() if len(results) == 1 else None)


def test_de_morgan_holds_for_three_values():
    for truths in itertools.product(TRUTHS, repeat=3):
        assert negated(all_of(truths)) == any_of(negated(one) for one in truths)


# -- composite rules --------------------------------------------------------------------------------------------------


def judged(
    kind: Kind, errors: Mapping[Labels, float | None] = {}, busy: Mapping[Labels, float | None] = {}
) -> dict[Labels, int | None]:
    samples = {
        ERRORS: [Sample(*one) for one in errors.items()],
        BUSY: [Sample(*one) for one in busy.items()],
    }
    return {labels: one.level for labels, one in Judge(rule(kind)).read(samples).items()}


A, B = operation("a"), operation("b", "q")


@pytest.mark.parametrize(
    ("busy_p", "level"),
    [(0.95, 1), (0.9, 0), (None, None)],
)
def test_a_condition_with_fewer_labels_is_looked_up_by_those_it_has(busy_p: float | None, level: int | None):
    kind = AllOf(conditions=(BUSY_90, LATENCY))
    found = judged(kind, {A: 0.9, B: 0.9}, {pool(): busy_p, pool("q"): 0.0})
    assert found == {A: level, B: 0}


def test_a_condition_on_a_metric_that_has_no_such_instance_is_unknown():
    assert judged(AllOf(conditions=(BUSY_90, LATENCY)), {A: 0.9}) == {A: None}
    assert judged(AllOf(conditions=(BUSY_90, LATENCY)), {A: 0.1}) == {A: 0}
    assert judged(AnyOf(conditions=(BUSY_90, LATENCY)), {A: 0.9}) == {A: 1}


def test_conditions_with_the_same_labels_share_all_their_instances():
    other = threshold(3, metric="pool.waiting", window=None)
    kind = AnyOf(conditions=(BUSY_90, other))
    samples = {BUSY: [Sample(pool("p"), 1.0)], Input(metric="pool.waiting"): [Sample(pool("q"), 5.0)]}
    found = Judge(rule(kind)).read(samples)
    assert {labels: one.level for labels, one in found.items()} == {pool("p"): 1, pool("q"): 1}


def test_conditions_nest():
    kind = AnyOf(conditions=(AllOf(conditions=(LATENCY, Not(condition=BUSY_90))), threshold(0.8)))
    cases = {(0.9, 1.0): 1, (0.6, 0.0): 1, (0.6, 1.0): 0, (0.1, 0.0): 0, (0.6, None): None, (0.9, None): 1}
    for (errors, busy), level in cases.items():
        assert judged(kind, {A: errors}, {pool(): busy}) == {A: level}


def test_the_value_is_that_of_the_first_condition_on_a_metric():
    """Whatever is unknown: it is shown in the unit of that condition."""
    crash = Input(metric="crash_loop", kind="finding")
    found = FindingIs(kinds=("crash_loop",))
    samples = {ERRORS: [Sample(A, 0.7)], BUSY: [Sample(pool(), 0.95)], crash: [Sample((), 4.0, None, (1,))]}
    judge = Judge(rule(AllOf(conditions=(found, BUSY_90, LATENCY))))
    assert judge.read(samples)[A].value == 0.95
    assert judge.read(samples | {BUSY: []})[A].value is None
    assert Judge(rule(AllOf(conditions=(AlertFires(alert="X"), found)))).read(samples)[()].value == 4.0


def test_match_and_min_samples_apply_to_the_instances_of_a_composite_rule():
    kind = AllOf(conditions=(LATENCY, BUSY_90))
    judge = Judge(rule(kind, {"operation": "a*"}, min_samples=20))
    samples = {ERRORS: [Sample(A, 0.9, 19), Sample(B, 0.9, 20)], BUSY: [Sample(pool(), 1.0), Sample(pool("q"), 1.0)]}
    assert {labels: one.level for labels, one in judge.read(samples).items()} == {A: None}


def test_conditions_of_one_metric_have_latches_of_their_own():
    kind = AllOf(conditions=(threshold(5, clear=(2,)), Not(condition=threshold(10, clear=(8,)))))
    judge = Judge(rule(kind))
    levels = [judge.read({ERRORS: [Sample(A, value)]})[A].level for value in (6, 11, 9, 7, 3, 1)]
    assert levels == [1, 0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("fires", "found"),
    [
        ([A], {A: 1, B: 0}),
        ([pool("q")], {A: 0, B: 1}),
        ([()], {A: 1, B: 1}),
        ([(("host", "x"), ("pool", "p"))], {A: 1, B: 0}),
        ([], {A: 0, B: 0}),
    ],
)
def test_an_alert_is_true_where_the_labels_that_both_have_agree(fires: list[Labels], found: dict[Labels, int]):
    judge = Judge(rule(AllOf(conditions=(AlertFires(alert="X"), LATENCY))))
    judge.firing = {"X": fires}
    judgements = judge.read({ERRORS: [Sample(A, 0.9), Sample(B, 0.9)]})
    assert {labels: one.level for labels, one in judgements.items()} == found


LABELLINGS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy")).map(labels_of)


@settings(max_examples=30)
@given(st.dictionaries(LABELLINGS, st.none() | st.floats(0, 9), max_size=8), st.lists(LABELLINGS, max_size=5))
def test_what_is_looked_up_is_the_first_that_agrees(there: dict[Labels, float | None], instances: list[Labels]):
    ask = composite._agreeing(there)
    for instance in instances:
        agree = [
            value for one, value in there.items() if not [1 for pair in one if dict(instance).get(*pair) != pair[1]]
        ]
        assert ask(instance) == ((True, agree[0]) if agree else (False, None))


@settings(max_examples=30)
@given(st.lists(LABELLINGS, unique=True, max_size=8))
def test_instances_that_are_a_part_of_another_are_left_out(instances: list[Labels]):
    whole = [one for one in instances if not any(set(one) < set(other) for other in instances)]
    assert composite._most_labels(instances) == whole


def test_many_instances_are_not_compared_with_each_alert():
    class Counting(dict[Labels, Any]):
        iterations = 0

        def __iter__(self) -> Iterator[Labels]:
            self.iterations += 1
            return super().__iter__()

        def items(self) -> Any:
            self.iterations += 1
            return super().items()

    there = Counting({pool(f"p{number}"): None for number in range(20)})
    ask = composite._agreeing(there)
    assert [ask(operation(f"o{number}", "p19")).truth for number in range(20)] == [True] * 20
    assert there.iterations <= 2


def test_a_rule_of_alerts_alone_has_their_instances_and_is_good_when_they_end():
    judge = Judge(rule(AllOf(conditions=(AlertFires(alert="X"), AlertFires(alert="Y")))))

    def levels(x: list[Labels], y: list[Labels]) -> dict[Labels, int | None]:
        judge.firing = {"X": x, "Y": y}
        return {labels: one.level for labels, one in judge.read({}).items()}

    assert levels([A], []) == {A: 0}
    assert levels([A], [pool()]) == {A: 1}
    assert levels([], [pool()]) == {pool(): 0, A: 0}
    assert levels([], []) == {(): 0}
    assert judge.memory.latches == {}


def test_one_of_two_alerts_with_other_labels_is_not_lost():
    judge = Judge(rule(AnyOf(conditions=(AlertFires(alert="X"), AlertFires(alert="Y")))))
    judge.firing = {"X": [pool("q")], "Y": [A]}
    assert {labels: one.level for labels, one in judge.read({}).items()} == {A: 1, pool("q"): 1}


def test_not_of_an_alert_is_true_once_while_it_fires_nowhere():
    judge = Judge(rule(Not(condition=AlertFires(alert="X"))))
    assert judge.read({})[()].level == 1
    judge.firing = {"X": [A]}
    assert {labels: one.level for labels, one in judge.read({}).items()} == {A: 0, (): 0}


def test_a_finding_is_false_where_it_is_not_there():
    crash = Input(metric="crash_loop", kind="finding")
    worker = (("pool", "p"), ("worker", "p-0"))
    judge = Judge(rule(AllOf(conditions=(BUSY_90, FindingIs(kinds=("crash_loop",))))))
    busy = [Sample(pool("p"), 1.0), Sample(pool("q"), 1.0)]
    found = judge.read({BUSY: busy, crash: [Sample(worker, 3.0, None, (2,))]})
    assert {labels: one.level for labels, one in found.items()} == {pool("p"): 1, pool("q"): 0}


CONDITIONS = st.recursive(
    st.sampled_from([LATENCY, BUSY_90, AlertFires(alert="X")]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: AllOf(conditions=tuple(some))),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: AnyOf(conditions=tuple(some))),
        inner.map(lambda one: Not(condition=one)),
    ),
    max_leaves=8,
)


def plainly(condition: Condition, errors: float | None, busy: float | None, fires: bool) -> bool | None:
    match condition:
        case AllOf(conditions=some):
            return all_of(plainly(one, errors, busy, fires) for one in some)
        case AnyOf(conditions=some):
            return any_of(plainly(one, errors, busy, fires) for one in some)
        case Not(condition=one):
            return negated(plainly(one, errors, busy, fires))
        case AlertFires():
            return fires
    value, bound = (errors, 0.5) if condition is LATENCY else (busy, 0.9)
    return None if value is None else value > bound


@settings(max_examples=40)
@given(
    CONDITIONS.filter(lambda one: not hasattr(one, "metric") and not isinstance(one, AlertFires)),
    st.sampled_from([0.1, 0.9, None]),
    st.sampled_from([0.1, 0.95, None]),
    st.booleans(),
)
def test_any_tree_of_conditions_is_combined_as_its_parts_are(kind, errors, busy, fires):
    judge = Judge(rule(kind))
    judge.firing = {"X": [pool()] if fires else []}
    found = judge.read({ERRORS: [Sample(A, errors)], BUSY: [Sample(pool(), busy)]})
    expected = plainly(kind, errors, busy, fires)
    assert expected is None or expected in {bool(one.level) for one in found.values()}
    if A in found:
        assert found[A].level == (None if expected is None else int(expected))


# -- absence ----------------------------------------------------------------------------------------------------------

RATE = Input(metric="pool.rate", window="5m")
NO_TRAFFIC = Absence(metric="pool.rate", window="5m")


@pytest.mark.parametrize(
    ("metric", "window", "value", "level"),
    [
        ("pool.rate", "5m", 0.0, 1),
        ("pool.rate", "5m", 0.01, 0),
        ("pool.waiting", None, 0.0, 1),
        ("pool.error_ratio", "5m", 0.0, 0),
        ("pool.utilisation", None, 0.0, 0),
        *(("pool.rate", "5m", value, 1) for value in BAD_VALUES),
        *(("pool.utilisation", None, value, 1) for value in BAD_VALUES),
    ],
)
def test_there_is_nothing_where_a_value_is_unknown_or_a_count_is_0(metric, window, value, level):
    judge = Judge(rule(Absence(metric=metric, window=window)))
    found = judge.read({Input(metric=metric, window=window): [Sample(pool(), value)]})
    assert found[pool()].level == level


@pytest.mark.parametrize(
    ("kind", "start"), [(NO_TRAFFIC, 300.0), (Absence(metric="pool.waiting", window=None), START_S)]
)
def test_a_start_makes_nothing_absent(kind: Absence, start: float):
    judge = Judge(rule(kind, {"pool": "p"}))
    one = Input(metric=kind.metric, window=kind.window)
    for covered, empty in ((0.0, None), (start - 0.1, None), (start, 1)):
        judge.covered = covered
        assert judge.read({})[pool()].level == empty
        assert judge.read({one: [Sample(pool(), 0.0)]})[pool()].level == empty
        assert judge.read({one: [Sample(pool(), 2.0)]})[pool()].level == 0


def test_what_was_absent_before_a_start_is_absent_until_it_is_there_again():
    judge = Judge(rule(NO_TRAFFIC))
    assert judge.levels({pool("p"): 0.0, pool("q"): 1.0, pool("gone"): 1.0}) == {
        pool("p"): 1, pool("q"): 0, pool("gone"): 0,
    }  # fmt: skip
    assert judge.levels({pool("p"): 0.0, pool("q"): 1.0})[pool("gone")] == 1
    again, dump = Judge(rule(NO_TRAFFIC)), judge.memory.dump()
    again.memory.restore(dump)
    again.covered = 0.0
    assert again.levels({pool("p"): 0.0, pool("q"): 0.0}) == {pool("p"): 1, pool("q"): None, pool("gone"): 1}
    assert again.levels({pool("p"): 1.0, pool("q"): 0.0}) == {pool("p"): 0, pool("q"): None, pool("gone"): 1}
    assert again.levels({pool("p"): 0.0, pool("q"): 0.0}) == {pool("p"): None, pool("q"): None, pool("gone"): 1}


def test_an_instance_that_was_there_is_missed_for_a_day():
    judge = Judge(rule(NO_TRAFFIC), interval=600)
    assert judge.read({}) == {}
    assert judge.levels({pool(): 1.0}) == {pool(): 0}
    missed = 0
    while judge.read({}) == {pool(): Judgement(pool(), 1)}:
        missed += 1
    assert missed * 600 == FORGET_S
    assert judge.read({}) == {}
    assert judge.memory.latches == {}


@pytest.mark.parametrize(
    ("match", "named"),
    [
        ((Matcher("pool", "p"),), True),
        ((Matcher("pool", "p*"),), False),
        ((Matcher("pool", "p*", pattern=False),), True),
        ((), False),
        ((Matcher("pool", "p"), Matcher("pool", "q*")), False),
    ],
)
def test_an_instance_that_match_names_whole_is_missed_for_ever(match: tuple[Matcher, ...], named: bool):
    judge = Judge(rule(NO_TRAFFIC))
    judge.rule = judge.rule.__class__(alert="R", kind=NO_TRAFFIC, match=match)
    assert [one.level for one in judge.read({}).values()] == ([1] if named else [])


def test_a_metric_without_labels_has_one_instance_that_is_always_named():
    kind = Absence(metric="operation.error_ratio", window="1m")
    assert Judge(rule(kind, {"operation": "a"})).read({}) == {}
    assert Judge(rule(kind, {"operation": "a", "pool": "p"})).read({}).keys() == {A}


def test_what_was_there_is_bounded():
    judge = Judge(rule(NO_TRAFFIC))
    judge.memory.seen.most = 3
    for number in range(100):
        judge.levels({pool(str(number)): 1.0})
    assert len(judge.memory.seen) == 3


# -- findings ---------------------------------------------------------------------------------------------------------

CRASH, BREAKER = (Input(metric=kind, kind="finding") for kind in ("crash_loop", "breaker_open"))
WORKER = (("pool", "p"), ("worker", "p-0"))


def test_the_level_of_a_finding_is_that_of_the_rule():
    judge = Judge(rule(FindingIs(kinds=("crash_loop",))))
    for more, level in [(1.0, 1), (2.0, 2), (1.0, 1)]:
        one = judge.read({CRASH: [Sample(WORKER, 4.0, None, (more, 3.0), "4 restarts")]})[WORKER]
        assert one == Judgement(WORKER, level, 4.0, "4 restarts", 3.0)
    assert judge.read({CRASH: []}) == {}


def test_a_rule_of_several_kinds_says_which():
    judge = Judge(rule(FindingIs(kinds=("crash_loop", "breaker_open")), {"finding": "*"}))
    found = judge.read({CRASH: [Sample(WORKER, 1.0, None, (1,))], BREAKER: [Sample(pool(), None, None, (2,))]})
    assert {labels: one.level for labels, one in found.items()} == {
        (("finding", "crash_loop"), *WORKER): 1,
        (("finding", "breaker_open"), *pool()): 2,
    }


def test_a_rule_with_one_severity_has_one_level():
    judge = Judge(rule(FindingIs(kinds=("crash_loop",))))
    judge.rule = judge.rule.__class__(alert="R", kind=judge.rule.kind, severities=("critical",))
    assert judge.read({CRASH: [Sample(WORKER, None, None, (2,))]})[WORKER].level == 1


def test_match_chooses_findings():
    judge = Judge(rule(FindingIs(kinds=("crash_loop",)), {"pool": "q"}))
    assert judge.read({CRASH: [Sample(WORKER, None, None, (2,))]}) == {}
