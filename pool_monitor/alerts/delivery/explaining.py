"""What a receiver knows of an alert, in the words of a Snapshot."""

from __future__ import annotations

from pool_monitor.alerts.delivery.aftermath import Aftermath
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.members import Member, suppressed_by
from pool_monitor.alerts.delivery.rate_limit import RateLimits
from pool_monitor.alerts.overlays.mute import is_muted, local_time
from pool_monitor.snapshot import AlertView, ToldView


def told_view(
    group: Group, member: Member, view: AlertView, limits: RateLimits, aftermath: Aftermath, at: float
) -> ToldView:
    """Return what the receiver of *group* knows of the alert *view*, and why it is told nothing now."""
    name = group.receiver
    if view.flapping and member.said_flapping:
        return ToldView(receiver=name, status="flapping", at=group.told_at)
    if member.up_to_date(group):
        return ToldView(receiver=name, status="told", at=group.told_at)
    if group.waiting and member.stated_no > group.arrived_no:
        reason = aftermath.why_parked(group.waiting)
        return ToldView(receiver=name, status="owed" if reason is None else "parked", reason=reason or "")
    muted = bool(group.options.mute) and is_muted(group.options.mute, local_time(at))
    if member.end is None and (why := suppressed_by(view, muted=muted)):
        return ToldView(receiver=name, status=why)
    if group.held:
        return ToldView(receiver=name, status="held_back", at=limits.until(name))
    return ToldView(receiver=name, status="waiting", at=group.flush_at)
