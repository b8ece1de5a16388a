"""What follows for the members of groups when a notification has arrived, was refused, or was given up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

from pool_monitor.alerts.delivery.agenda import Agenda
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.ledger import Ledger
from pool_monitor.alerts.delivery.messages import AT_ONCE
from pool_monitor.alerts.delivery.notification import Notification


class Aftermath:
    """Notes at once what the courier says of a notification. What follows for each member is done later, in steps.
    Bound: what is to be done is at most three entries for each group of a notification in the outbox.
    """

    def __init__(self, ledger: Ledger, agenda: Agenda) -> None:
        self._ledger, self._agenda = ledger, agenda
        self._to_do: deque[tuple[Literal["arrived", "parked", "lost"], Group, str]] = deque()
        self._parked: dict[str, str] = {}  # why, by id

    def __bool__(self) -> bool:
        """Whether `following` has something to do."""
        return bool(self._to_do)

    def arriving(self, notification: Notification, at: float) -> Iterator[None]:
        """The receiver has it. In steps: until the last one, the attempt is under way."""
        for number, group in enumerate(self._ledger.waiting_for(notification.id)):
            if number % AT_ONCE == AT_ONCE - 1:
                yield
            if group.waiting == notification.id:  # it may have been given up meanwhile
                group.arrived(notification.at, at)
                self._ledger.keep(group, notification.id)
                self._to_do.append(("arrived", group, ""))
        self._parked.pop(notification.id, None)
        self._agenda.land(notification.id)

    def failing(self, notification: Notification, *, unsure: bool) -> Iterator[None]:
        """An attempt has failed. In steps, as `arriving`."""
        for number, group in enumerate(self._ledger.waiting_for(notification.id) if unsure else ()):
            if number % AT_ONCE == AT_ONCE - 1:
                yield
            if group.waiting == notification.id:
                group.maybe_no = group.made_no
                self._ledger.keep(group)
        self._agenda.land(notification.id)

    def parked(self, notification: Notification, reason: str) -> None:
        """Its fallbacks are to be told."""
        self._parked[notification.id] = reason
        for group in self._ledger.waiting_for(notification.id):
            self._to_do.append(("parked", group, reason))

    def lost(self, notification: str) -> None:
        """The notification with this id was given up."""
        self._parked.pop(notification, None)
        for group in self._ledger.waiting_for(notification):
            group.given_up()
            self._ledger.keep(group, notification)
            self._to_do.append(("lost", group, ""))
        self._agenda.land(notification)

    def superseded(self, notification: str) -> None:
        """A newer one takes the place of the notification with this id."""
        self._parked.pop(notification, None)

    def why_parked(self, notification: str) -> str | None:
        """Return why the notification with this id cannot be delivered; None: nothing is known against it."""
        return self._parked.get(notification)

    def following(self, fall_back: Callable[[Group, str, str], object]) -> Iterator[None]:
        """Do what follows, in steps. *fall_back* is called for each alert of a notification that is parked, with its
        group, its fingerprint and the reason.
        """
        while self._to_do:
            what, group, reason = self._to_do[0]
            if self._ledger.group(group.number) is group:
                if what == "parked":
                    for fingerprint, member in list(self._ledger.members_of(group).items()):
                        if member.fire_no > 0 if member.end is None else member.owed(group):
                            fall_back(group, fingerprint, reason)
                            yield
                else:
                    yield from self._clear(group, given_up=what == "lost")
            self._to_do.popleft()
            yield

    def _clear(self, group: Group, *, given_up: bool) -> Iterator[None]:
        """Let members go whose end the receiver knows, or is not owed any more."""
        for number, (fingerprint, member) in enumerate(list(self._ledger.members_of(group).items()), 1):
            forgiven = given_up and member.end_no > group.arrived_no
            if member.end is not None and (forgiven or member.end_known(group)):
                self._ledger.remove_member(group, fingerprint)
            elif given_up and max(member.fire_no, member.end_no, member.said_no) > group.arrived_no:
                member.unsay(group)
                self._ledger.set_member(group, fingerprint, member)
            if number % AT_ONCE == 0:
                yield
        if not self._ledger.members_of(group):
            self._agenda.forget(group)
