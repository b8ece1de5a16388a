"""How groups become one notification."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pool_monitor.alerts.delivery.digest import DIGEST
from pool_monitor.alerts.delivery.groups import Counts, Group
from pool_monitor.alerts.delivery.members import Member, Standing
from pool_monitor.alerts.delivery.notification import ALERTS_MAX, Notification, ToldAlert
from pool_monitor.alerts.overlays.views import rank_of
from pool_monitor.snapshot import AlertView

Look = Callable[[str], AlertView | None]
"""Returns the alert with a fingerprint as it is now, with what lies over it; None: there is none."""


class Draft(NamedTuple):
    """A group that has something to tell."""

    group: Group
    standings: Sequence[Standing]
    counts: Counts
    reason: str
    seen: tuple[str, int]
    """What waited and what had arrived when it was written."""

    @property
    def outdated(self) -> bool:
        """Whether something has arrived since, so that it has to be written anew."""
        return self.seen != (self.group.waiting, self.group.arrived_no)

    @property
    def order(self) -> tuple[int, int, float]:
        """Orders drafts: the worst first, of those the ones that fire, of those the oldest."""
        told = [standing.member for standing in self.standings if standing.status != "suppressed"]
        return (
            min((rank_of(member.severity) for member in told), default=0),
            0 if self.counts.firing else 1,
            min((member.starts_at for member in told), default=0.0),
        )


def notification_of(
    drafts: Sequence[Draft], at: float, look: Look, *, service: str, page: bool, reason: str, about: str
) -> Notification:
    """Return the notification that tells *drafts*, at least one, all of the same receiver. Those of several groups
    have the reason ``digest``.
    """
    group = drafts[0].group
    several = reason == DIGEST
    stated = [
        (draft.group, standing)
        for draft in drafts
        for standing in draft.standings
        if standing.status == "firing" or (standing.status == "ended" and standing.member.owed(draft.group))
    ]
    firing = sum(standing.status == "firing" for _, standing in stated)
    stated.sort(key=_worst_first)
    return Notification(
        id=f"msg_{secrets.token_hex(12)}",
        receiver=group.receiver,
        group_key="" if several else group.key,
        group_labels={} if several else group.labels,
        reason=reason,
        status="firing" if firing else "resolved",
        alerts=tuple(_told(owner, standing, look(standing.fingerprint)) for owner, standing in stated[:ALERTS_MAX]),
        firing=firing,
        resolved=len(stated) - firing,
        at=at,
        service=service,
        page=page,
        about=about,
        groups=len(drafts),
    )


def state_all(draft: Draft, at: float) -> Iterable[Standing]:
    """Note that the latest notification of the group states what *draft* has. Yields the members that changed."""
    group, number = draft.group, draft.group.made_no
    for standing in draft.standings:
        member = standing.member
        before = (member.fire_no, member.end_no, member.maybe, member.said_severity, member.owed_at)
        if standing.status == "firing":
            member.state_firing(group, number, at)
        elif standing.status == "suppressed":
            member.unsay(group)
        elif member.owed(group):
            member.state_end(group, number)
        if before != (member.fire_no, member.end_no, member.maybe, member.said_severity, member.owed_at):
            yield standing


def _worst_first(stated: tuple[Group, Standing]) -> tuple[int, int, float]:
    _, standing = stated
    return standing.status != "firing", rank_of(standing.member.severity), standing.member.starts_at


def _told(group: Group, standing: Standing, view: AlertView | None) -> ToldAlert:
    member = standing.member
    if view is None or member.end is not None:
        return _ended(group, standing.fingerprint, member, view)
    return ToldAlert(
        alertname=view.alertname,
        labels=view.labels,
        fingerprint=standing.fingerprint,
        status="firing",
        severity=view.severity,
        starts_at=member.starts_at,
        summary=view.summary,
        runbook=view.runbook,
        annotations=view.annotations,
        value=view.value,
        value_text=view.value_text,
        unit=view.unit,
        limit=view.limit,
        reason=view.reason,
        acknowledged_by="" if view.acknowledgement is None else view.acknowledgement.author,
        flapping=view.flapping,
        values=view.values,
        values_s=view.values_s,
    )


def _ended(group: Group, fingerprint: str, member: Member, view: AlertView | None) -> ToldAlert:
    """The engine may have forgotten the alert, or may have a new life of it."""
    end = member.end
    still = view is not None and view.state == "resolved"
    return ToldAlert(
        alertname=member.alert,
        labels={**member.labels, "severity": member.severity},
        fingerprint=fingerprint,
        status="firing" if end is None else "resolved",
        severity=member.severity,
        starts_at=member.starts_at,
        ends_at=None if end is None else end.at,
        summary="" if end is None else end.summary,
        runbook=view.runbook if still and view is not None else "",
        annotations=view.annotations if still and view is not None else {},
        value=None if end is None else end.value,
        value_text="" if end is None else end.value_text,
        unit=view.unit if view is not None else "",
        limit=view.limit if view is not None else None,
        reason="" if end is None else end.reason,
        delayed=end is not None and not member.heard(group),
        values=view.values if still and view is not None else (),
        values_s=view.values_s if still and view is not None else 0.0,
    )
