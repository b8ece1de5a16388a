"""Whether a group has something to tell, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.members import Truth

FIRST, NEW, SOME_RESOLVED, ALL_RESOLVED, REPEAT = (
    "first notification",
    "new alerts added",
    "some alerts resolved",
    "all alerts resolved",
    "repeat interval elapsed",
)
"""Reasons, in Alertmanager's words."""
LEVEL, FLAPPING = "level changed", "flapping"
_SLACK = 1e-6  # sums of times may be short of an exact interval by rounding


class Counts(NamedTuple):
    """What a group would say."""

    firing: int = 0
    new: int = 0
    """Of those, the ones that the receiver does not know."""
    flapping: int = 0
    """Those that flap, which it was not told."""
    raised: int = 0
    """Of those that it knows, the ones that have another severity now."""
    ended: int = 0
    """Ends that it is owed."""
    known: int = 0
    """Those that it believes to fire, also if they do not."""
    kept: int = 0
    """Of those, the ones that fire and are suppressed."""
    repeats: bool = False
    """Whether the repeat interval has passed, and not all that fire are acknowledged."""


def counts_of(group: Group, truths: Iterable[Truth], at: float) -> Counts:
    """Count what differs between what is true and what has arrived."""
    firing = new = flapping = raised = ended = known = kept = unacknowledged = 0
    for truth in truths:
        member, status = truth.member, truth.status
        knows = member.known(group)
        known += knows
        if status == "ended":
            ended += member.owed(group)
        elif status == "suppressed":
            kept += knows
        else:
            firing += 1
            new += not knows
            flapping += truth.newly_flapping
            raised += knows and truth.raised
            unacknowledged += not truth.acknowledged
    repeats = (
        group.told_at is not None
        and unacknowledged > 0
        and at - group.told_at >= group.options.repeat_interval - _SLACK
    )
    return Counts(firing, new, flapping, raised, ended, known, kept, repeats)


def reason_of(counts: Counts, cause: str = "") -> str:
    """Return why the receiver is told something now; empty: there is nothing to tell."""
    if counts.flapping:
        return FLAPPING
    if counts.new:
        return cause or (NEW if counts.known else FIRST)
    if counts.ended:
        return SOME_RESOLVED if counts.firing or counts.kept else ALL_RESOLVED
    if counts.raised:
        return LEVEL
    return REPEAT if counts.firing and counts.repeats else ""


def unsaid(truths: Iterable[Truth]) -> bool:
    """Whether something is true that no notification states, neither one that has arrived nor the one that waits."""
    return any(
        (one.member.end_no == 0 and one.member.owed_at is not None)
        if one.status == "ended"
        else one.status == "firing" and (one.member.fire_no == 0 or one.raised or one.newly_flapping)
        for one in truths
    )
