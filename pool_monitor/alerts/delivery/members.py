"""One alert in one group: what is true of it, and what the receiver was told."""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.overlays.views import rank_of
from pool_monitor.snapshot import AlertView

Status = Literal["firing", "suppressed", "ended"]


class End(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How an alert ended. The engine may have forgotten it before its receivers are told."""

    at: float
    reason: str = ""
    summary: str = ""
    value: float | None = None
    value_text: str = ""


class Member(Struct, kw_only=True, omit_defaults=True, gc=False):
    """An alert in a group, from its beginning until its end is told. A row of the table ``told``.

    A group numbers its notifications. Each states the whole group, so whoever has number *n* knows what was first
    stated in *n* or before.
    """

    alert: str
    labels: dict[str, str]
    """Without ``severity``."""
    severity: str
    joined_as: str
    """The severity that it had when it joined: it stays in this group whatever its severity becomes."""
    starts_at: float
    """When it began to fire."""
    end: End | None = None
    """None: it fires."""
    fire_no: int = 0
    """The notification that states first that it fires; 0: none does."""
    end_no: int = 0
    """The notification that states first that it ended; 0: none does."""
    maybe: bool = False
    """Whether the receiver may have heard of it from a notification that does not count any more."""
    said_severity: str = ""
    """The severity in the latest notification."""
    said_flapping: bool = False
    """Whether the latest notification says that it flaps."""
    owed_at: float | None = None
    """When it was first stated, or held back by the rate limit: since then the receiver is owed the truth about it."""
    passed_on: bool = False
    """Whether the fallbacks of the receiver know of it. They hear the end as members of groups of their own."""

    def known(self, group: Group) -> bool:
        """Whether the receiver has been told that it fires, and not that it ended."""
        return 0 < self.fire_no <= group.arrived_no and not self.end_known(group)

    def heard(self, group: Group) -> bool:
        """Whether the receiver may have been told that it fires, and was not told that it ended."""
        maybe = self.maybe or 0 < self.fire_no <= max(group.arrived_no, group.maybe_no)
        return maybe and not self.end_known(group)

    def end_known(self, group: Group) -> bool:
        """Whether the receiver has been told that it ended."""
        return self.fire_no <= self.end_no and 0 < self.end_no <= group.arrived_no

    def owed(self, group: Group) -> bool:
        """Whether it ended, and the receiver is owed that."""
        return self.end is not None and self.owed_at is not None and not self.end_known(group)

    @property
    def stated_no(self) -> int:
        """The notification that states first what is true now; 0: none does."""
        return self.fire_no if self.end is None else self.end_no

    def up_to_date(self, group: Group) -> bool:
        """Whether the receiver knows what is true now, or does not need to."""
        if self.end is not None:
            return not self.owed(group)
        return self.known(group) and self.said_severity == self.severity

    def begins(self, severity: str, starts_at: float) -> None:
        """It fires again before its end was told, or fires on with another severity."""
        self.severity = severity
        if self.end is None:
            return
        self.end, self.starts_at, self.passed_on = None, starts_at, False
        if self.end_no:
            # A notification states that it ended: whatever becomes of that, it has to be told that it fires.
            self.maybe, self.fire_no = self.maybe or self.fire_no > 0, 0

    def ends(self, end: End) -> None:
        """It fires no more."""
        if self.end is None or not self.end_no:
            self.end = end

    def unheard(self) -> Member:
        """Return the alert as a member that nobody was told of."""
        return Member(
            alert=self.alert,
            labels=self.labels,
            severity=self.severity,
            joined_as=self.joined_as,
            starts_at=self.starts_at,
        )

    def state_firing(self, group: Group, number: int, at: float, *, flapping: bool = False) -> None:
        """The notification *number* states that it fires."""
        if not self.known(group):
            self.maybe, self.fire_no = self.heard(group), number
        self.end_no = 0  # a notification that states its end and waits is superseded by this one
        self.said_severity, self.said_flapping = self.severity, flapping
        if self.owed_at is None:
            self.owed_at = at

    def state_end(self, group: Group, number: int) -> None:
        """The notification *number* states that it ended."""
        if not self.end_known(group):
            self.end_no = number

    def unsay(self, group: Group) -> None:
        """What was stated and has not arrived does not count any more."""
        if self.fire_no > group.arrived_no:
            self.maybe, self.fire_no = self.heard(group), 0
            self.owed_at = self.owed_at if self.maybe else None
        if self.end_no > group.arrived_no:
            self.end_no = 0

    def forget(self, *, suppressed: bool, flapping: bool) -> bool:
        """Let go what is over: that it flapped, and a debt of which the receiver has heard nothing while it is
        *suppressed*. Returns whether something has changed.
        """
        before = self.said_flapping, self.owed_at
        self.said_flapping = self.said_flapping and flapping
        if suppressed and not (self.fire_no or self.maybe):
            self.owed_at = None
        return before != (self.said_flapping, self.owed_at)


class Truth(NamedTuple):
    """What a member is for its receiver now."""

    fingerprint: str
    member: Member
    status: Status
    why: str = ""
    """Of a suppressed one: silenced, inhibited or muted."""
    acknowledged: bool = False
    flapping: bool = False
    """While it flaps, it fires for its receivers, whatever it does."""

    @property
    def raised(self) -> bool:
        """Whether its severity is not the one that was said last. While it flaps, only a worse one counts."""
        now, said = self.member.severity, self.member.said_severity
        return rank_of(now) < rank_of(said) if self.flapping and said else now != said

    @property
    def newly_flapping(self) -> bool:
        """Whether the receiver was not told that it flaps."""
        return self.flapping and not self.member.said_flapping


def truth_of(fingerprint: str, member: Member, view: AlertView | None, *, muted: bool) -> Truth:
    """Return what *member* is now. *view*: how it is shown. *muted*: whether a mute time of its route lasts."""
    flapping = view is not None and view.flapping
    if member.end is not None and not flapping:
        return Truth(fingerprint, member, "ended")
    if view is None:
        return Truth(fingerprint, member, "firing")
    why = suppressed_by(view, muted=muted)
    return Truth(fingerprint, member, "suppressed" if why else "firing", why, view.acknowledged, flapping)


def suppressed_by(view: AlertView, *, muted: bool) -> Literal["", "silenced", "inhibited", "muted"]:
    """Return why receivers are not told of an alert; empty: they are."""
    return "silenced" if view.silenced else "inhibited" if view.inhibited else "muted" if view.muted or muted else ""
