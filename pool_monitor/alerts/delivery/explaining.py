"""What a receiver knows of an alert, in the words of a Snapshot."""

from __future__ import annotations

from pool_monitor.alerts.delivery.aftermath import Aftermath
from pool_monitor.alerts.delivery.escalation import ESCALATED
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.ledger import Ledger
from pool_monitor.alerts.delivery.members import Member, suppressed_by
from pool_monitor.alerts.delivery.rate_limit import RateLimits
from pool_monitor.snapshot import AlertView, ToldView

TOLD_MAX = 8
"""Most receivers that are shown of one alert."""


class Knowledge:
    """What receivers know, for those who show it. It changes nothing."""

    def __init__(self, ledger: Ledger, limits: RateLimits, aftermath: Aftermath) -> None:
        self._ledger, self._limits, self._aftermath = ledger, limits, aftermath

    def told(self, view: AlertView, at: float) -> tuple[ToldView, ...]:
        """Return what each receiver knows of an alert, and why it is told nothing now. At most `TOLD_MAX`."""
        found = list(self._ledger.of(view.fingerprint))[:TOLD_MAX]
        return tuple(self._told(group, member, view, at) for group, member in found)

    def escalated_at(self, fingerprint: str) -> float | None:
        """Return when another receiver was first owed an alert because nobody had acknowledged it; None: none is."""
        times = (member.owed_at for group, member in self._ledger.of(fingerprint) if group.cause == ESCALATED)
        return min((time for time in times if time is not None), default=None)

    def receivers(self) -> set[str]:
        """Return the receivers that have groups."""
        return {group.receiver for group in self._ledger.each_group()}

    def held_back(self, receiver: str) -> int:
        """Return the number of groups of *receiver* that the rate limit holds back."""
        return self._limits.held_back(receiver)

    def held_until(self, receiver: str) -> float | None:
        """Return when the rate limit may let something go that it holds back; None: not known."""
        return self._limits.until(receiver)

    def _told(self, group: Group, member: Member, view: AlertView, at: float) -> ToldView:
        """Return what the receiver of *group* knows of the alert *view*, and why it is told nothing now."""
        name = group.receiver
        if view.flapping and member.said_flapping:
            return ToldView(receiver=name, status="flapping", at=group.told_at)
        if member.up_to_date(group):
            return ToldView(receiver=name, status="told", at=group.told_at)
        if group.waiting and member.stated_no > group.arrived_no:
            reason = self._aftermath.why_parked(group.waiting)
            return ToldView(receiver=name, status="owed" if reason is None else "parked", reason=reason or "")
        if member.end is None and (why := suppressed_by(view, muted=group.options.muted(at))):
            return ToldView(receiver=name, status=why)
        if group.held:
            return ToldView(receiver=name, status="held_back", at=self._limits.until(name))
        return ToldView(receiver=name, status="waiting", at=group.flush_at)
