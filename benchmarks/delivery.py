"""What delivery costs, and for how long it holds the event loop at once: thousands of alerts and one receiver."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.tables import Table
from pool_monitor.alerts.delivery.accounts import Accounts
from pool_monitor.alerts.delivery.notification import SENT
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.lifecycle import FIRING_PHASES, Phase
from pool_monitor.alerts.routing import LOG, Route
from pool_monitor.snapshot import AlertTransition, AlertView

ALERTS, RULES, START = 10_000, 1000, 1e9
GROUPS: dict[str, tuple[str, ...]] = {
    "one group": (),
    f"{RULES:,} groups": ("alertname",),
    "a group for each": ("alertname", "pool"),
}


class Deliveries:
    """Alerts that all fire or end at once, on virtual time, and a receiver that answers at once."""

    def __init__(self, group_by: tuple[str, ...], alerts: int = ALERTS) -> None:
        self.accounts, self.at = Accounts(), START
        self.accounts.use(Routing(Route(receiver=LOG.name, group_by=group_by, group_wait=0.0)), {LOG.name})
        self._views = [
            AlertView(
                alertname=f"Rule{number % RULES}",
                labels={"pool": f"pool-{number // RULES}", "severity": "warning"},
                state="inactive",
                severity="warning",
                value=1.0,
                since=self.at,
                fingerprint=f"{number:016x}",
                summary=f"number {number} is slow",
            )
            for number in range(alerts)
        ]
        self._shown = {view.fingerprint: view for view in self._views}
        self._seq = 0

    def become(self, phase: Phase) -> Spent:
        """All alerts change: settle, and store what is to be told."""
        before = Phase.FIRING if phase not in FIRING_PHASES else Phase.INACTIVE
        changes = []
        for view in self._views:
            self._seq += 1
            changes.append(
                AlertTransition(
                    seq=self._seq,
                    at=self.at,
                    alert=view.alertname,
                    labels=view.labels,
                    fingerprint=view.fingerprint,
                    from_state=before.value,
                    to_state=phase.value,
                    severity=view.severity,
                )
            )
        return self.settle(changes)

    def settle(self, changes: Iterable[AlertTransition] = ()) -> Spent:
        spent = spent_by(self.accounts.settling(changes, (), self._shown.get, self.at))
        self.accounts.take_changes()
        self.accounts.release()
        return spent

    def arrive(self) -> Spent:
        """All that waits arrives."""
        spent = Spent()
        while (owed := self.accounts.take(LOG.name, self.at)) is not None:
            spent = spent.with_(spent_by(self.accounts.noting(owed, SENT, self.at)))
        self.accounts.take_changes()
        return spent

    def wait(self, seconds: float) -> None:
        self.at += seconds


class Spent(NamedTuple):
    """Seconds of processor time."""

    all: float = 0.0
    held: float = 0.0
    """The longest stretch between two moments at which others may work."""

    def with_(self, other: Spent) -> Spent:
        return Spent(self.all + other.all, max(self.held, other.held))


def spent_by(steps: Iterable[None]) -> Spent:
    began = last = time.thread_time()
    held = 0.0
    for _ in steps:
        now = time.thread_time()
        held, last = max(held, now - last), now
    ended = time.thread_time()
    return Spent(ended - began, max(held, ended - last))


def delivery_table(alerts: int = ALERTS) -> Table:
    rows = []
    for name, group_by in GROUPS.items():
        gc.collect()
        one = Deliveries(group_by, alerts)
        gc.disable()
        try:
            told = one.become(Phase.FIRING), one.arrive()
            one.settle()
            one.wait(400.0)
            ended = one.become(Phase.RESOLVED), one.arrive()
        finally:
            gc.enable()
        figures = [figure for spent in (*told, *ended) for figure in spent]
        rows.append([name, *(f"{seconds * 1e3:.1f}" for seconds in figures), f"{_memory(group_by, alerts):.1f}"])
    about = (
        f"Milliseconds of processor time, once, when {alerts:,} alerts begin to fire at once, when what is told of "
        "them has arrived, and the same when they end. Held: the longest stretch without a moment for others. "
        "MiB: what is kept while they fire, in memory and for the state file. Without the collection of garbage."
    )
    head = ["", *(name for what in ("fire", "arrive", "end", "arrive") for name in (what, "held")), "MiB"]
    return Table("delivery of alerts", about, head, rows)


def _memory(group_by: tuple[str, ...], alerts: int) -> float:
    one = Deliveries(group_by, alerts)
    tracemalloc.start()
    try:
        one.become(Phase.FIRING)
        one.arrive()
        one.settle()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / 2**20
    finally:
        tracemalloc.stop()
