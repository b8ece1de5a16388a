"""Delivery in virtual time: what receivers would have been told of changes of alerts, and when.

A test of rules and a replay have no receivers. They give a `Rehearsal` what the evaluator gives to delivery, and get
each attempt to send a notification, with the time at which it would have been made. The notifier and the outbox are
those of a service; pauses after failures are as long as they can be, so they are the same each time. In place of the
network, a function says what comes of an attempt.
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

_PAUSE_S = 0.05
_ROUNDS_MAX = 100
"""Most settlings at one moment. More of them are `_PAUSE_S` apart."""


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

    Times do not descend. For each evaluation: call `until` before it, and `step` after it. *overlays* lie over the
    alerts, with *inhibitions*. *answer* is called for each attempt with its time.
    """

    def __init__(
        self,
        routing: Routing,
        inhibitions: Sequence[Inhibition],
        overlays: Overlays,
        answer: Callable[[Notification, float], Upshot] = arrives,
    ) -> None:
        self._routing, self._inhibitions, self._overlays, self._answer = routing, inhibitions, overlays, answer
        self._engine: Engine | None = None
        self._alerts: Mapping[str, Alert] = {}
        self._laid_at: float | None = None
        self._under_way: list[tuple[float, int, Owed, Outcome]] = []
        self._numbers = count()
        self._now, self._rounds = 0.0, 0
        self._begin()

    def until(self, at: float) -> Iterator[Attempt]:
        """Yield the attempts before *at* that timers lead to."""
        while (due := self._next_at()) is not None and due < at:
            self._rounds = self._rounds + 1 if due <= self._now else 0
            pause = 0.0 if self._rounds < _ROUNDS_MAX else _PAUSE_S
            yield from self._settle(max(due, self._now + pause))

    def step(self, at: float, transitions: Sequence[AlertTransition], engine: Engine) -> Iterator[Attempt]:
        """Yield the attempts at the time *at* of an evaluation of *engine*, which has made *transitions*."""
        if self._engine is None:
            yield from self._settle(at)
        self._engine = engine
        yield from self._settle(at, transitions)

    def restart(self, at: float, *, keeps_state: bool) -> Iterator[Attempt]:
        """The service is started again; *at* is the time of its first evaluation. Call it before that, in place of
        `until`. Without *keeps_state*, nothing is known of what was told before. Yields what was due meanwhile.
        """
        rows = self._accounts.all_rows()
        self._begin()
        if not keeps_state:
            self._engine = None
            return
        saved = {name: {key: row for key, row in found.items() if row is not None} for name, found in rows.items()}
        self._accounts.restore(saved, at)
        yield from self._settle(at)

    def _begin(self) -> None:
        self._accounts = Accounts(chance=lambda: 1.0)
        self._accounts.use(self._routing, self._routing.receivers.keys())
        self._under_way.clear()

    def _next_at(self) -> float | None:
        outbox = self._accounts.outbox
        times = [outbox.next_at(receiver) for receiver in outbox.receivers()]
        times += [self._accounts.notifier.next_at, self._under_way[0][0] if self._under_way else None]
        return min((time for time in times if time is not None), default=None)

    def _settle(self, at: float, transitions: Sequence[AlertTransition] = ()) -> Iterator[Attempt]:
        """Do all that is due at *at*, as the evaluator and the courier do."""
        self._now, self._laid_at = max(at, self._now), None
        at = self._now
        while self._under_way and self._under_way[0][0] <= at:
            ended, _number, tried, outcome = heapq.heappop(self._under_way)
            yield self._ended(tried, outcome, ended)
        for _ in self._accounts.settling(transitions, self._each(), self._look, at):
            pass
        self._accounts.release()
        for receiver in self._accounts.outbox.receivers():
            while (found := self._accounts.take(receiver, at)) is not None:
                outcome, after = self._answer(found.notification, at)
                if after:
                    heapq.heappush(self._under_way, (at + after, next(self._numbers), found, outcome))
                else:
                    yield self._ended(found, outcome, at)

    def _ended(self, tried: Owed, outcome: Outcome, at: float) -> Attempt:
        self._accounts.note(tried, outcome, at)
        return Attempt(at, tried.notification, outcome)

    def _each(self) -> Iterator[Alert]:
        return iter(()) if self._engine is None else self._engine.each()

    def _look(self, fingerprint: str) -> AlertView | None:
        if self._engine is None:
            return None
        if self._laid_at != self._now:  # all alerts are laid only when one is looked at
            self._alerts = {alert.fingerprint: alert for alert in self._each()}
            self._overlays.cover(self._alerts.values(), self._inhibitions, self._now)
            self._laid_at = self._now
        alert = self._alerts.get(fingerprint)
        return None if alert is None else self._overlays.view(alert, self._engine.rules, texts_of)
