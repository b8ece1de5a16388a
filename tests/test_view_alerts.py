"""Alerts on the screen: the page, the header, the notices. What is dealt with is quiet, and nothing is told twice."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pool_monitor import findings
from pool_monitor.dashboard.viewer import Viewer
from pool_monitor.snapshot import (
    Acknowledgement,
    AlertState,
    AlertView,
    HeartbeatView,
    ReceiverState,
    ReceiverView,
    Snapshot,
    ToldStatus,
    ToldView,
)
from pool_monitor.view import (
    ASCII,
    LIVE,
    Freshness,
    Glyphs,
    alert_rows,
    listing,
    overview,
    plain,
    report,
    selected_alert,
)
from pool_monitor.view.alert_words import OLD_ACK_S, instance, quantity
from pool_monitor.view.format import UNKNOWN
from pool_monitor.view.notices import notices
from tests.helpers import alert_samples, golden, samples
from tests.helpers.alert_samples import NOW, alert, silence
from tests.helpers.samples import with_pool, with_worker
from tests.test_view_overview import assert_fits, freshness_states, glyph_sets, nasty_text, sizes

STATES = get_args(AlertState)


def page(snapshot: Snapshot, size: tuple[int, int] = (80, 24), **options: Any) -> str:
    return plain(listing("alerts", snapshot, size, **options))


def details(shown: str) -> str:
    """Return what stands below the list, in one line."""
    return " ".join(shown.rpartition("─" * 40)[2].split())


def told(snapshot: Snapshot) -> list[str]:
    return [notice.text for notice in notices(snapshot, snapshot.pools["text"], LIVE)]


# the page


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("firing_80x24", (80, 24), {}),
        ("firing_120x40", (120, 40), {}),
        ("narrow_60x15", (60, 15), {}),
        ("stale_80x24", (80, 24), {"freshness": Freshness("STALE", seconds=9)}),
        ("ascii_80x24", (80, 24), {"glyphs": ASCII}),
    ],
)
def test_the_page_matches_the_golden_files(name: str, size: tuple[int, int], options: dict[str, Any]) -> None:
    shown = page(alert_samples.snapshot(*alert_samples.alerts()), size, **options)
    golden.check(f"alerts_{name}.txt", shown)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_the_page_of_messages_that_do_not_arrive_matches_the_golden_files(size: tuple[int, int]) -> None:
    refused = ToldView(receiver="pager", status="parked", at=NOW - 90.0, reason="HTTP 404 not found")
    shown = page(alert_samples.snapshot(alert(told=(refused,)), **alert_samples.troubled()), size)
    golden.check(f"alerts_undelivered_{size[0]}x{size[1]}.txt", shown)


def test_the_page_without_alerts_matches_the_golden_file() -> None:
    golden.check("alerts_empty_80x24.txt", page(alert_samples.snapshot(silences=())))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "23 rules, last evaluated 2s ago, nothing fires"),
        ({"evaluated_age": None}, "23 rules, not evaluated yet"),
        ({"rules": 0}, "no rules are evaluated: there are none; name files with rules in [alerts] rules"),
        ({"failing": {"Odd": "no such worker"}}, "▲ rule Odd fails: no such worker"),
        ({"reload_error": "rules.yaml:3:1: what"}, "▲ the rules were not read again: rules.yaml:3:1: what"),
        ({"state_degraded": "disk full"}, "▲ states are not stored: disk full"),
        ({"state_path": None}, "a restart forgets them: [state] path is not set"),
        ({"refused": 2}, "▲ 2 alerts refused: a rule has too many instances"),
    ],
)
def test_the_page_says_what_is_evaluated_and_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    shown = " ".join(page(alert_samples.snapshot(**changes)).split())
    assert words in shown


def test_the_page_says_why_nothing_is_evaluated() -> None:
    off = samples.snapshot()
    assert "no rules are evaluated: [alerts] enabled = false" in page(off)
    broken = replace(off, monitor=replace(off.monitor, degraded={"alerts": "its task has ended"}))
    assert "no rules are evaluated: the part is degraded: its task has ended" in page(broken)


def test_what_fires_comes_first_and_what_is_over_last() -> None:
    rows = alert_rows(alert_samples.snapshot(*alert_samples.alerts()))
    assert [(row.state, row.severity) for row in rows] == [
        ("firing", "critical"),
        *[("firing", "warning")] * 3,
        ("recovering", "warning"),
        ("pending", "warning"),
        ("resolved", "warning"),
    ]


@settings(max_examples=25, deadline=None)
@given(st.permutations(alert_samples.alerts()))
def test_the_order_does_not_depend_on_the_order_in_the_snapshot(shuffled: list[AlertView]) -> None:
    assert alert_rows(alert_samples.snapshot(*shuffled)) == alert_rows(alert_samples.snapshot(*alert_samples.alerts()))


@pytest.mark.parametrize(("severity", "mark"), [("critical", "✖"), ("page", "✖"), ("warning", "▲"), ("tender", "▲")])
def test_a_severity_is_marked_by_a_glyph_and_a_word(severity: str, mark: str) -> None:
    assert f" {mark} {severity} " in page(alert_samples.snapshot(alert(severity=severity)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "FailingCalls text/chat: warning, firing for 2m04s; bad for 2m14s; value 5.1%, bound 5% 5.1% of"),
        ({"limit": None, "active_since": None}, "firing for 2m04s; value 5.1% 5.1%"),
        ({"unknown": True}, "value unknown now, was 5.1%, bound 5%"),
        ({"value": None}, f"value {UNKNOWN}, bound 5%"),
        ({"reason": "no_data"}, "reason: its value has been unknown for too long (no_data)"),
        ({"reason": "anything else"}, "reason: anything else"),
        ({"active_since": NOW - 134.0, "since": NOW - 124.0}, "; bad for 2m14s;"),
        ({"state": "resolved", "active_since": NOW - 3600.0, "since": NOW - 3555.0}, "; was bad for 45s;"),
        ({"muted": True}, "muted: a mute time of its rule lasts now"),
        ({"flapping": True}, "flapping: it changes so often that the changes are held back"),
        ({"silenced": True, "silences": ("s-1",)}, "silenced by s-1: alertname=HostMemory, ends in 1h50m, by bert"),
        ({"silenced": True, "silences": ("gone",)}, "silenced by gone"),
        ({"silenced": True}, "silenced"),
        ({"inhibited": True, "inhibited_by": ("ab",)}, "inhibited by ab"),
        ({"annotations": {"dashboard": "https://d.example"}}, "dashboard: https://d.example"),
        ({}, "labels: pool=text, operation=chat, team=search"),
        ({}, "runbook: https://runbooks.example/failing-calls"),
        ({}, "fingerprint 0000000000000001"),
    ],
)
def test_the_selected_alert_is_shown_in_full(changes: dict[str, Any], words: str) -> None:
    assert words in details(page(alert_samples.snapshot(alert(**changes)), (120, 40)))


def test_what_inhibits_an_alert_is_named() -> None:
    source = alert("Source", 2, severity="critical")
    shown = page(alert_samples.snapshot(alert(inhibited=True, inhibited_by=(source.fingerprint,)), source), alert="1")
    chosen = page(
        alert_samples.snapshot(alert(inhibited=True, inhibited_by=(source.fingerprint,)), source), alert=f"{1:016x}"
    )
    assert "Source text/chat: critical" in details(shown)
    assert "inhibited by Source text/chat" in details(chosen)


@pytest.mark.parametrize(
    ("status", "at", "reason", "words"),
    [
        ("told", NOW - 124.0, "", "ops: told 2m04s ago"),
        ("told", None, "", "ops: told"),
        ("waiting", NOW + 24.0, "", "ops: waits for its group for another 24s"),
        ("waiting", NOW - 1.0, "", "ops: waits for its group"),
        ("owed", NOW - 180.0, "connection refused", "ops: owed for 3m00s: connection refused"),
        ("owed", None, "", "ops: the message is under way"),
        ("owed", None, "answered 503", "ops: owed: answered 503"),
        ("held_back", NOW + 12.0, "", "ops: held back by the rate limit for another 12s"),
        ("parked", NOW - 60.0, "HTTP 404", "ops: parked 1m00s ago: HTTP 404"),
        ("silenced", None, "", "ops: told nothing, silenced"),
        ("of a later version", None, "\x1b[2J", "ops: told nothing, of a later version: ?[2J"),
    ],
)
def test_an_alert_says_what_each_receiver_knows(status: Any, at: float | None, reason: str, words: str) -> None:
    known = ToldView(receiver="ops", status=status, at=at, reason=reason)
    assert f" {words} labels:" in details(page(alert_samples.snapshot(alert(told=(known,)), receivers=())))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        (
            {"state": "retrying", "next_in": 4.0, "last_error": "HTTP 503"},
            "ops: retrying, tried again in 4s: HTTP 503",
        ),
        ({"state": "paused", "next_in": 60.0}, "ops: asked for a pause, tried again in 1m00s"),
        (
            {"state": "open", "next_in": 40.0, "failures": 5, "last_error": "HTTP 503"},
            "▲ ops: open, tried again in 40s after 5 failures: HTTP 503",
        ),
        ({"state": "open"}, "▲ ops: open"),
        ({"state": "parked", "parked": 1, "last_error": "HTTP 404"}, "▲ ops: refuses 1 message: HTTP 404"),
        ({"state": "gone"}, "▲ ops: wants no message any more, until a test arrives or its configuration changes"),
        ({"held_back": 34, "next_in": 12.0}, "ops: held back: 34 messages, next digest in 12s"),
        ({"lost": 2}, "▲ ops: 2 messages lost"),
        ({"state": "open", "held_back": 3, "next_in": 9.0}, "▲ ops: open, tried again in 9s; held back: 3 messages"),
        ({"state": "of a later version"}, "ops: of a later version"),
    ],
)
def test_a_receiver_that_is_not_told_at_once_says_why(changes: dict[str, Any], words: str | None) -> None:
    one = replace(alert_samples.receivers()[0], **changes)
    shown = " ".join(page(alert_samples.snapshot(receivers=(one,), heartbeat=None, silences=()), (120, 24)).split())
    _, _, after = shown.partition("https://hooks.example #1f2e3d4c ")
    after = shown.partition("example #…")[2] or after
    assert after.removesuffix(" Esc back ↑↓ alert PgUp PgDn scroll A acknowledge S silence q quit ? help").strip() == (
        words or ""
    )


@pytest.mark.parametrize(
    ("beat", "words"),
    [
        (HeartbeatView(every=30.0), "heartbeat every 30s, none has arrived yet"),
        (HeartbeatView(every=60.0, last_success_age=2.5), "heartbeat every 1m, the last 2s ago"),
        (
            HeartbeatView(every=30.0, last_success_age=9.0, failing=("otlp is degraded",)),
            "▲ heartbeat every 30s, the last 9s ago; it says that the monitor fails: otlp is degraded",
        ),
        (
            HeartbeatView(every=30.0, last_success_age=95.0, last_error="HTTP 500"),
            "▲ heartbeat every 30s does not arrive: HTTP 500; the last 1m35s ago",
        ),
    ],
)
def test_the_heartbeat_is_shown(beat: HeartbeatView, words: str) -> None:
    shown = page(alert_samples.snapshot(receivers=(), heartbeat=beat, silences=()), (120, 24))
    assert f" {words}\n" in shown


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((), None),
        ((0.5,), None),
        ((None, None, 0.5), None),
        ((0.0, 0.25, None, 0.5), "last 1m00s:  ▄·█ 0% to 50%"),
        ((0.5, 0.5), "last 1m00s: ██ always 50%"),
        ((-0.5, -0.25, 0.0), "last 1m00s:  ▄█ -50% to 0%"),
        ((0.5, float("nan")), None),
    ],
)
def test_the_course_of_a_value_is_drawn(values: tuple[float | None, ...], words: str | None) -> None:
    shown = page(alert_samples.snapshot(alert(values=values, values_s=60.0)))
    assert "last 1m00s" not in shown if words is None else f" {words}\n" in shown


def test_a_long_course_is_drawn_in_fewer_cells() -> None:
    shown = page(alert_samples.snapshot(alert(values=(*[0.0] * 59, 1.0), values_s=3600.0)), (40, 40))
    assert f" last 1h00m: {' ' * 19}█ 0% to 100%"[:30] in shown


@pytest.mark.parametrize(("age", "old"), [(OLD_ACK_S - 1, False), (OLD_ACK_S, True)])
def test_an_old_acknowledgement_stands_out(age: float, old: bool) -> None:
    given_ = Acknowledgement(author="anna", comment="I look", at=NOW - age, until=NOW + 60.0)
    shown = page(alert_samples.snapshot(alert(acknowledged=True, acknowledgement=given_)))
    assert ("▲ acked " in shown) is old
    mark = "▲ " if old else ""
    assert f"{mark}acknowledged by anna {'8h00m' if old else '7h59m'} ago, for another 1m00s: I look" in details(shown)


def test_silences_are_listed_with_their_end_and_author() -> None:
    later = silence("s-2", starts_at=NOW + 60.0, ends_at=NOW + 120.0, matchers={"pool": "glob:te*"}, comment="")
    shown = details(page(alert_samples.snapshot(alert(), silences=(silence(), later))))
    first, second = shown.index("s-2 "), shown.index("s-1 ")
    assert shown[first:second].strip() == "s-2 pool=glob:te*, begins in 1m00s, ends in 2m00s, by bert"
    assert shown[second:].startswith("s-1 alertname=HostMemory, ends in 1h50m, by bert: more memory arrives at noon")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.25, "s", "250ms"),
        (-0.25, "s", "-250ms"),
        (0.05, "ratio", "5%"),
        (2**30, "bytes", "1GiB"),
        (6.0, "count", "6"),
        (6.0, "of a later version", "6"),
        (None, "s", UNKNOWN),
        (float("nan"), "count", UNKNOWN),
    ],
)
def test_a_value_has_its_unit(value: float | None, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_the_arrows_select_an_alert_which_stays_while_the_order_changes() -> None:
    made = Viewer(100.0, source="articles", interval=1.0, window="5m")
    made.receive(alert_samples.snapshot(*alert_samples.alerts()), 100.0)
    made.open("alerts")
    size = (80, 24)

    def selected() -> str:
        return details(plain(made.page(size, 100.0))).split()[0]

    assert selected() == "FailingCalls"
    made.move(1, size, 100.0)
    assert selected() == "WorkerMemory"
    made.receive(alert_samples.snapshot(*alert_samples.alerts(), alert("New", 9, severity="critical")), 100.0)
    assert selected() == "WorkerMemory"
    made.move(-99, size, 100.0)
    assert selected() == "FailingCalls"
    made.receive(alert_samples.snapshot(), 100.0)
    made.move(1, size, 100.0)
    assert "nothing fires" in plain(made.page(size, 100.0))


def test_the_page_keys_scroll_what_is_below_the_list() -> None:
    made = Viewer(100.0, source="articles", interval=1.0, window="5m")
    many = {f"note{number:02}": "text" for number in range(60)}
    made.receive(alert_samples.snapshot(alert(annotations=many)), 100.0)
    made.open("alerts")
    assert "note59" not in plain(made.page((80, 24), 100.0))
    made.move_page(99, (80, 24), 100.0)
    assert "note59" in plain(made.page((80, 24), 100.0))


def test_many_alerts_leave_room_for_the_selected_one() -> None:
    many = alert_samples.snapshot(*(alert(f"Rule{number:03}", number, since=NOW - number) for number in range(1000)))
    for number in (0, 500, 999):
        shown = page(many, alert=f"{number:016x}")
        assert f"Rule{number:03}" in shown.partition("─" * 40)[0]
        assert details(shown).startswith(f"Rule{number:03} text/chat")


moments = st.floats(-1e12, 1e12)
labels = st.dictionaries(st.sampled_from(["pool", "operation", "worker", "x"]) | nasty_text(), nasty_text(), max_size=4)
any_alert = st.builds(
    AlertView,
    alertname=nasty_text(),
    labels=labels,
    state=st.sampled_from(STATES),
    severity=nasty_text(),
    value=st.none() | st.floats(),
    since=moments,
    summary=nasty_text(),
    runbook=nasty_text(),
    fingerprint=nasty_text(),
    silenced=st.booleans(),
    inhibited=st.booleans(),
    acknowledged=st.booleans(),
    flapping=st.booleans(),
    silences=st.lists(nasty_text(), max_size=2).map(tuple),
    inhibited_by=st.lists(nasty_text(), max_size=2).map(tuple),
    acknowledgement=st.none() | st.builds(Acknowledgement, author=nasty_text(), comment=nasty_text(), at=moments),
    unit=st.sampled_from(["s", "bytes", "ratio", "/s", "count", "", "odd"]),
    reason=nasty_text(),
    annotations=st.dictionaries(nasty_text(), nasty_text(), max_size=2),
    limit=st.none() | st.floats(),
    findings=st.just(()) | st.just(("paused",)),
    told=st.lists(
        st.builds(
            ToldView,
            receiver=nasty_text(),
            status=st.sampled_from([*get_args(ToldStatus), "odd"]),
            at=st.none() | moments,
            reason=nasty_text(),
        ),
        max_size=2,
    ).map(tuple),
    values=st.lists(st.none() | st.floats(), max_size=60).map(tuple),
    values_s=st.floats(0, 1e9),
    escalated_at=st.none() | moments,
)
any_receiver = st.builds(
    ReceiverView,
    name=nasty_text(),
    channel=nasty_text(),
    where=nasty_text(),
    state=st.sampled_from([*get_args(ReceiverState), "odd"]),
    owed=st.integers(0, 10**9),
    parked=st.integers(0, 2),
    held_back=st.integers(0, 2),
    oldest_debt=st.none() | st.floats(),
    last_success_age=st.none() | st.floats(0, 1e9),
    last_error=st.none() | nasty_text(),
    next_in=st.none() | st.floats(0, 1e9),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(any_alert, max_size=5),
    st.lists(any_receiver, max_size=3),
    nasty_text(),
    sizes,
    freshness_states,
    glyph_sets,
)
def test_the_page_of_any_alerts_fits_any_screen(
    found: list[AlertView],
    receivers: list[ReceiverView],
    words: str,
    size: tuple[int, int],
    freshness: Freshness,
    glyphs: Glyphs,
) -> None:
    silences = (silence(words, matchers={words: words}, author=words, comment=words),)
    snapshot = alert_samples.snapshot(
        *found,
        failing={words: words},
        reload_error=words,
        state_degraded=words,
        silences=silences,
        receivers=tuple(receivers),
        heartbeat=HeartbeatView(every=30.0, last_error=words, failing=(words,)),
    )
    assert_fits(listing("alerts", snapshot, size, freshness=freshness, glyphs=glyphs), size, glyphs)
    assert_fits(overview(snapshot, size, freshness=freshness, glyphs=glyphs), size, glyphs)
    assert_fits(listing("notices", snapshot, size, freshness=freshness, glyphs=glyphs), size, glyphs)


def test_a_report_has_the_evaluation_and_the_alerts() -> None:
    written = report(alert_samples.snapshot(*alert_samples.alerts()))
    assert " ALERTS: 23 rules, last evaluated 2s ago, 4 firing, 1 recovering" in written
    assert " ✖ critical firing     FailingCalls" in written
    assert written.count("FailingCalls") == 1
    assert "ALERTS" not in report(samples.snapshot())


# the header and the notices


def header(snapshot: Snapshot, width: int = 100) -> str:
    return plain(overview(snapshot, (width, 24))).splitlines()[0]


def test_the_header_counts_the_alerts_that_nobody_has_dealt_with() -> None:
    assert header(alert_samples.snapshot(*alert_samples.alerts())).endswith("alerts ✖1 ▲1  ● LIVE")
    assert "alerts" not in header(alert_samples.snapshot())
    assert header(alert_samples.snapshot(alert(severity="critical")), 40).endswith("✖1  ● LIVE")


@pytest.mark.parametrize("state", STATES)
def test_an_alert_is_a_notice_while_it_fires(state: AlertState) -> None:
    wanted = ["FailingCalls text/chat: 5.1% of chat fail"] if state in ("firing", "recovering") else []
    assert told(alert_samples.snapshot(alert(state=state))) == wanted


@pytest.mark.parametrize("overlay", ["silenced", "inhibited", "acknowledged", "muted"])
def test_an_alert_that_somebody_knows_of_is_no_notice_but_is_counted(overlay: str) -> None:
    snapshot = alert_samples.snapshot(alert(**{overlay: True}))
    assert told(snapshot) == []
    assert "▲" not in header(snapshot)
    notice = plain(overview(snapshot, (80, 24))).splitlines()[3]
    assert notice == f" nothing else needs attention; alerts: 1 {overlay}: a"
    assert f"not shown here: alerts, 1 {overlay}; see the page a" in plain(listing("notices", snapshot, (80, 24)))


def test_flapping_keeps_no_alert_quiet() -> None:
    assert told(alert_samples.snapshot(alert(flapping=True))) != []


def test_the_worst_alert_is_the_first_notice() -> None:
    found = alert_samples.snapshot(alert("Mild", 1), alert("Grave", 2, severity="critical"))
    assert [text.split()[0] for text in told(found)] == ["Grave", "Mild"]


def test_what_keeps_calls_from_running_comes_before_the_alerts_that_follow() -> None:
    paused = with_pool(samples.snapshot(), state="paused", waiting=3)
    texts = told(alert_samples.snapshot(alert(severity="critical"), base=paused))
    assert [text.partition(":")[0] for text in texts] == ["pool is paused", "FailingCalls text/chat"]


def paused(*found: AlertView, pool: str = "text") -> Snapshot:
    """Return a Snapshot of two pools, one of them paused."""
    both = samples.snapshot(pools=("text", "vision"))
    changed = replace(both.pools[pool], state="paused", waiting=3)
    return alert_samples.snapshot(*found, base=replace(both, pools={**both.pools, pool: changed}))


def of_finding(kind: str = "paused", pool: str | None = "text", **changes: Any) -> AlertView:
    labels = {"pool": pool} if pool is not None else {}
    return alert("PoolPaused", 8, **{"labels": labels, "findings": (kind,), "severity": "critical", **changes})


def test_a_finding_and_the_alert_that_reads_it_are_told_once() -> None:
    assert told(paused(of_finding())) == ["pool is paused: 3 calls wait"]
    assert len(told(paused(of_finding(findings=("held", "paused"))))) == 1
    assert header(paused(of_finding())).endswith("alerts ✖1  ▲ POOL PAUSED  ● LIVE")


def test_an_alert_whose_finding_is_over_is_told_itself() -> None:
    assert [text.split()[0] for text in told(alert_samples.snapshot(of_finding(state="recovering")))] == ["PoolPaused"]


@pytest.mark.parametrize(
    "other", [of_finding(pool="vision"), of_finding("held"), of_finding(labels={"pool": "text", "finding": "held"})]
)
def test_an_alert_about_something_else_is_told_beside_the_finding(other: AlertView) -> None:
    assert len(told(paused(other))) == 2


def test_a_finding_of_which_somebody_knows_is_not_told() -> None:
    assert told(paused(of_finding(acknowledged=True))) == []
    assert told(paused(of_finding(silenced=True), pool="vision")) == ["pool vision: pool is paused: 3 calls wait"]
    assert told(paused(of_finding(pool="vision", silenced=True), pool="vision")) == []
    assert told(paused(of_finding(silenced=True, state="resolved"))) == ["pool is paused: 3 calls wait"]


def test_a_finding_that_another_alert_tells_too_is_told() -> None:
    known, unknown = of_finding(acknowledged=True), alert("Other", 9, labels={"pool": "text"}, findings=("paused",))
    assert told(paused(known, unknown)) == ["pool is paused: 3 calls wait"]


def test_a_finding_about_workers_is_quiet_when_all_of_them_are_known() -> None:
    base = with_worker(samples.snapshot(), "text-0", state="terminated")
    base = with_worker(base, "text-1", state="terminated")
    assert [found.names for found in findings.effects(base, base.pools["text"], {})] == [("text-0", "text-1")]

    def known(number: int) -> AlertView:
        labels = {"pool": "text", "worker": f"text-{number}"}
        return alert("Dead", number + 1, labels=labels, findings=("dead",), acknowledged=True)

    assert told(alert_samples.snapshot(known(0), base=base)) == ["2 workers dead: text-0, text-1"]
    assert told(alert_samples.snapshot(known(0), known(1), base=base)) == []


def test_the_subject_of_an_alert_is_its_worker_or_its_pool_and_operation() -> None:
    assert instance(alert(labels={"pool": "text", "worker": "text-3"})) == "text-3"
    assert instance(alert(labels={"pool": "text"})) == "text"
    assert instance(alert(labels={"team": "search"})) == ""
    assert selected_alert([], None) is None
