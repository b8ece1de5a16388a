"""What became of each rule in a stretch of time: how often it fired, for how long, how much it flapped; and how much
each receiver was told.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.delivery.notification import Notification
from pool_monitor.alerts.lifecycle import FIRING_PHASES
from pool_monitor.alerts.overlays.flapping import Flapping
from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.alerts.ruling import lower_is_worse
from pool_monitor.snapshot import AlertTransition


@dataclass
class RuleTally:
    """One rule. Times are seconds."""

    fired: int = 0
    """How often one of its alerts began to fire."""
    firing_for: float = 0.0
    """For how long its alerts fired, all together."""
    flapped: int = 0
    """How often one of its alerts began to flap."""
    pending: int = 0
    """How often one of its alerts was pending and did not fire."""
    firing: int = 0
    """How many fired at the end."""
    severities: dict[str, int] = field(default_factory=dict)
    """How often each level was reached."""
    worst: float | None = None
    """The worst value of an alert that fired."""


class Tally:
    """The tallies of *rules* from *start* to *end* (seconds since the epoch). Bounded as the engine is."""

    def __init__(self, rules: Iterable[CheckedRule], start: float, end: float) -> None:
        self.start, self.end = start, end
        self.rules = {rule.alert: RuleTally() for rule in rules}
        self._lower = {rule.alert for rule in rules if lower_is_worse(rule.kind)}
        self._flapping, self._flaps = Flapping(), set[str]()
        self._since: dict[str, tuple[str, float]] = {}
        """The alerts that fire, by fingerprint: the rule, and when they began."""

    def note(
        self,
        at: float,
        elapsed: float,
        transitions: Sequence[AlertTransition],
        alerts: Iterable[Alert],
        restarted: bool,
    ) -> None:
        """Take in one evaluation. *alerts*: those that there are after it."""
        inside = self.start <= at < self.end
        self._flapping.note(transitions, elapsed)
        if restarted:  # some may be forgotten
            going_on = {one.fingerprint for one in alerts if one.state in FIRING_PHASES}
            for fingerprint in self._since.keys() - going_on - {one.fingerprint for one in transitions}:
                self._stop(fingerprint, at)
        for one in transitions:
            self._note(one, at, inside=inside)
        if inside and self._since:
            for alert in alerts:
                if alert.state in FIRING_PHASES:
                    self._worse(alert)

    def finish(self, at: float) -> None:
        """The last evaluation was at *at*."""
        for fingerprint in list(self._since):
            self.rules[self._since[fingerprint][0]].firing += 1
            self._stop(fingerprint, min(at, self.end))

    def _note(self, one: AlertTransition, at: float, *, inside: bool) -> None:
        tally = self.rules[one.alert]
        was, fires = one.from_state in FIRING_PHASES, one.to_state in FIRING_PHASES
        if fires and not was:
            self._since[one.fingerprint] = (one.alert, max(at, self.start))
            tally.fired += inside
        elif was and not fires:
            self._stop(one.fingerprint, at)
        tally.pending += inside and one.from_state == "pending" and not fires
        if inside and fires and (not was or one.from_state == one.to_state):
            tally.severities[one.severity] = tally.severities.get(one.severity, 0) + 1
        if one.fingerprint in self._flapping:
            tally.flapped += inside and one.fingerprint not in self._flaps
            self._flaps.add(one.fingerprint)
        else:
            self._flaps.discard(one.fingerprint)

    def _stop(self, fingerprint: str, at: float) -> None:
        found = self._since.pop(fingerprint, None)
        if found is not None:
            alert, since = found
            self.rules[alert].firing_for += max(min(at, self.end) - since, 0.0)

    def _worse(self, alert: Alert) -> None:
        tally, peak = self.rules[alert.alert], alert.peak
        if peak is not None:
            worse = min if alert.alert in self._lower else max
            tally.worst = peak if tally.worst is None else worse(tally.worst, peak)


_MINUTE_S = 60.0
_MINUTE_MAX = 10_000


@dataclass
class ReceiverTally:
    """What one receiver was told: numbers of notifications."""

    notifications: int = 0
    firing: int = 0
    """Those with an alert that fires."""
    reasons: Counter[str] = field(default_factory=Counter)
    most_in_a_minute: int = 0
    """In any 60 seconds; at most `_MINUTE_MAX` are counted."""
    latest: deque[float] = field(default_factory=lambda: deque(maxlen=_MINUTE_MAX))
    """When the notifications of the latest minute arrived."""


class NotificationTally:
    """What the receivers were told from *start* to *end* (seconds since the epoch). Bounded by the numbers of receivers
    and rules.
    """

    def __init__(self, start: float, end: float) -> None:
        self._start, self._end = start, end
        self.receivers: dict[str, ReceiverTally] = {}
        """By name: those that were told something."""
        self.rules: Counter[str] = Counter()
        """How many notifications list an alert of a rule."""

    def note(self, at: float, notification: Notification) -> None:
        """A notification arrived *at* this time. Times do not descend."""
        if not self._start <= at < self._end:
            return
        tally = self.receivers.setdefault(notification.receiver, ReceiverTally())
        tally.notifications += 1
        tally.firing += notification.status == "firing"
        tally.reasons[notification.reason] += 1
        tally.latest.append(at)
        while tally.latest[0] <= at - _MINUTE_S:
            tally.latest.popleft()
        tally.most_in_a_minute = max(tally.most_in_a_minute, len(tally.latest))
        self.rules.update({one.alertname for one in notification.alerts})
