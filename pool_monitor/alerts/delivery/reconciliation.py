"""What changes in the groups when routes do, and when a service begins with what an earlier life has saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.delivery.groups import Group
from pool_monitor.alerts.delivery.ledger import Ledger
from pool_monitor.alerts.delivery.members import End, Member
from pool_monitor.alerts.delivery.targets import Routing, Target, targets_of
from pool_monitor.alerts.lifecycle import FIRING_PHASES

ROUTE_CHANGED, STATE_LOST = "route_changed", "state_lost"
"""Why an alert ends for a receiver: no route leads to it any more; nothing is known of the alert any more."""


class Changed(NamedTuple):
    """What became of one alert."""

    groups: tuple[Group, ...] = ()
    """Groups whose times have changed."""
    postponed: bool = False
    """Whether it stays where it is until a notification has arrived that may speak of it."""


def reconcile(ledger: Ledger, routing: Routing, alerts: Iterable[Alert], at: float) -> Iterator[Changed]:
    """Make the groups agree with *routing*, and their members with the *alerts* that fire. Yields after each alert.

    - An alert that has to be in another group of the same receiver moves there with what was told and with the times:
      nothing is said. Where a group of the receiver has it already, it is only left out. Both wait while the old group
      has a notification that has not arrived: else that could arrive after the end of the alert.
    - A receiver that no route leads to any more is told its end.
    - An alert that is nowhere yet joins.
    """
    firing = {alert.fingerprint: alert for alert in alerts if alert.state in FIRING_PHASES}
    for group in ledger.each_group():
        if group.cause and group.receiver not in routing.receivers:
            for fingerprint, member in list(ledger.members_of(group).items()):
                end(ledger, group, fingerprint, member, End(at=at, reason=ROUTE_CHANGED))
            yield Changed((group,))
    for fingerprint in ledger.fingerprints():
        if fingerprint not in firing:
            for group, member in ledger.of(fingerprint):
                if member.end is None:
                    end(ledger, group, fingerprint, member, End(at=at, reason=STATE_LOST))
            yield Changed()
    for alert in firing.values():
        yield _place(ledger, routing, alert, at)


def _place(ledger: Ledger, routing: Routing, alert: Alert, at: float) -> Changed:
    fingerprint, changed = alert.fingerprint, list[Group]()
    placed = [(group, member) for group, member in ledger.of(fingerprint) if not group.cause and _is_placed(member)]
    wanted = _wanted(routing, alert, [member.joined_as for _, member in placed])
    surplus = [(group, member) for group, member in placed if (group.receiver, group.key) not in wanted]
    receivers = {receiver for receiver, _ in wanted}
    staying = {group.receiver for group, _ in surplus if group.waiting and group.receiver in receivers}
    for target, severities in wanted.values():
        group = ledger.find(target.receiver, target.group_key)
        member = None if group is None else ledger.members_of(group).get(fingerprint)
        if group is not None and group.options != target.options:
            group.options = target.options
            group.clamp(at)
            ledger.keep(group)
            changed.append(group)
        if member is not None and group is not None and member.joined_as not in severities and _is_placed(member):
            member.joined_as = severities[0]
            ledger.set_member(group, fingerprint, member)
        if (member is not None and _is_placed(member)) or target.receiver in staying:
            if group is not None and member is not None and member.end is not None:
                changed.append(_go_on(ledger, group, fingerprint, member))
            continue
        donor = next((one for one in surplus if one[0].receiver == target.receiver), None)
        if donor is not None:
            surplus.remove(donor)
            if donor[1].joined_as not in severities:
                donor[1].joined_as = severities[0]
            changed.append(_move(ledger, donor, fingerprint, target, at))
        elif (joined := join(ledger, fingerprint, _member(alert, severities[0]), target, at)) is not None:
            changed.append(joined)
    for group, member in surplus:
        if group.receiver not in receivers and member.end is None:
            end(ledger, group, fingerprint, member, End(at=at, reason=ROUTE_CHANGED))
        elif group.receiver in receivers and group.receiver not in staying:
            ledger.remove_member(group, fingerprint)
    return Changed(tuple(changed), postponed=bool(staying))


def _wanted(
    routing: Routing, alert: Alert, joined_as: Iterable[str]
) -> dict[tuple[str, str], tuple[Target, list[str]]]:
    """Return which groups one alert has to be in, by receiver and group key, each with the severities that lead there:
    those for its severity now, which is the first, and for each severity with which it joined a group. So who was told
    that it fires hears of it until its end, and the same routes change nothing.
    """
    found: dict[tuple[str, str], tuple[Target, list[str]]] = {}
    for severity in dict.fromkeys((alert.severity, *joined_as)):
        for target in targets_of(routing, alert.alert, {**alert.labels, "severity": severity}):
            found.setdefault((target.receiver, target.group_key), (target, []))[1].append(severity)
    return found


def _is_placed(member: Member) -> bool:
    """Whether *member* fires for its receiver, or would if the routes had not changed: that was not said yet."""
    return member.end is None or (member.end.reason == ROUTE_CHANGED and member.end_no == 0)


def _member(alert: Alert, joined_as: str) -> Member:
    """Return *alert* as a member that nobody was told of."""
    return Member(
        alert=alert.alert,
        labels=alert.labels,
        severity=alert.severity,
        joined_as=joined_as,
        starts_at=alert.since if alert.fired_at is None else alert.fired_at,
    )


def join(ledger: Ledger, fingerprint: str, member: Member, target: Target, at: float) -> Group | None:
    """Put a firing alert into the group of *target*. If it is there, it fires on. Returns the group; None: there is no
    room.
    """
    group = ledger.find(target.receiver, target.group_key)
    found = None if group is None else ledger.members_of(group).get(fingerprint)
    if found is not None and group is not None:
        if found.end is not None:
            found.joined_as = member.joined_as  # a new life
        found.begins(member.severity, member.starts_at)
        ledger.set_member(group, fingerprint, found)
    else:
        if ledger.full:
            return None
        if group is None:
            group = ledger.add_group(target, at + target.options.group_wait)
        ledger.set_member(group, fingerprint, member)
    group.insert(member.starts_at, at)
    ledger.keep(group)
    return group


def end(ledger: Ledger, group: Group, fingerprint: str, member: Member, how: End) -> None:
    """An alert fires no more for the receiver of *group*. Before its first time, nothing was told: it stays until then,
    since it may fire again.
    """
    member.ends(how)
    ledger.set_member(group, fingerprint, member)


def _go_on(ledger: Ledger, group: Group, fingerprint: str, member: Member) -> Group:
    """The route to the receiver is there again before it was told that it is gone."""
    member.end = None
    ledger.set_member(group, fingerprint, member)
    return group


def _move(ledger: Ledger, donor: tuple[Group, Member], fingerprint: str, target: Target, at: float) -> Group:
    """Move a member to another group of its receiver, with what was told and with the times."""
    old, member = donor
    member.end = None
    group = ledger.find(target.receiver, target.group_key)
    if group is None:
        group = ledger.add_group(target, old.flush_at)
        group.flushed, group.told_at = old.flushed, old.told_at
        group.clamp(at)
    known, heard = member.known(old), member.heard(old) or member.fire_no > old.arrived_no
    member.maybe, member.fire_no, member.end_no = heard and not known, 1 if known else 0, 0
    if not heard:
        member.owed_at = None
    ledger.remove_member(old, fingerprint)
    ledger.set_member(group, fingerprint, member)
    ledger.keep(group)
    return group
