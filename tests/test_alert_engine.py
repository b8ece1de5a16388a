"""The engine of alerts: the life of an alert, what is unknown, errors, limits, reloads and restarts."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from pool_monitor.alerts import ruling
from pool_monitor.alerts.alert import Alert, fingerprint_of, signature_of
from pool_monitor.alerts.engine import SHOWN, SHOWN_FOR
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Sample
from pool_monitor.alerts.lifecycle import LIFE, Phase
from pool_monitor.alerts.rule import (
    Absence,
    Absolute,
    AlertFires,
    AllOf,
    AnyOf,
    FindingIs,
    Level,
    Matcher,
    Not,
    Threshold,
)
from pool_monitor.alerts.wording import worded
from tests.helpers.alert_scripts import INTERVAL, START, Script, instance, rule, threshold, told

GOOD, BAD, WORSE = 5.0, 15.0, 25.0

# -- the life of an alert


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        pytest.param({}, [GOOD, GOOD], [], id="good"),
        pytest.param({}, [BAD, BAD, GOOD], ["inactive>firing w", "firing>resolved w"], id="without for"),
        pytest.param({"for_": 10}, [BAD, BAD, GOOD], ["inactive>pending w", "pending>inactive w"], id="too short"),
        pytest.param(
            {"for_": 10}, [BAD, BAD, BAD, GOOD], ["inactive>pending w", "pending>firing w", "firing>resolved w"],
            id="for is reached when as much has passed",
        ),
        pytest.param(
            {"for_": 11}, [BAD, BAD, BAD, BAD, GOOD],
            ["inactive>pending w", "pending>firing w", "firing>resolved w"], id="between two evaluations",
        ),
        pytest.param(
            {"for_": 10}, [BAD, BAD, GOOD, BAD, BAD],
            ["inactive>pending w", "pending>inactive w", "inactive>pending w"],
            id="a good value starts for anew",
        ),
        pytest.param(
            {"keep_firing_for": 10}, [BAD, GOOD, GOOD, GOOD],
            ["inactive>firing w", "firing>recovering w", "recovering>resolved w"],
            id="keep_firing_for begins with the first good value and ends when as much has passed",
        ),
        pytest.param(
            {"keep_firing_for": 10}, [BAD, GOOD, BAD, GOOD, GOOD, GOOD],
            ["inactive>firing w", "firing>recovering w", "recovering>firing w", "firing>recovering w",
             "recovering>resolved w"],
            id="bad again while it recovers",
        ),
        pytest.param(
            {"for_": 5, "keep_firing_for": 10}, [BAD, GOOD], ["inactive>pending w", "pending>inactive w"],
            id="a pending alert is not kept",
        ),
        pytest.param(
            {}, [BAD, GOOD, BAD], ["inactive>firing w", "firing>resolved w", "resolved>firing w"], id="a second life",
        ),
        pytest.param(
            {"for_": 10}, [BAD] * 3 + [GOOD, BAD],
            ["inactive>pending w", "pending>firing w", "firing>resolved w", "resolved>pending w"],
            id="a second life begins with pending",
        ),
    ],
)  # fmt: skip
def test_the_life_of_an_alert(fields: dict[str, Any], values: list[float], expected: list[str]):
    assert Script(rule(**fields)).play(*values) == expected


@pytest.mark.parametrize(
    ("fields", "values", "expected"),
    [
        ({}, [WORSE, BAD, WORSE, GOOD],
         ["inactive>firing c", "firing>firing w level", "firing>firing c level", "firing>resolved c"]),
        ({"for_": 10}, [BAD, WORSE, WORSE, WORSE, BAD],
         ["inactive>pending w", "pending>firing w", "firing>firing c level", "firing>firing w level"]),
        ({"for_": 10}, [WORSE, WORSE, WORSE], ["inactive>pending c", "pending>firing c"]),
        ({"for_": 10}, [WORSE, BAD, BAD, WORSE], ["inactive>pending c", "pending>firing w"]),
        ({"keep_firing_for": 60}, [WORSE, GOOD, WORSE, GOOD, BAD],
         ["inactive>firing c", "firing>recovering c", "recovering>firing c", "firing>recovering c",
          "recovering>firing w"]),
    ],
    ids=["each change is a transition", "a level has its own for", "levels count together",
         "a level that was left starts anew", "the level is kept while it recovers"],
)  # fmt: skip
def test_the_level_of_an_alert(fields: dict[str, Any], values: list[float], expected: list[str]):
    assert Script(rule(**fields)).play(*values) == expected


def test_every_phase_has_an_answer_to_every_finding():
    assert all({"early", "held", "over"} <= row.keys() for row in LIFE.table.values())
    assert all("good" in LIFE.table[phase] for phase in (Phase.FIRING, Phase.RECOVERING))
    assert LIFE.reachable(LIFE.first) == set(Phase)


def test_an_alert_has_the_latest_value_the_worst_one_and_the_one_at_its_end():
    script = Script(rule(keep_firing_for=10))
    script.play(BAD, WORSE, 12.0, 3.0)
    alert = script.alert()
    assert alert is not None
    assert (alert.value, alert.peak, alert.severity) == (3.0, WORSE, "warning")
    script.play(2.0, 1.0)
    assert (alert.state, alert.value, alert.peak) == (Phase.RESOLVED, 1.0, WORSE)
    script.play(11.0)
    assert alert.peak == 11.0


def test_the_worst_value_of_a_rule_with_a_lower_bound_is_the_lowest():
    script = Script(rule(kind=threshold(levels=1, above=False)))
    script.play(8.0, 3.0, 6.0)
    alert = script.alert()
    assert alert is not None
    assert (alert.value, alert.peak) == (6.0, 3.0)


def test_the_times_of_an_alert_are_those_of_the_wall_clock():
    script = Script(rule(for_=10, keep_firing_for=10))
    script.play(BAD)
    alert, began = script.alert(), script.at
    assert alert is not None
    assert (alert.since, alert.active_since, alert.fired_at) == (began, began, None)
    script.play(BAD, BAD)
    fired = script.at
    script.play(GOOD)
    assert (alert.since, alert.active_since, alert.fired_at, alert.resolved_at) == (fired, began, fired, None)
    script.play(BAD, GOOD, GOOD, GOOD)
    assert (alert.since, alert.active_since, alert.fired_at, alert.resolved_at) == (script.at, began, fired, script.at)


def test_time_that_does_not_count_fires_nothing():
    script = Script(rule(for_=10))
    assert script.play(BAD) == ["inactive>pending w"]
    script.at += 7200
    assert script.play(BAD, BAD, elapsed=0.0) == []
    assert script.play(BAD, BAD) == ["pending>firing w"]


def test_many_small_times_reach_for_in_spite_of_rounding():
    script = Script(rule(for_=1.0))
    assert script.play(*[BAD] * 11, elapsed=0.1) == ["inactive>pending w", "pending>firing w"]


def test_a_transition_has_the_labels_of_the_rule_and_of_the_instance():
    script = Script(rule(labels=(("team", "search"), ("severity", "ignored"))))
    (found,) = script.see({"p": WORSE})
    assert found.labels == {"pool": "p", "team": "search", "severity": "critical"}
    assert (found.alert, found.at, found.value, found.seq) == ("A", script.at, WORSE, 1)
    assert found.fingerprint == fingerprint_of("A", {"pool": "p", "team": "search"})


def test_the_fingerprint_is_that_of_prometheus_and_stays_with_a_change_of_level():
    assert signature_of({}) == 14695981039346656037
    assert signature_of({"name": "garland, briggs", "fear": "love is not enough"}) == 5799056148416392346
    script = Script(rule())
    assert len({found.fingerprint for value in (BAD, WORSE, GOOD, BAD) for found in script.see({"p": value})}) == 1


# -- unknown values: API.md, "A value is unknown where ..."

GONE: dict[str, Any] = {"values": {}}
NONE: dict[str, Any] = {"values": {"p": None}}
TOO_FEW: dict[str, Any] = {"values": {"p": BAD}, "calls": 3}
UNKNOWN = {"gone": GONE, "no value": NONE, "too few calls": TOO_FEW}
KNOWN: dict[str, Any] = {"values": {"p": BAD}, "calls": 20}
AGAIN: dict[str, Any] = {"values": {"p": GOOD}, "calls": 20}
CALLS = threshold("pool.error_ratio", window="1m")


def seen(script: Script, times: int, **values: Any) -> list[str]:
    return [told(found) for _ in range(times) for found in script.see(**values)]


@pytest.mark.parametrize("restart", [False, True], ids=["", "restored"])
@pytest.mark.parametrize("why", UNKNOWN)
@pytest.mark.parametrize(
    ("fields", "before", "times", "expected"),
    [
        pytest.param({}, 1, 3, [], id="firing, resolve: held for three intervals"),
        pytest.param({}, 1, 4, ["firing>resolved w no_data"], id="firing, resolve: then resolved"),
        pytest.param({"no_data_for": 60.0}, 1, 12, [], id="firing, resolve: held for no_data_for"),
        pytest.param({"no_data_for": 60.0}, 1, 13, ["firing>resolved w no_data"], id="firing, resolve: no_data_for"),
        pytest.param({"no_data_for": 0.0}, 1, 1, ["firing>resolved w no_data"], id="firing, resolve: at once"),
        pytest.param({"for_": 60}, 1, 3, [], id="pending, resolve: held for three intervals"),
        pytest.param({"for_": 60}, 1, 4, ["pending>inactive w no_data"], id="pending, resolve: then inactive"),
        pytest.param({"for_": 10}, 1, 3, [], id="pending, resolve: the time does not count"),
        pytest.param({"on_no_data": "keep"}, 1, 100, [], id="firing, keep"),
        pytest.param({"on_no_data": "keep", "for_": 10}, 1, 100, [], id="pending, keep: the time does not count"),
        pytest.param({"on_no_data": "fire"}, 1, 100, [], id="firing, fire"),
        pytest.param({"on_no_data": "fire", "for_": 10}, 1, 4, [], id="pending, fire: for has to pass then"),
        pytest.param({"on_no_data": "fire", "for_": 10}, 1, 6, ["pending>firing w no_data"], id="pending, fire"),
    ],
)
def test_an_alert_whose_value_is_unknown(
    fields: dict[str, Any], before: int, times: int, expected: list[str], why: str, restart: bool
):
    script = Script(rule(kind=CALLS, min_samples=20, **fields))
    seen(script, before, **KNOWN)
    if restart:
        script = script.restarted()
        assert [told(found) for found in script.see(**UNKNOWN[why], elapsed=0.0)] == expected * (
            fields.get("no_data_for") == 0
        )
        times -= 1
        expected = expected * (fields.get("no_data_for") != 0)
    assert seen(script, times, **UNKNOWN[why]) == expected


@pytest.mark.parametrize("why", UNKNOWN)
@pytest.mark.parametrize("policy", ["resolve", "keep"])
def test_an_instance_without_an_alert_that_becomes_unknown_gets_none(why: str, policy: Any):
    script = Script(rule(kind=CALLS, min_samples=20, on_no_data=policy))
    assert seen(script, 3, **AGAIN) == []
    assert seen(script, 10, **UNKNOWN[why]) == []
    assert script.engine.changed() == []


@pytest.mark.parametrize("why", UNKNOWN)
def test_an_instance_that_becomes_unknown_fires_where_the_rule_says_so(why: str):
    script = Script(rule(kind=CALLS, min_samples=20, on_no_data="fire", for_=10))
    assert seen(script, 3, **AGAIN) == []
    assert seen(script, 3, **UNKNOWN[why]) == []
    assert seen(script, 1, **UNKNOWN[why]) == ["inactive>pending w no_data"]
    assert seen(script, 2, **UNKNOWN[why]) == ["pending>firing w no_data"]
    assert seen(script, 10, **UNKNOWN[why]) == []
    assert seen(script, 1, **AGAIN) == ["firing>resolved w"]
    assert seen(script, 4, **UNKNOWN[why]) == ["resolved>pending w no_data"]


def test_an_unknown_value_does_not_fire_before_it_was_known_long_enough_to_be_missed():
    script = Script(rule(kind=CALLS, min_samples=20, on_no_data="fire"))
    assert seen(script, 3, **NONE) == []
    assert seen(script, 1, **NONE) == ["inactive>firing w no_data"]


def test_an_alert_fires_at_its_own_level_on_while_its_value_is_unknown():
    script = Script(rule(on_no_data="fire", keep_firing_for=60))
    assert script.play(WORSE, *[None] * 10) == ["inactive>firing c"]
    assert script.play(GOOD, *[None] * 4) == ["firing>recovering c", "recovering>firing c no_data"]


def test_a_value_that_is_known_again_is_forgotten_as_unknown():
    script = Script(rule())
    script.play(BAD, None, None, None)
    alert = script.alert()
    assert alert is not None
    assert alert.unknown
    assert script.play(BAD, None, None, None, BAD) == []
    assert (alert.unknown, alert.unknown_for) == (False, -1.0)


def test_neither_unknown_time_nor_the_time_after_it_counts():
    script = Script(rule(for_=15))
    assert script.play(BAD, BAD, None, BAD, BAD) == ["inactive>pending w"]
    assert script.play(BAD) == ["pending>firing w"]
    script = Script(rule(keep_firing_for=15))
    assert script.play(BAD, GOOD, GOOD, None, GOOD, GOOD) == ["inactive>firing w", "firing>recovering w"]
    assert script.play(GOOD) == ["recovering>resolved w"]


def test_a_recovering_alert_whose_instance_is_gone_is_resolved():
    script = Script(rule(keep_firing_for=600))
    script.play(BAD, GOOD)
    assert seen(script, 3, **GONE) == []
    assert seen(script, 1, **GONE) == ["recovering>resolved w no_data"]


@pytest.mark.parametrize(
    "kind",
    [
        FindingIs(kinds=("crash_loop",)),
        AllOf(conditions=(FindingIs(kinds=("crash_loop",)), Not(condition=FindingIs(kinds=("paused",))))),
        AnyOf(conditions=(FindingIs(kinds=("crash_loop",)), AlertFires(alert="B"))),
    ],
    ids=["finding", "all", "any"],
)
@pytest.mark.parametrize("on_no_data", ["resolve", "keep", "fire"])
def test_a_finding_that_is_gone_is_good_and_no_missing_value(kind: Any, on_no_data: Any):
    script = Script(rule(kind=kind, keep_firing_for=20, on_no_data=on_no_data))
    crash = Input(metric="crash_loop", kind="finding")
    found: list[str] = []
    for there in [True, False, False, True, *[False] * 12]:
        script.at += INTERVAL
        samples = dict.fromkeys(script.engine.wanted, ()) | {crash: (Sample(instance("p"), 4.0, None, (1.0,)),) * there}
        found += map(told, script.engine.step(Inputs(script.at, INTERVAL, samples)))
        if found[-1].startswith("recovering>resolved"):
            break
    assert found == [
        "inactive>firing w",
        "firing>recovering w",
        "recovering>firing w",
        "firing>recovering w",
        "recovering>resolved w",
    ]
    assert script.at == START + 9 * INTERVAL


def test_the_latest_known_value_stays_when_it_is_unknown_and_the_transition_has_none():
    script = Script(rule())
    script.play(BAD, None, None, None)
    (found,) = script.see({"p": None})
    alert = script.alert()
    assert alert is not None
    assert (found.value, found.last_value, alert.value, alert.reason) == (None, BAD, BAD, "no_data")


def test_the_summary_of_a_change_is_about_the_latest_known_value():
    script = Script(rule(annotations=(("summary", "{value} calls wait"),)))
    script.play(BAD, None, None, None)
    (found,) = script.see({"p": None})
    text = worded(found, script.engine.rules)
    assert (text.summary, text.value_text) == ("15 calls wait", "unknown")


def test_an_alert_that_fires_without_data_is_that_of_its_value_when_it_is_bad():
    script = Script(rule(on_no_data="fire"))
    script.play(GOOD, *[None] * 4)
    alert = script.alert()
    assert alert is not None
    assert (alert.state, alert.reason) == (Phase.FIRING, "no_data")
    assert script.play(BAD) == []
    assert alert.reason == ""


# -- errors


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of rules whose evaluation raises."""
    names: set[str] = set()
    real = ruling.evaluate

    def evaluate(one: Any, *more: Any) -> Any:
        if one.alert in names:
            raise ZeroDivisionError("a defect")
        return real(one, *more)

    monkeypatch.setattr(ruling, "evaluate", evaluate)
    return names


