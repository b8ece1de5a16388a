"""The notifier and the outbox, kept in agreement: what is to be told, what has not arrived, and what came of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.delivery.messages import Look
from pool_monitor.alerts.delivery.notification import Notification, Outcome
from pool_monitor.alerts.delivery.notifier import Notifier, Rows
from pool_monitor.alerts.delivery.outbox import Outbox, Owed
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.log import logger
from pool_monitor.snapshot import AlertTransition

_UNKNOWN = "its receiver is in no file of rules any more"


class Accounts:
    """What receivers are owed. No I/O, except that what is lost is logged; times are passed in and never go back.

    A service and a rehearsal use it in the same way: `settling` when something has changed or a time has come, then
    `release`, and for each receiver `take` and `note`, once for each attempt. *chance*: random numbers from 0 to 1.
    """

    def __init__(self, service: str = "", chance: Callable[[], float] = random.random) -> None:
        self.notifier, self.outbox = Notifier(service), Outbox(chance)
        self._known: Collection[str] = ()

    def use(self, routing: Routing, known: Collection[str]) -> None:
        """Tell by *routing* from now on. *known*: the receivers that can be sent to, also those of earlier routings.
        What others are owed is lost.
        """
        self._known = known
        self.notifier.use(routing)
        for receiver in [name for name in self.outbox.debts() if name not in known]:
            self._lost(self.outbox.give_up(receiver), _UNKNOWN)
        self.outbox.forget_others(known)

    def restore(self, rows: Mapping[str, Mapping[str, bytes]], at: float) -> list[str]:
        """Take over what a state file has. Returns what cannot be used, in words."""
        refused = self.notifier.restore(rows, at)
        owed, unusable = self.outbox.restore(rows, at)
        self.notifier.check({one.notification.id for one in owed})
        for one in owed:
            if one.passed_on:  # perhaps it was not, if the earlier life ended just then
                self.notifier.parked(one.notification, self.outbox.contact(one.notification.receiver).error)
        return [*refused, *unusable]

    def settling(
        self, transitions: Iterable[AlertTransition], alerts: Iterable[Alert], look: Look, at: float
    ) -> Iterator[None]:
        """Take account of *transitions* and of all *alerts* that there are, and put what is to be told now into the
        outbox. In steps: others may work at each.
        """
        if self.notifier.unreconciled:
            yield from self.notifier.reconciling(alerts, at)
        yield from self.notifier.noting(transitions, at)
        self._lost(self.outbox.expire(at), "it is too old")
        for one in self.notifier.flushing(at, look):
            if one is not None:
                self._put(one, at)
            yield

    def release(self) -> None:
        """What was put into the outbox is stored, or cannot be: it may be tried."""
        self.outbox.release()

    def take(self, receiver: str, at: float) -> Owed | None:
        """Begin an attempt: return what is to be sent to *receiver* now. It is under way until `note` or `interrupted`.
        None: nothing can be sent now.
        """
        found = self.outbox.take(receiver, at)
        if found is not None:
            self.notifier.sending(found.notification)
        return found

    def note(self, tried: Owed, outcome: Outcome, at: float) -> None:
        """Take account of what came of an attempt."""
        for _ in self.noting(tried, outcome, at):
            pass

    def noting(self, tried: Owed, outcome: Outcome, at: float) -> Iterator[None]:
        """Do what `note` does, in steps: a digest may speak of thousands of groups. All have to be made.

        The outbox is the last: what is stored meanwhile has the notification still, so it is sent twice rather than
        lost.
        """
        if outcome.result == "sent":
            yield from self.notifier.arriving(tried.notification, at)
        else:
            yield from self.notifier.failing(tried.notification, unsure=outcome.unsure)
        for notification, reason in self.outbox.note(tried, outcome, at):
            self.notifier.parked(notification, reason)

    def interrupted(self, tried: Owed) -> None:
        """An attempt was broken off; it may have arrived. It is made again."""
        self.outbox.interrupted(tried)
        for _ in self.notifier.failing(tried.notification, unsure=True):
            pass

    def take_changes(self) -> Rows:
        """Return the rows of the state file that have changed since the last call."""
        return {**self.notifier.take_changes(), **self.outbox.take_changes()}

    def all_rows(self) -> Rows:
        """Return all rows."""
        return {**self.notifier.all_rows(), **self.outbox.all_rows()}

    def owed(self) -> Collection[str]:
        """The receivers that are owed something, or are going to be."""
        return {*self.outbox.debts(), *self.notifier.knowledge.receivers()}

    def _put(self, notification: Notification, at: float) -> None:
        if notification.receiver not in self._known:
            self._lost([notification], _UNKNOWN)
            return
        put = self.outbox.put(notification, at)
        if not put.kept:
            self._lost([notification], "too many notifications wait already")
        elif put.cannot:
            self.notifier.parked(notification, put.cannot)

    def _lost(self, given_up: Iterable[Notification], why: str) -> None:
        for one in given_up:
            self.notifier.lost(one)
            logger("alerts").error(
                "a notification is lost", receiver=one.receiver, group=one.group_key, status=one.status, reason=why
            )
