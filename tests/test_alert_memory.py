"""What the evaluation of a rule remembers: that it is bounded, and that a restart forgets nothing."""

from __future__ import annotations

import copy
import functools
import math
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.evaluation.memory import LATCHED, LEARNED_EVERY_S, About, Memory, Remembered
from pool_monitor.alerts.inputs import Inputs, Judgement, Labels, Sample, Samples
from pool_monitor.alerts.rule import Absence, AlertFires, AllOf, Anomaly, FindingIs, Kind, Not, OwnBaseline
from tests.helpers.judging import Judge, operation, pool, rule, threshold

OWN = OwnBaseline(2.0, 3600.0)
KINDS: list[Kind] = [
    threshold(0.5, clear=(0.3,)),
    threshold(OWN, OwnBaseline(3.0, 7200.0), clear=(OwnBaseline(1.5, 3600.0),)),
    Anomaly(metric="operation.error_ratio", window="1m"),
    Anomaly(metric="operation.error_ratio", window="1m", detector="seasonal"),
    Absence(metric="operation.error_ratio", window="1m"),
    AllOf(conditions=(threshold(0.5, clear=(0.3,)), Not(condition=threshold(OWN)), AlertFires(alert="X"))),
    Not(condition=AlertFires(alert="X")),
]


def restarted(judge: Judge) -> Judge:
    """The judge of a new process: it has what was stored."""
    again = copy.copy(judge)
    again.memory = Memory()
    again.memory.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(judge.memory.dump())))
    return again


def told(found: dict[Labels, Judgement]) -> dict[Labels, Judgement]:
    return {labels: one._replace(limit=None) for labels, one in found.items()}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("cut", [1, 150])
def test_a_rule_says_the_same_after_a_restart_as_without_one(kind: Kind, cut: int):
    made = random.Random(cut)
    judge = Judge(rule(kind), interval=15.0)
    steps: list[tuple[dict[Labels, float | None], list[Labels]]] = []
    for number in range(300):
        spread = 6 if 120 < number < 200 else 1
        values = {operation(name): spread * made.lognormvariate(-1, 0.2) for name in "abc" if made.random() < 0.95}
        steps.append((dict(values), [operation("a")] if made.random() < 0.3 else []))
    for values, fires in steps[:cut]:
        judge.firing = {"X": fires}
        judge.levels(values)
    again = restarted(judge)
    for number, (values, fires) in enumerate(steps[cut:]):
        judge.firing = again.firing = {"X": fires}
        expected, found = judge.levels(values), again.levels(values)
        if isinstance(kind, Anomaly) and number == 0:
            continue  # a value that comes too early for the detector says nothing after a restart
        assert found == expected
    assert again.memory.dump() == judge.memory.dump()


@functools.cache
def _full() -> bytes:
    judge = Judge(rule(threshold(OWN, clear=(OwnBaseline(1.5, 3600),))))
    for _ in range(100):
        judge.level(1.0)
    judge.memory.hold("x", pool(), 2)
    judge.memory.seen.put(About("y", pool()), 3.0)
    watch = Judge(rule(Anomaly(metric="operation.error_ratio", window="1m")))
    for _ in range(10):
        watch.level(1.0)
    [(about, found)] = watch.memory.watches
    judge.memory.watches.put(about, found)
    return msgspec.msgpack.encode(judge.memory.dump())


def full() -> dict[str, Any]:
    """A dump that has everything."""
    found: dict[str, Any] = msgspec.msgpack.decode(_full())
    return found


@pytest.mark.parametrize(
    "place",
    [
        ("now",),
        ("latches",),
        ("baselines",),
        ("watches",),
        ("seen",),
        *[("latches", 0, n) for n in range(3)],
        *[("baselines", 0, n) for n in range(4)],
        *[("watches", 0, n) for n in (0, 1, 3, 4)],
        *[("seen", 0, n) for n in range(3)],
    ],
    ids=str,
)
@pytest.mark.parametrize("wrong", [None, -1.0, math.nan, {"x": 1}, [[[]]]], ids=str)
def test_what_is_no_memory_is_refused_and_changes_nothing(place: tuple[Any, ...], wrong: Any):
    memory = Memory()
    memory.restore(full())
    saved, before = full(), memory.dump()
    inner: Any = saved
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = wrong
    with pytest.raises(ValueError, match=r"."):
        memory.restore(saved)
    assert memory.dump() == before


