"""Groups beside Alertmanager: the notifier beside a port of its dispatcher, and beside the real program."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from pool_monitor.alerts.delivery import notifier as notifier_module
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.members import Member
from pool_monitor.alerts.delivery.notifier import Notifier
from pool_monitor.alerts.delivery.rate_limit import RateLimits, Ration
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.routing import LOG, Route
from pool_monitor.snapshot import AlertTransition
from tests.helpers.alertmanager import Alertmanager, needs_alertmanager
from tests.helpers.alertmanager_reference import AlertmanagerGroup, Change, Notified
from tests.helpers.fault_server import FaultServer, Received
from tests.helpers.gates import IN_GATES
from tests.helpers.storm import all_of

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
        return told(self.wait, self.interval, self.repeat, self.changes, self.until)


def told(wait: float, interval: float, repeat: float, changes: Sequence[Change], until: float) -> list[Notified]:
    """Return what the notifier tells of *changes*. Each message arrives at once."""
    route = Route(group_by=("alertname",), group_wait=wait, group_interval=interval, repeat_interval=repeat)
    notifier, found, now = Notifier(), list[Notified](), 0.0
    notifier.use(Routing(route, {LOG.name: LOG}))

    def up_to(at: float) -> None:
        nonlocal now
        while (due := notifier.next_at) is not None and due <= at:
            now = max(due, now)
            flush(notifier, now, found)
        now = at

    for seq, change in enumerate(changes, 1):
        up_to(change.at)
        flush(notifier, change.at, found)  # a settling may come at any time
        notifier.note([transition(seq, change)], change.at)
    up_to(until)
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
        all_of(notifier.arriving(one, at))


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


ROUNDS = [pytest.param(seed, marks=IN_GATES if seed >= 5 else ()) for seed in range(40)]


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


REAL_GROUPS, REAL_WAIT, REAL_INTERVAL, REAL_REPEAT, REAL_S = 100, 0.8, 1.6, 4.1, 9.0
EDGE_S = 0.25
"""Changes that are closer to a flush may be part of it or not: it is not known when Alertmanager reads its clock."""


class RealPlan:
    """What happens to one group of a real Alertmanager: an alert that fires all the time, and others with it."""

    def __init__(self, name: str, chance: random.Random) -> None:
        self.name, self.changes = name, list[Change]()
        self.wanted: list[tuple[float, str, bool]] = []
        first, firing = chance.uniform(0.0, 1.0), {"0"}
        self.wanted.append((first, "0", True))
        flush = first + REAL_WAIT
        while flush < REAL_S - 2 * REAL_INTERVAL:
            for alert in "123":
                if chance.random() < 0.4:
                    self.wanted.append((flush + chance.uniform(0.3, REAL_INTERVAL - 0.3), alert, alert not in firing))
                    firing ^= {alert}
            flush += REAL_INTERVAL
        if chance.random() < 0.5:  # else its end is not seen
            self.wanted += [(flush + REAL_INTERVAL / 2, alert, False) for alert in sorted(firing)]

    def comparable(self, flushes: Sequence[float]) -> bool:
        """Whether it is certain what Alertmanager has to tell: no change is close to a flush, and nothing began and
        ended between two.
        """
        began = dict[str, float]()
        for change in self.changes:
            if change.ends_at is None:
                began[change.alert] = change.at
            elif not any(began[change.alert] < flush < change.at for flush in flushes):
                return False
        return all(abs(change.at - flush) > EDGE_S for change in self.changes for flush in flushes)


@needs_alertmanager
@pytest.mark.slow
@pytest.mark.gate
async def test_a_real_alertmanager_tells_the_same(tmp_path: Path) -> None:
    chance = random.Random(15)
    plans = {name: RealPlan(name, chance) for name in (f"G{number}" for number in range(REAL_GROUPS))}
    todo = sorted((at, plan.name, alert, fires) for plan in plans.values() for at, alert, fires in plan.wanted)
    async with FaultServer() as server:
        config = {
            "route": {
                "receiver": "ops",
                "group_by": ["alertname"],
                "group_wait": f"{int(REAL_WAIT * 1000)}ms",
                "group_interval": f"{int(REAL_INTERVAL * 1000)}ms",
                "repeat_interval": f"{int(REAL_REPEAT * 1000)}ms",
            },
            "receivers": [{"name": "ops", "webhook_configs": [{"url": server.url("/told")}]}],
        }
        async with Alertmanager(tmp_path / "manager", config) as manager, httpx.AsyncClient(trust_env=False) as client:
            began = time.monotonic()
            for due, name, alert, fires in todo:
                await asyncio.sleep(max(began + due - time.monotonic(), 0.0))
                at, plan = time.monotonic(), plans[name]
                before = next((one for one in reversed(plan.changes) if one.alert == ALERTS[int(alert)]), None)
                starts_at = at if fires or before is None else before.starts_at
                wall = time.time() - at
                alerts = [posted(name, alert, starts_at + wall, None if fires else at + wall)]
                assert (await client.post(f"{manager.url}/api/v2/alerts", json=alerts)).is_success
                plan.changes.append(Change(at, ALERTS[int(alert)], starts_at, None if fires else at))
            await asyncio.sleep(max(began + REAL_S - time.monotonic(), 0.0))
            until = time.monotonic()
        compared = notifications = 0
        for plan in plans.values():
            ours = told(REAL_WAIT, REAL_INTERVAL, REAL_REPEAT, plan.changes, until)
            first = plan.changes[0].at + REAL_WAIT
            flushes = [first + REAL_INTERVAL * number for number in range(20)]
            if not plan.comparable(flushes) or abs((until - first) % REAL_INTERVAL) < EDGE_S:
                continue
            theirs = [as_told(one) for one in server.of("/told") if one.json["groupLabels"]["alertname"] == plan.name]
            assert [one[1:] for one in theirs] == [(one.firing, one.resolved) for one in ours], plan.name
            assert all(0 <= at - one.at < 1.0 for (at, _, _), one in zip(theirs, ours, strict=True)), plan.name
            compared += 1
            notifications += len(ours)
    print(f"{compared} groups with {notifications} notifications compared")
    assert compared >= REAL_GROUPS // 2


def posted(name: str, alert: str, starts_at: float, ends_at: float | None) -> dict[str, object]:
    ends = starts_at + 3600.0 if ends_at is None else ends_at
    return {
        "labels": {"alertname": name, "number": alert},
        "startsAt": datetime.fromtimestamp(starts_at, UTC).isoformat(),
        "endsAt": datetime.fromtimestamp(ends, UTC).isoformat(),
    }


def as_told(one: Received) -> tuple[float, frozenset[str], frozenset[str]]:
    by_status = {"firing": set[str](), "resolved": set[str]()}
    for alert in one.json["alerts"]:
        by_status[alert["status"]].add(ALERTS[int(alert["labels"]["number"])])
    return one.at, frozenset(by_status["firing"]), frozenset(by_status["resolved"])
