"""Storms: more alerts than anybody wants to be told of one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.delivery.notification import Notification
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.routing import AlertmanagerApi, LogChannel, Receiver, Route, Secret
from pool_monitor.alerts.rule import Matcher
from tests.helpers.gates import in_gates
from tests.helpers.storm import Storm, all_of

MINUTE, HOUR = 60.0, 3600.0


def routing(*, group_wait: float = 30.0, fallback: tuple[str, ...] = (), **options: object) -> Routing:
    """Return a routing with a group for each alert: ``critical`` goes to ``pager``, the others to ``ops``."""
    route = Route(
        receiver="ops",
        group_by=("number",),
        group_wait=group_wait,
        routes=(Route(receiver="pager", match=(Matcher("severity", "critical"),)),),
        **options,  # type: ignore[arg-type]
    )
    return Routing(
        route,
        {
            "ops": Receiver(name="ops", channel=LogChannel(), fallback=fallback),
            "pager": Receiver(name="pager", channel=LogChannel(), page=True),
            "boss": Receiver(name="boss", channel=LogChannel()),
            "mail": Receiver(name="mail", channel=LogChannel()),
        },
    )


def all_firing(one: Notification) -> int:
    return one.firing


@pytest.mark.parametrize(("alerts", "over_s"), [(2_000, 0), in_gates(10_000, 0), in_gates(10_000, 60)])
def test_thousands_of_alerts_lead_to_two_messages_a_minute_and_the_true_state(alerts: int, over_s: int) -> None:
    storm = Storm(routing())
    for number in range(alerts):
        storm.fire(number)
        if over_s and number % 800 == 799:
            storm.run(5.0)
    storm.run(10 * MINUTE)
    assert sum(one.firing for one in storm.of("ops")) == alerts
    assert max(storm.per_minute("ops").values()) <= 2
    before = len(storm.of("ops"))
    for number in range(alerts):
        storm.end(number)
    storm.run(10 * MINUTE)
    after = storm.of("ops")[before:]
    assert sum(one.resolved for one in after) == alerts
    assert (after[-1].status, after[-1].firing) == ("resolved", 0)
    assert max(storm.per_minute("ops").values()) <= 2
    assert storm.notifier.next_at is None, "nothing is left to do"


def test_a_quiet_service_is_told_of_each_alert_by_itself() -> None:
    storm = Storm(routing())
    for number in range(12):
        storm.fire(number)
    storm.run(MINUTE)
    assert [one.reason for one in storm.of("ops")] == ["first notification"] * 12


def test_a_slow_storm_passes_twelve_messages_and_then_digests() -> None:
    storm = Storm(routing(group_wait=0.0))
    for number in range(600):
        storm.fire(number)
        storm.run(1.0, every=1.0)
    found = storm.of("ops")
    single = [one for one in found if one.reason != "digest"]
    assert len(single) >= 12
    assert storm.per_minute("ops")[5] <= 2
    storm.run(5 * MINUTE)
    assert storm.believed("ops") == set(storm.views)


def test_what_fires_and_ends_while_it_is_held_back_is_told_both_ways_or_not_at_all() -> None:
    storm = Storm(routing(group_wait=0.0))
    for number in range(100):
        storm.fire(number)
    storm.run(5.0)
    for number in range(100, 150):
        storm.fire(number)
    storm.run(5.0)
    for number in range(100, 150):
        storm.end(number)
    storm.run(10 * MINUTE)
    for one in storm.of("ops"):
        for alert in one.alerts:
            if int(alert.labels["number"]) >= 100:
                assert (alert.status, alert.delayed) == ("resolved", True)
    assert storm.believed("ops") == {f"{number:016x}" for number in range(100)}


def test_a_digest_counts_as_told_so_nothing_is_repeated_before_its_time() -> None:
    storm = Storm(routing(repeat_interval=HOUR))
    for number in range(50):
        storm.fire(number)
    storm.run(HOUR)
    assert [one.reason for one in storm.of("ops")] == ["digest"]
    storm.run(10 * MINUTE)
    assert [one.firing for one in storm.of("ops")] == [50, 50]


def test_pages_are_delayed_and_sent_the_worst_first_and_never_put_together() -> None:
    storm = Storm(routing(group_wait=0.0))
    for number in range(100):
        storm.fire(number, severity="critical")
    storm.run(12 * MINUTE)
    found = storm.of("pager")
    assert len(found) == 100
    assert all(len(groups) == 1 for groups in storm.by_group("pager").values())
    assert max(storm.per_minute("pager").values()) <= 24
    assert all(count <= 13 for minute, count in storm.per_minute("pager").items() if minute)
    assert storm.of("ops") == []


def test_a_page_that_ended_before_it_was_sent_is_one_delayed_message() -> None:
    storm = Storm(routing(group_wait=0.0))
    for number in range(40):
        storm.fire(number, severity="critical")
    storm.run(5.0)
    for number in range(40):
        storm.end(number)
    storm.run(HOUR)
    found = storm.by_group("pager")
    assert len(found) == 40
    for messages in found.values():
        alerts = [alert for one in messages for alert in one.alerts]
        assert [(one.status, one.delayed) for one in alerts] in (
            [("firing", False), ("resolved", False)],
            [("resolved", True)],
        )


def test_a_receiver_that_is_down_is_not_flooded_when_it_works_again() -> None:
    works = False
    storm = Storm(routing(group_wait=0.0), arrives=lambda _: works)
    for number in range(200):
        storm.fire(number)
        storm.run(20.0)
    assert len(storm.outbox) <= 13
    works = True
    storm.run(2 * MINUTE)
    assert len(storm.of("ops")) <= 14
    for number in range(200):
        storm.end(number)
    storm.run(HOUR)
    assert sum(one.resolved for one in storm.of("ops")) == 200


def test_an_alertmanager_that_is_down_leaves_room_in_the_outbox_and_learns_everything_later() -> None:
    api = Receiver(name="am", channel=AlertmanagerApi(url=Secret("http://am")))
    storm = Storm(Routing(Route(receiver="am"), {"am": api}), arrives=lambda _: False)
    for number in range(1100):
        storm.fire(number)
    storm.run(MINUTE)
    assert len(storm.outbox) == 1000
    for number in range(1050, 1100):
        storm.end(number)
    storm.arrives = lambda _: True
    storm.run(MINUTE)
    assert storm.believed("am") == {f"{number:016x}" for number in range(1050)}
    assert all(one.reason != "digest" for one in storm.told)


def test_a_digest_that_has_not_arrived_is_replaced_by_one_that_tells_everything() -> None:
    storm = Storm(routing(group_wait=0.0), arrives=lambda _: False)
    for number in range(50):
        storm.fire(number)
    storm.run(5.0)
    for number in range(50, 60):
        storm.fire(number)
    for number in range(10):
        storm.end(number)
    storm.run(2 * MINUTE)
    [waiting] = storm.outbox.values()
    assert (waiting.reason, waiting.firing, waiting.resolved, waiting.groups) == ("digest", 50, 10, 60)
    assert all(alert.delayed for alert in waiting.alerts if alert.status == "resolved")
    storm.arrives = lambda _: True
    storm.run(1.0)
    assert storm.believed("ops") == {f"{number:016x}" for number in range(10, 60)}


def sending_a_digest() -> tuple[Storm, Notification]:
    """Fifty alerts in as many groups, and the digest of them, which is under way."""
    storm = Storm(routing(group_wait=0.0))
    storm.delivers = False
    for number in range(50):
        storm.fire(number)
    storm.run(1.0)
    [digest] = storm.outbox.values()
    storm.notifier.sending(digest)
    return storm, digest


def test_nothing_is_made_while_a_digest_is_being_sent() -> None:
    storm, digest = sending_a_digest()
    for number in range(50, 60):
        storm.fire(number)
    storm.run(10 * MINUTE)
    assert list(storm.outbox.values()) == [digest]
    all_of(storm.notifier.failing(digest, unsure=True))
    storm.run(MINUTE)
    [newer] = storm.outbox.values()
    assert (newer.id != digest.id, newer.groups) == (True, 60)


def test_what_a_digest_may_have_told_is_told_to_have_ended() -> None:
    storm, digest = sending_a_digest()
    all_of(storm.notifier.failing(digest, unsure=True))
    for number in range(50):
        storm.end(number)
    storm.run(10 * MINUTE)
    [newer] = storm.outbox.values()
    assert (newer.firing, newer.resolved) == (0, 50)


Step = tuple[str, int, float]


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("fire"), st.integers(0, 59), st.integers(1, 30).map(float)),
            st.tuples(st.just("end"), st.integers(0, 59), st.integers(1, 30).map(float)),
            st.tuples(st.just("run"), st.just(0), st.floats(0.0, 200.0)),
            st.tuples(st.just("down"), st.integers(0, 1), st.just(0.0)),
            st.tuples(st.just("restart"), st.just(0), st.just(0.0)),
        ),
        max_size=40,
    ),
    page=st.booleans(),
)
def test_whatever_is_held_back_every_receiver_believes_the_truth_at_the_end(steps: list[Step], page: bool) -> None:
    works = True
    severity = "critical" if page else "warning"
    receiver = "pager" if page else "ops"
    storm = Storm(routing(group_wait=5.0), arrives=lambda _: works)
    firing: set[int] = set()
    for what, first, amount in steps:
        some = {number % 60 for number in range(first, first + int(amount))}
        if what == "fire":
            for number in sorted(some - firing):
                storm.fire(number, severity=severity)
            firing |= some
        elif what == "end":
            for number in sorted(some & firing):
                storm.end(number)
            firing -= some
        elif what == "run":
            storm.run(amount)
        elif what == "restart":
            storm.settle()
            storm.restart()
        else:
            works = not first
    works = True
    storm.run(2 * HOUR, every=60.0)
    assert storm.believed(receiver) == {f"{number:016x}" for number in firing}
    assert storm.outbox == {}
    assert all(told.status == "told" for number in firing for told in [storm.explain(number)])
    for one in storm.told:
        assert (one.firing, one.resolved) == (
            sum(alert.status == "firing" for alert in one.alerts),
            sum(alert.status == "resolved" for alert in one.alerts),
        )
        assert (one.group_key == "") == (one.reason == "digest")
    assert not (page and any(one.reason == "digest" for one in storm.told))


def test_a_digest_arrives_in_small_steps_and_nothing_newer_is_made_between_them() -> None:
    storm = Storm(routing(group_wait=0.0))
    storm.delivers = False
    for number in range(80):
        storm.fire(number)
    storm.run(1.0)
    [digest] = storm.outbox.values()
    storm.notifier.sending(digest)
    storm.notifier.take_changes()
    for number in range(80, 90):
        storm.fire(number)
    arriving, steps = storm.notifier.arriving(digest, storm.at), 0
    storm.told.append(digest)
    for _ in arriving:
        assert len(storm.notifier.take_changes()["groups"]) <= 2 * 20
        storm.run(MINUTE)
        assert list(storm.outbox.values()) == [digest], "nothing newer is made"
        storm.notifier.take_changes()
        steps += 1
    assert steps >= 3
    storm.outbox.clear()
    storm.delivers = True
    storm.run(MINUTE)
    assert storm.believed("ops") == {f"{number:016x}" for number in range(90)}
    assert storm.notifier.next_at != 0.0
