"""Alertmanager's dispatcher and deduplication for one receiver, on virtual time. Shares no code with the notifier.

Written after dispatch/dispatch.go and notify/notify.go of Alertmanager 0.34: groups with a timer that is reset before
each flush, and a log of what was notified last, which a flush is compared with. A delivery always succeeds at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Notified(NamedTuple):
    """One notification: when, why, and the alerts in it."""

    at: float
    reason: str
    firing: frozenset[str]
    resolved: frozenset[str]


class Change(NamedTuple):
    """An alert that fires or ends, as it is posted."""

    at: float
    alert: str
    starts_at: float
    ends_at: float | None = None


class _LogEntry(NamedTuple):
    """What was notified last of a group."""

    firing: frozenset[str]
    resolved: frozenset[str]
    at: float


class AlertmanagerGroup:
    """One aggregation group and its entry of the notification log.

    *tells_unheard*: as in Alertmanager, an alert that fired and ended between two flushes is notified as resolved when
    others of the group fire. Without it, nobody hears of such an alert.
    """

    def __init__(self, wait: float, interval: float, repeat: float, *, tells_unheard: bool = True) -> None:
        self.wait, self.interval, self.repeat = wait, interval, repeat
        self.tells_unheard = tells_unheard
        self.alerts: dict[str, Change] = {}
        self.timer: float | None = None  # None: there is no group
        self.has_flushed = False
        self.logged: _LogEntry | None = None

    def run(self, changes: Iterable[Change], until: float) -> list[Notified]:
        """Return what is notified of *changes*, which are in the order of their times."""
        found = []
        for change in changes:
            found += self._up_to(change.at)
            self._insert(change)
        return found + self._up_to(until)

    def _insert(self, change: Change) -> None:
        if self.timer is None:
            self.alerts, self.has_flushed = {}, False
            self.timer = change.at + self.wait
        self.alerts[change.alert] = change
        if not self.has_flushed and change.starts_at + self.wait < change.at:
            self.timer = change.at

    def _up_to(self, at: float) -> list[Notified]:
        found = []
        while self.timer is not None and self.timer <= at:
            now = self.timer
            self.timer = now + self.interval
            self.has_flushed = True
            found += self._flush(now)
            if not self.alerts:
                self.timer = None
        return found

    def _flush(self, now: float) -> list[Notified]:
        firing = {name for name, alert in self.alerts.items() if alert.ends_at is None}
        resolved = self.alerts.keys() - firing
        if not self.tells_unheard:
            resolved &= self.logged.firing if self.logged else frozenset()
        reason = self._needs_update(firing, resolved, now)
        for name in self.alerts.keys() - firing:
            del self.alerts[name]
        if reason is None:
            return []
        self.logged = _LogEntry(frozenset(firing), frozenset(resolved), now)
        return [Notified(now, reason, frozenset(firing), frozenset(resolved))]

    def _needs_update(self, firing: set[str], resolved: set[str], now: float) -> str | None:
        entry = self.logged
        if entry is None:
            return "first notification" if firing else None
        if not firing <= entry.firing:
            return "new alerts added" if entry.firing else "first notification"
        if not firing:
            return "all alerts resolved" if entry.firing else None
        if not resolved <= entry.resolved:
            return "some alerts resolved"
        return "repeat interval elapsed" if entry.at < now - self.repeat else None
