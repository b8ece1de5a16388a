"""How groups become one notification."""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import NamedTuple

import msgspec

from pool_monitor.alerts.delivery.digest import DIGEST, digest_words
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.ledger import Ledger
from pool_monitor.alerts.delivery.members import Member, Truth
from pool_monitor.alerts.delivery.notification import ALERTS_MAX, Notification, ToldAlert
from pool_monitor.alerts.delivery.reasons import Counts
from pool_monitor.alerts.overlays.views import rank_of
from pool_monitor.snapshot import AlertView

Look = Callable[[str], AlertView | None]
"""Returns the alert with a fingerprint as it is now, with what lies over it; None: there is none."""
AT_ONCE = 20
"""Alerts between two steps: below a millisecond."""


class Draft(NamedTuple):
    """A group that has something to tell."""

    group: Group
    truths: Sequence[Truth]
    counts: Counts
    reason: str
    seen: tuple[str, int]
    """What waited and what had arrived when it was written."""
    order: tuple[int, int, float]
    """Orders drafts: the worst first, of those the ones that fire, of those the oldest."""

    @property
    def outdated(self) -> bool:
        """Whether something has arrived since, so that it has to be written anew."""
        return self.seen != (self.group.waiting, self.group.arrived_no)


def draft_of(group: Group, truths: Sequence[Truth], counts: Counts, reason: str) -> Draft:
    """Return what *group* has to tell."""
    told = [truth.member for truth in truths if truth.status != "suppressed"]
    order = (
        min((rank_of(member.severity) for member in told), default=0),
        0 if counts.firing else 1,
        min((member.starts_at for member in told), default=0.0),
    )
    return Draft(group, truths, counts, reason, (group.waiting, group.arrived_no), order)


class Contents:
    """What one notification tells: a group, or as a digest many. Bound: `ALERTS_MAX` alerts, the most urgent ones; the
    others are counted.
    """

    def __init__(self) -> None:
        self._groups = self._firing = self._resolved = 0
        self._rules: set[str] = set()
        self._listed: list[tuple[tuple[int, int, float], int, Group, Truth]] = []  # a heap: the least urgent first

    def adding(self, draft: Draft) -> Iterator[None]:
        """Add a group, in steps."""
        group = draft.group
        self._groups += 1
        for number, truth in enumerate(draft.truths, 1):
            if truth.status == "firing" or (truth.status == "ended" and truth.member.owed(group)):
                self._add(group, truth)
            if number % AT_ONCE == 0:
                yield

    def _add(self, group: Group, truth: Truth) -> None:
        firing, member = truth.status == "firing", truth.member
        self._firing += firing
        self._resolved += not firing
        self._rules.add(member.alert)
        urgency = (int(firing), -rank_of(member.severity), -member.starts_at)
        entry = (urgency, -self._firing - self._resolved, group, truth)
        if len(self._listed) < ALERTS_MAX:
            heapq.heappush(self._listed, entry)
        else:
            heapq.heappushpop(self._listed, entry)

    def notification(
        self, draft: Draft, at: float, look: Look, *, service: str, page: bool, held_for: float | None = None
    ) -> Notification:
        """Make the message. *draft*: the first that was added. *held_for*: it is a digest, and for how many seconds the
        first of its groups was held back; None: it tells one group.
        """
        group, counts = draft.group, (self._firing, self._resolved, len(self._rules))
        listed = sorted(self._listed, key=itemgetter(0, 1), reverse=True)
        return Notification(
            id=f"msg_{secrets.token_hex(12)}",
            receiver=group.receiver,
            group_key=group.key if held_for is None else "",
            group_labels=group.labels if held_for is None else {},
            reason=draft.reason if held_for is None else DIGEST,
            status="firing" if self._firing else "resolved",
            alerts=tuple(_told(owner, truth, look(truth.fingerprint)) for _, _, owner, truth in listed),
            firing=self._firing,
            resolved=self._resolved,
            at=at,
            service=service,
            page=page,
            about=group.about if held_for is None else digest_words(self._groups, *counts, held_for),
            groups=self._groups,
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


def firing_for(ledger: Ledger, receiver: str, look: Look) -> Iterator[ToldAlert]:
    """Yield the alerts of which *receiver* may believe that they fire, and which do, as it was told of them."""
    for group in ledger.each_group():
        for fingerprint, member in list(ledger.members_of(group).items()) if group.receiver == receiver else ():
            if member.end is None and member.heard(group):
                found = _told(group, Truth(fingerprint, member, "firing"), look(fingerprint))
                yield msgspec.structs.replace(found, severity=member.said_severity or member.severity)


def _flapping_words(view: AlertView) -> str:
    words = f"changed {view.changes} times lately; single changes are not told while it flaps"
    return f"{words}: {view.summary}" if view.summary else words


def _ended(group: Group, fingerprint: str, member: Member, view: AlertView | None) -> ToldAlert:
    """The engine may have forgotten the alert, or may have a new life of it."""
    end, still = member.end, view if view is not None and view.state == "resolved" else None
    return ToldAlert(
        alertname=member.alert,
        labels={**member.labels, "severity": member.severity},
        fingerprint=fingerprint,
        status="firing" if end is None else "resolved",
        severity=member.severity,
        starts_at=member.starts_at,
        ends_at=None if end is None else end.at,
        summary="" if end is None else end.summary,
        runbook="" if still is None else still.runbook,
        annotations={} if still is None else still.annotations,
        value=None if end is None else end.value,
        value_text="" if end is None else end.value_text,
        unit="" if view is None else view.unit,
        limit=None if view is None else view.limit,
        reason="" if end is None else end.reason,
        delayed=end is not None and (member.fire_no > group.arrived_no or not member.heard(group)),
        values=() if still is None else still.values,
        values_s=0.0 if still is None else still.values_s,
    )
