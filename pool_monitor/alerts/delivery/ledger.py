"""The groups and their members, as they are kept and saved."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.members import Member
from pool_monitor.alerts.delivery.targets import Target
from pool_monitor.alerts.saved_rows import SavedRows, left_out

MEMBERS_MAX = 30_000
"""Most members of all groups together. There are not more groups than members. With texts of usual length they take
half of what the state file has room for, so ten thousand alerts fit that have three receivers each."""


class Ledger:
    """What is true and what was told, for each receiver, group and alert. Bound: `MEMBERS_MAX`."""

    def __init__(self) -> None:
        self.groups, self.members = SavedRows(Group), SavedRows(Member)
        self._numbers: dict[tuple[str, str], int] = {}
        self._by_number: dict[int, Group] = {}
        self._members: dict[int, dict[str, Member]] = {}
        self._groups: defaultdict[str, dict[int, None]] = defaultdict(dict)  # by fingerprint; a dict keeps the order
        self._waiting: defaultdict[str, dict[int, None]] = defaultdict(dict)
        # By receiver: the ids of notifications, and whether each is a digest.
        self._owed: defaultdict[str, dict[str, bool]] = defaultdict(dict)
        self._number = 0

    # -- groups

    def group(self, number: int) -> Group | None:
        """Return the group with this number; None: it is gone."""
        return self._by_number.get(number)

    def each_group(self) -> Sequence[Group]:
        """Return all groups."""
        return list(self._by_number.values())

    def find(self, receiver: str, key: str) -> Group | None:
        """Return the group of *receiver* with this key; None: there is none."""
        number = self._numbers.get((receiver, key))
        return None if number is None else self._by_number[number]

    def add_group(self, target: Target, flush_at: float) -> Group:
        """Make the group of *target*. Call `keep` when it is complete."""
        self._number += 1
        group = Group(
            number=self._number,
            receiver=target.receiver,
            key=target.group_key,
            labels=dict(target.group_labels),
            options=target.options,
            cause=target.cause,
            about=target.about,
            flush_at=flush_at,
        )
        self._know(group)
        return group

    def keep(self, group: Group, was_waiting: str = "") -> None:
        """Note that *group* has changed. *was_waiting*: what it waited for before."""
        if was_waiting and was_waiting != group.waiting:
            self._not_waiting(was_waiting, group)
        if group.waiting:
            self._now_waiting(group)
        self.groups[str(group.number)] = group

    def waiting_for(self, notification: str) -> Sequence[Group]:
        """Return the groups whose notification with this id has not arrived."""
        return [self._by_number[number] for number in self._waiting.get(notification, ())]

    def digest_for(self, receiver: str) -> str | None:
        """Return the id of the digest that *receiver* is owed; None: it is owed none."""
        return next((one for one, digest in self._owed.get(receiver, {}).items() if digest), None)

    def owed_to(self, receiver: str) -> int:
        """Return the number of notifications that *receiver* is owed."""
        return len(self._owed.get(receiver, ()))

    def remove_group(self, group: Group) -> None:
        """Forget an empty group."""
        if group.waiting:
            self._not_waiting(group.waiting, group)
        del self._by_number[group.number], self._members[group.number], self._numbers[group.receiver, group.key]
        self.groups.pop(str(group.number))

    # -- members

    @property
    def full(self) -> bool:
        """Whether no more members can be added."""
        return len(self.members) >= MEMBERS_MAX

    def members_of(self, group: Group) -> Mapping[str, Member]:
        """Return the members of *group* by fingerprint."""
        return self._members.get(group.number, {})

    def fingerprints(self) -> Sequence[str]:
        """Return the alerts that are members of any group."""
        return list(self._groups)

    def of(self, fingerprint: str) -> Iterator[tuple[Group, Member]]:
        """Yield the groups that an alert is in. They may be changed meanwhile."""
        for number in list(self._groups.get(fingerprint, ())):
            yield self._by_number[number], self._members[number][fingerprint]

    def set_member(self, group: Group, fingerprint: str, member: Member) -> None:
        """Add *member*, or note that it has changed."""
        self._members[group.number][fingerprint] = member
        self._groups[fingerprint][group.number] = None
        self.members[f"{group.number}/{fingerprint}"] = member

    def remove_member(self, group: Group, fingerprint: str) -> None:
        """Forget a member."""
        del self._members[group.number][fingerprint]
        numbers = self._groups[fingerprint]
        del numbers[group.number]
        if not numbers:
            del self._groups[fingerprint]
        self.members.pop(f"{group.number}/{fingerprint}")

    # -- what survives a restart

    def restore(self, rows: Mapping[str, Mapping[str, bytes]]) -> list[str]:
        """Take over the rows of a state file, into an empty ledger. Returns what cannot be used, in words."""
        groups = self.groups.restore(rows.get("groups", {}), _check_group)
        for group in list(self.groups.values()):
            if (group.receiver, group.key) in self._numbers:
                self.groups.pop(str(group.number))
                groups.append(str(group.number))
                continue
            self._know(group)
            self._number = max(self._number, group.number)
            if group.waiting:
                self._now_waiting(group)
        members = self.members.restore(rows.get("told", {}), _check_member)
        for key, member in list(self.members.items()):
            number, _, fingerprint = key.partition("/")
            found = self._by_number.get(int(number))
            if found is None:
                self.members.pop(key)
                members.append(key)
                continue
            # No notification states it that was not made: else its end would be told again and again, or never.
            member.fire_no = min(member.fire_no, found.made_no)
            member.end_no = member.end_no if member.end_no <= found.made_no else 0
            self._members[found.number][fingerprint] = member
            self._groups[fingerprint][found.number] = None
        for key in groups:
            self.groups.forget(key)
        for key in members:
            self.members.forget(key)
        return [*left_out("group", groups), *left_out("member of a group", members)]

    def _know(self, group: Group) -> None:
        self._by_number[group.number], self._members[group.number] = group, {}
        self._numbers[group.receiver, group.key] = group.number

    def _now_waiting(self, group: Group) -> None:
        self._waiting[group.waiting][group.number] = None
        self._owed[group.receiver][group.waiting] = group.digest

    def _not_waiting(self, notification: str, group: Group) -> None:
        numbers = self._waiting[notification]
        numbers.pop(group.number, None)
        if not numbers:
            del self._waiting[notification]
            owed = self._owed[group.receiver]
            owed.pop(notification, None)
            if not owed:
                del self._owed[group.receiver]


_NUMBER = re.compile("[1-9][0-9]{0,15}", re.ASCII)


def _check_group(key: str, group: Group) -> None:
    if not (_NUMBER.fullmatch(key) and key == str(group.number) and 1 <= group.arrived_no <= group.made_no):
        raise ValueError(key)
    if not group.arrived_no <= group.maybe_no <= group.made_no:
        group.maybe_no = group.made_no if group.maybe_no > group.made_no else group.arrived_no


def _check_member(key: str, member: Member) -> None:
    number, _, fingerprint = key.partition("/")
    if not (_NUMBER.fullmatch(number) and len(fingerprint) == 16):
        raise ValueError(key)
    if member.fire_no < 0 or member.end_no < 0:
        raise ValueError(key)
