"""One group: its times, and the decision whether there is something to tell, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec import Struct

from pool_monitor.alerts.delivery.members import Standing
from pool_monitor.alerts.delivery.targets import GroupOptions, Target

FIRST, NEW, SOME_RESOLVED, ALL_RESOLVED, REPEAT = (
    "first notification",
    "new alerts added",
    "some alerts resolved",
    "all alerts resolved",
    "repeat interval elapsed",
)
"""Reasons, in Alertmanager's words."""
LEVEL = "level changed"
_SLACK = 1e-6  # sums of times may be short of an exact interval by rounding


class Group(Struct, kw_only=True, omit_defaults=True):
    """The alerts that one receiver is told of together. A row of the table ``groups``. Times are seconds since the
    epoch.
    """

    number: int
    """Names it in the table ``told``."""
    receiver: str
    key: str
    labels: dict[str, str]
    options: GroupOptions
    cause: str = ""
    about: str = ""
    """As in `Target`."""
    flush_at: float
    """Its next time."""
    flushed: bool = False
    """Whether its first time is over."""
    told_at: float | None = None
    """When the latest notification that arrived was made; if it arrived late, later. The repeat interval counts from
    it."""
    waiting: str = ""
    """The id of its notification that has not arrived."""
    digest: bool = False
    """Whether that is a digest."""
    held: bool = False
    """Whether the rate limit holds it back."""
    made_no: int = 1
    """The number of its latest notification. Number 1 stands for what was told before it came to be."""
    maybe_no: int = 1
    """The latest that may have arrived."""
    arrived_no: int = 1
    """The latest that has arrived."""

    @property
    def target(self) -> Target:
        """The target that it was made for."""
        return Target(self.receiver, self.key, self.labels, self.options, self.cause, self.about)

    def insert(self, starts_at: float, at: float) -> None:
        """An alert that has fired since *starts_at* joins. Before the first time, one that has waited for long enough
        already is told at once.
        """
        if not self.flushed and starts_at + self.options.group_wait < at:
            self.flush_at = min(self.flush_at, at)

    def begin_flush(self, at: float) -> None:
        """Its time has come."""
        self.flushed, self.flush_at = True, at + self.options.group_interval

    def clamp(self, at: float) -> None:
        """Bring times that an earlier life has saved into the bounds that they have *at* this time: the wall clock may
        have been set back since.
        """
        wait = self.options.group_interval if self.flushed else self.options.group_wait
        self.flush_at = min(self.flush_at, at + wait)
        if self.told_at is not None:
            self.told_at = min(self.told_at, at)

    def made(self, notification: str, *, digest: bool) -> int:
        """It has a new notification, in the place of the one that waits. Returns its number."""
        self.made_no += 1
        self.waiting, self.digest, self.held = notification, digest, False
        return self.made_no

    def arrived(self, made_at: float, at: float) -> None:
        """Its notification has arrived *at* this time. A delivery that takes less than the group interval does not put
        the repeats off.
        """
        self.waiting, self.arrived_no = "", self.made_no
        self.told_at = max(made_at, at - self.options.group_interval)

    def given_up(self) -> None:
        """Its notification will not arrive."""
        self.waiting = ""


class Counts(NamedTuple):
    """What a group would say."""

    firing: int = 0
    new: int = 0
    """Of those, the ones that the receiver does not know."""
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


def counts_of(group: Group, standings: Iterable[Standing], at: float) -> Counts:
    """Count what differs between what is true and what has arrived."""
    firing = new = raised = ended = known = kept = unacknowledged = 0
    for _, member, status, _, acknowledged in standings:
        knows = member.known(group)
        known += knows
        if status == "ended":
            ended += member.owed(group)
        elif status == "suppressed":
            kept += knows
        else:
            firing += 1
            new += not knows
            raised += knows and member.said_severity != member.severity
            unacknowledged += not acknowledged
    repeats = (
        group.told_at is not None
        and unacknowledged > 0
        and at - group.told_at >= group.options.repeat_interval - _SLACK
    )
    return Counts(firing, new, raised, ended, known, kept, repeats)


def reason_of(counts: Counts, cause: str = "") -> str:
    """Return why the receiver is told something now; empty: there is nothing to tell."""
    if counts.new:
        return NEW if counts.known else cause or FIRST
    if counts.ended:
        return SOME_RESOLVED if counts.firing or counts.kept else ALL_RESOLVED
    if counts.raised:
        return LEVEL
    return REPEAT if counts.firing and counts.repeats else ""


def unsaid(standings: Iterable[Standing]) -> bool:
    """Whether something is true that no notification states, neither one that has arrived nor the one that waits."""
    return any(
        (member.end_no == 0 and (member.fire_no > 0 or member.maybe))
        if status == "ended"
        else status == "firing" and (member.fire_no == 0 or member.said_severity != member.severity)
        for _, member, status, _, _ in standings
    )
