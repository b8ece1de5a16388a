"""Groups beside Alertmanager: the notifier beside a port of its dispatcher, and beside the real program."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from pool_monitor.alerts.delivery import notifier as notifier_module
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.members import Member
from pool_monitor.alerts.delivery.notifier import Notifier
from pool_monitor.alerts.delivery.rate_limit import RateLimits, Ration
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.routing import LOG, Route
from pool_monitor.snapshot import AlertTransition
from tests.helpers.alertmanager_reference import AlertmanagerGroup, Change, Notified
from tests.helpers.gates import IN_GATES

WAITS, INTERVALS, REPEATS = (0.0, 0.5, 3.0, 30.0), (1.0, 2.5, 7.0, 31.0, 300.0), (0.7, 5.3, 20.9, 77.7, 3600.1)
ALERTS = tuple(f"{number:016x}" for number in range(5))
GROUPS = 60
"""In one round."""


class Plan:
    """One group with random times and random changes of its alerts."""

    def __init__(self, chance: random.Random) -> None:
        self.wait, self.interval, self.repeat = chance.choice(WAITS), chance.choice(INTERVALS), chance.choice(REPEATS)
        self.changes: list[Change] = []
        at, firing = 1_000_000.0, dict[str, float]()
        pace = self.interval * chance.choice((0.2, 0.7, 2.0))
        for _ in range(chance.randrange(4, 24)):
            at += chance.expovariate(1 / pace)
            name = chance.choice(ALERTS[: chance.randrange(1, 6)])
            if name in firing:
                self.changes.append(Change(at, name, firing.pop(name), at))
            else:
                # Between the two, Alertmanager flushes when the end is posted, if the group has not been flushed yet.
                firing[name] = at - (chance.uniform(1.01, 2.0) * self.wait if chance.random() < 0.2 else 0.0)
                self.changes.append(Change(at, name, firing[name]))
        self.until = at + min(3 * self.interval + 2 * self.repeat, 40 * self.interval)

    def expected(self) -> list[Notified]:
        group = AlertmanagerGroup(self.wait, self.interval, self.repeat, tells_unheard=False)
        return group.run(self.changes, self.until)

    def told(self) -> list[Notified]:
        route = Route(
            group_by=("alertname",),
            group_wait=self.wait,
            group_interval=self.interval,
            repeat_interval=self.repeat,
        )
        notifier, found, now = Notifier(), list[Notified](), 0.0
        notifier.use(Routing(route, {LOG.name: LOG}), 0.0)

        def up_to(at: float) -> None:
            nonlocal now
            while (due := notifier.next_at) is not None and due <= at:
                now = max(due, now)
                flush(notifier, now, found)
            now = at

        for seq, change in enumerate(self.changes, 1):
            up_to(change.at)
            flush(notifier, change.at, found)  # a settling may come at any time
            notifier.note([transition(seq, change)], change.at)
        up_to(self.until)
        return found


def flush(notifier: Notifier, at: float, found: list[Notified]) -> None:
    for one in notifier.flush(at, lambda _: None):
        assert (one.firing, one.resolved) == (
            sum(alert.status == "firing" for alert in one.alerts),
            sum(alert.status == "resolved" for alert in one.alerts),
        )
        assert one.status == ("firing" if one.firing else "resolved")
        found.append(
            Notified(
                at,
                one.reason,
                frozenset(alert.fingerprint for alert in one.alerts if alert.status == "firing"),
                frozenset(alert.fingerprint for alert in one.alerts if alert.status == "resolved"),
            )
        )
        notifier.arrived(one, at)


def transition(seq: int, change: Change) -> AlertTransition:
    fires = change.ends_at is None
    return AlertTransition(
        seq=seq,
        at=change.starts_at if change.ends_at is None else change.ends_at,
        alert="Slow",
        labels={"pool": change.alert, "severity": "warning"},
        fingerprint=change.alert,
        from_state="inactive" if fires else "firing",
        to_state="firing" if fires else "resolved",
        severity="warning",
    )


@pytest.fixture(autouse=True)
def _no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alertmanager has no rate limit."""
    monkeypatch.setattr(RateLimits, "ration", lambda self, receiver, due, at, **_: Ration(due))


def mismatches(seed: int, groups: int) -> tuple[int, Counter[str]]:
    """Return how many of so many random groups are told otherwise than by Alertmanager, and what was told how often."""
    chance, wrong, reasons = random.Random(seed), 0, Counter[str]()
    for _ in range(groups):
        plan = Plan(chance)
        expected = plan.expected()
        wrong += plan.told() != expected
        reasons.update(one.reason for one in expected)
    return wrong, reasons


ROUNDS = [pytest.param(seed, marks=IN_GATES if seed >= 5 else ()) for seed in range(60)]


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_group_is_told_when_alertmanager_tells_it_with_the_same_reasons_and_alerts(seed: int) -> None:
    wrong, reasons = mismatches(seed, GROUPS)
    assert not wrong
    assert len(reasons) == 5
    assert min(reasons.values()) > 5


def _late(self: Group, at: float) -> None:
    self.flushed, self.flush_at = True, at + self.options.group_wait


def _never_at_once(self: Group, starts_at: float, at: float) -> None:
    pass


def _in_the_middle(self: Group, made_at: float, at: float) -> None:
    self.waiting, self.arrived_no = "", self.made_no
    self.told_at = self.told_at or made_at


def _dead(self: Member, severity: str, starts_at: float) -> None:
    pass


def _forgetful(self: Member, group: Group) -> bool:
    return False


MUTATIONS: Sequence[tuple[object, str, Callable[..., object]]] = (
    (Group, "begin_flush", _late),
    (Group, "insert", _never_at_once),
    (Group, "arrived", _in_the_middle),
    (Member, "begins", _dead),
    (Member, "end_known", _forgetful),
    (Member, "owed", _forgetful),
    (notifier_module, "reason_of", lambda counts, cause: "some alerts resolved" if counts.ended else ""),
)


@pytest.mark.parametrize(("owner", "name", "broken"), MUTATIONS, ids=[name for _, name, _ in MUTATIONS])
def test_the_comparison_finds_a_notifier_that_is_broken(
    owner: object, name: str, broken: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    assert mismatches(0, 30)[0]


def test_one_alert_alone_is_told_exactly_as_by_alertmanager() -> None:
    """Where alerts that nobody heard of make no difference, the comparison needs no exception."""
    chance, compared = random.Random(7), 0
    for _ in range(100):
        plan = Plan(chance)
        pure = AlertmanagerGroup(plan.wait, plan.interval, plan.repeat).run(plan.changes, plan.until)
        if pure == plan.expected():
            compared += 1
            assert plan.told() == pure
    assert compared > 20
