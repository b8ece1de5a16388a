"""Delivery as the evaluator uses it: the notifier, the outbox and the courier together."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from pool_monitor.alerts.delivery.accounts import Accounts
from pool_monitor.alerts.delivery.contact import ReceiverPhase
from pool_monitor.alerts.delivery.courier import Courier
from pool_monitor.alerts.delivery.notification import TEST, Notification, Outcome, ToldAlert
from pool_monitor.alerts.delivery.outbox import Debt
from pool_monitor.alerts.delivery.senders import Senders
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.slices import Slices
from pool_monitor.clock import SteadyClock
from pool_monitor.errors import UnknownName
from pool_monitor.events import ALERT_NOTIFY
from pool_monitor.log import logger
from pool_monitor.snapshot import ReceiverView

if TYPE_CHECKING:
    from pool_monitor.alerts.alert import Alert
    from pool_monitor.alerts.delivery.messages import Look
    from pool_monitor.alerts.delivery.notifier import Rows
    from pool_monitor.alerts.delivery.outbox import Owed
    from pool_monitor.parts import Context
    from pool_monitor.snapshot import AlertTransition, AlertView, ToldView

WAKE_LEAST_S = 0.05
"""Least time between two wakes, whatever the notifier says."""
_OUT = (ReceiverPhase.OPEN, ReceiverPhase.PARKED, ReceiverPhase.GONE)


class Delivery:
    """Tells the receivers. *wake* is called when the evaluator has to settle, because a time has come, and *store* when
    something has changed that only has to be stored.
    """

    def __init__(self, context: Context, wake: Callable[[], object], store: Callable[[], object]) -> None:
        self._context, self._wake, self._store = context, wake, store
        self._accounts, self._senders = Accounts(context.service), Senders()
        self._courier: Courier | None = None
        self._clock: SteadyClock | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._counts = Counter[tuple[str, bool]]()  # attempts, by receiver and whether they were successful

    # -- life -----------------------------------------------------------------------------------------------------

    def use(self, routing: Routing) -> None:
        """Tell by *routing* from now on. Receivers that have not changed keep their senders."""
        at = self._now()
        self._senders.use(routing.receivers)
        for name, receiver in routing.receivers.items():
            self._accounts.outbox.configured(name, _named(receiver), at)
        self._accounts.use(routing, {*self._senders.names()})

    def restore(self, rows: Mapping[str, Mapping[str, bytes]]) -> list[str]:
        """Take over what a state file has. Returns what cannot be used, in words."""
        return self._accounts.restore(rows, self._now())

    def open(self) -> None:
        """Begin to send."""
        self._courier = Courier(self._accounts, self._senders, self._now, self._note)
        self._set_timer()

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

    def settling(self, transitions: Iterable[AlertTransition], alerts: Iterable[Alert], look: Look) -> Iterator[None]:
        """Take account of *transitions* and of all *alerts* that there are, and put what is to be told now into the
        outbox. In steps: others may work at each.
        """
        yield from self._accounts.settling(transitions, alerts, look, self._now())
        for name in self._senders.forget(self._accounts.owed):
            del self._counts[name, True], self._counts[name, False]
        if self._courier is not None:
            yield from self._senders.reminding(lambda receiver: self._accounts.notifier.told(receiver, look))
        self._set_timer()

    def rows(self, *, whole: bool) -> Rows:
        """Return the rows of the state file that have changed since the last call; *whole*: all."""
        return self._accounts.all_rows() if whole else self._accounts.take_changes()

    def release(self) -> None:
        """What was flushed is stored, or cannot be: send it."""
        self._accounts.release()
        if self._courier is not None:
            self._courier.release()

    async def _note(self, tried: Owed, outcome: Outcome, took_ns: int) -> None:
        """Take account of an attempt that has ended."""
        notification, at = tried.notification, self._now()
        receiver = notification.receiver
        before = self._accounts.outbox.contact(receiver).state
        steps, slices = self._accounts.noting(tried, outcome, at), Slices()
        try:
            for _ in steps:
                await slices.pause()
        finally:
            for _ in steps:  # if this is cancelled meanwhile: the receiver has it all the same
                pass
        after = self._accounts.outbox.contact(receiver).state
        self._counts[receiver, outcome.result == "sent"] += 1
        if after in _OUT and before not in _OUT:
            logger("alerts").warning(
                "a receiver cannot be told", receiver=receiver, state=after.value, reason=outcome.reason
            )
        elif after is ReceiverPhase.READY and before in _OUT:
            logger("alerts").info("a receiver is told again", receiver=receiver)
        ALERT_NOTIFY.event.emit(*self._event(tried, outcome, took_ns))
        self._store()
        self._set_timer()

    def _event(self, tried: Owed, outcome: Outcome, took_ns: int) -> tuple[dict[str, Any], dict[str, Any]]:
        notification = tried.notification
        measurements = {
            "duration": took_ns,
            "attempt": tried.attempts + 1,
            "alerts": notification.firing + notification.resolved,
        }
        if outcome.retry_after is not None:
            measurements["retry_after"] = round(outcome.retry_after * 1e9)
        return measurements, {
            "monitor": self._context.monitor,
            "service": self._context.service,
            "receiver": notification.receiver,
            "channel": self._senders.kind(notification.receiver),
            "id": notification.id,
            "group": notification.group_key,
            "status": notification.status,
            "reason": notification.reason,
            "result": outcome.result,
            "error": outcome.reason,
        }

    def _set_timer(self) -> None:
        """Settle when the notifier has something to do."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._accounts.notifier.next_at
        if at is not None and self._courier is not None:
            delay = max(at - self._now(), WAKE_LEAST_S)
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    # -- what people do -------------------------------------------------------------------------------------------

    async def test(self, receiver: str) -> Outcome:
        """Send a test to *receiver*, and return what came of it. Raises UnknownName. If the receiver has it, what it is
        owed is tried at once.
        """
        if not self._senders.knows(receiver):
            known = ", ".join(sorted(self._senders.names()))
            raise UnknownName(f"there is no receiver {receiver!r:.80}; there are: {known}")
        outcome = await self._senders.send(receiver, _test(receiver, self._context.service, self._now()))
        if outcome.result == "sent":
            self._accounts.outbox.try_now(receiver, self._now())
            if self._courier is not None:
                self._courier.release()
        return outcome

    # -- what is shown of it --------------------------------------------------------------------------------------

    def told(self, view: AlertView) -> tuple[ToldView, ...]:
        """What each receiver knows of an alert, and why it is told nothing now."""
        return tuple(map(self._with_error, self._accounts.notifier.knowledge.told(view, self._now())))

    def _with_error(self, one: ToldView) -> ToldView:
        """Return *one* with the reason why the message is still owed."""
        error = self._accounts.outbox.contact(one.receiver).error if one.status == "owed" else ""
        return msgspec.structs.replace(one, reason=error) if error else one

    def escalated_at(self, fingerprint: str) -> float | None:
        """When another receiver was first owed an alert because nobody had acknowledged it; None: none is."""
        return self._accounts.notifier.knowledge.escalated_at(fingerprint)

    def view(self) -> dict[str, Any]:
        """The fields of `AlertingView` that delivery has."""
        receivers = self.receivers()
        debts = [one.oldest_debt for one in receivers if one.oldest_debt is not None]
        ages = [one.last_success_age for one in receivers if one.last_success_age is not None]
        return {
            "owed": sum(one.owed for one in receivers),
            "parked": sum(one.parked for one in receivers),
            "held_back": sum(one.held_back for one in receivers),
            "lost": sum(one.lost for one in receivers),
            "oldest_debt": max(debts, default=None),
            "notified_age": min(ages, default=None),
            "receivers": receivers,
        }

    def receivers(self) -> tuple[ReceiverView, ...]:
        """The receivers, and what they are owed."""
        at, debts = self._now(), self._accounts.outbox.debts()
        return tuple(self._view(name, debts.get(name, Debt()), at) for name in self._senders.names())

    def _view(self, name: str, debt: Debt, at: float) -> ReceiverView:
        contact, receiver = self._accounts.outbox.contact(name), self._senders.receiver(name)
        next_at = contact.next_at(at) or self._accounts.notifier.knowledge.held_until(name)
        return ReceiverView(
            name=name,
            channel=self._senders.kind(name),
            where=self._senders.where(name) if self._courier is not None else "",
            page=receiver is not None and receiver.page,
            state=contact.state.value,
            owed=debt.owed,
            parked=debt.parked,
            held_back=self._accounts.notifier.knowledge.held_back(name),
            oldest_debt=None if debt.oldest is None else max(at - debt.oldest, 0.0),
            last_success_age=None if contact.arrived_at is None else max(at - contact.arrived_at, 0.0),
            last_error=contact.error or None,
            failures=contact.failures,
            next_in=None if next_at is None else max(next_at - at, 0.0),
            sent=self._counts[name, True],
            failed=self._counts[name, False],
            lost=contact.lost,
        )

    def _now(self) -> float:
        """The wall clock when this was first called, and from then on the monotonic clock."""
        if self._clock is None:
            self._clock = SteadyClock(self._context.clock)
        return self._clock.now_ns() / 1e9


def _named(receiver: msgspec.Struct) -> str:
    """Name the configuration of a receiver. The name is too short to say anything of a secret in it."""
    return hashlib.sha256(msgspec.json.encode(receiver)).hexdigest()[:8]


def _test(receiver: str, service: str, at: float) -> Notification:
    summary = f"This is a test of the receiver {receiver}. Nothing is wrong."
    alert = ToldAlert(
        alertname="Test",
        labels={"severity": "info"},
        fingerprint="0" * 16,
        status="resolved",
        severity="info",
        starts_at=at,
        ends_at=at,
        summary=summary,
        annotations={"summary": summary},
    )
    return Notification(
        id=f"msg_{secrets.token_hex(12)}",
        receiver=receiver,
        group_key='{}:{alertname="Test"}',
        group_labels={"alertname": "Test"},
        reason=TEST,
        status="resolved",
        alerts=(alert,),
        firing=0,
        resolved=1,
        at=at,
        service=service,
    )
