"""What lies over the states of alerts: silences, acknowledgements, inhibition, mute times, flapping."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.alert import Alert, fingerprint_of
from pool_monitor.alerts.lifecycle import Phase
from pool_monitor.alerts.overlays import Overlays, Texts, flapping, silences, views
from pool_monitor.alerts.overlays.flapping import HALF_LIFE, Flapping
from pool_monitor.alerts.overlays.inhibition import NAMED_MAX, Inhibitors
from pool_monitor.alerts.overlays.mute import LocalTime, is_muted, local_time
from pool_monitor.alerts.rule import (
    Absolute,
    CheckedRule,
    FindingIs,
    Inhibition,
    Level,
    Matcher,
    MuteTime,
    Threshold,
)
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.snapshot import AlertTransition, AlertView

T0 = 1_700_000_000.0
HOUR = 3600.0


def alert(
    name: str = "Late", state: Phase = Phase.FIRING, severity: str = "warning", since: float = T0, **labels: str
) -> Alert:
    return Alert(
        alert=name,
        instance=tuple(sorted(labels.items())),
        labels=labels,
        fingerprint=fingerprint_of(name, labels),
        state=state,
        severity=severity,
        since=since,
        active_since=since,
        value=6.0,
        limit=5.0,
    )


def rule(name: str = "Late", *, mute: tuple[MuteTime, ...] = ()) -> CheckedRule:
    kind = Threshold(metric="pool.waiting", above=True, levels=(Level("warning", Absolute(5.0)),))
    return CheckedRule(alert=name, kind=kind, mute=mute)


def change(of: Alert, before: str, after: str, seq: int = 1) -> AlertTransition:
    return AlertTransition(
        seq=seq,
        at=T0,
        alert=of.alert,
        labels=of.labels,
        fingerprint=of.fingerprint,
        from_state=before,  # type: ignore[arg-type]
        to_state=after,  # type: ignore[arg-type]
        severity=of.severity,
    )


def laid(overlays: Overlays, *alerts: Alert, at: float = T0, inhibit: tuple[Inhibition, ...] = ()) -> list[AlertView]:
    return list(overlays.lay(alerts, {"Late": rule()}, inhibit, at))


def silenced(overlays: Overlays, found: Alert, at: float = T0) -> bool:
    [view] = laid(overlays, found, at=at)
    return view.silenced


def again(overlays: Overlays, *active: Alert) -> Overlays:
    """What a restart makes of *overlays*."""
    saved = {
        table: {key: value for key, value in rows.items() if value is not None}
        for table, rows in overlays.take_changes().items()
    }
    assert saved == {table: rows for table, rows in overlays.all_rows().items() if rows}
    made = Overlays()
    assert made.restore(saved, [one.fingerprint for one in active]) == []
    return made


def test_what_somebody_does_shows_at_once_as_it_does_after_the_next_evaluation() -> None:
    overlays, alerts = Overlays(), [alert(pool=pool) for pool in ("a", "b", "c")]
    before = laid(overlays, *alerts)
    ended = overlays.silence({"pool": "a"}, duration=60, at=T0)
    overlays.silence({"pool": {"glob": "[bc]"}}, duration=60, at=T0)
    overlays.unsilence(ended, T0)
    active = {one.fingerprint: one for one in alerts}
    overlays.acknowledge(alerts[0].fingerprint, active, at=T0, author="ann")
    now = list(overlays.laid_again(before, T0))
    assert now == laid(overlays, *alerts) != before
    overlays.unacknowledge(alerts[0].fingerprint)
    assert list(overlays.laid_again(now, T0 + 60)) == laid(overlays, *alerts, at=T0 + 60) == before


# -- silences -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matchers", "labels", "matches"),
    [
        ({"alertname": "Late"}, {"pool": "text"}, True),
        ({"alertname": "Early"}, {"pool": "text"}, False),
        ({"pool": "text"}, {"pool": "text"}, True),
        ({"pool": "te*"}, {"pool": "text"}, False),
        ({"pool": "te*"}, {"pool": "te*"}, True),
        ({"pool": "[t]ext"}, {"pool": "text"}, False),
        ({"pool": {"glob": "te*"}}, {"pool": "text"}, True),
        ({"pool": {"glob": "te?t"}}, {"pool": "text"}, True),
        ({"pool": {"glob": "te"}}, {"pool": "text"}, False),
        ({"pool": {"glob": "TE*"}}, {"pool": "text"}, False),
        ({"pool": {"glob": "*"}}, {"pool": "line\nbreak"}, True),
        ({"pool": "text", "severity": "warning"}, {"pool": "text"}, True),
        ({"pool": "text", "severity": "critical"}, {"pool": "text"}, False),
        ({"team": "search"}, {"pool": "text"}, False),
        ({"team": {"glob": "*"}}, {"pool": "text", "team": "search"}, True),
        ({"team": {"glob": "*"}}, {"pool": "text"}, False),
        ({"pol": {"glob": "**"}}, {"pool": "text"}, False),
    ],
)
def test_a_silence_matches(matchers: Mapping[str, object], labels: dict[str, str], matches: bool) -> None:
    overlays = Overlays()
    made = overlays.silence(matchers, duration=HOUR, at=T0)
    [view] = laid(overlays, alert(**labels))
    assert (view.silenced, view.silences) == (matches, (made,) if matches else ())
    assert view.state == "firing"


@pytest.mark.parametrize(
    ("matchers", "said"),
    [
        ({}, "at least one matcher"),
        ({"pool": ""}, "'pool' is empty"),
        ({"pool": {"glob": ""}}, "'pool' is empty"),
        ({"pool": {"regex": "t"}}, "must be a text, or a pattern such as {'glob': 'text*'}"),
        ({"pool": {"glob": "t", "regex": "t"}}, "must be a text, or a pattern"),
        ({"pool": 5}, "must be a text, or a pattern"),
        ({"": "text"}, "needs the name of a label"),
        ({5: "text"}, "needs the name of a label"),
        ({"pool": "x" * 1001}, "at most 1000 characters"),
        ({f"label {number}": "x" for number in range(33)}, "at most 32 matchers, not 33"),
        ("alertname=Late", "at least one matcher"),
    ],
)
def test_a_matcher_that_says_nothing_is_refused(matchers: Mapping[str, object], said: str) -> None:
    overlays = Overlays()
    with pytest.raises(ConfigError) as refused:
        overlays.silence(matchers, duration=HOUR, at=T0)
    assert said in str(refused.value)
    assert overlays.silences(T0) == ()


def test_what_has_no_utf8_form_is_escaped_as_in_a_snapshot() -> None:
    overlays = Overlays()
    overlays.silence({"operation": "odd\udcff"}, duration=HOUR, at=T0, author="\ud800", comment="\udfff")
    [view] = overlays.silences(T0)
    assert (view.matchers, view.author, view.comment) == ({"operation": r"odd\udcff"}, r"\ud800", r"\udfff")
    given = overlays.acknowledge("f", {"f": alert()}, at=T0, author="\ud800")
    assert given.author == r"\ud800"
    assert msgspec.json.encode(overlays.all_rows())


@pytest.mark.parametrize("author", [None, 5, b"me", ["me"]])
def test_an_author_who_is_no_text_is_refused(author: object) -> None:
    overlays, said = Overlays(), "author must be a text"
    with pytest.raises(ConfigError, match=said):
        overlays.silence({"operation": "x"}, duration=HOUR, at=T0, author=author)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=said):
        overlays.acknowledge("f", {"f": alert()}, at=T0, author=author)  # type: ignore[arg-type]


@pytest.mark.parametrize("duration", [0.0, -5.0, float("nan")])
def test_a_silence_that_never_lasts_is_refused(duration: float) -> None:
    with pytest.raises(ConfigError, match="must end after it begins"):
        Overlays().silence({"pool": "text"}, duration=duration, at=T0)


def test_a_silence_begins_and_ends_by_the_clock_on_the_wall() -> None:
    overlays, late = Overlays(), alert(pool="text")
    overlays.silence(
        {"pool": "text"}, duration=2 * HOUR, starts_in=HOUR, at=T0, author="me", comment="maintenance of the disks"
    )
    moments = [0, HOUR - 1, HOUR, 3 * HOUR - 1, 3 * HOUR]
    assert [silenced(overlays, late, T0 + moment) for moment in moments] == [False, False, True, True, False]
    [view] = overlays.silences(T0)
    assert (view.starts_at, view.ends_at) == (T0 + HOUR, T0 + 3 * HOUR)
    assert (view.matchers, view.author, view.comment) == ({"pool": "text"}, "me", "maintenance of the disks")
    assert overlays.silences(T0 + 3 * HOUR) == ()


def test_a_silence_that_was_ended_stays_ended_whatever_the_clock_does() -> None:
    overlays, late = Overlays(), alert(pool="text")
    made = overlays.silence({"pool": {"glob": "t*"}}, duration=HOUR, at=T0)
    assert overlays.silences(T0)[0].matchers == {"pool": "glob:t*"}
    overlays.unsilence(made, T0 + 5)
    assert not silenced(overlays, late, T0 + 2)
    with pytest.raises(UnknownName, match=rf"no silence '{made}' lasts or is to come; those that do: none"):
        overlays.unsilence(made, T0 + 6)
    assert not silenced(again(overlays), late, T0)


def test_silences_are_bounded_and_only_those_that_are_over_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silences, "SILENCES_MAX", 3)
    overlays = Overlays()
    made = [overlays.silence({"pool": f"p{hours}"}, duration=hours * HOUR, at=T0) for hours in (1, 2, 3)]
    assert len(set(made)) == 3
    with pytest.raises(ConfigError, match="there are 3 silences already; end one"):
        overlays.silence({"pool": "p4"}, duration=HOUR, at=T0)
    made.append(overlays.silence({"pool": "p4"}, duration=9 * HOUR, at=T0 + 2 * HOUR))
    assert {one.id for one in overlays.silences(T0)} == set(made[1:])
    assert {one.id for one in again(overlays).silences(T0)} == set(made[1:])


# -- acknowledgements ---------------------------------------------------------------------------------------------


def acknowledged(overlays: Overlays, found: Alert, at: float = T0) -> bool:
    [view] = laid(overlays, found, at=at)
    assert view.acknowledged == (view.acknowledgement is not None)
    return view.acknowledged


def test_an_acknowledgement_ends_with_the_life_of_its_alert() -> None:
    overlays, late = Overlays(), alert(pool="text")
    overlays.acknowledge(late.fingerprint, {late.fingerprint: late}, at=T0, author="me", comment="on it")
    [view] = laid(overlays, late, at=T0 + 9 * HOUR)
    assert view.acknowledgement is not None
    assert (view.acknowledgement.author, view.acknowledgement.comment, view.acknowledgement.at) == ("me", "on it", T0)
    overlays.note([change(late, "pending", "firing"), change(late, "firing", "recovering")], 5.0)
    assert acknowledged(overlays, late)
    assert acknowledged(again(overlays, late), late)
    overlays.note([change(late, "recovering", "resolved")], 5.0)
    assert not acknowledged(overlays, late)
    overlays.note([change(late, "resolved", "firing")], 5.0)
    assert not acknowledged(overlays, late)


def test_an_acknowledgement_for_a_while_ends_then() -> None:
    overlays, late = Overlays(), alert(pool="text")
    overlays.acknowledge(late.fingerprint, {late.fingerprint: late}, at=T0, duration=HOUR)
    assert [acknowledged(overlays, late, T0 + after) for after in (HOUR - 1, HOUR)] == [True, False]


def test_an_acknowledgement_of_what_is_not_there_is_refused() -> None:
    overlays, late = Overlays(), alert(pool="text")
    active = {late.fingerprint: late}
    with pytest.raises(UnknownName, match=rf"no alert 'abc' is pending or firing; those that are: {late.fingerprint}"):
        overlays.acknowledge("abc", active, at=T0)
    with pytest.raises(UnknownName, match="is not acknowledged"):
        overlays.unacknowledge(late.fingerprint)
    with pytest.raises(ConfigError, match="must end in the future"):
        overlays.acknowledge(late.fingerprint, active, at=T0, duration=0)
    with pytest.raises(ConfigError, match="at most 1000 characters"):
        overlays.acknowledge(late.fingerprint, active, at=T0, comment="x" * 1001)
    overlays.acknowledge(late.fingerprint, active, at=T0)
    overlays.unacknowledge(late.fingerprint)
    assert not acknowledged(overlays, late)


def test_an_acknowledgement_does_not_survive_an_alert_that_ended_without_us() -> None:
    overlays, late = Overlays(), alert(pool="text")
    overlays.acknowledge(late.fingerprint, {late.fingerprint: late}, at=T0)
    restarted = again(overlays)  # and the alert is not among those that go on
    assert not acknowledged(restarted, late)
    assert restarted.take_changes() == {"acknowledgements": {late.fingerprint: None}}


# -- inhibition ---------------------------------------------------------------------------------------------------

VALUES = ("", "a", "b")
all_labels = st.fixed_dictionaries({name: st.sampled_from(VALUES) for name in ("alertname", "severity", "pool")}).map(
    lambda labels: {name: value for name, value in labels.items() if value}
)
matchers = st.lists(
    st.builds(
        Matcher, st.sampled_from(("alertname", "severity", "pool")), st.sampled_from((*VALUES, "*")), st.booleans()
    ),
    max_size=2,
).map(tuple)
inhibitions = st.lists(
    st.builds(
        Inhibition,
        one=matchers,
        target=matchers,
        equal=st.lists(st.sampled_from(("pool", "severity", "team")), max_size=2, unique=True).map(tuple),
    ),
    max_size=3,
)


def by_definition(firing: Mapping[str, Mapping[str, str]], target: str, rules: list[Inhibition]) -> list[str]:
    """The sources of an alert, as Alertmanager's documentation says it, alert by alert; but patterns need a label."""

    def match(matchers: tuple[Matcher, ...], labels: Mapping[str, str]) -> bool:
        found = [(labels.get(one.label, ""), one) for one in matchers]
        return all(
            fnmatchcase(text, one.value) and bool(text or not one.value) if one.pattern else text == one.value
            for text, one in found
        )

    labels, found = firing[target], set()
    for one in rules:
        for name, other in firing.items():
            both = match(one.one, labels) and match(one.target, other)
            equal = all(labels.get(label, "") == other.get(label, "") for label in one.equal)
            if match(one.target, labels) and match(one.one, other) and equal and not both:
                found.add(name)
    return sorted(found)