def test_a_rule_that_raises_keeps_its_alerts_and_does_not_affect_others(failing: set[str]):
    script = Script(rule("A", for_=10), rule("B"))
    script.see({"p": BAD})
    failing.add("A")
    assert [told(found) for value in (WORSE, GOOD) for found in script.see({"p": value})] == [
        "firing>firing c level",
        "firing>resolved c",
    ]
    assert script.engine.failing == {"A": "ZeroDivisionError: a defect"}
    assert seen(script, 50, values={"p": BAD}) == ["resolved>firing w"]
    alert = script.alert()
    assert alert is not None
    assert (alert.state, alert.unknown) == (Phase.PENDING, True)
    failing.clear()
    assert seen(script, 2, values={"p": BAD}) == []  # The time before the first known value does not count.
    assert seen(script, 1, values={"p": BAD}) == ["pending>firing w"]
    assert script.engine.failing == {}


@pytest.mark.parametrize(
    ("on_error", "expected"), [("keep", []), ("resolve", ["firing>resolved w error"]), ("fire", [])]
)
def test_an_input_that_cannot_be_read_is_an_error_of_the_rule(on_error: Any, expected: list[str]):
    script = Script(rule(on_error=on_error))
    script.play(BAD)
    assert seen(script, 3, values={}, error="the history is locked") == []
    assert seen(script, 10, values={}, error="the history is locked") == expected
    assert script.engine.failing == {"A": "the history is locked"}


