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

from pool_monitor.alerts.delivery.notification import SENT, Notification, Outcome
from pool_monitor.alerts.delivery.notifier import Notifier, Rows
from pool_monitor.alerts.delivery.outbox import Outbox, Waiting
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.overlays import Overlays
from pool_monitor.alerts.rule import Inhibition
from pool_monitor.alerts.wording import texts_of
from pool_monitor.snapshot import AlertTransition, AlertView

if TYPE_CHECKING:
    from pool_monitor.alerts.alert import Alert

WAKE_LEAST_S = 0.05
_ROUNDS_MAX = 100
"""Most settlings at one moment. More of them are `WAKE_LEAST_S` apart."""


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
        self._under_way: list[tuple[float, int, Waiting, Outcome]] = []
        self._numbers = count()
        self._now, self._rounds = 0.0, 0
        self._begin({}, 0.0)

    def until(self, at: float) -> Iterator[Attempt]:
        """Yield the attempts before *at* that timers lead to."""
        while (due := self._next_at()) is not None and due < at:
            self._rounds = self._rounds + 1 if due <= self._now else 0
            pause = 0.0 if self._rounds < _ROUNDS_MAX else WAKE_LEAST_S
            yield from self._settle(max(due, self._now + pause))

    def step(self, at: float, transitions: Sequence[AlertTransition], engine: Engine) -> Iterator[Attempt]:
        """Yield the attempts at the time *at* of an evaluation of *engine*, which has made *transitions*."""
        self._engine, self._laid_at, self._rounds = engine, None, 0
        at = max(at, self._now)
        self._notifier.note(transitions, at)
        if self._notifier.unreconciled:
            for _ in self._notifier.reconciling(engine.each(), at):
                pass
        yield from self._settle(at)

    def restart(self, at: float, *, keeps_state: bool) -> None:
        """The service was started again, *at* this time. *keeps_state*: it knows what it told before."""
        rows = {**self._notifier.all_rows(), **self._outbox.all_rows()} if keeps_state else {}
        self._begin(rows, at)

    def _begin(self, rows: Rows, at: float) -> None:
        self._notifier, self._outbox = Notifier(), Outbox(chance=_longest)
        self._under_way.clear()
        saved = {name: {key: row for key, row in found.items() if row is not None} for name, found in rows.items()}
        self._notifier.restore(saved, at)
        waiting, _refused = self._outbox.restore(saved, at)
        self._notifier.check({one.id for one in waiting}, at)
        for one in waiting:
            self._notifier.failed(one, at, unsure=True)
        self._notifier.use(self._routing, at)

    def _next_at(self) -> float | None:
        times = [self._notifier.next_at, *map(self._outbox.next_at, self._outbox.receivers())]
        times += [self._under_way[0][0]] if self._under_way else []
        return min((time for time in times if time is not None), default=None)

    def _settle(self, at: float) -> Iterator[Attempt]:
        """Do all that is due at *at*."""
        self._now = at
        while self._under_way and self._under_way[0][0] <= at:
            ended, _number, late, outcome = heapq.heappop(self._under_way)
            yield self._ended(late, outcome, ended)
        for given_up in self._outbox.expire(at):
            self._notifier.lost(given_up, "it is too old", at)
        for one in self._notifier.flush(at, self._look):
            put = self._outbox.put(one, at)
            if not put.kept:
                self._notifier.lost(one, "too many notifications wait already", at)
            elif put.cannot:
                self._notifier.parked(one, put.cannot, at)
        self._outbox.release()
        for receiver in self._outbox.receivers():
            while (tried := self._outbox.take(receiver, at)) is not None:
                self._notifier.sending(tried.notification, at)
                outcome, after = self._answer(tried.notification, at)
                if after:
                    heapq.heappush(self._under_way, (at + after, next(self._numbers), tried, outcome))
                else:
                    yield self._ended(tried, outcome, at)

    def _ended(self, tried: Waiting, outcome: Outcome, at: float) -> Attempt:
        """Tell the outbox and the notifier what came of an attempt, as the courier does."""
        passed_on = self._outbox.note(tried, outcome, at)
        if outcome.result == "sent":
            self._notifier.arrived(tried.notification, at)
        else:
            self._notifier.failed(tried.notification, at, unsure=outcome.unsure)
        for one, reason in passed_on:
            self._notifier.parked(one, reason, at)
        return Attempt(at, tried.notification, outcome)

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


def _longest() -> float:
    """Return the chance that makes each pause as long as it can be."""
    return 1.0