@settings(max_examples=50)
@given(st.lists(all_labels, max_size=8), inhibitions, st.randoms())
def test_inhibition_is_what_its_definition_says_in_any_order(
    labels: list[dict[str, str]], rules: list[Inhibition], order: random.Random
) -> None:
    firing = {f"{number}": found for number, found in enumerate(labels)}
    shuffled = list(firing.items())
    order.shuffle(shuffled)
    inhibitors = Inhibitors(rules)
    for name, found in shuffled:
        inhibitors.add(name, found)
    for name, found in shuffled:
        assert list(inhibitors.of(found)) == by_definition(firing, name, rules)


CRITICAL_OVER_WARNING = Inhibition(
    one=(Matcher("severity", "critical"),), target=(Matcher("severity", "warning"),), equal=("pool",)
)


def test_an_inhibited_alert_keeps_its_state_and_names_who_inhibits_it() -> None:
    worse = [alert(f"Worse {number}", severity="critical", pool="text") for number in range(NAMED_MAX + 5)]
    late, elsewhere = alert(pool="text"), alert(pool="image")
    gone = alert("Gone", state=Phase.RESOLVED, severity="critical", pool="image")
    found = {
        view.fingerprint: view
        for view in laid(Overlays(), late, elsewhere, gone, *worse, inhibit=(CRITICAL_OVER_WARNING,))
    }
    assert found[late.fingerprint].inhibited
    assert found[late.fingerprint].state == "firing"
    assert found[late.fingerprint].inhibited_by == tuple(sorted(one.fingerprint for one in worse)[:NAMED_MAX])
    assert not found[elsewhere.fingerprint].inhibited  # what is resolved inhibits nobody