def test_an_error_held_by_the_rule_is_no_missing_value_when_it_is_over():
    script = Script(rule())
    script.play(BAD)
    assert seen(script, 20, values={}, error="broken") == []
    assert seen(script, 3, **GONE) == []
    assert seen(script, 1, **GONE) == ["firing>resolved w no_data"]


def test_a_rule_that_cannot_be_evaluated_from_the_start_fires_where_it_says_so():
    script = Script(rule(on_error="fire", labels=(("team", "a"),)))
    assert seen(script, 4, values={}, error="broken") == ["inactive>firing w error"]
    (alert,) = script.engine.alerts.values()
    assert (alert.instance, alert.labels) == ((), {"team": "a"})
    assert seen(script, 1, values={"p": GOOD}) == ["firing>resolved w error"]
    assert seen(script, 400, values={"p": GOOD}) == []
    assert script.engine.alerts == {}


def test_good_instances_fire_while_the_rule_cannot_be_evaluated_where_it_says_so():
    script = Script(rule(on_error="fire"))
    script.see({"p": GOOD, "q": GOOD})
    assert seen(script, 4, values={}, error="broken") == ["inactive>firing w error"] * 2
    assert seen(script, 1, values={"p": GOOD}) == ["firing>resolved w", "firing>resolved w error"]


