"""How groups become one notification."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pool_monitor.alerts.delivery.digest import DIGEST
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.members import Member, Truth
from pool_monitor.alerts.delivery.notification import ALERTS_MAX, Notification, ToldAlert
from pool_monitor.alerts.delivery.reasons import Counts
from pool_monitor.alerts.overlays.views import rank_of
from pool_monitor.snapshot import AlertView

Look = Callable[[str], AlertView | None]
"""Returns the alert with a fingerprint as it is now, with what lies over it; None: there is none."""


class Draft(NamedTuple):
    """A group that has something to tell."""

    group: Group
    truths: Sequence[Truth]
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
        told = [truth.member for truth in self.truths if truth.status != "suppressed"]
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
        (draft.group, truth)
        for draft in drafts
        for truth in draft.truths
        if truth.status == "firing" or (truth.status == "ended" and truth.member.owed(draft.group))
    ]
    firing = sum(truth.status == "firing" for _, truth in stated)
    stated.sort(key=_worst_first)
    return Notification(
        id=f"msg_{secrets.token_hex(12)}",
        receiver=group.receiver,
        group_key="" if several else group.key,
        group_labels={} if several else group.labels,
        reason=reason,
        status="firing" if firing else "resolved",
        alerts=tuple(_told(owner, truth, look(truth.fingerprint)) for owner, truth in stated[:ALERTS_MAX]),
        firing=firing,
        resolved=len(stated) - firing,
        at=at,
        service=service,
        page=page,
        about=about,
        groups=len(drafts),
    )


def state_all(draft: Draft, at: float) -> Iterable[Truth]:
    """Note that the latest notification of the group states what *draft* has. Yields the members that changed."""
    group, number = draft.group, draft.group.made_no
    for truth in draft.truths:
        member = truth.member
        before = _saved(member)
        if truth.status == "firing":
            member.state_firing(group, number, at, flapping=truth.flapping)
        elif truth.status == "suppressed":
            member.unsay(group)
        elif member.owed(group):
            member.state_end(group, number)
        if before != _saved(member):
            yield truth


def _saved(member: Member) -> tuple[object, ...]:
    return member.fire_no, member.end_no, member.maybe, member.said_severity, member.said_flapping, member.owed_at


def _worst_first(stated: tuple[Group, Truth]) -> tuple[int, int, float]:
    _, truth = stated
    return truth.status != "firing", rank_of(truth.member.severity), truth.member.starts_at


def _told(group: Group, truth: Truth, view: AlertView | None) -> ToldAlert:
    member = truth.member
    if view is None or truth.status == "ended":
        return _ended(group, truth.fingerprint, member, view)
    return ToldAlert(
        alertname=view.alertname,
        labels=view.labels,
        fingerprint=truth.fingerprint,
        status="firing",
        severity=view.severity,
        starts_at=member.starts_at,
        summary=_flapping_words(view) if view.flapping else view.summary,
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


def _flapping_words(view: AlertView) -> str:
    words = f"changed {view.changes} times lately; single changes are not told while it flaps"
    return f"{words}: {view.summary}" if view.summary else words


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