# -- mute times ---------------------------------------------------------------------------------------------------

NIGHT = MuteTime(days=(4, 5), start=22 * 60, end=6 * 60)
OFFICE = MuteTime(days=(0, 1, 2, 3, 4), start=9 * 60, end=17 * 60)
SUNDAY = MuteTime(days=(6,))


@pytest.mark.parametrize(
    ("mute", "day", "clock", "muted"),
    [
        (OFFICE, 0, "08:59", False),
        (OFFICE, 0, "09:00", True),
        (OFFICE, 4, "16:59", True),
        (OFFICE, 4, "17:00", False),
        (OFFICE, 5, "12:00", False),
        (NIGHT, 4, "21:59", False),
        (NIGHT, 4, "22:00", True),
        (NIGHT, 5, "05:59", True),
        (NIGHT, 5, "06:00", False),
        (NIGHT, 6, "05:59", True),
        (NIGHT, 4, "05:59", False),
        (NIGHT, 6, "22:00", False),
        (SUNDAY, 6, "00:00", True),
        (SUNDAY, 6, "23:59", True),
        (SUNDAY, 0, "00:00", False),
        (MuteTime(days=(6,), start=600, end=600), 0, "09:59", True),
        (MuteTime(days=(6,), start=600, end=600), 0, "10:00", False),
    ],
)
def test_a_mute_time_lasts(mute: MuteTime, day: int, clock: str, muted: bool) -> None:
    hours, minutes = map(int, clock.split(":"))
    assert is_muted([mute], LocalTime(day, hours * 60 + minutes)) is muted


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # without a need for the files of time zones
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_mute_times_follow_the_clock_on_the_wall_through_summer_time() -> None:
    mute = MuteTime(days=(6,), start=2 * 60, end=3 * 60)

    def muted(*utc: int) -> bool:
        return is_muted([mute], local_time(datetime(*utc, tzinfo=UTC).timestamp()))  # type: ignore[misc, arg-type]

    # 2024-03-31: 02:00 does not come. 2024-10-27: it comes twice. 2024-06-30: an ordinary Sunday of summer.
    assert [muted(2024, 3, 31, 0, 59), muted(2024, 3, 31, 1, 0)] == [False, False]
    assert [muted(2024, 10, 27, hour, 30) for hour in (-1 % 24, 0, 1, 2)] == [False, True, True, False]
    assert [muted(2024, 6, 30, hour) for hour in (0, 1)] == [True, False]