def test_an_input_that_was_not_read_is_named():
    script = Script(rule())
    engine = script.engine
    engine.step(Inputs(script.at, INTERVAL, {}))
    assert engine.failing == {"A": "pool.waiting was not read"}
    script.see({"p": GOOD})
    assert engine.failing == {}


# -- bounds


def test_the_limit_refuses_new_alerts_and_keeps_those_that_exist():
    script = Script(rule(limit=2))
    assert len(script.see({"a": BAD, "b": BAD, "c": BAD, "d": BAD})) == 2
    assert script.engine.refused == 2
    assert script.see({"d": BAD, "c": BAD, "b": BAD, "a": WORSE})[0].reason == "level"
    assert {key.instance for key in script.engine.alerts} == {instance("a"), instance("b")}
    assert script.engine.refused == 2  # now, not since ever
    script.see({"a": GOOD, "b": BAD, "c": BAD})
    script.see({"b": BAD, "c": BAD})
    assert script.engine.firing("A") == [instance("b"), instance("c")]
    assert script.engine.refused == 0


def test_a_resolved_alert_does_not_come_back_beyond_the_limit():
    script = Script(rule(limit=1))
    script.see({"a": BAD})
    script.see({"a": GOOD})
    script.see({"b": BAD})
    assert script.see({"a": BAD, "b": BAD}) == []
    assert script.engine.refused == 1


