"""The groups of each receiver: what is true, what the receiver was told, and when there is something to tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter

import msgspec

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.delivery.aftermath import Aftermath
from pool_monitor.alerts.delivery.agenda import Agenda
from pool_monitor.alerts.delivery.digest import DIGEST
from pool_monitor.alerts.delivery.escalation import ESCALATED, Escalations, fallbacks_of
from pool_monitor.alerts.delivery.explaining import Knowledge
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.ledger import Ledger
from pool_monitor.alerts.delivery.members import End, Member, Truth, truth_of
from pool_monitor.alerts.delivery.messages import AT_ONCE, Contents, Draft, Look, draft_of, firing_for, state_all
from pool_monitor.alerts.delivery.notification import Notification, ToldAlert
from pool_monitor.alerts.delivery.rate_limit import RateLimits, Ration, is_limited, is_page, states_ration
from pool_monitor.alerts.delivery.reasons import counts_of, reason_of, unsaid
from pool_monitor.alerts.delivery.reconciliation import end, join, reconcile
from pool_monitor.alerts.delivery.targets import Routing, Target, targets_of
from pool_monitor.alerts.lifecycle import FIRING_PHASES
from pool_monitor.snapshot import AlertTransition

Rows = Mapping[str, Mapping[str, bytes | None]]
"""By table of the state file and key; None: the row is gone."""


class Notifier:
    """Decides what each receiver is told, and keeps what it was told. No I/O; times are passed in and never go back.

    `reconciling`, `noting` and `flushing` are long for thousands of alerts: the caller may let others work at each
    step. Meanwhile only the methods that the courier calls may be called. Bound: `ledger.MEMBERS_MAX`.
    """

    def __init__(self, service: str = "") -> None:
        self._service, self._routing = service, Routing()
        self._ledger, self._limits, self._escalations = Ledger(), RateLimits(), Escalations()
        self._agenda = Agenda(self._ledger, self._limits)
        self._aftermath = Aftermath(self._ledger, self._agenda)
        self.knowledge = Knowledge(self._ledger, self._limits, self._aftermath)
        """What receivers know."""
        self._noted_seq = 0
        self.unreconciled = True
        """Whether `reconciling` has something to do: at the start, after new routes, and while there is no room."""
        self._postponed = False  # whether a part of that waits until a notification has arrived

    def use(self, routing: Routing) -> None:
        """Tell by *routing* from now on. What follows for the groups is the work of `reconciling`."""
        self.unreconciled = self.unreconciled or routing != self._routing
        self._routing = routing
        self._limits.keep(routing.receivers)

    # -- for each settling, in this order

    def reconciling(self, alerts: Iterable[Alert], at: float) -> Iterator[None]:
        """Make the groups agree with the routes and with all *alerts* that there are."""
        self.unreconciled = self._postponed = False
        for changed in reconcile(self._ledger, self._routing, alerts, at):
            self._postponed = self._postponed or changed.postponed
            for group in changed.groups:
                self._agenda.add(group)
            yield
        self.unreconciled = self.unreconciled or self._ledger.full
        self._escalations.begin_again()
        for group in self._ledger.each_group():
            members = self._ledger.members_of(group)
            if not members:
                self._agenda.forget(group)
            for number, (fingerprint, member) in enumerate(members.items(), 1):
                self._await(group, fingerprint, member, at)
                if number % AT_ONCE == 0:
                    yield
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
        """Yield what is to be told now. Each replaces what waits for the same receiver and group key."""
        return (one for one in self.flushing(at, look) if one is not None)

    def flushing(self, at: float, look: Look) -> Iterator[Notification | None]:
        """Do what `flush` does, in steps. What is yielded has to be put into the outbox before the next step, and must
        not be sent before the last one.
        """
        yield from self._aftermath.following(partial(self._fall_back, at))
        for joining in self._escalations.due(at, look):
            self.join(joining.fingerprint, joining.target, at)
            yield None
        due = defaultdict[str, list[Group]](list)
        for number, group in enumerate(self._agenda.due(at), 1):
            due[group.receiver].append(group)
            if number % AT_ONCE == 0:
                yield None
        for receiver, groups in due.items():
            drafts: list[Draft] = []
            for group in groups:
                yield from self._draft(group, at, look, drafts)
            if drafts:
                yield from self._tell(receiver, drafts, at, look)
        for _ in self._agenda.tidying():
            yield None

    @property
    def next_at(self) -> float | None:
        """When `flush` has something to do next; None: nothing is waited for. A time of the past: at once."""
        if self._aftermath:
            return 0.0
        times = (self._agenda.next_at, self._escalations.next_at)
        return min((time for time in times if time is not None), default=None)

    # -- what the courier says; each is O(groups of the notification), and may be called at any time. `arriving` and
    #    `failing` are in steps.

    def sending(self, notification: Notification) -> None:
        """An attempt begins. Until the last step of `arriving` or `failing`, no newer notification is made for its
        groups.
        """
        self._agenda.take_off(notification.id)

    def arriving(self, notification: Notification, at: float) -> Iterator[None]:
        """The receiver has it. It leaves the outbox together with the last step."""
        yield from self._aftermath.arriving(notification, at)
        self.unreconciled = self.unreconciled or self._postponed

    def failing(self, notification: Notification, *, unsure: bool) -> Iterator[None]:
        """An attempt has failed. The notification stays in the outbox, until it arrives, is lost, or `flush` yields a
        newer one for the same receiver and group key. *unsure*: it may have arrived all the same.
        """
        yield from self._aftermath.failing(notification, unsure=unsure)

    def parked(self, notification: Notification, reason: str) -> None:
        """The receiver refuses it (after `failing`), or cannot be reached for long: its fallbacks are told."""
        self._aftermath.parked(notification, reason)

    def lost(self, notification: Notification) -> None:
        """It was given up and is not in the outbox any more. What is still true is told anew at the group's next time;
        ends that it had are not owed any more.
        """
        self._aftermath.lost(notification.id)
        self.unreconciled = self.unreconciled or self._postponed

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
        return self._join(fingerprint, like.unheard(), target, at)

    def told(self, receiver: str, look: Look) -> Iterator[ToldAlert]:
        """Yield the alerts of which *receiver* believes that they fire, and which do, as it was told of them."""
        return firing_for(self._ledger, receiver, look)

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
                group.maybe_no = group.made_no  # the earlier life may have ended between an attempt and its result
            if group.held:
                group.held, group.flush_at = False, at
            self._ledger.keep(group)
            self._agenda.add(group)
            for fingerprint, member in self._ledger.members_of(group).items():
                if group.cause == ESCALATED and member.end is None:
                    self._escalations.escalated(fingerprint, group.target)
        self.unreconciled = True
        return damaged

    def check(self, waiting: Collection[str]) -> None:
        """Take account of the ids of the notifications that the outbox has, after a restart. Others are lost."""
        for missing in {group.waiting for group in self._ledger.each_group()} - {"", *waiting}:
            self._aftermath.lost(missing)

    # -- alerts

    def _note(self, one: AlertTransition, at: float) -> None:
        fingerprint = one.fingerprint
        if one.to_state not in FIRING_PHASES:
            if one.from_state in FIRING_PHASES:
                self._end(one, at)
            return
        labels = {name: value for name, value in one.labels.items() if name != "severity"}
        starts_at = one.at
        for group, member in self._ledger.of(fingerprint):
            if member.end is None:
                starts_at = member.starts_at
                if member.severity != one.severity:
                    member.severity = one.severity
                    self._ledger.set_member(group, fingerprint, member)
                    self._agenda.changed(group, at)
        for target in targets_of(self._routing, one.alert, {**labels, "severity": one.severity}):
            member = Member(
                alert=one.alert,
                labels=labels,
                severity=one.severity,
                joined_as=one.severity,
                starts_at=starts_at,
            )
            self._join(fingerprint, member, target, at)

    def _end(self, one: AlertTransition, at: float) -> None:
        how = End(
            at=one.at,
            reason=one.reason or ("rule_changed" if one.to_state == "pending" else ""),
            summary=one.summary,
            value=one.value if one.value is not None else one.last_value,
            value_text=one.value_text,
        )
        self._escalations.ended(one.fingerprint)
        for group, member in self._ledger.of(one.fingerprint):
            end(self._ledger, group, one.fingerprint, member, how)
            self._agenda.changed(group, at)

    def _join(self, fingerprint: str, member: Member, target: Target, at: float) -> bool:
        group = join(self._ledger, fingerprint, member, target, at)
        if group is None:
            self.unreconciled = True
            return False
        if group.cause == ESCALATED:
            self._escalations.escalated(fingerprint, group.target)
        joined = self._ledger.members_of(group)[fingerprint]
        self._await(group, fingerprint, joined, at)
        self._agenda.add(group)
        why = self._aftermath.why_parked(group.waiting)
        if why is not None and joined.fire_no > 0:
            # It fires again, as the notification that is parked says: nothing newer is made, of which the fallbacks
            # would be told.
            self._fall_back(at, group, fingerprint, why)
        return True

    def _await(self, group: Group, fingerprint: str, member: Member, at: float) -> None:
        """From now on, the receiver of *group* may acknowledge an alert that it is owed."""
        if member.owed_at is not None and member.end is None and not group.cause:
            self._escalations.began(fingerprint, group.target, min(member.owed_at, at))

    def _fall_back(self, at: float, group: Group, fingerprint: str, reason: str) -> None:
        member = self._ledger.members_of(group).get(fingerprint)
        if member is None or (member.end is not None and member.passed_on):
            return
        for target in fallbacks_of(self._routing, group.target, reason):
            own = None if member.end is not None else self._ledger.heard_by(target.receiver, fingerprint, at)
            if own is not None:  # it is told there: in two groups, it would hear of two ends
                if not self._ledger.members_of(own)[fingerprint].up_to_date(own):
                    self._agenda.at_once(own, at)
            elif member.end is None:
                self.join(fingerprint, target, at)
            elif not any(there.receiver == target.receiver for there, _ in self._ledger.of(fingerprint)):
                unheard = msgspec.structs.replace(member.unheard(), end=member.end, owed_at=at)
                self._join(fingerprint, unheard, target, at)
            member.passed_on = True
        self._ledger.set_member(group, fingerprint, member)

    # -- telling

    def _draft(
        self, group: Group, at: float, look: Look, drafts: list[Draft], *, again: bool = False
    ) -> Iterator[None]:
        """Add to *drafts* what *group* has to tell, if it has something. Members that nobody has to hear of leave it.
        *again*: what its notification states that waits is told in another one.
        """
        if self._agenda.blocks(group):
            return
        truths: list[Truth] = []
        muted = group.options.muted(at)
        for number, (fingerprint, member) in enumerate(list(self._ledger.members_of(group).items()), 1):
            truth = truth_of(fingerprint, member, look(fingerprint), group, at, muted=muted)
            if member.forget(suppressed=truth.status == "suppressed", flapping=truth.flapping):
                self._ledger.set_member(group, fingerprint, member)
            if truth.status != "ended" or member.owed(group):
                truths.append(truth)
            else:
                self._ledger.remove_member(group, fingerprint)
            if number % AT_ONCE == 0:
                yield
        yield
        counts = counts_of(group, truths, at)
        reason = reason_of(counts, group.cause)
        if group.waiting and not again and not unsaid(truths):
            reason = ""
        if reason or again:
            drafts.append(draft_of(group, truths, counts, reason))
            return
        self._agenda.release(group)
        if not truths:
            self._agenda.forget(group)

    def _tell(self, receiver: str, drafts: list[Draft], at: float, look: Look) -> Iterator[Notification | None]:
        """Tell *drafts*, as far as the rate limit lets them. One in whose place a message waits that has not arrived
        takes that place; there are not more messages then.
        """
        found = self._routing.receivers.get(receiver)
        page, limited = found is not None and is_page(found), found is None or is_limited(found)
        singles = [draft for draft in drafts if draft.group.waiting and not draft.group.digest]
        rest = [draft for draft in drafts if not draft.group.waiting or draft.group.digest]
        digest = self._ledger.digest_for(receiver)
        ration, waiting = Ration(0), self._ledger.owed_to(receiver)
        if rest and limited:
            ration = self._limits.ration(
                receiver, len(rest), at, page=page, waiting=waiting, digest_waits=digest is not None
            )
        elif rest:
            ration = states_ration(len(rest), waiting, at)
        if ration.single:
            rest.sort(key=attrgetter("order"))
        for draft in sorted([*singles, *rest[: ration.single]], key=attrgetter("order")):
            yield from self._make([draft], at, look, page=page)
        rest = rest[ration.single :]
        if rest and ration.digest:
            known = {draft.group.number for draft in rest}
            for group in self._ledger.waiting_for(digest or ""):
                if group.number not in known:
                    yield from self._draft(group, at, look, rest, again=True)
            yield from self._make(rest, at, look, page=page, held_for=self._limits.held_for(receiver, at))
        for draft in [] if ration.digest else rest:
            self._agenda.hold(draft.group, at, ration.next_at)
            yield from self._owe(draft, at)

    def _make(
        self, drafts: Sequence[Draft], at: float, look: Look, *, page: bool, held_for: float | None = None
    ) -> Iterator[Notification | None]:
        """Make one notification, and note that it states what *drafts* have. *held_for*: it is a digest."""
        contents, first = Contents(), drafts[0]
        for draft in drafts:
            yield from contents.adding(draft)
            yield None
        if self._agenda.blocks(first.group):
            for draft in drafts:
                self._agenda.blocks(draft.group)
            return
        if first.outdated and held_for is None:  # what a digest says is true all the same
            self._agenda.at_once(first.group, at)
            return
        made = contents.notification(first, at, look, service=self._service, page=page, held_for=held_for)
        stating = self._stating(drafts, made, at)
        next(stating)
        try:
            yield made
            for done, _ in enumerate(stating, 1):
                if done % AT_ONCE == 0:
                    yield None
        finally:
            for _ in stating:  # if the caller gives up meanwhile: it is in the outbox
                pass

    def _stating(self, drafts: Sequence[Draft], made: Notification, at: float) -> Iterator[None]:
        """Note that *made* states what *drafts* have, in small steps: the first one is the first group."""
        for draft in drafts:
            group, was = draft.group, draft.group.waiting
            self._aftermath.superseded(was)
            group.made(made.id, digest=made.reason == DIGEST)
            self._agenda.release(group)
            self._ledger.keep(group, was)
            yield
            for truth in state_all(draft, at):
                self._stated(group, truth, at)
                yield

    def _owe(self, draft: Draft, at: float) -> Iterator[None]:
        """The receiver is owed what *draft* has, though it is held back: it is told, even if it ends meanwhile."""
        for done, truth in enumerate(draft.truths, 1):
            if truth.status == "firing" and truth.member.owed_at is None:
                truth.member.owed_at = at
                self._stated(draft.group, truth, at)
            if done % AT_ONCE == 0:
                yield
        yield

    def _stated(self, group: Group, truth: Truth, at: float) -> None:
        member = truth.member
        if member.owed_at == at:
            self._await(group, truth.fingerprint, member, at)
        self._ledger.set_member(group, truth.fingerprint, member)