def test_a_muted_alert_is_shown_so_and_keeps_its_state() -> None:
    whole_week = MuteTime()
    [view] = Overlays().lay([alert(pool="text")], {"Late": rule(mute=(whole_week,))}, (), T0)
    assert (view.muted, view.state) == (True, "firing")


# -- flapping -----------------------------------------------------------------------------------------------------


def flaps_after(overlays: Flapping, found: Alert, changes: int, every: float) -> bool:
    for number in range(changes):
        states = ("resolved", "firing") if number % 2 == 0 else ("firing", "resolved")
        overlays.note([change(found, *states)], every)
    return found.fingerprint in overlays


@pytest.mark.parametrize(
    ("changes", "every", "flaps"),
    [
        (3, 5.0, False),
        (4, 5.0, False),
        (5, 5.0, True),
        (6, 180.0, True),
        (100, 6 * 60.0, True),
        (100, 10 * 60.0, False),
    ],
)
def test_an_alert_that_changes_often_flaps(changes: int, every: float, flaps: bool) -> None:
    assert flaps_after(Flapping(), alert(), changes, every) is flaps


def test_flapping_ends_when_the_alert_has_been_quiet_and_not_between_the_two_bounds() -> None:
    scores, late = Flapping(), alert()
    assert flaps_after(scores, late, 6, 0.0)
    scores.note([], 2 * HALF_LIFE * 0.99)  # 6 / 2**1.98 = 1.52
    assert late.fingerprint in scores
    scores.note([], 0.02 * HALF_LIFE)  # 1.5
    assert late.fingerprint not in scores
    scores.note([change(late, "inactive", "firing")], 5.0)  # 2.5: not above the upper bound
    assert late.fingerprint not in scores


