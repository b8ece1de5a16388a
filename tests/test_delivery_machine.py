"""What receivers believe, whatever happens: alerts, overlays, faults, restarts and reloads in any order."""

from __future__ import annotations

from collections import defaultdict

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from pool_monitor.alerts.alert import Alert, fingerprint_of
from pool_monitor.alerts.delivery import rate_limit
from pool_monitor.alerts.delivery.accounts import Accounts
from pool_monitor.alerts.delivery.notification import SENT, Notification, Outcome, ToldAlert
from pool_monitor.alerts.delivery.targets import Routing, targets_of
from pool_monitor.alerts.lifecycle import FIRING_PHASES, Phase
from pool_monitor.alerts.routing import LogChannel, Receiver, Route
from pool_monitor.alerts.rule import Matcher
from pool_monitor.snapshot import AlertState, AlertTransition, AlertView
from tests.helpers.gates import IN_GATES

POOLS = ("a", "b", "c", "d")
RECEIVERS = ("ops", "pager", "post")
RETRY, REFUSED = Outcome("retry", "503"), Outcome("refused", "404")
UNSURE, LATE = Outcome("retry", "timed out", unsure=True), Outcome("retry", "arrived, and timed out", unsure=True)


def receiver(name: str) -> Receiver:
    return Receiver(name=name, channel=LogChannel(), page=name == "pager")


def routes(*, by: tuple[str, ...], to: str, pager: bool, both: bool) -> Route:
    critical = Route(match=(Matcher("severity", "critical"),), receiver="pager", goes_on=both)
    rest = Route(receiver=to, group_by=by)
    return Route(
        receiver="ops",
        group_wait=3.0,
        group_interval=10.0,
        repeat_interval=45.0,
        routes=(critical, rest) if pager else (rest,),
    )


class Postman:
    """What one receiver was told, and what follows from it."""

    def __init__(self) -> None:
        self.bodies: dict[str, Notification] = {}
        self.believed: dict[str, ToldAlert] = {}
        """What it heard last of each alert."""
        self.of_group: dict[tuple[str, str], ToldAlert] = {}
        """The same for each group."""
        self.digests = self.moved = False
        """Whether it had a digest, and whether alerts may have moved to another group."""
        self.last_in: dict[str, set[str]] = {}
        """The alerts of each message that it has heard already."""
        self.doubtful = False
        """Whether an attempt ended so that nobody knows whether it had arrived."""

    def hear(self, one: Notification) -> None:
        known = self.bodies.setdefault(one.id, one)
        assert known == one  # the same id, the same content
        assert not one.truncated
        self.digests = self.digests or not one.group_key
        for alert in one.alerts:
            if one.group_key:
                self.check(one, alert)
            self.believed[alert.fingerprint] = alert
        self.last_in[one.id] = {alert.fingerprint for alert in one.alerts}

    def check(self, one: Notification, alert: ToldAlert) -> None:
        """Check the order in one group. A digest does not say which groups it speaks of, so it is left out."""
        before = self.of_group.get((one.group_key, alert.fingerprint))
        again = self.doubtful or alert.fingerprint in self.last_in.get(one.id, ())
        if before is not None and before.status == "resolved" and alert.status == "firing":
            later = before.reason == "route_changed" or before.starts_at < alert.starts_at
            assert later or again, "it fires after its end"
        if alert.status == "resolved":
            fired = before is not None and before.status == "firing"
            assert alert.delayed or fired or again or self.digests or self.moved, "an end that nobody waits for"
        self.of_group[one.group_key, alert.fingerprint] = alert


