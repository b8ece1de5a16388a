"""One message in place of many that were held back."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from pool_monitor.alerts.delivery.notification import ALERTS_MAX, Notification, ToldAlert

REASON = "digest"
_RULES_MAX = 1000  # names that are kept to count them


class Digest:
    """Collects the notifications of one receiver. Bounds: `ALERTS_MAX` alerts, the most urgent ones; the others are
    counted.

    *urgency* orders alerts, the most urgent first: smaller comes first.
    """

    def __init__(self, urgency: Callable[[ToldAlert], tuple[float, ...]]) -> None:
        self._urgency = urgency
        self._kept: list[tuple[tuple[float, ...], int, ToldAlert]] = []  # a heap with the least urgent one first
        self._number = count()
        self._rules: set[str] = set()
        self.groups = self.firing = self.resolved = 0

    def add(self, one: Notification) -> None:
        """Take up a notification that is told as a part of this."""
        self.groups += 1
        self.firing += one.firing
        self.resolved += one.resolved
        for alert in one.alerts:
            if len(self._rules) < _RULES_MAX:
                self._rules.add(alert.alertname)
            entry = (tuple(-part for part in self._urgency(alert)), -next(self._number), alert)
            if len(self._kept) < ALERTS_MAX:
                heapq.heappush(self._kept, entry)
            else:
                heapq.heappushpop(self._kept, entry)

    def notification(self, *, id: str, receiver: str, service: str, at: float, held_for: float) -> Notification:  # noqa: A002
        """Make the message. *held_for*: for how many seconds the first of them was held back."""
        return Notification(
            id=id,
            receiver=receiver,
            group_key="",
            group_labels={},
            reason=REASON,
            status="firing" if self.firing else "resolved",
            alerts=tuple(alert for _, _, alert in sorted(self._kept, reverse=True)),
            firing=self.firing,
            resolved=self.resolved,
            at=at,
            service=service,
            about=self._about(held_for),
            groups=self.groups,
        )

    def _about(self, held_for: float) -> str:
        held = f"were held back in {held_for:.0f} s" if held_for >= 1.0 else "were due at once"
        rules = f"{len(self._rules):,}{' or more' if len(self._rules) == _RULES_MAX else ''}"
        return (
            f"{_counted(self.groups, 'message')} {held}: {_counted(self.firing + self.resolved, 'alert')} of "
            f"{rules} rule{'' if rules == '1' else 's'}, {self.firing:,} firing and {self.resolved:,} resolved"
        ).replace("message were", "message was")


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