def test_watched_instances_are_bounded_by_the_limit():
    script = Script(rule(limit=3, on_no_data="fire"))
    script.see({str(number): GOOD for number in range(10)})
    assert len(script.engine.changed()) == 3
    assert len(seen(script, 4, **GONE)) == 3


def test_a_resolved_alert_is_shown_for_a_while():
    script = Script(rule())
    script.play(BAD, GOOD)
    for _ in range(int(SHOWN_FOR / 60) - 1):
        script.see({}, elapsed=60)
        assert script.state == "resolved"
    assert script.see({}, elapsed=60) == []
    assert script.state == "inactive"


def test_at_most_so_many_resolved_alerts_are_shown():
    script = Script(rule(limit=SHOWN + 10))
    script.see({str(number): BAD for number in range(SHOWN + 10)})
    script.see({})
    script.see({str(number): GOOD for number in range(SHOWN + 10)})
    assert len(script.engine.alerts) == SHOWN
    assert instance("9") not in {key.instance for key in script.engine.alerts}


def test_others_may_work_while_many_resolved_alerts_are_forgotten() -> None:
    script = Script(rule(limit=SHOWN + 500))
    names = [str(number) for number in range(SHOWN + 500)]
    script.see(dict.fromkeys(names, BAD))
    stepping = script.engine.stepping(script.inputs(dict.fromkeys(names, GOOD)))
    shown = [sum(1 for _ in script.engine.each()) for _ in stepping]
    assert max(before - after for before, after in pairwise([*shown, len(script.engine.alerts)])) <= 50
    assert len(script.engine.alerts) == SHOWN


def test_a_reload_that_changes_bounds_alone_leaves_the_alerts_as_they_are() -> None:
    """A thousand changed rules with ten thousand alerts must not hold the event loop."""
    script = Script(rule())
    script.see({"p": BAD})
    script.engine.changed()
    assert script.rules(rule(kind=threshold(above=True, levels=2), for_=10.0)) == []
    assert script.engine.changed() == []
    assert script.rules(rule(labels=(("team", "a"),))) != []
    assert len(script.engine.changed()) == 1


def test_good_instances_leave_nothing_behind():
    script = Script(rule(), rule("B"))
    for number in range(100):
        assert script.see({f"{number}-{one}": GOOD for one in range(50)}) == []
    assert (script.engine.alerts, script.engine.changed(), script.engine.removed()) == ({}, [], [])


