"""What receivers are told when alerts, overlays, routes and services change."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from msgspec.structs import replace

from pool_monitor.alerts.delivery import ledger
from pool_monitor.alerts.delivery.accounts import Accounts
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.notification import Notification
from pool_monitor.alerts.delivery.targets import GroupOptions, Routing
from pool_monitor.alerts.overlays.mute import local_time
from pool_monitor.alerts.routing import LogChannel, Receiver, Route
from pool_monitor.alerts.rule import Matcher, MuteTime
from pool_monitor.snapshot import AlertTransition
from tests.helpers.storm import START, Storm, all_of

Told = tuple[str, str, str, tuple[str, ...]]
RECEIVERS = {name: Receiver(name=name, channel=LogChannel()) for name in ("ops", "post", "pager")}
INTERVAL = 300.0


def routing(
    receiver: str = "ops", *routes: Route, by: tuple[str, ...] = (), mute: tuple[MuteTime, ...] = ()
) -> Routing:
    return Routing(Route(receiver=receiver, group_by=by, group_wait=30.0, mute=mute, routes=routes), RECEIVERS)


def told(found: Sequence[Notification]) -> list[Told]:
    """Say of each notification: receiver, status, reason, and its alerts with what is special about them."""
    return [
        (
            one.receiver,
            one.status,
            one.reason,
            tuple(
                f"{int(alert.fingerprint)} {alert.status}{' delayed' * alert.delayed} {alert.reason}".strip()
                for alert in one.alerts
            ),
        )
        for one in found
    ]


FIRST = ("ops", "firing", "first notification", ("1 firing",))
ENDED = ("ops", "resolved", "all alerts resolved", ("1 resolved",))


@pytest.mark.parametrize("cover", ["silenced", "inhibited", "muted"])
def test_who_was_told_the_beginning_is_told_the_end_while_the_alert_is_suppressed(cover: str) -> None:
    storm = Storm(routing())
    storm.fire(1)
    assert told(storm.notify(40.0)) == [FIRST]
    storm.cover(1, **{cover: True})
    assert storm.notify(2 * INTERVAL) == []
    storm.end(1)
    assert told(storm.notify(2 * INTERVAL)) == [ENDED]


@pytest.mark.parametrize("cover", ["silenced", "inhibited", "muted"])
def test_what_is_suppressed_is_told_when_that_is_over_and_not_at_all_if_it_ended_before(cover: str) -> None:
    storm = Storm(routing())
    for number in (1, 2):
        storm.fire(number)
        storm.cover(number, **{cover: True})
    assert storm.notify(40.0) == []
    storm.end(2)
    assert storm.notify(INTERVAL) == []
    storm.cover(1, **{cover: False})
    assert told(storm.notify(INTERVAL)) == [FIRST]
    assert storm.explain(1).status == "told"


def test_a_route_tells_nothing_in_its_mute_time_but_an_end() -> None:
    minute = local_time(START).minute
    now = MuteTime(days=tuple(range(7)), start=minute, end=(minute + 60) % 1440)
    storm = Storm(routing(mute=(now,)))
    storm.fire(1)
    assert storm.notify(40.0) == []
    assert storm.explain(1).status == "muted"
    storm.use(routing())
    assert told(storm.notify(INTERVAL)) == [FIRST]
    storm.use(routing(mute=(now,)))
    storm.end(1)
    assert told(storm.notify(INTERVAL)) == [ENDED]


def change(storm: Storm, to: str, reason: str) -> None:
    view = storm.views.pop("0" * 15 + "1")
    storm.notifier.note(
        [
            AlertTransition(
                seq=1000,
                at=storm.at,
                alert=view.alertname,
                labels=view.labels,
                fingerprint=view.fingerprint,
                from_state="firing",
                to_state=to,  # type: ignore[arg-type]
                severity=view.severity,
                reason=reason,
            )
        ],
        storm.at,
    )


@pytest.mark.parametrize(
    ("to", "reason", "said"),
    [("resolved", "rule_removed", "rule_removed"), ("pending", "", "rule_changed"), ("resolved", "no_data", "no_data")],
)
def test_the_end_of_an_alert_says_why_it_ended(to: str, reason: str, said: str) -> None:
    """The alert is not known any more when it is told."""
    storm = Storm(routing())
    storm.fire(1)
    storm.run(40.0)
    change(storm, to, reason)
    assert told(storm.notify(INTERVAL)) == [("ops", "resolved", "all alerts resolved", (f"1 resolved {said}",))]
    assert storm.notifier.next_at is None


def test_what_was_not_delivered_and_is_over_is_one_message_also_after_a_restart() -> None:
    storm = Storm(routing(), arrives=lambda _: False)
    storm.fire(1)
    assert storm.notify(40.0) == []
    assert storm.explain(1).status == "owed"
    storm.restart()
    storm.end(1)
    storm.run(INTERVAL)
    storm.arrives = lambda _: True
    assert told(storm.notify(1.0)) == [("ops", "resolved", "all alerts resolved", ("1 resolved delayed",))]


def test_an_alert_that_the_engine_has_lost_in_a_restart_ends_for_its_receivers() -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(40.0)
    del storm.views["0" * 15 + "1"]
    storm.restart()
    assert told(storm.notify(INTERVAL)) == [("ops", "resolved", "all alerts resolved", ("1 resolved state_lost",))]


def test_a_restart_and_the_same_routes_say_nothing_and_keep_the_times() -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(40.0)
    before = storm.notifier.next_at
    storm.restart()
    storm.use(routing())
    assert storm.notifier.next_at == before
    assert storm.notify(3 * 3600.0) == []
    assert [one.reason for one in storm.notify(2 * 3600.0)] == ["repeat interval elapsed"]


def test_times_of_an_earlier_life_are_not_later_than_they_can_be() -> None:
    """The wall clock was set back by a day while the service was not running."""
    storm = Storm(routing())
    storm.fire(1)
    storm.run(40.0)
    storm.at -= 86_400.0
    storm.restart()
    assert storm.notifier.next_at is not None
    assert storm.notifier.next_at <= storm.at + INTERVAL


def test_a_level_is_told_where_the_beginning_was_and_where_the_level_belongs() -> None:
    critical = Route(match=(Matcher("severity", "critical"),), receiver="pager")
    storm = Storm(routing("ops", critical))
    storm.fire(1)
    storm.run(40.0)
    storm.fire(1, severity="critical")
    assert told(storm.notify(1.0)) == [("pager", "firing", "first notification", ("1 firing",))]
    assert told(storm.notify(INTERVAL)) == [("ops", "firing", "level changed", ("1 firing",))]
    storm.use(routing("ops", replace(critical, group_interval=60.0)))  # another route for the same receivers
    assert storm.notify(INTERVAL) == []
    storm.end(1)
    assert {one[0] for one in told(storm.notify(INTERVAL))} == {"ops", "pager"}


def test_another_group_of_the_same_receiver_takes_over_what_was_told() -> None:
    storm = Storm(routing(by=("alertname",)))
    for number in (1, 2):
        storm.fire(number)
    storm.run(40.0)
    storm.use(routing(by=("number",)))
    assert storm.notify(2 * INTERVAL) == []
    storm.end(1)
    assert told(storm.notify(INTERVAL)) == [ENDED]
    storm.use(routing(by=("alertname",)))
    assert storm.notify(INTERVAL) == []
    assert storm.believed("ops") == {"0" * 15 + "2"}


def test_a_receiver_that_no_route_leads_to_any_more_is_told_so_and_the_new_one_is_told_what_fires() -> None:
    storm = Storm(routing("ops"))
    storm.fire(1)
    storm.run(40.0)
    storm.use(routing("post"))
    assert sorted(told(storm.notify(INTERVAL))) == [
        ("ops", "resolved", "all alerts resolved", ("1 resolved route_changed",)),
        ("post", "firing", "first notification", ("1 firing",)),
    ]
    storm.end(1)
    assert [one[:2] for one in told(storm.notify(INTERVAL))] == [("post", "resolved")]


@pytest.mark.parametrize("by", [(), ("number",)])
def test_the_same_routes_say_nothing_when_an_alert_is_worse_than_when_it_came_to_its_receiver(
    by: tuple[str, ...],
) -> None:
    """It joined as critical. Then ops got it as a warning alone, by other routes; and then it became critical again."""
    pages = Route(receiver="pager", match=(Matcher("severity", "critical"),))
    storm = Storm(routing("ops", replace(pages, goes_on=True), Route(receiver="ops")))
    storm.fire(1, severity="critical")
    storm.run(40.0)
    storm.fire(1, severity="warning")
    storm.run(INTERVAL)
    storm.use(routing("ops", pages, by=by))
    storm.fire(1, severity="critical")
    storm.run(2 * INTERVAL)
    storm.use(routing("ops", pages, by=by))
    assert storm.notify(2 * INTERVAL) == []
    assert storm.believed("ops") == storm.believed("pager") == {"0" * 15 + "1"}


def test_a_group_that_moves_waits_for_a_message_that_is_under_way() -> None:
    """Else the beginning could arrive after the end, in the old group."""
    storm = Storm(routing(by=("alertname",)), arrives=lambda _: False)
    storm.fire(1)
    storm.run(40.0)
    storm.use(routing(by=("number",)))
    assert storm.notifier.unreconciled is False
    storm.arrives = lambda _: True
    assert told(storm.notify(1.0)) == [FIRST]
    assert storm.notifier.unreconciled
    storm.use(routing(by=("number",)))
    storm.end(1)
    (end,) = storm.notify(INTERVAL)
    assert end.group_key == '{}:{number="1"}'


def test_transitions_that_are_noted_twice_count_once() -> None:
    """A settling may be cancelled and done again."""
    storm = Storm(routing())
    storm.fire(1)
    once = list(storm._untold)
    storm.run(40.0)
    storm.end(1)
    storm.run(INTERVAL)
    storm.notifier.note(once, storm.at)
    assert storm.notifier.next_at is None


def test_what_is_given_up_is_told_anew_if_it_is_still_true() -> None:
    storm = Storm(routing(), arrives=lambda _: False)
    storm.fire(1)
    storm.run(40.0)
    ((key, one),) = storm.outbox.items()
    del storm.outbox[key]
    storm.notifier.lost(one)
    storm.arrives = lambda _: True
    (again,) = storm.notify(INTERVAL)
    assert told([again]) == [FIRST]
    assert again.id != one.id


@pytest.mark.parametrize("why", ["given up", "silenced"])
def test_a_level_that_did_not_arrive_is_owed_and_told_when_it_can_be(why: str) -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(40.0)
    storm.arrives = lambda _: False
    storm.fire(1, severity="critical")
    storm.run(INTERVAL)
    assert storm.explain(1).status == "owed"
    if why == "given up":
        (one,) = storm.outbox.values()
        storm.outbox.clear()
        storm.notifier.lost(one)
    else:
        storm.cover(1, silenced=True)
        storm.fire(2)  # its message takes the place of the one that waits
        storm.run(INTERVAL)
    storm.arrives = lambda _: True
    storm.run(1.0)
    storm.cover(1, silenced=False)
    found = storm.notify(2 * INTERVAL)
    assert [one.reason for one in found] == ["level changed"]
    assert [alert.severity for alert in found[0].alerts if alert.labels["number"] == "1"] == ["critical"]
    assert storm.explain(1).status == "told"


def test_damaged_rows_are_left_out_and_named_and_what_they_told_is_told_again() -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(40.0)
    rows = {table: dict(found) for table, found in storm.notifier.all_rows().items()}
    for value in (b"{", b'{"number":7}', b"[]"):
        saved = {"groups": dict.fromkeys(rows["groups"], value), "told": rows["told"]}
        other = Storm(routing())
        refused = other.notifier.restore(saved, storm.at)  # type: ignore[arg-type]
        assert len(refused) == 2
        assert all("is left out: it is damaged" in why for why in refused)
        assert other.notifier.take_changes() == {"groups": {"1": None}, "told": {"1/0000000000000001": None}}


@pytest.mark.parametrize(
    ("table", "key", "row"),
    [
        ("groups", "1", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("outbox", "ops\n{}", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("receivers", "ops", b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        ("told", "9" * 5000 + "/0000000000000001", None),
        ("told", "01/0000000000000001", None),
    ],
    ids=["deep group", "deep notification", "deep receiver", "long number", "another spelling"],
)
def test_no_row_keeps_a_service_from_starting(table: str, key: str, row: bytes | None) -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(40.0)
    rows = {name: dict(found) for name, found in storm.notifier.all_rows().items()}
    rows.setdefault(table, {})[key] = row or rows["told"]["1/0000000000000001"]
    assert len(Accounts().restore(rows, storm.at)) in (1, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [{"fire_no": 10**18}, {"fire_no": 2, "end_no": 1}, {"end_no": 10**18}])
def test_an_end_is_told_once_whatever_number_is_saved(numbers: dict[str, int]) -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(40.0)
    rows = {name: dict(found) for name, found in storm.notifier.all_rows().items()}
    ((key, row),) = rows["told"].items()
    rows["told"][key] = msgspec.json.encode({**msgspec.json.decode(row or b""), **numbers})
    other = Storm(routing())
    other.notifier.restore(rows, other.at)  # type: ignore[arg-type]
    other.use(routing())
    assert [one.status for one in other.notify(10 * INTERVAL)] == ["resolved"]


def test_a_notification_is_not_made_while_the_one_before_is_being_sent() -> None:
    storm = Storm(routing())
    storm.delivers = False
    storm.fire(1)
    storm.run(40.0)
    ((key, one),) = storm.outbox.items()
    storm.notifier.sending(one)
    storm.end(1)
    storm.run(INTERVAL)
    assert storm.outbox == {key: one}
    all_of(storm.notifier.failing(one, unsure=True))
    storm.settle()
    assert told(storm.outbox.values()) == [("ops", "resolved", "all alerts resolved", ("1 resolved delayed",))]  # type: ignore[arg-type]


def test_there_are_at_most_so_many_members_and_those_left_out_join_when_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "MEMBERS_MAX", 3)
    storm = Storm(routing())
    for number in range(5):
        storm.fire(number)
    assert [one.firing for one in storm.notify(40.0)] == [3]
    assert storm.notifier.unreconciled
    storm.end(0)
    storm.end(1)
    storm.run(INTERVAL)
    storm.use(routing())
    assert [one.firing for one in storm.notify(INTERVAL)] == [3]
    assert len(storm.believed("ops")) == 3


def test_a_group_flushes_at_the_times_of_its_options() -> None:
    group = Group(number=1, receiver="ops", key="{}:{}", labels={}, options=GroupOptions(), flush_at=30.0)
    group.insert(0.0, 10.0)
    assert group.flush_at == 30.0
    group.insert(-21.0, 10.0)  # it has fired for longer than group_wait
    assert group.flush_at == 10.0
    group.begin_flush(10.0)
    group.insert(-100.0, 20.0)
    assert group.flush_at == 10.0 + INTERVAL
