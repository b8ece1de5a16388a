"""Delivery in virtual time: what receivers would have been told of changes of alerts, and when.

A test of rules and a replay have no receivers. They give a `Rehearsal` what the evaluator gives to delivery, and get
each attempt to send a notification, with the time at which it would have been made. The notifier and the outbox are
those of a service. In place of the network, a function says what comes of an attempt.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from pool_monitor.alerts.delivery.accounts import Accounts
from pool_monitor.alerts.delivery.notification import SENT, Notification, Outcome
from pool_monitor.alerts.delivery.outbox import Owed
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.overlays import Overlays
from pool_monitor.alerts.rule import Inhibition
from pool_monitor.alerts.wording import texts_of
from pool_monitor.snapshot import AlertTransition, AlertView

if TYPE_CHECKING:
    from pool_monitor.alerts.alert import Alert


class Upshot(NamedTuple):
    """What comes of an attempt, and after how many seconds."""

    outcome: Outcome
    after: float = 0.0


class Attempt(NamedTuple):
    """One attempt to send a notification that has ended at *at*, in seconds since the epoch."""

    at: float
    notification: Notification
    outcome: Outcome

    @property
    def arrived(self) -> bool:
        """Whether the receiver has it."""
        return self.outcome.result == "sent"


def arrives(_notification: Notification, _at: float) -> Upshot:
    """Answer that it has arrived, at once."""
    return Upshot(SENT)


class Rehearsal:
    """Tells nobody, and says who would have been told. Bounded as the notifier and the outbox are.

    *overlays* lie over the alerts, with *inhibitions*. *answer* is called for each attempt with its time.
    """

    def __init__(
        self,
        routing: Routing,
        inhibitions: Sequence[Inhibition],
        overlays: Overlays,
        answer: Callable[[Notification, float], Upshot] = arrives,
    ) -> None:
        self._routing, self._inhibitions, self._overlays, self._answer = routing, inhibitions, overlays, answer
        self._accounts = Accounts(chance=lambda: 0.5)
        self._engine: Engine | None = None
        self._alerts: Mapping[str, Alert] = {}
        self._laid_at: float | None = None
        self._under_way: list[tuple[float, int, Owed, Outcome]] = []
        self._busy: set[str] = set()
        self._numbers = count()
        self._begun, self._now = False, 0.0

    def step(self, at: float, transitions: Sequence[AlertTransition], engine: Engine) -> Iterator[Attempt]:
        """Yield the attempts up to *at*, at which an evaluation of *engine* has made *transitions*. Times do not
        descend.
        """
        yield from self.until(at)
        self._engine, self._laid_at = engine, None
        if not self._begun:
            self._begun = True
            self._accounts.use(self._routing, at, self._routing.receivers)
        yield from self._settle(at, transitions)

    def until(self, at: float) -> Iterator[Attempt]:
        """Yield the attempts before *at* that timers lead to."""
        while (due := self._next_at()) is not None and due < at:
            yield from self._settle(max(due, self._now))
        self._now = max(self._now, at)

    def _next_at(self) -> float | None:
        ends = self._under_way[0][0] if self._under_way else None
        outbox = self._accounts.outbox
        tries = [outbox.next_at(receiver) for receiver in outbox.receivers() if receiver not in self._busy]
        return min((one for one in (self._accounts.notifier.next_at, ends, *tries) if one is not None), default=None)

    def _settle(self, at: float, transitions: Sequence[AlertTransition] = ()) -> Iterator[Attempt]:
        """Do all that is due at *at*, as a settling of the evaluator does."""
        self._now = at
        while self._under_way and self._under_way[0][0] <= at:
            ended, _number, tried, outcome = heapq.heappop(self._under_way)
            self._busy.discard(tried.notification.receiver)
            yield self._noted(tried, outcome, ended)
        for _ in self._accounts.settling(transitions, self._alerts_now(), self._look, at):
            pass
        self._accounts.release()
        for receiver in self._accounts.outbox.receivers():
            while (found := self._accounts.take(receiver, at)) is not None:
                upshot = self._answer(found.notification, at)
                if upshot.after:
                    heapq.heappush(self._under_way, (at + upshot.after, next(self._numbers), found, upshot.outcome))
                    self._busy.add(receiver)
                    break
                yield self._noted(found, upshot.outcome, at)

    def _noted(self, tried: Owed, outcome: Outcome, at: float) -> Attempt:
        self._accounts.note(tried, outcome, at)
        return Attempt(at, tried.notification, outcome)

    def _alerts_now(self) -> Iterator[Alert]:
        return iter(()) if self._engine is None else iter(self._engine.each())

    def _look(self, fingerprint: str) -> AlertView | None:
        engine = self._engine
        if engine is None:
            return None
        if self._laid_at != self._now:  # all alerts are laid only when one is looked at
            self._alerts = {alert.fingerprint: alert for alert in engine.each()}
            self._overlays.cover(self._alerts.values(), self._inhibitions, self._now)
            self._laid_at = self._now
        alert = self._alerts.get(fingerprint)
        return None if alert is None else self._overlays.view(alert, engine.rules, texts_of)