class Delivering(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.at, self.seq = 1_000_000.0, 0
        self.alerts: dict[str, Alert] = {}
        self.covers: dict[str, dict[str, bool]] = defaultdict(dict)
        self.untold: list[AlertTransition] = []
        self.heard = {name: Postman() for name in RECEIVERS}
        self.faults: dict[str, Outcome] = {}
        self.accounts = Accounts(chance=lambda: 0.5)
        self.route = routes(by=("alertname",), to="ops", pager=True, both=False)

    @initialize()
    def begin(self) -> None:
        self.use()

    def use(self) -> None:
        self.accounts.use(Routing(self.route, {name: receiver(name) for name in RECEIVERS}), RECEIVERS)

    # -- alerts

    def move(self, pool: str, to: AlertState, reason: str = "") -> None:
        alert = self.alerts[pool]
        self.seq += 1
        self.untold.append(
            AlertTransition(
                seq=self.seq,
                at=self.at,
                alert=alert.alert,
                labels={**alert.labels, "severity": alert.severity},
                fingerprint=alert.fingerprint,
                from_state=alert.state.value,
                to_state=to,
                severity=alert.severity,
                reason=reason,
            )
        )
        if to == "firing" and alert.state not in FIRING_PHASES:
            alert.since = alert.fired_at = self.at
        alert.state = Phase(to)

    def firing(self, pool: str) -> bool:
        return pool in self.alerts and self.alerts[pool].state in FIRING_PHASES

    @rule(pool=st.sampled_from(POOLS), severity=st.sampled_from(("warning", "critical")))
    def fire(self, pool: str, severity: str) -> None:
        labels = {"pool": pool}
        if pool not in self.alerts:
            name = fingerprint_of("Slow", labels)
            self.alerts[pool] = Alert(alert="Slow", instance=(("pool", pool),), labels=labels, fingerprint=name)
        if self.firing(pool) and self.alerts[pool].severity == severity:
            return
        self.alerts[pool].severity = severity
        self.move(pool, "firing", "level" if self.firing(pool) else "")

    @rule(pool=st.sampled_from(POOLS), how=st.sampled_from(("resolved", "pending", "gone")))
    def end(self, pool: str, how: str) -> None:
        if self.firing(pool):
            self.move(pool, "pending" if how == "pending" else "resolved", "rule_removed" if how == "gone" else "")
            if how == "gone":
                del self.alerts[pool]

    @rule(pool=st.sampled_from(POOLS), cover=st.sampled_from(("silenced", "inhibited", "muted")), on=st.booleans())
    def cover(self, pool: str, cover: str, on: bool) -> None:
        self.covers[pool][cover] = on

    # -- delivery

    def look(self, fingerprint: str) -> AlertView | None:
        for pool, alert in self.alerts.items():
            if alert.fingerprint == fingerprint:
                view = AlertView(
                    alertname=alert.alert,
                    labels={**alert.labels, "severity": alert.severity},
                    state=alert.state.value,
                    severity=alert.severity,
                    value=1.0,
                    since=alert.since,
                    fingerprint=fingerprint,
                )
                return replace(view, **self.covers[pool])
        return None

    @rule()
    def settle(self) -> None:
        untold, self.untold = self.untold, []
        for _ in self.accounts.settling(untold, list(self.alerts.values()), self.look, self.at):
            pass
        self.accounts.release()
        for name in RECEIVERS:
            while (owed := self.accounts.take(name, self.at)) is not None:
                outcome = self.faults.get(name, SENT)
                if outcome.unsure:
                    self.heard[name].doubtful = True
                if outcome in (SENT, LATE):
                    self.heard[name].hear(owed.notification)
                self.accounts.note(owed, outcome, self.at)

    @rule(seconds=st.floats(0.1, 40.0))
    def wait(self, seconds: float) -> None:
        until = self.at + seconds
        self.settle()
        for _ in range(5000):
            times = [self.accounts.notifier.next_at, *map(self.accounts.outbox.next_at, RECEIVERS)]
            due = min((time for time in times if time is not None), default=None)
            if due is None or due > until:
                break
            self.at = max(due, self.at)
            self.settle()
        else:
            raise AssertionError("it is always something due")
        self.at = until
        self.settle()

    @rule(name=st.sampled_from(RECEIVERS), fault=st.sampled_from((None, RETRY, UNSURE, LATE, REFUSED)))
    def break_or_mend(self, name: str, fault: Outcome | None) -> None:
        if fault is None:
            self.faults.pop(name, None)
        else:
            self.faults[name] = fault

    @rule(lose=st.booleans())
    def restart(self, lose: bool) -> None:
        """The service is killed, right after a commit or in the middle of an attempt that had arrived."""
        self.settle()
        rows = {
            table: {key: value for key, value in found.items() if value is not None}
            for table, found in self.accounts.all_rows().items()
        }
        if lose:
            for name in RECEIVERS:
                if name not in self.faults and (owed := self.accounts.take(name, self.at)) is not None:
                    self.heard[name].doubtful = True
                    self.heard[name].hear(owed.notification)
        self.accounts = Accounts(chance=lambda: 0.5)
        assert not self.accounts.restore(rows, self.at)
        for one in self.heard.values():
            one.doubtful = one.doubtful or bool(rows["outbox"])
        self.use()
        self.settle()

    @rule()
    def reload_the_same(self) -> None:
        """Nothing is said because of it, and nothing has changed."""
        self.wait(0.0)
        while self.accounts.notifier.unreconciled:  # something has arrived that a move was waiting for
            self.settle()
        before = self.accounts.all_rows()
        self.use()
        self.accounts.notifier.unreconciled = True
        for _ in self.accounts.notifier.reconciling(list(self.alerts.values()), self.at):
            pass
        assert self.accounts.all_rows() == before

    @rule(
        by=st.sampled_from(((), ("alertname",), ("pool",))),
        to=st.sampled_from(("ops", "post")),
        pager=st.booleans(),
        both=st.booleans(),
    )
    def reload(self, by: tuple[str, ...], to: str, pager: bool, both: bool) -> None:
        self.settle()
        self.route = routes(by=by, to=to, pager=pager, both=both)
        self.use()
        for postman in self.heard.values():
            postman.moved = True
        self.settle()

    # -- what has to be true

    @invariant()
    def what_groups_wait_for_is_in_the_outbox(self) -> None:
        rows = self.accounts.outbox.all_rows()["outbox"].values()
        waiting = {msgspec.json.decode(row)["notification"]["id"] for row in rows}
        assert {group.waiting for group in self.accounts.notifier._ledger.each_group()} <= {"", *waiting}

    def teardown(self) -> None:
        self.faults = {}
        self.settle()
        self.wait(2000.0)
        for name, postman in self.heard.items():
            for pool in POOLS:
                self.agrees(name, postman, pool)
        assert not len(self.accounts.outbox)

    def agrees(self, name: str, postman: Postman, pool: str) -> None:
        """Check that the receiver believes what is true. What is suppressed it need not know."""
        believed = postman.believed.get(fingerprint_of("Slow", {"pool": pool}))
        fires = believed is not None and believed.status == "firing"
        if not self.firing(pool):
            assert not fires, (name, pool, "was not told the end")
            return
        alert = self.alerts[pool]
        targets = targets_of(self.accounts.notifier._routing, "Slow", {"pool": pool, "severity": alert.severity})
        if any(self.covers[pool].values()) or name not in {target.receiver for target in targets}:
            return
        assert fires, (name, pool, "was not told that it fires")
        assert believed is not None
        assert believed.severity == alert.severity


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Delivering,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("examples", [pytest.param(15), pytest.param(100, marks=IN_GATES)])
def test_receivers_come_to_believe_what_is_true(examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "BURST", 1000)
    run(examples, 40)


@pytest.mark.parametrize("examples", [pytest.param(10), pytest.param(60, marks=IN_GATES)])
def test_receivers_come_to_believe_what_is_true_when_their_messages_are_held_back(
    examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "BURST", 1)
    run(examples, 40)