def test_a_life_that_nobody_saved_leaves_nothing_behind():
    script = Script(rule(for_=60))
    for number in range(100):
        script.see({str(number): BAD})
        script.see({str(number): GOOD})
    assert (script.engine.changed(), script.engine.removed()) == ([], [])


# -- rules that change


def test_the_same_rules_again_are_no_change():
    script = Script(rule(for_=10), rule("B"))
    script.play(BAD, BAD)
    assert script.rules(rule(for_=10), rule("B")) == []
    assert [told(found) for found in script.see({"p": BAD})] == ["pending>firing w"]


@pytest.mark.parametrize(
    "changed",
    [
        {"annotations": (("summary", "new"),)},
        {"limit": 5},
        {"on_no_data": "keep"},
        {"kind": threshold(levels=1)},
        {"kind": threshold(window="5m")},
        {"keep_firing_for": 60},
    ],
    ids=str,
)
def test_a_changed_rule_that_measures_the_same_keeps_its_timers(changed: dict[str, Any]):
    script = Script(rule(for_=10))
    script.play(BAD, BAD)
    assert script.rules(rule(for_=10, **changed)) == []
    assert [told(found) for found in script.see({"p": BAD})] == ["pending>firing w"]


@pytest.mark.parametrize("combined", [AllOf, AnyOf])
def test_conditions_in_another_order_are_the_same_rule(combined: type[AllOf | AnyOf]):
    def above(metric: str, bound: float, clear: float | None = None) -> Threshold:
        level = Level("warning", Absolute(bound), None if clear is None else Absolute(clear))
        return Threshold(metric=metric, window=None, above=True, levels=(level,))

    conditions = (above("pool.size", 1 if combined is AllOf else 99), above("pool.waiting", 10, 2))
    script = Script(rule(kind=combined(conditions=conditions), for_=10))
    assert script.play(BAD) == ["inactive>pending w"]
    assert script.rules(rule(kind=combined(conditions=conditions[::-1]), for_=10)) == []
    assert script.play(GOOD, GOOD) == ["pending>firing w"]  # beyond what clears it


def test_a_changed_bound_is_judged_anew():
    script = Script(rule())
    script.play(WORSE)
    script.rules(rule(kind=threshold(levels=1)))
    assert script.play(WORSE) == ["firing>firing w level"]
    script.rules(rule(kind=threshold(above=False)))
    assert script.play(WORSE) == ["firing>resolved w"]


def test_a_raised_for_makes_a_firing_alert_pending_and_resolves_it_only_if_it_is_good():
    script = Script(rule(for_=5))
    script.play(BAD, BAD)
    assert script.rules(rule(for_=30)) == []
    assert script.play(BAD, BAD) == ["firing>pending w rule_changed"]
    alert = script.alert()
    assert alert is not None
    assert alert.fired_at is None
    assert script.play(BAD, BAD, BAD) == ["pending>firing w"]
    script.rules(rule(for_=300))
    assert script.play(GOOD) == ["firing>resolved w"]


def test_a_raised_for_lowers_the_level_that_was_not_held_for_as_long():
    script = Script(rule())
    script.play(BAD, BAD, BAD, WORSE)
    script.rules(rule(for_=15))
    assert script.play(WORSE) == ["firing>firing w level"]
    assert script.play(WORSE, WORSE) == ["firing>firing c level"]


def test_a_lowered_for_fires_at_the_next_evaluation():
    script = Script(rule(for_=60))
    script.play(BAD, BAD)
    assert script.rules(rule(for_=10)) == []
    assert script.play(BAD) == ["pending>firing w"]


def test_changed_labels_end_an_alert_and_continue_it_under_the_new_ones():
    script = Script(rule(for_=10, labels=(("team", "a"),)))
    script.play(BAD, BAD)
    ended, began = script.rules(rule(for_=10, labels=(("team", "b"),)))
    assert [told(ended), told(began)] == ["pending>inactive w rule_changed", "inactive>pending w rule_changed"]
    assert (ended.labels["team"], began.labels["team"]) == ("a", "b")
    assert ended.fingerprint != began.fingerprint == fingerprint_of("A", {"pool": "p", "team": "b"})
    assert script.play(BAD) == ["pending>firing w"]
    script.rules(rule(for_=10, keep_firing_for=10, labels=(("team", "b"),)))
    script.play(GOOD)
    changes = script.rules(rule(for_=10, keep_firing_for=10, labels=(("team", "c"),)))
    assert [told(found) for found in changes] == [
        "recovering>resolved w rule_changed",
        "inactive>firing w rule_changed",
    ]
    assert script.play(GOOD) == ["firing>recovering w"]
    assert script.play(GOOD) == ["recovering>resolved w"]