def test_the_changes_of_an_alert_that_flaps_are_counted_until_it_is_quiet() -> None:
    scores, late = Flapping(), alert()
    flaps_after(scores, late, 3, 5.0)
    assert scores.changes(late.fingerprint) == 0, "it does not flap yet"
    flaps_after(scores, late, 4, 5.0)
    assert scores.changes(late.fingerprint) == 7
    scores.note([], 4 * HALF_LIFE)
    assert scores.changes(late.fingerprint) == 0
    flaps_after(scores, late, 6, 5.0)
    assert scores.changes(late.fingerprint) == 6


def test_changes_of_level_and_recovering_are_no_flapping() -> None:
    scores, late = Flapping(), alert()
    for _ in range(50):
        scores.note(
            [
                change(late, "firing", "firing"),
                change(late, "firing", "recovering"),
                change(late, "recovering", "firing"),
                change(late, "inactive", "pending"),
                change(late, "pending", "inactive"),
            ],
            5.0,
        )
    assert late.fingerprint not in scores


def test_flapping_survives_a_restart_and_time_without_a_service_does_not_count() -> None:
    overlays, late = Overlays(), alert()
    for number in range(6):
        overlays.note([change(late, *(("firing", "resolved") if number % 2 else ("resolved", "firing")))], 5.0)
    restarted = again(overlays, late)
    assert laid(restarted, late)[0].flapping
    restarted.note([], 3 * HALF_LIFE)
    assert not laid(restarted, late)[0].flapping


