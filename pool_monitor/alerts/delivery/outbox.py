"""The notifications that have not arrived yet, and which of them may be tried now."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable

from pool_monitor.alerts.delivery.notification import Notification, Outcome


class Outbox:
    """At most one notification for each receiver and group waits; a newer one takes its place. No I/O; times are
    passed in.
    """

    def __init__(self) -> None:
        self._waiting: defaultdict[str, deque[Notification]] = defaultdict(deque)

    def put(self, notification: Notification, at: float) -> None:  # noqa: ARG002
        """Keep *notification* until it has arrived."""
        self._waiting[notification.receiver].append(notification)

    def receivers(self) -> Iterable[str]:
        """The receivers that something waits for."""
        return [name for name, waiting in self._waiting.items() if waiting]

    def take(self, receiver: str, at: float) -> Notification | None:  # noqa: ARG002
        """Return what is to be sent to *receiver* now; it is under way until `note`."""
        waiting = self._waiting[receiver]
        return waiting[0] if waiting else None

    def note(self, notification: Notification, outcome: Outcome, at: float) -> None:  # noqa: ARG002
        """Take account of what came of an attempt that has ended."""
        self._waiting[notification.receiver].remove(notification)
