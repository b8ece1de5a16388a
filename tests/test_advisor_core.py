"""From what patterns find to recommendations: significance, causes, persistence, priority and lives."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.advisor.causes import EXPLAINS, cause_of
from pool_monitor.advisor.core import (
    DISMISSED_S,
    PASS_S,
    RECOMMENDATIONS,
    AdvisorCore,
    Key,
    Transition,
    id_of,
)
from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.evidence import figure_words
from pool_monitor.advisor.explaining import DISPROOFS
from pool_monitor.advisor.gil_pauses import gil_pauses, yield_gil
from pool_monitor.advisor.journal import Journal
from pool_monitor.advisor.lifecycle import LIFE, AdviceStage
from pool_monitor.advisor.look import Look, look
from pool_monitor.advisor.multiplicity import significant
from pool_monitor.advisor.persistence import Persistence
from pool_monitor.advisor.priority import confidence, label, score
from pool_monitor.advisor.replay import replay
from pool_monitor.clock import ManualClock
from pool_monitor.snapshot.advice import Change, Effect, Pattern, Recommendation
from pool_monitor.state_machine import IllegalTransition

WALL = 1_700_000_000.0


def detection(pattern: Pattern = "overloaded", subject: str = "pool text", **figures: Any) -> Detection:
    usual: dict[str, Any] = {
        "summary": "calls wait",
        "action": "add workers",
        "evidence": {"p95_wait": 0.48},
        "samples": 900,
        "p": 0.0,
        "fidelity": 1.0,
        "impact": 0.5,
        "urgency": 1.0,
        "risk": 1,
        "samples_min": 100,
    }
    return Detection(pattern, subject, **{**usual, **figures})


class Passes:
    """A core, and passes of five minutes over it."""

    def __init__(self) -> None:
        self.core = AdvisorCore(since=0.0)
        self.number = 0

    def make(
        self, *found: Detection, times: int = 1, size: float = 4, pool: str = "text", after: float = PASS_S
    ) -> list[Transition]:
        changed: list[Transition] = []
        for _ in range(times):
            self.number += 1
            now = self.number * after
            seen = Look(now, WALL + now, tuple((pool, one) for one in found), {}, {}, {pool: {"size": size}})
            changed += self.core.take(seen)
        return changed

    @property
    def stages(self) -> list[str]:
        return [told.state for told in self.core.known()]


@pytest.mark.parametrize(
    ("passes", "holds", "gone"),
    [
        ("", False, False),
        ("11", False, False),
        ("111", True, False),
        ("10101", True, False),
        ("100100", False, False),
        ("11100", True, False),
        ("1110000", False, False),
        ("11100000", False, True),
        ("0000", False, False),
        ("00000", False, True),
    ],
)
def test_a_finding_holds_in_three_of_five_passes_and_is_gone_after_five_without(
    passes: str, *, holds: bool, gone: bool
) -> None:
    persistence = Persistence()
    for one in passes:
        persistence.note(found=one == "1")
    assert (persistence.holds, persistence.gone) == (holds, gone)


@given(st.lists(st.booleans(), max_size=60))
def test_what_comes_and_goes_in_single_passes_opens_and_closes_seldom(passes: list[bool]) -> None:
    persistence, is_open, turns = Persistence(), False, 0
    for found in passes:
        persistence.note(found=found)
        after = persistence.holds if not is_open else not persistence.gone
        turns += after != is_open
        is_open = after
    assert turns <= 2 * (len(passes) // 8 + 1)


def test_of_many_tests_only_those_count_that_chance_does_not_explain() -> None:
    chance = [("text", detection("imbalance", f"worker {n}", p=(n + 1) / 200)) for n in range(100)]
    assert significant(chance) == []
    real = ("text", detection("imbalance", "worker real", p=1e-9))
    assert [one.detection.subject for one in significant([*chance, real])] == ["worker real"]
    assert significant([real])[0].q == pytest.approx(1e-9)


def test_a_detection_with_too_few_samples_does_not_count() -> None:
    assert significant([("text", detection(samples=99))]) == []


def test_confidence_grows_with_samples_passes_and_fidelity() -> None:
    assert confidence(0, 100, 100, 1, 1) == 0.5
    assert confidence(0, 900, 100, 1, 1) == pytest.approx(0.9)
    assert confidence(0, 900, 100, 0.6, 0.5) == pytest.approx(0.27)
    assert confidence(0.5, 900, 100, 1, 1) == pytest.approx(0.45)
    assert [label(value) for value in (0.59, 0.6, 0.84, 0.85)] == ["low", "medium", "medium", "high"]


_unit = st.floats(0, 1)


@given(_unit, _unit, _unit, st.integers(0, 4), _unit)
def test_the_score_is_bounded_and_never_falls_with_what_it_grows_by(
    impact: float, sure: float, urgency: float, risk: int, more: float
) -> None:
    first = score(impact, sure, urgency, risk)
    assert 0 <= first <= 100
    assert score(max(impact, more), sure, urgency, risk) >= first
    assert score(impact, max(sure, more), urgency, risk) >= first
    assert score(impact, sure, max(urgency, more), risk) >= first
    assert score(impact, sure, urgency, risk + 1 if risk < 4 else 4) <= first


def test_a_finding_opens_after_three_passes_with_its_figures_and_the_same_id() -> None:
    passes = Passes()
    assert passes.make(detection(), times=2) == []
    (opened,) = passes.make(detection(evidence={"p95_wait": 0.5, "nonsense": float("nan")}))
    told = opened.recommendation
    assert (opened.before, told.state, told.pattern, told.subject, told.pool) == (
        "",
        "new",
        "overloaded",
        "pool text",
        "text",
    )
    assert told.evidence == {"p95_wait": 0.5}
    assert told.id == id_of(Key("overloaded", "pool text", "text"))
    assert told.confidence == pytest.approx(0.9 * 0.6)
    assert passes.core.recommendations() == (told,)


def test_a_recommendation_is_open_after_an_hour_and_expires_when_it_is_gone() -> None:
    passes = Passes()
    passes.make(detection(), times=3)
    (settled,) = passes.make(detection(), times=13)
    assert (settled.before, settled.recommendation.state) == ("new", "open")
    (gone,) = passes.make(times=5)
    assert (gone.before, gone.recommendation.state) == ("open", "expired")
    assert passes.core.recommendations() == ()
    (again,) = passes.make(detection(), times=3)
    assert (again.before, again.recommendation.id) == ("expired", gone.recommendation.id)
    passes.make(times=5 + 24 * 12)
    assert passes.core.known() == ()


def test_a_change_that_was_made_is_applied_and_found_again_only_by_what_comes_after() -> None:
    passes, change = Passes(), Change(knob="size", current=4, proposed=6)
    passes.make(detection(change=change), times=3)
    (applied,) = passes.make(detection(change=change), size=6)
    assert applied.recommendation.state == "applied"
    more = Change(knob="size", current=6, proposed=8)
    assert passes.make(detection(change=more), times=2, size=6) == []
    (again,) = passes.make(detection(change=more), size=6)
    assert (again.before, again.recommendation.state, again.recommendation.change) == ("applied", "new", more)


@pytest.mark.parametrize(
    ("size", "proposed", "applied"), [(4, 6, False), (5, 6, False), (6, 6, True), (7, 6, True), (2, 3, True)]
)
def test_a_change_is_applied_when_the_setting_has_reached_it(size: float, proposed: float, *, applied: bool) -> None:
    passes, change = Passes(), Change(knob="size", current=4, proposed=proposed)
    passes.make(detection(change=change), times=3)
    passes.make(detection(change=change), size=size)
    assert (passes.stages == ["applied"]) is applied


def test_a_dismissal_lasts_a_week_unless_it_is_much_worse() -> None:
    passes = Passes()
    passes.make(detection(impact=0.2), times=3)
    told = passes.core.recommendations()[0]
    assert passes.core.dismiss(told.id, "we know", "anna", WALL + 900).before == "new"
    assert passes.make(detection(impact=0.39), times=10) == []
    (worse,) = passes.make(detection(impact=0.41))
    assert (worse.before, worse.recommendation.state) == ("dismissed", "new")
    passes.core.dismiss(told.id, "", "", WALL + passes.number * PASS_S)
    over = passes.make(detection(impact=0.41), times=int(DISMISSED_S / PASS_S) + 1)
    assert [change.recommendation.state for change in over] == ["expired", "new"]


def test_a_dismissal_outlives_a_restart_and_damaged_rows_are_told() -> None:
    passes = Passes()
    passes.make(detection(), times=3)
    told = passes.core.recommendations()[0]
    passes.core.dismiss(told.id, "we know", "anna", WALL + 900)
    rows = passes.core.unsaved()
    assert passes.core.unsaved() == {}
    after = Passes()
    data = rows[told.id]
    assert data is not None
    assert after.core.restore({told.id: data, "x": b"nonsense"}) == ["x"]
    assert after.make(detection(), times=6) == []
    assert "anna: we know" in after.core.explain(told.id)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("p95_wait", 0.4812, "p95_wait = 0.481 s"),
        ("failed_ratio_low", 0.0312, "failed_ratio_low = 3.12 %"),
        ("service_ratio_high", 2.04, "service_ratio_high = 2.04x"),
        ("bytes_per_hour", 15728640.0, "bytes_per_hour = 15 MiB"),
        ("calls", 4210.0, "calls = 4210"),
        ("rss", math.inf, "rss = inf"),
    ],
)
def test_the_figures_of_an_explanation_have_units(name: str, value: float, words: str) -> None:
    assert figure_words(name, value) == words


def test_a_dismissal_that_is_over_is_deleted_from_the_file() -> None:
    passes = Passes()
    passes.make(detection(), times=3)
    told = passes.core.recommendations()[0]
    passes.core.dismiss(told.id, "", "", WALL)
    passes.core.unsaved()
    passes.make(after=DISMISSED_S)
    assert passes.core.unsaved() == {told.id: None}


def test_what_is_not_known_cannot_be_dismissed_and_nothing_twice() -> None:
    passes = Passes()
    with pytest.raises(KeyError):
        passes.core.dismiss("nothing", "", "", WALL)
    passes.make(detection(), times=3)
    told = passes.core.recommendations()[0]
    passes.core.dismiss(told.id, "", "", WALL)
    with pytest.raises(IllegalTransition):
        passes.core.dismiss(told.id, "", "", WALL)


def test_a_consequence_is_not_told_beside_its_cause() -> None:
    passes = Passes()
    slow = detection("imbalance", "worker text-1", p=1e-9)
    opened = passes.make(detection(), slow, detection("leak", "worker text-1"), times=3)
    assert {change.recommendation.pattern for change in opened} == {"imbalance", "leak"}


def test_a_cause_of_the_host_explains_in_each_pool_and_that_of_a_pool_in_no_other() -> None:
    core = AdvisorCore(since=0.0)
    of_host, slow = detection("noisy_neighbour", "host"), detection("slow_operation", "operation work")
    found = (("a", of_host), ("b", of_host), ("b", detection()), ("c", slow), ("d", detection(subject="pool d")))
    without_host = tuple(one for one in found if one[1] is not of_host)
    for _ in range(3):
        core.take(Look(0, WALL, without_host, {}, {}, {}))
    assert {told.pool for told in core.recommendations()} == {"b", "c", "d"}
    core = AdvisorCore(since=0.0)
    for _ in range(3):
        core.take(Look(0, WALL, found, {}, {}, {}))
    assert [(told.pattern, told.pool) for told in core.recommendations()] == [("noisy_neighbour", None)]


def test_no_finding_is_explained_by_itself_or_in_a_circle() -> None:
    for pattern in DISPROOFS:
        assert cause_of(pattern, "pool text", [(pattern, "worker text-0")]) is None
    for cause in EXPLAINS:
        for consequence in EXPLAINS[cause]:
            assert cause_of(consequence, "pool text", [(cause, "worker text-0")]) == cause
            assert cause_of(cause, "pool text", [(consequence, "worker text-0")]) is None


@pytest.mark.parametrize(
    ("cause", "where", "pattern", "subject", "explained"),
    [
        ("slow_operation", "operation a", "bad_timeout", "operation a", True),
        ("slow_operation", "operation a", "bad_timeout", "operation b", False),
        ("slow_operation", "operation a", "overloaded", "pool text", True),
        ("imbalance", "worker text-0", "slow_operation", "operation a", True),
        ("imbalance", "worker text-0", "error_hotspot", "worker text-0", False),
        ("noisy_neighbour", "host", "slow_operation", "operation a", True),
        ("throttled", "host", "leak", "worker text-0", False),
    ],
)
def test_a_cause_explains_what_follows_from_it_and_nothing_of_another_operation(
    cause: Pattern, where: str, pattern: Pattern, subject: str, *, explained: bool
) -> None:
    assert (cause_of(pattern, subject, [(cause, where)]) is not None) is explained


@given(st.sets(st.sampled_from(sorted(DISPROOFS)), min_size=1))
def test_of_any_findings_one_stays(found: set[Pattern]) -> None:
    assert any(cause_of(one, "pool x", [(other, "host") for other in found - {one}]) is None for one in found)


def test_foreign_names_are_clean_in_what_is_told() -> None:
    passes = Passes()
    passes.make(detection(subject="operation \x1b[31mred\x07", summary="\x1b]0;title\x07of \u202e it"), times=3)
    told = passes.core.recommendations()[0]
    assert told.subject.isprintable()
    assert told.summary.isprintable()
    assert passes.core.explain(told.id).replace("\n", "").isprintable()


def test_an_explanation_has_the_test_the_figures_and_what_would_disprove_it() -> None:
    passes = Passes()
    change = Change(knob="size", current=4, proposed=6)
    effect = Effect(metric="pool.queue.p95", now=0.48, expected=0.06, low=0.04, high=0.09, cost=96e6)
    one = detection(change=change, effect=effect, p=1e-6, check_first="the machine")
    passes.make(one, times=4)
    text = passes.core.explain(passes.core.recommendations()[0].id)
    for part in (
        "calls wait",
        "What to do: add workers",
        "Check first: the machine",
        "size from 4 to 6",
        "0.48 becomes 0.06, from 0.04 to 0.09 with 95 % confidence, memory +96 MB",
        "4 of the last 5 passes",
        "p = 1e-06, adjusted for 1 tests of the pass",
        "p95_wait = 0.48",
        "Confidence 0.72 (medium)",
        "Priority 29 of 100",
        "It is wrong if",
    ):
        assert part in text


def test_passes_are_made_each_minute_at_first_and_then_each_five() -> None:
    core, made = AdvisorCore(since=100.0), []
    for now in range(100, 100 + 2400):
        if core.due(now):
            core.begin(now)
            made.append(now - 100)
    assert made == [*range(60, 901, 60), 1200, 1500, 1800, 2100]


def test_a_pattern_that_raises_finds_nothing_and_is_named() -> None:
    def bad(_history: Any) -> Any:
        yield detection("leak", "worker text-0")
        raise ZeroDivisionError("by design")

    history = Journal(["text"], ManualClock(), journal_id="x").history("text")
    seen = look([history], {"leak": bad, "overloaded": lambda _history: [detection()]})
    assert [one.pattern for _pool, one in seen.found] == ["overloaded"]
    assert seen.failures == {"leak": "ZeroDivisionError: by design"}


def test_sizes_that_cannot_be_replayed_do_not_keep_the_patterns_from_looking() -> None:
    history = Journal(["text"], ManualClock(), journal_id="x", wait_target=1.0).history("text")
    broken = history._replace(spans=history.spans._replace(needed=None))  # type: ignore[arg-type]
    seen = look([broken], {"overloaded": lambda _history: [detection()]})
    assert [one.pattern for _pool, one in seen.found] == ["overloaded"]
    assert list(seen.failures) == ["underused"]


def test_there_are_never_more_recommendations_than_allowed_and_expired_ones_give_way() -> None:
    passes = Passes()
    many: Sequence[Detection] = [detection("leak", f"worker {n}") for n in range(RECOMMENDATIONS + 50)]
    passes.make(*many, times=4)
    assert len(passes.core.known()) == RECOMMENDATIONS
    assert passes.core.left_out > 0
    passes.make(times=5)
    passes.make(detection("leak", "worker late"), times=3)
    assert len(passes.core.recommendations()) == 1
    assert len(passes.core.known()) == RECOMMENDATIONS


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sets(st.tuples(st.sampled_from(sorted(DISPROOFS)), st.integers(0, 2)), max_size=4),
            st.integers(1, 8),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_every_transition_of_any_passes_is_in_the_table(steps: list[tuple[set[tuple[Any, int]], int, bool]]) -> None:
    passes, stages = Passes(), {}
    change = Change(knob="size", current=4, proposed=6)
    for found, size, dismissed in steps:
        for moved in passes.make(*(detection(p, f"worker {n}", change=change) for p, n in found), size=size):
            told = moved.recommendation
            assert stages.get(told.id, "") == moved.before
            assert not moved.before or AdviceStage(told.state) in LIFE.table[AdviceStage(moved.before)].values()
            stages[told.id] = told.state
        if dismissed and passes.core.recommendations():
            one = passes.core.recommendations()[0]
            stages[one.id] = passes.core.dismiss(one.id, "", "", WALL + passes.number * PASS_S).recommendation.state
        assert {told.id: told.state for told in passes.core.known()}.items() <= stages.items()


def test_all_stages_can_be_reached() -> None:
    assert LIFE.reachable(AdviceStage.NEW) == set(AdviceStage)


def test_a_pass_finds_the_size_that_each_span_has_needed() -> None:
    clock = ManualClock()
    journal = Journal(["text"], clock, journal_id="needed", wait_target=0.5)
    record = journal.bind("text", "work", "text-0")
    for _ in range(700):  # three calls at once each second, of half a second each
        clock.advance(1)
        for _ in range(3):
            record(int(0.5e9), 0, 1)
        journal.tick({})
    seen = look([journal.history("text")], {})
    assert seen.needed == {"text": {0.0: 3.0}}
    journal.note_needed("text", seen.needed["text"])
    assert journal.history("text").spans.needed.tolist() == [3.0]
    assert look([journal.history("text")], {}).needed == {"text": {}}


def test_a_busy_pool_is_sampled_while_a_span_goes_on() -> None:
    clock = ManualClock()
    journal = Journal(["text"], clock, journal_id="busy", wait_target=0.5)
    record = journal.bind("text", "work", "text-0")
    for second in range(1300):
        clock.advance(1)
        for _ in range(0 if second < 1200 else 600):  # 50,000 calls are 83 s of them
            record(int(0.01e9), 0, 1)
        journal.tick({})
    seen = look([journal.history("text")], {})
    assert list(seen.needed["text"]) == [1200.0]
    journal.note_needed("text", {1200.0: 40.0})
    journal.note_needed("text", seen.needed["text"])
    clock.advance(600)
    assert journal.history("text").spans.needed.tolist()[-1] == 40.0


def test_a_pass_pauses_in_its_own_thread_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[int] = []
    monkeypatch.setattr("pool_monitor.advisor.gil_pauses.time.sleep", lambda _s: paused.append(threading.get_ident()))
    replay(np.arange(50_000.0), np.ones(50_000), 2)
    assert paused == []
    with gil_pauses():
        replay(np.arange(50_000.0), np.ones(50_000), 2)
        other = threading.Thread(target=lambda: replay(np.arange(50_000.0), np.ones(50_000), 2))
        other.start()
        other.join()
    assert len(paused) >= 10  # a replay holds the interpreter for about a millisecond at once
    assert set(paused) == {threading.get_ident()}
    paused.clear()
    yield_gil()
    assert paused == []


@pytest.mark.parametrize("damage", ["id", "text", "number", "none"])
def test_a_dismissal_that_is_damaged_is_not_taken_over(damage: str) -> None:
    key = Key("overloaded", "pool text", "text")
    told = Recommendation(
        id=id_of(key), pattern="overloaded", subject="pool text", pool="text", summary="calls\u00a0wait", action="",
        score=1.0, confidence=1.0, samples=1, evidence={}, state="dismissed",
    )  # fmt: skip
    told = msgspec.structs.replace(
        told, **{"text": {"summary": "\x1b[2J"}, "number": {"score": math.nan}}.get(damage, {})
    )
    row = msgspec.msgpack.encode({"recommendation": told, "at": 1.0, "weight": 1.0, "author": "", "reason": ""})
    name = "other" if damage == "id" else told.id
    core = AdvisorCore(0.0)
    assert core.restore({name: row}) == ([] if damage == "none" else [name])
    assert len(core.known()) == (damage == "none")


def test_a_dismissal_of_a_clock_that_was_far_ahead_ends() -> None:
    key = Key("overloaded", "pool text", "text")
    told = Recommendation(
        id=id_of(key), pattern="overloaded", subject="pool text", pool="text", summary="", action="", score=1.0,
        confidence=1.0, samples=1, evidence={}, state="dismissed",
    )  # fmt: skip
    row = msgspec.msgpack.encode({"recommendation": told, "at": 9e9, "weight": 1.0, "author": "", "reason": ""})
    core = AdvisorCore(0.0)
    core.restore({told.id: row})
    (changed,) = core.take(Look(10.0, 1.7e9, (), {}, {}, {}))
    assert changed.recommendation.state == "expired"