def test_scores_are_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flapping, "SCORES_MAX", 10)
    scores, late = Flapping(), alert()
    assert flaps_after(scores, late, 500, 1.0)
    assert scores.saved.encoded().keys() == {late.fingerprint}
    for number in range(30):
        scores.note([change(alert(pool=f"p{number}"), "pending", "firing")], 1.0)
    assert len(scores.saved.encoded()) == 10
    scores.note([], 7 * HALF_LIFE)
    assert scores.saved.encoded() == {}
    assert set(scores.saved.take_changes().values()) == {None}


# -- views --------------------------------------------------------------------------------------------------------


def test_what_needs_attention_most_comes_first() -> None:
    shown = [
        alert("resolved", Phase.RESOLVED, "critical", T0),
        alert("pending", Phase.PENDING, "critical", T0),
        alert("warning", Phase.FIRING, "warning", T0),
        alert("newer", Phase.FIRING, "critical", T0 + 9),
        alert("recovering", Phase.RECOVERING, "critical", T0 + 5),
        alert("older", Phase.FIRING, "critical", T0),
        alert("own severity", Phase.FIRING, "grave", T0),
        alert("info", Phase.FIRING, "info", T0),
    ]
    random.Random(5).shuffle(shown)
    names = [view.alertname for view in laid(Overlays(), *shown)]
    expected = ["older", "recovering", "newer", "warning", "own severity", "info", "pending", "resolved"]
    assert names == expected


def test_a_view_has_the_texts_of_its_rule_and_what_its_alert_is() -> None:
    found = alert(pool="text")
    found.unknown, found.reason = True, "no_data"
    [view] = Overlays().lay(
        [found],
        {"Late": CheckedRule(alert="Late", kind=FindingIs(kinds=("worker_lost",)))},
        (),
        T0,
        lambda rule, about: Texts(f"{about.value} of {rule and rule.alert}", "https://x", {"a": "b"}, "6", "count"),
    )
    assert (view.summary, view.runbook, view.annotations) == ("6.0 of Late", "https://x", {"a": "b"})
    assert (view.value, view.value_text, view.unit, view.limit) == (6.0, "6", "count", 5.0)
    assert (view.labels, view.severity) == ({"pool": "text", "severity": "warning"}, "warning")
    assert (view.unknown, view.reason, view.findings) == (True, "no_data", ("worker_lost",))
    assert (view.silenced, view.inhibited, view.acknowledged, view.flapping, view.muted) == (False,) * 5


def test_of_very_many_alerts_some_are_shown_and_all_inhibit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "VIEWS_MAX", 20)
    worse = [alert(severity="critical", pool=f"p{number}", since=T0 + number) for number in range(200)]
    late = alert("Other", severity="warning", pool="p199", since=T0 - 1)
    steps = list(Overlays().laying([*worse, late], {}, (CRITICAL_OVER_WARNING,), T0))
    shown = [view for view in steps if view is not None]
    assert [view.labels["pool"] for view in shown] == [f"p{number}" for number in range(20)]
    assert steps.count(None) >= 200 // 50
    [view] = Overlays().lay([late, *worse[-1:]], {}, (CRITICAL_OVER_WARNING,), T0)[1:]
    assert view.inhibited_by == (worse[-1].fingerprint,)


# -- what an earlier life left ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"id": 5}', b"\xff", b'{"id": "other", "matchers": []}'])
def test_what_cannot_be_read_is_left_out_and_the_rest_is_used(value: bytes) -> None:
    overlays, late = Overlays(), alert(pool="text")
    kept = overlays.silence({"pool": "text"}, duration=HOUR, at=T0)
    rows = {table: {"x" * 16: value} for table in ("silences", "acknowledgements", "flapping")}
    sound = overlays.take_changes()["silences"][kept]
    assert sound is not None
    rows["silences"][kept] = sound
    restarted = Overlays()
    said = restarted.restore(rows, ["x" * 16])
    assert [line.split(" 'x")[0] for line in said] == [
        "the saved silence",
        "the saved acknowledgement",
        "the saved flap score",
    ]
    assert silenced(restarted, late)
    assert [one.id for one in restarted.silences(T0)] == [kept]
