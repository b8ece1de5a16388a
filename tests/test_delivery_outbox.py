"""The outbox: what waits for a receiver, what may be tried when, and what becomes of what cannot be delivered."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.delivery import outbox as outbox_module
from pool_monitor.alerts.delivery.contact import (
    CONTACT,
    OPEN_S,
    OPENS_AFTER,
    PROBE_AGAIN_S,
    PROBE_S,
    RETRY_AFTER_JITTER,
    RETRY_AFTER_MAX_S,
    Contact,
    ReceiverPhase,
)
from pool_monitor.alerts.delivery.notification import SENT, Notification, Outcome, ToldAlert
from pool_monitor.alerts.delivery.outbox import EXPIRES_S, PAGE_EXPIRES_S, UNREACHABLE_S, Outbox
from pool_monitor.alerts.delivery.shrinking import smaller
from pool_monitor.snapshot import ReceiverState
from pool_monitor.state_machine import IllegalTransition

AT = 1_700_000_000.0
FAILED = Outcome("retry", "no answer", unsure=True)
REFUSED = Outcome("refused", "answered 404")
GONE = Outcome("gone", "answered 410")


def alert(number: int = 0, *, text: str = "") -> ToldAlert:
    return ToldAlert(
        alertname="Busy",
        labels={"pool": f"p{number}", "severity": "warning"},
        fingerprint=f"{number:016x}",
        status="firing",
        severity="warning",
        starts_at=AT,
        annotations={"text": text} if text else {},
        values=(1.0, None, 2.0) if text else (),
    )


def message(group: str = "g", *, to: str = "ops", page: bool = False, at: float = AT, **fields: Any) -> Notification:
    alerts = fields.pop("alerts", (alert(),))
    return Notification(
        id=fields.pop("id", f"msg_{group}_{at}"),
        receiver=to,
        group_key=group,
        group_labels={},
        reason="first notification",
        status="firing",
        alerts=alerts,
        firing=len(alerts),
        resolved=0,
        at=at,
        page=page,
    )


def made(*notifications: Notification, chance: float = 1.0, at: float = AT) -> Outbox:
    """An outbox with these, all of which may be tried. The pauses are as long as they can be."""
    outbox = Outbox(lambda: chance)
    for one in notifications:
        assert outbox.put(one, at) == (True, "")
    outbox.release()
    return outbox


def tries(outbox: Outbox, at: float, outcome: Outcome, to: str = "ops") -> list[Notification]:
    """Make one attempt, which has *outcome*, and return whose fallbacks are to be told."""
    found = outbox.take(to, at)
    assert found is not None, "nothing may be tried"
    return [one for one, _why in outbox.note(found, outcome, at)]


def fails(outbox: Outbox, times: int, outcome: Outcome = FAILED) -> float:
    """Fail so many times in a row, each as soon as it is possible, and return the time of the last one."""
    at = AT
    for _ in range(times):
        following = outbox.next_at("ops")
        assert following is not None
        at = max(at, following)
        tries(outbox, at, outcome)
    return at


# -- order ------------------------------------------------------------------------------------------------------------


def test_nothing_is_tried_before_it_is_released() -> None:
    outbox = Outbox()
    outbox.put(message(), AT)
    assert outbox.receivers() == []
    assert outbox.take("ops", AT) is None
    outbox.release()
    assert outbox.receivers() == ["ops"]
    assert outbox.take("ops", AT) is not None


def test_a_receiver_gets_one_at_a_time_in_the_order_in_which_they_came() -> None:
    outbox = made(message("b"), message("a"), message("c", to="other"))
    first = outbox.take("ops", AT)
    assert first is not None
    assert first.notification.group_key == "b"
    assert outbox.take("ops", AT) is None
    assert outbox.take("other", AT) is not None
    outbox.note(first, SENT, AT)
    second = outbox.take("ops", AT)
    assert second is not None
    assert second.notification.group_key == "a"


def test_a_newer_notification_of_a_group_takes_the_place_of_the_older_one() -> None:
    outbox = made(message(id="old"))
    fails(outbox, 1)
    outbox.put(message(id="new", at=AT + 5), AT + 5)
    assert outbox.take("ops", AT + 100) is None  # neither the old one
    outbox.release()
    found = outbox.take("ops", AT + 100)
    assert found is not None
    assert (found.notification.id, found.since, found.attempts) == ("new", AT, 0)
    assert len(outbox) == 1


def test_a_retry_sends_the_same_and_counts_the_attempts() -> None:
    outbox = made(message(alerts=(msgspec.structs.replace(alert(), value=15),)))
    first = outbox.take("ops", AT)
    assert first is not None
    outbox.note(first, FAILED, AT)
    restored = Outbox()
    restored.restore({name: dict(rows) for name, rows in outbox.all_rows().items()}, AT)
    for one in (outbox, restored):
        again = one.take("ops", AT + 10)
        assert again is not None
        assert again.attempts == 1
        assert msgspec.json.encode(again.notification) == msgspec.json.encode(first.notification)


def test_one_that_always_fails_holds_up_no_other() -> None:
    outbox = made(message("poison"))
    at = AT
    for number in range(20):
        outbox.put(message(f"g{number}"), at)
        outbox.release()
        for _ in range(10):
            found = outbox.take("ops", at)
            if found is None:
                break
            poison = found.notification.group_key == "poison"
            outbox.note(found, FAILED if poison else SENT, at)
        at += 2.0
        assert outbox.contact("ops").state is not ReceiverPhase.OPEN
        assert len(outbox) <= 2
    assert outbox.debts()["ops"].oldest == AT


# -- pauses -----------------------------------------------------------------------------------------------------------


def test_pauses_double_with_full_jitter_until_the_breaker_opens() -> None:
    pauses = []
    contact = Contact()
    for _ in range(9):
        contact = contact.after(FAILED, AT, 1.0)
        pauses.append(contact.blocked_until - AT)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 30.0, 60.0, 120.0, 240.0, 480.0]
    assert contact.after(FAILED, AT, 1.0).blocked_until == AT + OPEN_S[1]
    assert Contact().after(FAILED, AT, 0.25).blocked_until == AT + 0.25
    assert contact.state is ReceiverPhase.OPEN


@given(st.lists(st.sampled_from([SENT, FAILED, REFUSED, FAILED._replace(retry_after=7.0)]), max_size=30), st.randoms())
def test_no_more_than_five_in_a_row_fail_before_pauses_are_long(outcomes: list[Outcome], random: random.Random) -> None:
    contact, in_a_row = Contact(), 0
    for outcome in outcomes:
        contact = contact.after(outcome, AT, random.random())
        in_a_row = in_a_row + 1 if outcome.result == "retry" else 0
        assert contact.failures == in_a_row
        assert (contact.state is ReceiverPhase.OPEN) == (in_a_row >= OPENS_AFTER)
        if in_a_row >= OPENS_AFTER:
            assert OPEN_S[0] <= contact.blocked_until - AT <= OPEN_S[1]
        if outcome.retry_after is not None:
            assert contact.blocked_until >= AT + 7.0
        assert (contact.error == "") == (outcome.result == "sent")


@pytest.mark.parametrize(
    ("asked", "least"), [(0.0, 0.0), (2.0, 2.0), (3600.0, 3600.0), (1e9, RETRY_AFTER_MAX_S), (-5.0, 0.0)]
)
@pytest.mark.parametrize("result", ["retry", "refused"])
def test_a_receiver_that_asks_for_a_pause_gets_it_and_little_more(asked: float, least: float, result: Any) -> None:
    outbox = made(message("a"), message("b"))
    tries(outbox, AT, Outcome(result, "busy", retry_after=asked))
    assert outbox.take("ops", AT + least - 0.01) is None
    latest = AT + least * (1 + RETRY_AFTER_JITTER)
    assert AT + least <= (outbox.next_at("ops") or AT) <= latest
    assert outbox.take("ops", latest) is not None


def test_a_pause_survives_a_restart_but_not_a_clock_that_went_back() -> None:
    outbox = made(message())
    tries(outbox, AT, FAILED._replace(retry_after=1000.0))
    rows = {name: dict(found) for name, found in outbox.all_rows().items()}
    for at, left in ((AT, 1000.0), (AT - 1e6, RETRY_AFTER_MAX_S)):
        restored = Outbox()
        assert restored.restore(rows, at)[1] == []
        assert restored.take("ops", at + left - 1) is None
        assert restored.take("ops", at + left * (1 + RETRY_AFTER_JITTER)) is not None


def test_an_open_breaker_lets_single_attempts_through_until_one_arrives() -> None:
    outbox = made(*(message(f"g{number}") for number in range(10)))
    at = fails(outbox, OPENS_AFTER)
    assert outbox.take("ops", at + OPEN_S[0] - 1) is None
    at += OPEN_S[0]
    tries(outbox, at, FAILED)
    assert outbox.take("ops", at + 1) is None  # the pause has doubled
    at += 2 * OPEN_S[0]
    for _ in range(10):
        tries(outbox, at, SENT)
    assert len(outbox) == 0
    assert outbox.contact("ops").state is ReceiverPhase.READY


def test_the_attempt_that_is_let_through_is_not_always_the_same() -> None:
    outbox = made(message("poison"))
    at = fails(outbox, OPENS_AFTER + 3)
    outbox.put(message("new"), at)
    outbox.release()
    at = outbox.next_at("ops") or 0.0
    found = outbox.take("ops", at)
    assert found is not None
    assert found.notification.group_key == "new"


# -- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_refused_is_tried_rarely_and_delays_nothing_else() -> None:
    outbox = made(message("bad"), message("good"))
    assert [one.group_key for one in tries(outbox, AT, REFUSED)] == ["bad"]
    assert outbox.contact("ops").state is ReceiverPhase.PARKED
    tries(outbox, AT, SENT)
    assert outbox.debts()["ops"] == (1, 1, AT)
    assert outbox.take("ops", AT + PROBE_AGAIN_S - 1) is None  # something was accepted: it is tried sooner
    assert tries(outbox, AT + PROBE_AGAIN_S, REFUSED) == []  # the fallbacks know
    assert outbox.take("ops", AT + PROBE_AGAIN_S + PROBE_S - 1) is None
    tries(outbox, AT + PROBE_AGAIN_S + PROBE_S, SENT)
    assert outbox.debts() == {}


def test_of_many_that_are_refused_one_is_tried_for_all() -> None:
    outbox = made(*(message(f"g{number}") for number in range(20)))
    assert sum(len(tries(outbox, AT, REFUSED)) for _ in range(20)) == 20
    first = outbox.take("ops", AT + PROBE_S)
    assert first is not None
    outbox.note(first, REFUSED, AT + PROBE_S)
    assert outbox.take("ops", AT + PROBE_S) is None
    second = outbox.take("ops", AT + 2 * PROBE_S)
    assert second is not None
    assert second.notification != first.notification
    outbox.note(second, SENT, AT + 2 * PROBE_S)
    for _ in range(19):
        tries(outbox, AT + 2 * PROBE_S, SENT)
    assert len(outbox) == 0


def test_a_receiver_that_is_gone_gets_nothing_until_its_configuration_changes() -> None:
    outbox = made(message("a"), message("b"))
    outbox.configured("ops", "one", AT)
    assert sorted(one.group_key for one in tries(outbox, AT, GONE)) == ["a", "b"]
    assert outbox.next_at("ops") is None
    assert outbox.put(message("c"), AT).cannot == "answered 410"
    outbox.release()
    restored = Outbox()
    restored.restore({name: dict(rows) for name, rows in outbox.all_rows().items()}, AT)
    for one in (outbox, restored):
        one.configured("ops", "one", AT)
        assert one.take("ops", AT + 1e6) is None
        assert one.debts()["ops"].parked == 3
        one.configured("ops", "two", AT)
        for _ in range(3):
            tries(one, AT, SENT)


def test_one_that_is_gone_after_it_was_tried_on_demand_is_sent_to_when_its_configuration_changes() -> None:
    outbox = made(message("a"))
    outbox.configured("ops", "one", AT)
    assert outbox.try_now("ops", AT)
    tries(outbox, AT, GONE)
    assert outbox.contact("ops").state is ReceiverPhase.GONE
    outbox.configured("ops", "two", AT)
    assert [one.group_key for one in drained(outbox, AT)] == ["a"]


def test_fallbacks_of_a_page_are_told_when_the_breaker_opens_and_others_later() -> None:
    outbox = made(message("page", page=True), message("plain"))
    told = []
    at = AT
    while at < AT + 2 * UNREACHABLE_S:
        at = max(at, outbox.next_at("ops") or at)
        told += [(one.group_key, at - AT) for one in tries(outbox, at, FAILED)]
    assert [group for group, _ in told] == ["page", "plain"]
    assert told[0][1] < OPEN_S[0]
    assert told[1][1] >= UNREACHABLE_S
    assert outbox.put(message("another", page=True), at).cannot
    assert not outbox.put(message("plain too"), at).cannot


@pytest.mark.parametrize(
    ("page", "pause", "told"), [(True, 40.0, True), (True, 20.0, False), (False, 3000.0, True), (False, 200.0, False)]
)
def test_a_receiver_that_wants_to_be_left_alone_for_long_has_its_fallbacks_told(
    page: bool, pause: float, told: bool
) -> None:
    """Else one that says ``Retry-After: 3600`` each time silences a page for hours."""
    outbox, busy = (
        made(message("tried", page=page), message("waits", page=page)),
        Outcome("retry", "x", retry_after=pause),
    )
    assert {one.group_key for one in tries(outbox, AT, busy)} == ({"tried", "waits"} if told else set())
    assert bool(outbox.put(message("newer", page=page), AT + 1).cannot) is told
    outbox.release()
    later = tries(outbox, AT + 1.1 * pause, busy)
    assert {one.group_key for one in later} == (set() if told else {"tried", "waits", "newer"}), "each once"


# -- size and age -----------------------------------------------------------------------------------------------------


def test_a_message_that_is_too_large_becomes_smaller_until_it_has_only_numbers() -> None:
    large = message(alerts=tuple(alert(number, text="x" * 100) for number in range(5)))
    outbox = made(large)
    sizes, listed = [], []
    told: list[Notification] = []
    while not told:
        found = outbox.take("ops", AT)
        assert found is not None
        assert (found.notification.id, found.notification.firing) == (large.id, 5)
        sizes.append(len(msgspec.json.encode(found.notification)))
        listed.append(len(found.notification.alerts))
        told = [one for one, _ in outbox.note(found, Outcome("too_large", "answered 413"), AT)]
    assert listed == [5, 5, 2, 1, 0]
    assert all(before > after for before, after in pairwise(sizes))
    assert outbox.contact("ops").state is ReceiverPhase.PARKED


def test_nothing_can_go_from_a_message_of_numbers() -> None:
    assert smaller(message(alerts=())) is None


def test_what_is_too_old_is_given_up_and_a_page_later() -> None:
    outbox = made(message("plain"), message("page", page=True))
    assert outbox.expire(AT + EXPIRES_S - 1) == []
    assert [one.group_key for one in outbox.expire(AT + EXPIRES_S)] == ["plain"]
    assert [one.group_key for one in outbox.expire(AT + PAGE_EXPIRES_S)] == ["page"]
    assert outbox.contact("ops").lost == 2
    assert outbox.receivers() == []


def test_a_full_outbox_takes_no_more_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "WAITING_MAX", 3)
    outbox = made(*(message(f"g{number}") for number in range(3)))
    assert not outbox.put(message("g3"), AT).kept
    assert outbox.put(message("g1", id="newer"), AT).kept  # it takes the place of another
    assert (len(outbox), outbox.contact("ops").lost) == (3, 1)


def test_what_has_no_room_in_bytes_is_made_smaller_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "BYTES_MAX", 3000)
    outbox = Outbox()
    large = tuple(alert(number, text="x" * 1000) for number in range(8))
    kept = [outbox.put(message(f"g{number}", alerts=large), AT).kept for number in range(20)]
    assert kept[0]
    assert not kept[-1]
    assert sum(map(len, outbox.all_rows()["outbox"].values())) <= 3000
    monkeypatch.setattr(outbox_module, "ONE_MAX", 1000)
    assert all(len(row) <= 3000 for row in outbox.all_rows()["outbox"].values())


def test_rows_that_cannot_be_used_are_left_out_and_named() -> None:
    rows = dict(made(message("a"), message("b")).all_rows()["outbox"])
    first, second = rows
    rows[first] = b"{"
    rows["another key"] = rows[second]
    outbox = Outbox()
    found, refused = outbox.restore({"outbox": rows, "receivers": {"ops": b"[]"}}, AT)
    assert [one.notification.group_key for one in found] == ["b"]
    assert len(refused) == 3


def test_rows_for_which_there_is_no_room_are_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made(message("small"), message("large", alerts=(alert(), alert(1)))).all_rows()
    monkeypatch.setattr(outbox_module, "WAITING_MAX", 1)
    found, refused = Outbox().restore(rows, AT)
    assert [one.notification.group_key for one in found] == ["small"]
    assert refused == ["the saved notification 'ops\\nlarge' is left out: there are too many"]


# -- the whole of it --------------------------------------------------------------------------------------------------


def outcomes() -> st.SearchStrategy[Outcome]:
    results = st.sampled_from(["sent", "sent", "retry", "retry", "refused", "too_large"])
    asked = st.one_of(st.none(), st.floats(0, 5000))
    return st.builds(lambda result, after: Outcome(result, "why", after if result == "retry" else None), results, asked)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 400), st.lists(outcomes(), max_size=5))), st.randoms())
@settings(max_examples=60)
def test_nothing_is_lost_or_tried_too_soon_whatever_a_receiver_answers(
    steps: list[tuple[str, float, list[Outcome]]], chance: random.Random
) -> None:
    outbox, at, newest, asked = Outbox(chance.random), AT, dict[str, str](), 0.0
    for number, (group, pause, results) in enumerate(steps):
        at += pause
        outbox.put(message(group, id=f"m{number}", at=at, alerts=(alert(1, text="x"), alert(2))), at)
        newest[group] = f"m{number}"
        outbox.release()
        for outcome in results:
            found = outbox.take("ops", at)
            if found is None:
                following = outbox.next_at("ops")
                assert (following is None) == (not newest)
                if following is None or following <= at:
                    break
                at = following
                found = outbox.take("ops", at)
                assert found is not None, "it said that it may be tried"
            assert at >= asked, "before the receiver wants it"
            assert newest[found.notification.group_key] == found.notification.id, "an older state"
            outbox.note(found, outcome, at)
            if outcome.result == "sent":
                del newest[found.notification.group_key]
            elif outcome.retry_after is not None:
                asked = at + min(outcome.retry_after, RETRY_AFTER_MAX_S)
        restored = Outbox()
        assert restored.restore({name: dict(rows) for name, rows in outbox.all_rows().items()}, at)[1] == []
        assert restored.debts() == outbox.debts()
        assert restored.contact("ops") == outbox.contact("ops")
    assert {waiting.id for waiting in drained(outbox, at)} == set(newest.values())


def drained(outbox: Outbox, at: float) -> Iterator[Notification]:
    while (following := outbox.next_at("ops")) is not None:
        at = max(at, following)
        found = outbox.take("ops", at)
        assert found is not None
        yield found.notification
        outbox.note(found, SENT, at)
    assert len(outbox) == 0


# -- the states of a receiver -----------------------------------------------------------------------------------------


def test_each_state_has_a_name_that_people_see_and_can_be_left() -> None:
    assert {phase.value for phase in ReceiverPhase} == set(get_args(ReceiverState))
    for phase in ReceiverPhase:
        assert ReceiverPhase.READY in CONTACT.reachable(phase)
        assert phase in CONTACT.reachable(ReceiverPhase.READY)


def test_one_that_is_gone_is_left_by_a_change_only() -> None:
    with pytest.raises(IllegalTransition):
        CONTACT.step(ReceiverPhase.GONE, "sent")
