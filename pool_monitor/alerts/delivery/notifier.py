"""The groups of each receiver: what is true, what the receiver was told, and when there is something to tell."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.delivery.escalation import Escalations, fallbacks_of
from pool_monitor.alerts.delivery.groups import Group, counts_of, reason_of, unsaid
from pool_monitor.alerts.delivery.ledger import Ledger
from pool_monitor.alerts.delivery.members import End, Member, Standing, standing_of, suppressed_by
from pool_monitor.alerts.delivery.messages import Draft, Look, notification_of, state_all
from pool_monitor.alerts.delivery.notification import Notification
from pool_monitor.alerts.delivery.rate_limit import RateLimits
from pool_monitor.alerts.delivery.reconciliation import end, join, reconcile
from pool_monitor.alerts.delivery.targets import Routing, Target, targets_of
from pool_monitor.alerts.lifecycle import FIRING_PHASES, Phase
from pool_monitor.alerts.overlays.mute import is_muted, local_time
from pool_monitor.snapshot import AlertTransition, AlertView, ToldView

Rows = Mapping[str, Mapping[str, bytes | None]]
"""By table of the state file and key; None: the row is gone."""
TOLD_MAX = 8
"""Most receivers that `Notifier.explain` speaks of."""
_AT_ONCE = 20  # alerts between two steps: below a millisecond


class Notifier:
    """Decides what each receiver is told, and keeps what it was told. No I/O; times are passed in and never go back.

    `noting`, `reconciling` and `flushing` are long for thousands of alerts: the caller may let others work at each
    step. Meanwhile only the methods that the courier calls may be called. Bound: `ledger.MEMBERS_MAX`.
    """

    def __init__(self, service: str = "") -> None:
        self._service, self._routing = service, Routing()
        self._ledger, self._limits, self._escalations = Ledger(), RateLimits(), Escalations()
        self._times: list[tuple[float, int]] = []  # a heap of times and groups; those that have changed are left out
        self._held: defaultdict[str, dict[int, None]] = defaultdict(dict)  # groups by receiver
        self._held_until: dict[str, float] = {}
        self._flying: set[str] = set()  # ids of notifications that are being sent
        self._blocked: defaultdict[str, set[int]] = defaultdict(set)  # groups that wait for the end of that, by id
        self._ended_sends: list[tuple[str, Group, str]] = []  # what has become of notifications: to be followed up
        self._parked: dict[str, str] = {}  # why, by id
        self._noted_seq = 0
        self.unreconciled = True
        """Whether `reconciling` has something to do: at the start, after new routes, and when there is room again."""

    def use(self, routing: Routing, at: float) -> None:  # noqa: ARG002
        """Tell by *routing* from now on. What follows for the groups is the work of `reconciling`."""
        self.unreconciled = self.unreconciled or routing != self._routing
        self._routing = routing

    # -- for each settling, in this order

    def reconciling(self, alerts: Iterable[Alert], at: float) -> Iterator[None]:
        """Make the groups agree with the routes and with all *alerts* that there are."""
        self.unreconciled = False
        for changed in reconcile(self._ledger, self._routing, alerts, at):
            for group in changed:
                self._set_time(group)
            yield
        self.unreconciled = self.unreconciled or self._ledger.full
        for group in self._ledger.each_group():
            if not self._ledger.members_of(group):
                self._remove(group)
                yield

    def note(self, transitions: Iterable[AlertTransition], at: float) -> None:
        """Take account of changes of alerts, the oldest first. One that was noted before is left out."""
        for _ in self.noting(transitions, at):
            pass

    def noting(self, transitions: Iterable[AlertTransition], at: float) -> Iterator[None]:
        """Do what `note` does, in steps."""
        for one in transitions:
            if one.seq > self._noted_seq:
                self._noted_seq = one.seq
                self._note(one, at)
                yield

    def flush(self, at: float, look: Look) -> Iterator[Notification]:
        """Yield what is to be told now. It replaces what waits for the same receiver and group key."""
        return (one for one in self.flushing(at, look) if one is not None)

    def flushing(self, at: float, look: Look) -> Iterator[Notification | None]:
        """Do what `flush` does, in steps. What is yielded has to be put into the outbox before the next step."""
        yield from self._follow_up(at, look)
        for joining in self._escalations.due(at, look):
            self.join(joining.fingerprint, joining.target, at)
            yield None
        local = local_time(at)
        for receiver, groups in self._due(at).items():
            drafts = []
            for group in groups:
                if self._blocks(group):
                    continue
                standings: list[Standing] = []
                muted = is_muted(group.options.mute, local)
                for number, (fingerprint, member) in enumerate(list(self._ledger.members_of(group).items()), 1):
                    view = look(fingerprint) if member.end is None else None
                    standings.append(standing_of(fingerprint, member, view, muted=muted))
                    if number % _AT_ONCE == 0:
                        yield None
                draft = self._draft(group, standings, at)
                if draft is not None:
                    drafts.append(draft)
                yield None
            if drafts:
                yield from self._tell(receiver, drafts, at, look)

    @property
    def next_at(self) -> float | None:
        """When `flush` has something to do next; None: nothing is waited for. A time of the past: at once."""
        if self._ended_sends:
            return 0.0
        while self._times and not self._is_time(*self._times[0]):
            heapq.heappop(self._times)
        first = self._times[0][0] if self._times else None
        times = (first, self._escalations.next_at, *self._held_until.values())
        return min((time for time in times if time is not None), default=None)

    # -- what the courier says; each is O(groups of the notification), and may be called at any time

    def sending(self, notification: Notification, at: float) -> None:  # noqa: ARG002
        """An attempt begins. Until `arrived` or `failed`, no newer notification is made for its groups."""
        self._flying.add(notification.id)

    def arrived(self, notification: Notification, at: float) -> None:
        """The receiver has it. It is not in the outbox any more."""
        self._parked.pop(notification.id, None)
        for group in self._ledger.waiting_for(notification.id):
            group.arrived(notification.at, at)
            self._ledger.keep(group, notification.id)
            self._ended_sends.append(("arrived", group, ""))
        self._landed(notification, at)

    def failed(self, notification: Notification, at: float, *, unsure: bool) -> None:
        """An attempt has failed. The notification stays in the outbox, until it arrives, is lost, or `flush` yields a
        newer one for the same receiver and group key. *unsure*: it may have arrived all the same.
        """
        for group in self._ledger.waiting_for(notification.id) if unsure else ():
            group.maybe_no = group.made_no
            self._ledger.keep(group)
        self._landed(notification, at)

    def parked(self, notification: Notification, reason: str, at: float) -> None:  # noqa: ARG002
        """The receiver refuses it (after `failed`), or cannot be reached for long: its fallbacks are told."""
        self._parked[notification.id] = reason
        for group in self._ledger.waiting_for(notification.id):
            self._ended_sends.append(("parked", group, reason))

    def lost(self, notification: Notification, reason: str, at: float) -> None:
        """It was given up and is not in the outbox any more. What is still true is told anew at the group's next time;
        ends that it had are not owed any more.
        """
        self._parked.pop(notification.id, None)
        for group in self._ledger.waiting_for(notification.id):
            group.given_up()
            self._ledger.keep(group, notification.id)
            self._ended_sends.append(("lost", group, reason))
        self._landed(notification, at)

    # -- what other modules of delivery ask for

    def join(self, fingerprint: str, target: Target, at: float) -> bool:
        """Make a firing alert a member of the group of *target* too, as by `Target.passed_on`. It is told there as in
        any other group, its end too. False: it is a member already, or does not fire.
        """
        like = next((member for _, member in self._ledger.of(fingerprint) if member.end is None), None)
        there = self._ledger.find(target.receiver, target.group_key)
        found = None if there is None else self._ledger.members_of(there).get(fingerprint)
        if like is None or (found is not None and found.end is None):
            return False
        return self._join(fingerprint, _unheard(like), target, at)

    def explain(self, view: AlertView, at: float) -> tuple[ToldView, ...]:  # noqa: ARG002
        """Return what each receiver knows of an alert, and why it is told nothing now. At most `TOLD_MAX`."""
        found = [self._explain(group, member, view) for group, member in self._ledger.of(view.fingerprint)]
        return tuple(found[:TOLD_MAX])

    def held_back(self, receiver: str) -> int:
        """Return the number of groups that the rate limit holds back."""
        return len(self._held.get(receiver, ()))

    # -- what survives a restart

    def take_changes(self) -> Rows:
        """Return the rows of the state file that have changed since the last call."""
        return {"groups": self._ledger.groups.take_changes(), "told": self._ledger.members.take_changes()}

    def all_rows(self) -> Rows:
        """Return all rows."""
        self.take_changes()
        return {"groups": dict(self._ledger.groups.encoded()), "told": dict(self._ledger.members.encoded())}

    def restore(self, rows: Mapping[str, Mapping[str, bytes]], at: float) -> list[str]:
        """Take over the rows of a state file. Returns what cannot be used, in words."""
        damaged = self._ledger.restore(rows)
        for group in self._ledger.each_group():
            group.clamp(at)
            if group.waiting:
                group.maybe_no = group.made_no  # an attempt may have been under way
            if group.held:
                group.held, group.flush_at = False, at
            self._ledger.keep(group)
            self._set_time(group)
            for fingerprint, member in self._ledger.members_of(group).items():
                if group.cause == "escalated" and member.end is None:
                    self._escalations.escalated(fingerprint, group.target)
                elif member.owed_at is not None and not group.cause and member.end is None:
                    self._escalations.began(fingerprint, group.target, min(member.owed_at, at))
        self.unreconciled = True
        return damaged

    def check(self, waiting: Collection[str], at: float) -> None:
        """Take account of which notifications the outbox has after a restart, by id."""
        for group in self._ledger.each_group():
            if group.waiting and group.waiting not in waiting:
                was, group.waiting = group.waiting, ""
                self._ledger.keep(group, was)
                self._ended_sends.append(("lost", group, "it is not in the state file"))
                self._at_once(group, at)

    # -- alerts

    def _note(self, one: AlertTransition, at: float) -> None:
        fingerprint = one.fingerprint
        if one.to_state not in FIRING_PHASES:
            if one.from_state in FIRING_PHASES:
                self._end(one)
            return
        if one.from_state in FIRING_PHASES and one.reason != "level":
            return
        labels = {name: value for name, value in one.labels.items() if name != "severity"}
        starts_at = one.at
        for group, member in self._ledger.of(fingerprint):
            if member.end is None:
                member.severity, starts_at = one.severity, member.starts_at
                self._ledger.set_member(group, fingerprint, member)
        for target in targets_of(self._routing, one.alert, {**labels, "severity": one.severity}):
            member = Member(
                alert=one.alert,
                labels=labels,
                severity=one.severity,
                joined_as=one.severity,
                starts_at=starts_at,
            )
            self._join(fingerprint, member, target, at)

    def _end(self, one: AlertTransition) -> None:
        how = End(
            at=one.at,
            reason=one.reason or ("rule_changed" if one.to_state == Phase.PENDING else ""),
            summary=one.summary,
            value=one.value if one.value is not None else one.last_value,
            value_text=one.value_text,
        )
        self._escalations.ended(one.fingerprint)
        for group, member in self._ledger.of(one.fingerprint):
            end(self._ledger, group, one.fingerprint, member, how)

    def _join(self, fingerprint: str, member: Member, target: Target, at: float) -> bool:
        group = join(self._ledger, fingerprint, member, target, at)
        if group is None:
            self.unreconciled = True
            return False
        if group.cause == "escalated":
            self._escalations.escalated(fingerprint, group.target)
        self._set_time(group)
        return True

    # -- times

    def _set_time(self, group: Group) -> None:
        heapq.heappush(self._times, (group.flush_at, group.number))

    def _is_time(self, time: float, number: int) -> bool:
        group = self._ledger.group(number)
        return group is not None and group.flush_at == time

    def _at_once(self, group: Group, at: float) -> None:
        group.flush_at = at
        self._ledger.keep(group)
        self._set_time(group)

    def _due(self, at: float) -> dict[str, list[Group]]:
        """Return the groups whose time has come or that were held back, by receiver. Their next time is set."""
        numbers: dict[int, None] = {}
        while self._times and self._times[0][0] <= at:
            time, number = heapq.heappop(self._times)
            group = self._ledger.group(number)
            if group is not None and group.flush_at == time and number not in numbers:
                numbers[number] = None
                group.begin_flush(at)
                self._ledger.keep(group)
                self._set_time(group)
        for receiver, until in list(self._held_until.items()):
            if until <= at:
                del self._held_until[receiver]
                numbers |= self._held[receiver]
        due = defaultdict(list)
        for number in numbers:
            if (group := self._ledger.group(number)) is not None:
                due[group.receiver].append(group)
        return due

    # -- telling

    def _blocks(self, group: Group) -> bool:
        """Whether a notification of *group* is being sent now. It is looked at again after that."""
        if group.waiting not in self._flying:
            return False
        self._blocked[group.waiting].add(group.number)
        return True

    def _draft(self, group: Group, standings: Sequence[Standing], at: float) -> Draft | None:
        """Return what *group* has to tell; None: nothing. Members that nobody has to hear of leave it."""
        for fingerprint, member, status, *_ in standings:
            if status == "ended" and not member.owed(group):
                self._leave(group, fingerprint)
        kept = [one for one in standings if one.status != "ended" or one.member.owed(group)]
        counts = counts_of(group, kept, at)
        reason = reason_of(counts, group.cause)
        if group.waiting and not unsaid(kept):
            reason = ""
        if not kept:
            self._remove(group)
        if not reason:
            self._release(group)
            return None
        return Draft(group, kept, counts, reason, (group.waiting, group.arrived_no))

    def _tell(self, receiver: str, drafts: list[Draft], at: float, look: Look) -> Iterator[Notification | None]:
        found = self._routing.receivers.get(receiver)
        page = found is not None and found.page
        ration = self._limits.ration(receiver, len(drafts), at, page=page)
        drafts.sort(key=lambda draft: draft.order)
        for draft in drafts[: ration.single]:
            yield from self._make([draft], at, look, page=page, reason=draft.reason, about=draft.group.about)
        rest = drafts[ration.single :]
        if rest and ration.digest:
            yield from self._make(rest, at, look, page=page, reason="digest", about="")
        elif rest:
            for draft in rest:
                draft.group.held = True
                self._ledger.keep(draft.group)
                self._held[receiver][draft.group.number] = None
            self._held_until[receiver] = at if ration.next_at is None else ration.next_at

    def _make(
        self, drafts: list[Draft], at: float, look: Look, *, page: bool, reason: str, about: str
    ) -> Iterator[Notification | None]:
        current = [draft for draft in drafts if not draft.outdated and not self._blocks(draft.group)]
        for draft in drafts:
            if draft.outdated:
                self._at_once(draft.group, at)
        if not current:
            return
        made = notification_of(current, at, look, service=self._service, page=page, reason=reason, about=about)
        numbers = []
        for draft in current:
            group = draft.group
            was = group.waiting
            numbers.append(group.made(made.id, digest=reason == "digest"))
            self._release(group)
            self._ledger.keep(group, was)
        stating = (
            (draft.group, standing)
            for draft, number in zip(current, numbers, strict=True)
            for standing in state_all(draft, number, at)
        )
        try:
            yield made
            for done, stated in enumerate(stating, 1):
                self._stated(*stated, at)
                if done % _AT_ONCE == 0:
                    yield None
        finally:
            for stated in stating:  # if the caller gives up meanwhile: it is in the outbox
                self._stated(*stated, at)

    def _stated(self, group: Group, standing: Standing, at: float) -> None:
        member = standing.member
        if member.owed_at == at and not group.cause and member.end is None:
            self._escalations.began(standing.fingerprint, group.target, at)
        self._ledger.set_member(group, standing.fingerprint, member)

    def _release(self, group: Group) -> None:
        """The rate limit does not hold *group* back any more."""
        held = self._held.get(group.receiver)
        if held is not None:
            held.pop(group.number, None)
            if not held:
                del self._held[group.receiver]
        if group.held:
            group.held = False
            self._ledger.keep(group)

    def _leave(self, group: Group, fingerprint: str) -> None:
        if fingerprint in self._ledger.members_of(group):
            self._ledger.remove_member(group, fingerprint)

    def _remove(self, group: Group) -> None:
        if self._ledger.group(group.number) is group:
            self._release(group)
            self._ledger.remove_group(group)

    # -- what has become of notifications

    def _landed(self, notification: Notification, at: float) -> None:
        """An attempt has ended: groups whose time came meanwhile are looked at now."""
        self._flying.discard(notification.id)
        for number in self._blocked.pop(notification.id, ()):
            if (group := self._ledger.group(number)) is not None:
                self._at_once(group, at)

    def _follow_up(self, at: float, look: Look) -> Iterator[None]:
        while self._ended_sends:
            what, group, reason = self._ended_sends[0]
            if self._ledger.group(group.number) is group:
                if what == "parked":
                    yield from self._fall_back(group, reason, at)
                else:
                    yield from self._clear(group, given_up=what == "lost")
            self._ended_sends.pop(0)

    def _clear(self, group: Group, *, given_up: bool) -> Iterator[None]:
        """Let members go whose end the receiver knows, or is not owed any more."""
        for number, (fingerprint, member) in enumerate(list(self._ledger.members_of(group).items()), 1):
            forgiven = given_up and member.end is not None and member.end_no > group.arrived_no
            if forgiven or (member.end is not None and member.end_known(group)):
                self._leave(group, fingerprint)
            elif given_up and max(member.fire_no, member.end_no) > group.arrived_no:
                member.unsay(group)
                self._ledger.set_member(group, fingerprint, member)
            if number % _AT_ONCE == 0:
                yield
        if not self._ledger.members_of(group):
            self._remove(group)

    def _fall_back(self, group: Group, reason: str, at: float) -> Iterator[None]:
        for target in fallbacks_of(self._routing, group.target, reason):
            for fingerprint, member in list(self._ledger.members_of(group).items()):
                if member.end is None and member.fire_no > 0:
                    self.join(fingerprint, target, at)
                    yield

    # -- what is shown

    def _explain(self, group: Group, member: Member, view: AlertView) -> ToldView:
        def told(status: str, at: float | None = None, reason: str = "") -> ToldView:
            return ToldView(receiver=group.receiver, status=status, at=at, reason=reason)  # type: ignore[arg-type]

        due = (
            member.owed(group)
            if member.end is not None
            else not member.known(group) or member.said_severity != member.severity
        )
        if not due:
            return told("told", group.told_at)
        stated = member.end_no if member.end is not None else member.fire_no
        if group.waiting and stated > group.arrived_no:
            if group.waiting in self._parked:
                return told("parked", reason=self._parked[group.waiting])
            return told("owed")
        muted = is_muted(group.options.mute, local_time(group.flush_at))
        if member.end is None and (why := suppressed_by(view, muted=muted)):
            return told(why)
        if group.held:
            return told("held_back", self._held_until.get(group.receiver))
        return told("waiting", group.flush_at)


def _unheard(like: Member) -> Member:
    """Return the alert of *like* as a member that nobody was told of."""
    return Member(
        alert=like.alert,
        labels=like.labels,
        severity=like.severity,
        joined_as=like.joined_as,
        starts_at=like.starts_at,
    )
