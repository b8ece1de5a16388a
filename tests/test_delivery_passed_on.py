"""Alerts that other receivers are told of: nobody acknowledged them, or the first receiver could not be told."""

from __future__ import annotations

import pytest

from pool_monitor.alerts.delivery.notification import Notification
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.routing import LogChannel, Receiver, Route
from pool_monitor.snapshot import Acknowledgement
from tests.helpers.storm import Storm

MINUTE, HOUR = 60.0, 3600.0


def receivers(**fallbacks: tuple[str, ...]) -> dict[str, Receiver]:
    names = dict.fromkeys(("ops", "boss", "mail", "sms"), ()) | fallbacks
    return {name: Receiver(name=name, channel=LogChannel(), fallback=some) for name, some in names.items()}


def routing(escalate_to: str = "boss", after: float = 15 * MINUTE, **fallbacks: tuple[str, ...]) -> Routing:
    route = Route(receiver="ops", group_by=("alertname",), escalate_after=after, escalate_to=escalate_to)
    return Routing(route, receivers(**fallbacks))


def falling_back(**fallbacks: tuple[str, ...]) -> Routing:
    return Routing(Route(receiver="ops", group_by=("alertname",), group_wait=0.0), receivers(**fallbacks))


def reasons(found: list[Notification]) -> list[tuple[str, str]]:
    return [(one.receiver, one.reason) for one in found]


def ack(storm: Storm, number: int = 1) -> None:
    storm.cover(number, acknowledged=True, acknowledgement=Acknowledgement(author="anna", comment="on it", at=storm.at))


def unack(storm: Storm, number: int = 1) -> None:
    storm.cover(number, acknowledged=False, acknowledgement=None)


# -- escalation -------------------------------------------------------------------------------------------------------


def test_what_nobody_acknowledges_reaches_the_second_receiver_once_and_so_does_its_end() -> None:
    storm = Storm(routing())
    storm.fire(1)
    assert reasons(storm.notify(30 + 15 * MINUTE - 1)) == [("ops", "first notification")]
    [found] = storm.notify(5.0)
    assert (found.receiver, found.reason, found.firing) == ("boss", "escalated", 1)
    assert found.about == "nobody acknowledged it at ops in 15m"
    assert storm.notify(2 * HOUR) == []
    name = f"{1:016x}"
    assert storm.notifier.knowledge.escalated_at(name) == found.at
    storm.end(1)
    assert reasons(storm.notify(10 * MINUTE)) == [("ops", "all alerts resolved"), ("boss", "all alerts resolved")]
    assert storm.notifier.knowledge.escalated_at(name) is None
    assert storm.notifier.next_at is None


def test_alerts_of_a_group_escalate_together() -> None:
    storm = Storm(routing())
    for number in range(5):
        storm.fire(number)
    storm.run(HOUR)
    assert [(one.firing, one.reason) for one in storm.of("boss")] == [(5, "escalated")]


def test_an_acknowledged_alert_neither_escalates_nor_repeats() -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(MINUTE)
    ack(storm)
    assert storm.notify(12 * HOUR) == []
    storm.fire(2)
    [found] = storm.notify(5 * MINUTE)
    assert (found.receiver, found.reason) == ("ops", "new alerts added"), "changes are told"
    assert {alert.labels["number"]: alert.acknowledged_by for alert in found.alerts} == {"1": "anna", "2": ""}


def test_with_one_alert_that_is_not_acknowledged_the_group_is_repeated() -> None:
    storm = Storm(routing(escalate_to="ops"))
    storm.fire(1)
    storm.fire(2)
    storm.run(MINUTE)
    ack(storm, 1)
    assert reasons(storm.notify(4 * HOUR + 5 * MINUTE)) == [("ops", "repeat interval elapsed")]


def test_an_acknowledgement_that_ends_before_the_alert_lets_it_escalate_then() -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(MINUTE)
    ack(storm)
    storm.run(HOUR)
    unack(storm)
    assert reasons(storm.notify(15.0)) == [("boss", "escalated")]


@pytest.mark.parametrize("suppressed", ["silenced", "inhibited", "muted"])
def test_what_is_suppressed_escalates_when_that_is_over(suppressed: str) -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(MINUTE)
    storm.cover(1, **{suppressed: True})
    assert storm.notify(HOUR) == []
    storm.cover(1, **{suppressed: False})
    assert reasons(storm.notify(15.0)) == [("boss", "escalated")]


def test_a_reload_neither_repeats_an_escalation_nor_puts_it_off() -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(10 * MINUTE)
    storm.use(routing(after=16 * MINUTE))
    assert reasons(storm.notify(7 * MINUTE)) == [("boss", "escalated")]
    storm.use(routing())
    assert storm.notify(HOUR) == []


def test_a_restart_neither_repeats_an_escalation_nor_puts_it_off() -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(10 * MINUTE)
    storm.restart()
    assert reasons(storm.notify(6 * MINUTE)) == [("boss", "escalated")]
    storm.restart()
    assert storm.notify(HOUR) == []
    assert storm.notifier.knowledge.escalated_at(f"{1:016x}") is not None
    storm.end(1)
    assert reasons(storm.notify(10 * MINUTE)) == [("ops", "all alerts resolved"), ("boss", "all alerts resolved")]


def test_a_receiver_that_nobody_escalates_to_any_more_is_told_the_end() -> None:
    storm = Storm(routing())
    storm.fire(1)
    storm.run(HOUR)
    gone = routing(escalate_to="sms")
    storm.use(gone._replace(receivers={name: one for name, one in gone.receivers.items() if name != "boss"}))
    found = storm.notify(10 * MINUTE)
    assert ("boss", "resolved") in [(one.receiver, one.status) for one in found]