@pytest.mark.parametrize(
    ("before", "expected"),
    [([BAD] * 3, ["firing>resolved w"]), ([BAD], ["pending>inactive w"]), ([BAD] * 3 + [GOOD], [])],
    ids=["firing", "pending", "resolved"],
)
@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ([], "rule_removed"),
        ([rule(kind=threshold("pool.utilisation"), for_=10)], "rule_changed"),
        ([rule(kind=Absence(metric="pool.waiting", window=None), for_=10)], "rule_changed"),
        ([rule(for_=10, match=(Matcher("pool", "q*"),))], "rule_changed"),
    ],
    ids=["removed", "another metric", "another kind", "does not match any more"],
)
def test_the_alerts_of_a_rule_that_is_gone_are_resolved(
    rules: list[Any], reason: str, before: list[float], expected: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ruling, "inputs_of", lambda one: frozenset({Input(metric=one.kind.metric)}))
    script = Script(rule(for_=10))
    script.play(*before)
    script.engine.changed()
    assert [told(found) for found in script.rules(*rules)] == [f"{one} {reason}" for one in expected]
    assert script.engine.alerts == {}
    assert script.engine.changed() == []
    assert script.engine.removed() == [("A", instance("p"))]


def test_rules_that_change_during_a_step_are_not_evaluated_in_it():
    script = Script(rule("A"), rule("B"))
    stepping = script.engine.stepping(script.inputs({"p": BAD, "q": BAD}))
    found = next(stepping)
    assert found is not None
    assert script.rules(rule("B", for_=60)) != []
    assert list(filter(None, stepping)) == []
    assert [told(one) for one in script.see({"p": BAD})] == ["inactive>pending w"]


# -- what survives a restart


def test_a_restart_continues_timers_and_numbers():
    script = Script(rule(for_=15))
    script.play(BAD, BAD, BAD)
    script = script.restarted()
    script.at += 3600
    assert script.play(BAD, elapsed=0.0) == []
    (found,) = script.see({"p": BAD})
    assert (told(found), found.seq) == ("pending>firing w", 2)


def test_a_restart_continues_recovering():
    script = Script(rule(keep_firing_for=15))
    script.play(BAD, GOOD, GOOD, GOOD)
    script = script.restarted()
    assert script.play(GOOD, elapsed=0.0) == []
    assert script.play(GOOD) == ["recovering>resolved w"]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([rule("B")], ["firing>resolved w rule_removed"]),
        ([rule(kind=threshold("pool.utilisation"))], ["firing>resolved w rule_changed"]),
        ([rule(labels=(("team", "a"),))], ["firing>resolved w rule_changed", "inactive>firing w rule_changed"]),
        ([rule(for_=60)], []),
    ],
    ids=["removed", "another metric", "labels", "for"],
)
def test_rules_that_changed_while_the_service_was_down(rules: list[Any], expected: list[str]):
    script = Script(rule())
    script.play(BAD)
    script = script.restarted(*rules)
    assert [told(found) for found in script.restored.transitions] == expected  # type: ignore[attr-defined]
    assert script.engine.seq == 1 + len(expected)


def test_a_resolved_alert_is_shown_after_a_restart_unless_its_time_is_over():
    script = Script(rule())
    script.play(BAD, GOOD)
    assert script.restarted().state == "resolved"
    script.at += SHOWN_FOR
    assert script.restarted().state == "inactive"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"level": 0}, "it is firing without a level"),
        ({"bad_for": []}, "it is firing without a level"),
        ({"bad_for": [-1.0, -1.0]}, "it is firing without a level"),
        ({"since": float("nan")}, "a time is not a number"),
        ({"bad_for": [float("inf"), -1.0]}, "a time is not a number"),
        ({"fingerprint": "0" * 16}, "its fingerprint is not that of its labels"),
        ({"labels": {"pool": "q"}}, "its fingerprint is not that of its labels"),
        ({"instance": (("pool", "p"), ("operation", "o"))}, "its labels are not in order"),
    ],
    ids=str,
)
def test_a_saved_alert_that_does_not_fit_is_left_out_and_named(wrong: dict[str, Any], words: str):
    script = Script(rule())
    script.play(BAD)
    alert = script.alert()
    assert alert is not None
    for name, value in wrong.items():
        setattr(alert, name, value)
    other = Script(rule())
    restored = other.engine.restore([alert], {}, 5, other.at)
    assert restored == ([], [f"an alert of the rule A is left out: {words}"])
    assert (other.engine.alerts, len(other.engine.removed())) == ({}, 1)
    assert other.play(BAD) == ["inactive>firing w"]


