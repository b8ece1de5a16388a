"""An alert that flaps: one notice that it does, and one of what it has settled to."""

from __future__ import annotations

from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.routing import LogChannel, Receiver, Route
from tests.helpers.storm import Storm

MINUTE, HOUR = 60.0, 3600.0


def storm() -> Storm:
    ops = Receiver(name="ops", channel=LogChannel())
    found = Storm(Routing(Route(receiver="ops", repeat_interval=24 * HOUR), {"ops": ops}))
    found.fire(1)
    found.run(MINUTE)
    assert [one.reason for one in found.told] == ["first notification"]
    return found


def flap(found: Storm, times: int = 3) -> None:
    for _ in range(times):
        found.end(1)
        found.cover(1, flapping=True, changes=6)
        found.run(MINUTE)
        found.fire(1)
        found.cover(1, flapping=True, changes=6)
        found.run(MINUTE)


def test_one_notice_says_that_it_flaps_and_holds_it_firing() -> None:
    found = storm()
    flap(found, times=10)
    [notice] = found.told[1:]
    [alert] = notice.alerts
    assert (notice.reason, notice.status, alert.status, alert.flapping) == ("flapping", "firing", "firing", True)
    assert alert.summary.startswith("changed 6 times lately")
    assert found.explain(1).status == "flapping"


def test_it_is_held_firing_also_while_it_does_not_fire() -> None:
    found = storm()
    found.end(1)
    found.cover(1, flapping=True, changes=5)
    found.run(9 * MINUTE)
    [notice] = found.told[1:]
    assert [(alert.status, alert.ends_at) for alert in notice.alerts] == [("firing", None)]


def test_what_has_settled_to_firing_is_not_told_again() -> None:
    found = storm()
    flap(found)
    found.cover(1, flapping=False, changes=0)
    assert found.notify(HOUR) == []


def test_what_has_settled_to_resolved_is_told_once() -> None:
    found = storm()
    flap(found)
    found.end(1)
    found.cover(1, flapping=True, changes=6)
    assert found.notify(4 * MINUTE) == []
    found.cover(1, flapping=False, changes=0)
    assert [one.reason for one in found.notify(HOUR)] == ["all alerts resolved"]
    assert found.notifier.next_at is None


def test_what_has_been_over_for_two_intervals_is_told_though_it_flaps_by_its_score() -> None:
    found = storm()
    flap(found)
    found.end(1)
    found.cover(1, flapping=True, changes=6)
    assert found.notify(9 * MINUTE) == []
    assert [one.reason for one in found.notify(6 * MINUTE)] == ["all alerts resolved"]
    found.fire(1)
    found.cover(1, flapping=True, changes=7)
    assert [one.reason for one in found.notify(MINUTE)] == ["flapping"]


def test_a_worse_level_is_told_while_it_flaps_and_a_better_one_is_not() -> None:
    found = storm()
    flap(found)
    found.told.clear()
    found.fire(1, severity="critical")
    found.cover(1, flapping=True, changes=6)
    assert [one.reason for one in found.notify(10 * MINUTE)] == ["level changed"]
    found.fire(1, severity="warning")
    found.cover(1, flapping=True, changes=6)
    assert found.notify(HOUR) == []


def test_it_is_told_again_that_it_flaps_when_it_does_so_again() -> None:
    found = storm()
    flap(found)
    found.cover(1, flapping=False, changes=0)
    found.run(10 * MINUTE)
    flap(found)
    assert [one.reason for one in found.told] == ["first notification", "flapping", "flapping"]


def test_an_alert_that_flaps_when_it_is_first_told_is_told_as_such() -> None:
    found = storm()
    found.end(1)
    found.run(10 * MINUTE)
    found.told.clear()
    found.fire(1)
    found.cover(1, flapping=True, changes=4)
    assert [one.reason for one in found.notify(HOUR)] == ["flapping"]


def test_a_silenced_alert_that_flaps_is_told_when_the_silence_is_over() -> None:
    found = storm()
    flap(found, times=1)
    found.told.clear()
    found.cover(1, silenced=True)
    assert found.notify(HOUR) == []
    found.cover(1, silenced=False)
    assert [one.reason for one in found.notify(10 * MINUTE)] == ["flapping"]