# -- fallbacks --------------------------------------------------------------------------------------------------------


def test_when_a_receiver_refuses_its_fallback_is_told_at_once_and_hears_the_end() -> None:
    storm = Storm(falling_back(ops=("mail",)), arrives=lambda one: one.receiver != "ops")
    storm.fire(1)
    storm.run(1.0)
    storm.park()
    [found] = storm.notify()
    assert (found.receiver, found.reason, found.about) == ("mail", "fallback", "ops could not be told: HTTP 404")
    storm.arrives = lambda _: True
    storm.run(MINUTE)
    storm.end(1)
    assert reasons(storm.notify(10 * MINUTE)) == [("ops", "all alerts resolved"), ("mail", "all alerts resolved")]


def test_a_receiver_that_refuses_twice_tells_its_fallback_once() -> None:
    storm = Storm(falling_back(ops=("mail",)), arrives=lambda one: one.receiver != "ops")
    storm.fire(1)
    storm.run(1.0)
    for _ in range(5):
        storm.park()
        storm.run(5.0)
    assert len(storm.of("mail")) == 1


def test_the_next_alert_of_a_receiver_that_refuses_reaches_the_fallback_too() -> None:
    storm = Storm(falling_back(ops=("mail",)), arrives=lambda one: one.receiver != "ops")
    for number in (1, 2):
        storm.fire(number)
        storm.run(5 * MINUTE)
        storm.park()
        storm.run(5 * MINUTE)
    assert storm.believed("mail") == {f"{number:016x}" for number in (1, 2)}


def test_receivers_that_stand_in_for_each_other_make_no_circle() -> None:
    storm = Storm(falling_back(ops=("mail",), mail=("ops", "sms"), sms=("ops", "mail")), arrives=lambda _: False)
    storm.fire(1)
    for _ in range(20):
        storm.run(5.0)
        storm.park()
    assert sorted(one.receiver for one in storm.outbox.values()) == ["mail", "ops", "sms"]


def test_a_fallback_of_a_fallback_is_told() -> None:
    storm = Storm(falling_back(ops=("mail",), mail=("sms",)), arrives=lambda one: one.receiver == "sms")
    storm.fire(1)
    for _ in range(3):
        storm.run(1.0)
        storm.park()
    assert [(one.receiver, one.about) for one in storm.told] == [("sms", "mail could not be told: HTTP 404")]


def test_an_alert_that_ended_before_its_receiver_could_be_told_is_told_to_the_fallback() -> None:
    storm = Storm(falling_back(ops=("mail",)), arrives=lambda one: one.receiver != "ops")
    storm.fire(1)
    storm.run(1.0)
    storm.end(1)
    storm.run(6 * MINUTE)
    storm.park()
    [found] = storm.notify(5.0)
    assert [(alert.status, alert.delayed) for alert in found.alerts] == [("resolved", True)]


@pytest.mark.parametrize("restarts", [False, True])
def test_the_fallback_hears_an_end_once_however_often_its_receiver_refuses(restarts: bool) -> None:
    """Also what the fallback has heard already, when the message of the broken receiver is refused after that."""
    storm = Storm(falling_back(ops=("mail",)), arrives=lambda one: one.receiver != "ops")

    def refuse() -> None:
        for _ in range(3):
            storm.run(6 * MINUTE)
            storm.park()
        storm.run(6 * MINUTE)
        if restarts:
            storm.restart()

    storm.fire(1)
    refuse()
    storm.end(1)
    refuse()
    storm.fire(2)  # the next message of the group still has the end of the first
    refuse()
    storm.end(2)
    refuse()
    said = [(one.fingerprint[-1], one.status) for message in storm.of("mail") for one in message.alerts]
    assert said == [("1", "firing"), ("1", "resolved"), ("2", "firing"), ("2", "resolved")]
    storm.fire(1)
    refuse()
    storm.end(1)
    refuse()
    said = [(one.fingerprint[-1], one.status) for message in storm.of("mail") for one in message.alerts]
    assert said[4:] == [("1", "firing"), ("1", "resolved")], "a new life"


def test_an_end_that_a_receiver_cannot_be_told_is_told_to_the_fallback_once() -> None:
    storm = Storm(falling_back(ops=("mail",)))
    storm.fire(1)
    storm.run(MINUTE)
    storm.arrives = lambda one: one.receiver != "ops"
    storm.end(1)
    storm.run(6 * MINUTE)
    storm.park()
    [found] = storm.notify(5.0)
    assert (found.receiver, found.status, found.about) == ("mail", "resolved", "ops could not be told: HTTP 404")
    storm.restart()
    storm.park()
    assert storm.notify(HOUR) == []


def test_a_fallback_that_knows_the_end_is_not_told_it_again_when_the_receiver_refuses_that_too() -> None:
    storm = Storm(falling_back(ops=("mail",)), arrives=lambda one: one.receiver != "ops")
    storm.fire(1)
    storm.run(1.0)
    storm.park()
    storm.run(MINUTE)
    storm.end(1)
    storm.run(10 * MINUTE)
    storm.park()
    storm.run(HOUR)
    assert [one.status for one in storm.of("mail")] == ["firing", "resolved"]


def test_what_escalated_falls_back_too() -> None:
    storm = Storm(routing(boss=("sms",)), arrives=lambda one: one.receiver != "boss")
    storm.fire(1)
    storm.run(16 * MINUTE)
    storm.park()
    assert reasons(storm.notify(5.0)) == [("sms", "fallback")]