def test_a_memory_that_cannot_be_restored_starts_anew_and_is_named():
    script = Script(rule())
    restored = script.engine.restore([], {"A": "nonsense", "gone": []}, 0, script.at)
    assert len(restored.refused) == 1
    assert restored.refused[0].startswith("the memory of the rule A starts anew: ")
    assert script.play(BAD) == ["inactive>firing w"]


def test_what_changed_is_what_a_restart_has_to_know():
    script = Script(rule(for_=10, keep_firing_for=10))

    def changed(value: float | None, elapsed: float = INTERVAL) -> list[str]:
        script.see({} if value is None else {"p": value}, elapsed)
        assert script.engine.removed() == []
        return [alert.state.value for alert in script.engine.changed()]

    assert changed(GOOD) == []
    assert changed(BAD) == ["pending"]
    assert changed(BAD) == ["pending"]  # Its timer runs.
    assert changed(BAD) == ["firing"]
    assert changed(BAD) == []
    assert changed(WORSE) == ["firing"]  # The timer of the second level runs.
    assert changed(BAD) == []
    assert changed(BAD, 35.0) == ["firing"]  # once a minute
    assert changed(None) == ["firing"]
    assert changed(BAD) == ["firing"]
    assert changed(GOOD) == ["recovering"]
    assert changed(GOOD) == ["recovering"]
    assert changed(GOOD) == ["resolved"]
    assert changed(GOOD) == []
    script.see({}, SHOWN_FOR)
    assert (script.engine.changed(), script.engine.removed()) == ([], [("A", instance("p"))])


def test_an_alert_that_is_gone_and_back_between_two_calls_is_changed():
    script = Script(rule(for_=60))
    script.play(BAD)
    script.engine.changed()
    script.play(GOOD, BAD)
    assert (len(script.engine.changed()), script.engine.removed()) == (1, [])
    script.play(GOOD)
    assert (script.engine.changed(), script.engine.removed()) == ([], [("A", instance("p"))])


def test_everything_that_was_saved_bit_by_bit_is_what_the_engine_has():
    script = Script(rule(for_=10, keep_firing_for=5), rule("B", on_no_data="fire"))
    saved: dict[tuple[str, Any], Alert] = {}
    for turn in range(200):
        script.see({str(n): float((turn * n) % 29) for n in range(6) if (turn + n) % 7})
        saved |= {(alert.alert, alert.instance): alert for alert in script.engine.changed()}
        for key in script.engine.removed():
            del saved[key]
        shown = {key: alert for key, alert in saved.items() if alert.state is not Phase.INACTIVE}
        assert shown == script.engine.alerts
        assert list(saved.values()) == sorted(script.engine.changed(whole=True), key=list(saved.values()).index)


# -- order


def test_a_rule_comes_after_those_that_it_names():
    kinds = {
        "A": AllOf(conditions=(AlertFires(alert="C"), Not(condition=AlertFires(alert="B")))),
        "B": AllOf(conditions=(AlertFires(alert="D"),)),
        "C": threshold(),
        "D": threshold(),
        "E": AllOf(conditions=(AlertFires(alert="nobody"),)),
    }
    rules = {name: rule(name, kind=kind) for name, kind in kinds.items()}
    assert ruling.in_order(rules) == ["C", "D", "B", "A", "E"] or ruling.in_order(rules) == ["D", "B", "C", "A", "E"]


def test_rules_that_name_each_other_do_not_hang():
    rules = {name: rule(name, kind=Not(condition=AlertFires(alert=other))) for name, other in ("AB", "BC", "CA", "DD")}
    assert sorted(ruling.in_order(rules)) == ["A", "B", "C", "D"]


def test_firing_is_what_receivers_are_told_as_firing():
    script = Script(rule(for_=5, keep_firing_for=60))
    script.see({"p": BAD, "q": GOOD})
    assert script.engine.firing("A") == []
    script.see({"p": BAD, "q": BAD})
    assert script.engine.firing("A") == [instance("p")]
    script.see({"p": GOOD, "q": BAD})
    assert script.engine.firing("A") == [instance("p"), instance("q")]
    assert script.engine.firing("nobody") == ()


def test_a_step_lets_others_work_after_each_rule_and_between_many_instances():
    script = Script(rule("A"), rule("B", on_no_data="fire", limit=1))
    values = {str(number): GOOD for number in range(500)}
    assert len(list(script.engine.stepping(script.inputs(values)))) > 10


def test_a_level_that_the_rule_does_not_have_is_its_highest(monkeypatch: pytest.MonkeyPatch):
    judgement = Judgement(instance("p"), 7, 1.0)
    monkeypatch.setattr(ruling, "evaluate", lambda *_: [judgement, judgement])
    assert [told(found) for found in Script(rule()).see({"p": 1.0})] == ["inactive>firing c"]
