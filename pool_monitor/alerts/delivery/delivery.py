"""Delivery as the evaluator uses it: the notifier, the outbox and the courier together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pool_monitor.alerts.channels import Sender, sender_of
from pool_monitor.alerts.delivery.courier import Courier
from pool_monitor.alerts.delivery.messages import Look
from pool_monitor.alerts.delivery.notifier import Notifier, Rows
from pool_monitor.alerts.delivery.outbox import Outbox
from pool_monitor.alerts.delivery.targets import Routing

if TYPE_CHECKING:
    from pool_monitor.alerts.alert import Alert
    from pool_monitor.parts import Context
    from pool_monitor.snapshot import AlertTransition, AlertView, ReceiverView, ToldView


class Delivery:
    """Tells the receivers. *wake* is called when the evaluator has to store and flush: a time has come, or an attempt
    has ended.
    """

    def __init__(self, context: Context, wake: Callable[[], object]) -> None:
        self._context, self._wake = context, wake
        self._notifier, self._outbox = Notifier(context.service), Outbox()
        self._courier: Courier | None = None
        self._routing, self._senders = Routing(), dict[str, Sender]()
        self._offset: float | None = None

    # -- life -----------------------------------------------------------------------------------------------------

    def use(self, routing: Routing) -> None:
        """Tell by *routing* from now on. Receivers that have not changed keep their senders."""
        for name in list(self._senders):
            if self._routing.receivers.get(name) != routing.receivers.get(name):
                del self._senders[name]
        self._routing = routing
        self._notifier.use(routing, self._now())

    def restore(self, rows: Mapping[str, Mapping[str, bytes]]) -> list[str]:
        """Take over what a state file has. Returns what cannot be used, in words."""
        return self._notifier.restore(rows, self._now())

    def open(self) -> None:
        """Begin to send."""
        self._courier = Courier(self._outbox, self._sender, self._notifier, self._now)

    async def close(self) -> None:
        """End. What has not arrived is sent by the next life, if a state file keeps it."""
        courier, self._courier = self._courier, None
        if courier is not None:
            await courier.close()

    # -- for each settling ----------------------------------------------------------------------------------------

    def settling(self, transitions: Sequence[AlertTransition], alerts: Iterable[Alert], look: Look) -> Iterator[None]:
        """Take account of changes of *alerts*, and put what is to be told now into the outbox, in steps. *transitions*
        that were noted before are left out.
        """
        at = self._now()
        if self._notifier.unreconciled:
            yield from self._notifier.reconciling(alerts, at)
        yield from self._notifier.noting(transitions, at)
        for one in self._notifier.flushing(at, look):
            if one is not None:
                self._outbox.put(one, at)
            yield

    def rows(self, *, whole: bool) -> Rows:
        """Return the rows of the state file that have changed since the last call; *whole*: all."""
        return self._notifier.all_rows() if whole else self._notifier.take_changes()

    def release(self) -> None:
        """What was flushed is stored, or cannot be: send it."""
        if self._courier is not None:
            self._courier.release()

    # -- what is shown of it --------------------------------------------------------------------------------------

    def told(self, view: AlertView) -> tuple[ToldView, ...]:
        """What each receiver knows of an alert, and why it is told nothing now."""
        return self._notifier.explain(view, self._now())

    def receivers(self) -> tuple[ReceiverView, ...]:
        """The receivers, and what they are owed."""
        return ()

    def _sender(self, receiver: str) -> Sender:
        if receiver not in self._senders:
            self._senders[receiver] = sender_of(self._routing.receivers[receiver])
        return self._senders[receiver]

    def _now(self) -> float:
        """The wall clock when this was first called, and from then on the monotonic clock."""
        clock = self._context.clock
        if self._offset is None:
            self._offset = (clock.wall_ns() - clock.monotonic_ns()) / 1e9
        return clock.monotonic_ns() / 1e9 + self._offset