@pytest.mark.parametrize("wrong", [None, [], "x", 3, {}, {"now": 1.0}], ids=str)
def test_something_else_is_refused(wrong: Any):
    with pytest.raises(ValueError, match=r"."):
        Memory().restore(wrong)


def test_a_detector_that_is_not_in_the_table_any_more_is_left_out():
    saved = full()
    saved["watches"] = [[*saved["watches"][0][:2], "gone", 15.0, {}]]
    memory = Memory()
    memory.restore(saved)
    assert (len(memory.watches), len(memory.baselines)) == (0, 1)


def test_a_version_comes_at_once_for_levels_and_seldom_for_what_is_learned():
    judge = Judge(rule(threshold(OWN, clear=(OwnBaseline(1.5, 3600),))))
    versions = []
    for _ in range(round(4 * LEARNED_EVERY_S / 5)):
        judge.level(1.0)
        versions.append(judge.memory.version)
    assert versions[-1] == 4
    judge.level(5.0)
    assert judge.memory.version == 5
    judge.level(5.0)
    assert judge.memory.version == 5


def test_a_rule_that_remembers_nothing_has_nothing_to_store():
    judge = Judge(rule(threshold(1, 2)))
    for value in (0, 3, 0, 3):
        judge.level(value)
    assert judge.memory.version == 0


def test_levels_are_remembered_of_a_bounded_number_of_instances():
    memory = Memory()
    for number in range(LATCHED + 10):
        memory.hold("x", pool(str(number)), 1)
        memory.hold("y", pool(str(number)), 1)
    assert len(memory.latches) == LATCHED
    assert memory.held("x", pool("9")) == 0
    assert memory.held("x", pool("10")) == 1
    memory.restore(memory.dump())
    assert len(memory.latches) == LATCHED


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=30))
def test_what_is_in_use_never_gives_way(turns: list[list[int]]):
    remembered: Remembered[int] = Remembered(4)
    kept: dict[int, int] = {}
    for turn in turns:
        remembered.turn += 1
        for number in turn:
            about = About("x", pool(str(number)))
            found = remembered.get_or_make(about, lambda number=number: number)
            assert found in (number, None)
            recent = [one for one, used in kept.items() if used >= remembered.turn - 1]
            if number in recent:
                assert found == number
            if found is None:
                assert len(recent) == 4
            else:
                kept[number] = remembered.turn
                kept = {one: used for one, used in kept.items() if About("x", pool(str(one))) in dict(remembered)}
        assert len(remembered) <= 4


def test_a_finding_that_went_while_the_service_was_down_is_good_and_nothing_is_stored_for_it():
    judge = Judge(rule(FindingIs(kinds=("crash_loop",))))
    judge.levels({pool(): 1.0})
    assert judge.memory.version == 0
    assert restarted(judge).read({}) == {}

    checked = rule(FindingIs(kinds=("crash_loop",)))
    first, second = Engine(5.0), Engine(5.0)
    first.set_rules([checked], 0.0)
    [one] = first.wanted
    first.step(Inputs(0.0, 5.0, {one: Samples([Sample(pool(), 1.0)])}))
    second.set_rules([checked], 0.0)
    second.restore(first.changed(), {name: found.dump() for name, found in first.memories().items()}, first.seq, 0.0)
    [ended] = second.step(Inputs(5.0, 0.0, {one: Samples()}))
    assert (ended.from_state, ended.to_state, ended.reason) == ("firing", "resolved", "")


def test_an_alert_that_was_resolved_without_data_begins_again_at_its_bound():
    checked = rule(threshold(5, clear=(2,)))
    engine = Engine(5.0)
    engine.set_rules([checked], 0.0)
    [wanted] = engine.wanted

    def step(value: float | None) -> list[str]:
        samples = Samples([] if value is None else [Sample(operation("a"), value)])
        return [one.to_state for one in engine.step(Inputs(0.0, 5.0, {wanted: samples}))]

    assert [step(value) for value in (6, 3)] == [["firing"], []]
    assert [found for _ in range(5) for found in step(None)] == ["resolved"]
    assert [step(value) for value in (3, 6, 3, 1)] == [[], ["firing"], [], ["resolved"]]
