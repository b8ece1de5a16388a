"""Who else is told: when nobody acknowledges an alert, and when a receiver cannot be told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.alerts.delivery.escalation import LOOK_AGAIN, LOOKS_PER_SECOND, Escalations, fallbacks_of
from pool_monitor.alerts.delivery.targets import GroupOptions, Routing, Target
from pool_monitor.alerts.routing import LogChannel, Receiver
from pool_monitor.alerts.rule import MuteTime
from pool_monitor.snapshot import AlertView
from tests.helpers.alert_samples import alert
from tests.helpers.gates import in_gates

AT = 1_700_000_000.0
AFTER = 900.0


def target(receiver: str = "ops", **changes: Any) -> Target:
    options = GroupOptions(**{"escalate_after": AFTER, "escalate_to": "boss", **changes})
    return Target(receiver, '{}:{alertname="Slow"}', {"alertname": "Slow"}, options)


class Desk:
    """Escalations, and the alerts that they look at."""

    def __init__(self) -> None:
        self.escalations = Escalations()
        self.views: dict[str, AlertView] = {}
        self.looks = 0

    def fire(self, name: str = "a", at: float = AT, to: Target | None = None) -> None:
        self.views[name] = alert(fingerprint=name)
        self.escalations.began(name, to or target(), at)

    def change(self, name: str = "a", **changes: Any) -> None:
        self.views[name] = alert(fingerprint=name, **changes)

    def due(self, at: float) -> list[tuple[str, str]]:
        return [(one.fingerprint, one.target.receiver) for one in self.escalations.due(at, self._look)]

    def _look(self, name: str) -> AlertView | None:
        self.looks += 1
        return self.views.get(name)


def test_an_alert_that_nobody_acknowledged_goes_to_another_receiver_once() -> None:
    desk = Desk()
    desk.fire()
    assert desk.escalations.next_at == AT + AFTER
    assert desk.due(AT + AFTER - 1.0) == []
    (found,) = desk.escalations.due(AT + AFTER, desk.views.get)
    assert (found.target.receiver, found.target.cause) == ("boss", "escalated")
    assert found.target.about == "nobody acknowledged it at ops in 15m"
    assert (found.target.options.group_wait, found.target.options.escalate_to) == (0.0, None)
    assert desk.due(AT + 10 * AFTER) == []
    assert desk.escalations.next_at is None


def test_what_is_acknowledged_goes_when_that_ends_before_the_alert() -> None:
    desk = Desk()
    desk.fire()
    desk.change(acknowledged=True)
    assert desk.due(AT + AFTER) == []
    assert desk.escalations.next_at == AT + AFTER + LOOK_AGAIN
    desk.change()
    assert desk.due(AT + AFTER + LOOK_AGAIN) == [("a", "boss")]


def test_what_is_suppressed_goes_when_that_is_over() -> None:
    for suppressed in ("silenced", "inhibited", "muted"):
        desk = Desk()
        desk.fire()
        desk.change(**{suppressed: True})
        assert desk.due(AT + AFTER) == []
        desk.change()
        assert desk.due(AT + AFTER + LOOK_AGAIN) == [("a", "boss")]


def test_in_the_mute_time_of_a_route_nothing_goes_further() -> None:
    desk = Desk()
    desk.fire(to=target(mute=(MuteTime(days=tuple(range(7)), start=0, end=1440),)))
    assert desk.due(AT + AFTER) == []


def test_an_alert_that_ended_goes_nowhere() -> None:
    desk = Desk()
    desk.fire()
    desk.escalations.ended("a")
    assert desk.escalations.next_at is None
    desk.fire("b")
    del desk.views["b"]
    assert desk.due(AT + AFTER) == []


def test_an_alert_that_flaps_fires_for_receivers() -> None:
    desk = Desk()
    desk.fire()
    desk.change(state="resolved", flapping=True)
    assert desk.due(AT + AFTER) == [("a", "boss")]


def test_a_reload_neither_repeats_nor_restarts_it() -> None:
    desk = Desk()
    desk.fire()
    desk.fire()
    assert desk.due(AT + AFTER) == [("a", "boss")]
    desk.fire()
    assert desk.due(AT + 3 * AFTER) == []


def test_a_reload_may_change_when_and_to_whom_it_goes() -> None:
    desk = Desk()
    desk.fire()
    desk.fire(to=target(escalate_after=60.0, escalate_to="chief"))
    assert desk.due(AT + 60.0) == [("a", "chief")]
    desk.fire("b")
    desk.fire("b", to=target(escalate_after=None, escalate_to=None))
    assert desk.escalations.next_at is None


def test_alerts_that_come_and_go_leave_nothing_behind() -> None:
    desk = Desk()
    for number in range(2000):
        desk.fire(at=AT + number)
        desk.escalations.ended("a")
    assert len(desk.escalations._times) <= 100
    assert desk.escalations.next_at is None
    for _ in range(300):
        desk.escalations.begin_again()
        desk.fire()
    assert len(desk.escalations._times) == 1


def test_after_a_restart_what_has_escalated_does_not_again() -> None:
    for first in (True, False):
        desk = Desk()
        further = target().passed_on("boss", "escalated", "words")
        if first:
            desk.escalations.escalated("a", further)
        desk.fire()
        if not first:
            desk.escalations.escalated("a", further)
        assert desk.due(AT + AFTER) == []


def test_the_next_life_escalates_again() -> None:
    desk = Desk()
    desk.fire()
    assert desk.due(AT + AFTER)
    desk.escalations.ended("a")
    desk.fire(at=AT + 2 * AFTER)
    assert desk.due(AT + 3 * AFTER) == [("a", "boss")]


def test_nobody_is_asked_to_stand_in_for_themselves() -> None:
    desk = Desk()
    desk.fire(to=target("boss"))
    assert desk.escalations.next_at is None


@pytest.mark.parametrize("alerts", [2_000, in_gates(10_000)])
def test_thousands_of_silenced_alerts_are_looked_at_in_turn(alerts: int) -> None:
    desk = Desk()
    for number in range(alerts):
        desk.fire(f"{number}")
        desk.change(f"{number}", silenced=True)
    at, ends = AT + AFTER, AT + AFTER + 600.0
    while at < ends:
        assert desk.due(at) == []
        at = max(desk.escalations.next_at or ends, at + 1.0)
    assert desk.looks <= alerts + 600 * LOOKS_PER_SECOND + alerts


def routing(**fallbacks: tuple[str, ...]) -> Routing:
    return Routing(
        receivers={name: Receiver(name=name, channel=LogChannel(), fallback=some) for name, some in fallbacks.items()}
    )


def test_the_fallbacks_of_a_receiver_are_told_why() -> None:
    found = fallbacks_of(routing(ops=("mail", "log", "gone"), mail=(), log=()), target(), "HTTP 404")
    assert [one.receiver for one in found] == ["mail", "log"]
    assert {(one.cause, one.about) for one in found} == {("fallback", "ops could not be told: HTTP 404")}


def test_a_receiver_that_is_gone_has_no_fallback() -> None:
    assert fallbacks_of(Routing(), target("old"), "HTTP 410") == []


@given(
    st.dictionaries(
        st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=4, unique=True).map(tuple), min_size=1
    ),
    st.sampled_from("abcdef"),
)
def test_receivers_that_all_fail_are_each_told_once(fallbacks: dict[str, tuple[str, ...]], first: str) -> None:
    found: set[tuple[str, str]] = set()
    todo = [target(first)]
    while todo:
        for one in fallbacks_of(routing(**fallbacks), todo.pop(), "HTTP 404"):
            if (one.receiver, one.group_key) not in found:
                found.add((one.receiver, one.group_key))
                todo.append(one)
    reachable: set[str] = set()
    todo_names = [first]
    while todo_names:
        fresh = set(fallbacks.get(todo_names.pop(), ())) & set(fallbacks) - reachable
        reachable |= fresh
        todo_names += fresh
    assert sorted(receiver for receiver, _ in found) == sorted(reachable - {first})
