"""Delivery as the evaluator uses it: the notifier, the outbox and the courier together."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from pool_monitor.alerts.delivery.courier import Courier
from pool_monitor.alerts.delivery.notification import Notification, Outcome, ToldAlert
from pool_monitor.alerts.delivery.notifier import Look, Notifier, Rows
from pool_monitor.alerts.delivery.outbox import Debt, Outbox
from pool_monitor.alerts.delivery.senders import Senders
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.clock import SteadyClock
from pool_monitor.errors import UnknownName
from pool_monitor.log import logger
from pool_monitor.snapshot import ReceiverView

if TYPE_CHECKING:
    from pool_monitor.parts import Context
    from pool_monitor.snapshot import AlertTransition, ToldView

WAKE_LEAST_S = 0.05
"""Least time between two wakes, whatever the notifier says."""


class Delivery:
    """Tells the receivers. *wake* is called when the evaluator has to settle, because a time has come, and *store* when
    something has changed that only has to be stored.
    """

    def __init__(self, context: Context, wake: Callable[[], object], store: Callable[[], object]) -> None:
        self._context, self._wake, self._store = context, wake, store
        self._notifier, self._outbox = Notifier(context.service), Outbox()
        self._senders = Senders()
        self._courier: Courier | None = None
        self._clock: SteadyClock | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sent: dict[str, int] = {}
        self._failed: dict[str, int] = {}

    # -- life -----------------------------------------------------------------------------------------------------

    def use(self, routing: Routing, look: Look) -> None:
        """Tell by *routing* from now on. Receivers that have not changed keep their senders."""
        at = self._now()
        self._senders.use(routing.receivers)
        for name, receiver in routing.receivers.items():
            self._outbox.configured(name, _named(receiver), at)
        self._notifier.use(routing, look, at)
        for name in {*self._outbox.debts()} - {*self._senders.names()}:
            self._lost(self._outbox.give_up(name), "its receiver is in no file of rules any more")
        self._outbox.forget_others(self._senders.names())

    def restore(self, rows: Mapping[str, Mapping[str, bytes]]) -> list[str]:
        """Take over what a state file has. Returns what cannot be used, in words."""
        at = self._now()
        refused = self._notifier.restore(rows, at)
        waiting, unusable = self._outbox.restore(rows, at)
        for one in waiting:  # the earlier life may have ended between an attempt and its result
            self._notifier.failed(one, at, unsure=True)
        return [*refused, *unusable]

    def open(self) -> None:
        """Begin to send."""
        about = {"monitor": self._context.monitor, "service": self._context.service}
        self._courier = Courier(self._outbox, self._senders, self, self._now, self._changed, about)

    async def close(self) -> None:
        """End. What has not arrived is sent by the next life, if a state file keeps it."""
        if self._timer is not None:
            self._timer.cancel()
        courier, self._courier = self._courier, None
        if courier is not None:
            await courier.close()
        await self._senders.close()

    def tick(self) -> None:
        """Raise what has ended the courier."""
        if self._courier is not None:
            self._courier.tick()

    # -- for each settling ----------------------------------------------------------------------------------------

    def note(self, transitions: Iterable[AlertTransition]) -> None:
        """Take account of changes of alerts."""
        self._notifier.note(transitions, self._now())

    def flush(self, look: Look) -> None:
        """Put what is to be told now into the outbox."""
        at = self._now()
        self._lost(self._outbox.expire(at), "it is too old")
        for one in self._notifier.flush(at, look):
            put = self._outbox.put(one, at)
            if not put.kept:
                self._lost([one], "too many notifications wait already")
            elif put.cannot:
                self._notifier.parked(one, put.cannot, at)
        self._set_timer()

    def rows(self, *, whole: bool) -> Rows:
        """Return the rows of the state file that have changed since the last call; *whole*: all."""
        if whole:
            return {**self._notifier.all_rows(), **self._outbox.all_rows()}
        return {**self._notifier.take_changes(), **self._outbox.take_changes()}

    def release(self) -> None:
        """What was flushed is stored, or cannot be: send it."""
        self._outbox.release()
        if self._courier is not None:
            self._courier.release()

    # -- what the courier says ------------------------------------------------------------------------------------

    def sending(self, notification: Notification, at: float) -> None:
        """An attempt begins."""
        self._notifier.sending(notification, at)

    def arrived(self, notification: Notification, at: float) -> None:
        """The receiver has it."""
        self._sent[notification.receiver] = self._sent.get(notification.receiver, 0) + 1
        self._notifier.arrived(notification, at)

    def failed(self, notification: Notification, at: float, *, unsure: bool) -> None:
        """An attempt has failed."""
        self._failed[notification.receiver] = self._failed.get(notification.receiver, 0) + 1
        self._notifier.failed(notification, at, unsure=unsure)

    def parked(self, notification: Notification, reason: str, at: float) -> None:
        """Its fallbacks are to be told."""
        self._notifier.parked(notification, reason, at)

    def _changed(self) -> None:
        """An attempt has ended."""
        self._store()
        self._set_timer()

    def _lost(self, given_up: Iterable[Notification], why: str) -> None:
        for one in given_up:
            self._notifier.lost(one, why, self._now())
            logger("alerts").error(
                "a notification is lost", receiver=one.receiver, group=one.group_key, status=one.status, reason=why
            )

    def _set_timer(self) -> None:
        """Settle when the notifier has something to do."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._notifier.next_at
        if at is not None and self._courier is not None:
            delay = max(at - self._now(), WAKE_LEAST_S)
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    # -- what people do -------------------------------------------------------------------------------------------

    def retry(self, receiver: str) -> None:
        """Try now what *receiver* is owed, whatever it has answered. Raises UnknownName."""
        self._check(receiver)
        self._outbox.try_now(receiver, self._now())
        if self._courier is not None:
            self._courier.release()

    async def test(self, receiver: str) -> Outcome:
        """Send a test to *receiver*, and return what came of it. Raises UnknownName."""
        self._check(receiver)
        return await self._senders.send(receiver, _test(receiver, self._context.service, self._now()))

    # -- what is shown of it --------------------------------------------------------------------------------------

    def told(self, fingerprint: str) -> tuple[ToldView, ...]:
        """What each receiver knows of an alert, and why it is told nothing now."""
        return self._notifier.explain(fingerprint, self._now())

    def receivers(self) -> tuple[ReceiverView, ...]:
        """The receivers, and what they are owed."""
        at, debts = self._now(), self._outbox.debts()
        return tuple(self._view(name, debts.get(name, Debt()), at) for name in self._senders.names())

    def _view(self, name: str, debt: Debt, at: float) -> ReceiverView:
        standing, receiver = self._outbox.standing(name), self._senders.receiver(name)
        return ReceiverView(
            name=name,
            channel=self._senders.kind(name),
            where=self._senders.where(name) if self._courier is not None else "",
            page=receiver is not None and receiver.page,
            state=standing.state.value,
            owed=debt.owed,
            parked=debt.parked,
            oldest_debt=None if debt.oldest is None else max(at - debt.oldest, 0.0),
            last_success_age=None if standing.arrived_at is None else max(at - standing.arrived_at, 0.0),
            last_error=standing.error or None,
            sent=self._sent.get(name, 0),
            failed=self._failed.get(name, 0),
            lost=standing.lost,
        )

    def _check(self, receiver: str) -> None:
        if not self._senders.knows(receiver):
            known = ", ".join(sorted(self._senders.names()))
            raise UnknownName(f"there is no receiver {receiver!r:.80}; there are: {known}")

    def _now(self) -> float:
        """The wall clock when this was first called, and from then on the monotonic clock."""
        if self._clock is None:
            self._clock = SteadyClock(self._context.clock)
        return self._clock.now_ns() / 1e9


def _named(receiver: msgspec.Struct) -> str:
    """Name the configuration of a receiver. So short, that it says nothing of a secret in it."""
    return hashlib.sha256(msgspec.json.encode(receiver)).hexdigest()[:8]


def _test(receiver: str, service: str, at: float) -> Notification:
    alert = ToldAlert(
        alertname="Test",
        labels={"severity": "info"},
        fingerprint="0" * 16,
        status="resolved",
        severity="info",
        starts_at=at,
        ends_at=at,
        summary=f"This is a test of the receiver {receiver}. Nothing is wrong.",
    )
    return Notification(
        id=f"msg_{secrets.token_hex(12)}",
        receiver=receiver,
        group_key='{}:{alertname="Test"}',
        group_labels={"alertname": "Test"},
        reason="test",
        status="resolved",
        alerts=(alert,),
        firing=0,
        resolved=1,
        at=at,
        service=service,
    )
