"""Who else is told of an alert: when nobody acknowledges it, and when a receiver cannot be told."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from pool_monitor.alerts.delivery.members import suppressed_by
from pool_monitor.alerts.delivery.targets import Routing, Target
from pool_monitor.alerts.lifecycle import FIRING_PHASES
from pool_monitor.alerts.quantity import text_of
from pool_monitor.snapshot import AlertView

ESCALATED, FALLBACK = "escalated", "fallback"
LOOK_AGAIN = 5.0
"""Least seconds after which an alert that is acknowledged or suppressed is looked at again."""
LOOKS_PER_SECOND = 100
"""Most alerts that are looked at again, on average. A look costs about 20 us."""

_TIDY_AT = 100

_Group = tuple[str, str]  # a receiver and a group key


class Joining(NamedTuple):
    """An alert that joins a group of another receiver."""

    fingerprint: str
    target: Target
    """Made by `Target.passed_on`."""


class _Wait(NamedTuple):
    """An alert in a group whose receiver may still acknowledge it."""

    target: Target
    since: float
    """When the receiver was first owed it."""
    look_at: float
    """When it goes to another receiver, if nothing is in the way."""


class _Life(Struct):
    """What is to become of one alert that fires."""

    waits: dict[_Group, _Wait] = {}
    passed: set[_Group] = set()
    """The groups that it joined because nobody acknowledged it."""


class Escalations:
    """The alerts that go to another receiver when nobody acknowledges them. No I/O; times are passed in.

    From one group, an alert escalates once in its life. One that is acknowledged, silenced, inhibited or muted when its
    time has come goes when that is over. Bound: twice as many times as there are members of groups.
    """

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}  # by fingerprint
        self._times: list[tuple[float, str, _Group]] = []  # a heap; entries that are out of date are left out later
        self._tidy_at = _TIDY_AT

    @property
    def next_at(self) -> float | None:
        """When `due` has something to do next; None: nothing is waited for."""
        while self._times:
            look_at, fingerprint, group = self._times[0]
            life = self._lives.get(fingerprint)
            wait = None if life is None else life.waits.get(group)
            if wait is not None and wait.look_at == look_at:
                return look_at
            heapq.heappop(self._times)
        return None

    def began(self, fingerprint: str, target: Target, at: float) -> None:
        """The receiver of *target* was first owed the alert *at* this time. Called for each group that it joins, and
        again after a restart and a reload, with the time of then: not for groups that have a cause.
        """
        life = self._lives.setdefault(fingerprint, _Life())
        life.waits.pop(_group(target), None)
        after, further = target.options.escalate_after, _further(target, 0.0)
        if after is not None and further is not None and _group(further) not in life.passed:
            self._wait(fingerprint, _Wait(target, at, at + after))

    def begin_again(self) -> None:
        """Forget all that `began` was called for. What has escalated is still known."""
        self._times.clear()
        for fingerprint, life in list(self._lives.items()):
            life.waits.clear()
            if not life.passed:
                del self._lives[fingerprint]

    def ended(self, fingerprint: str) -> None:
        """The alert fires no more."""
        self._lives.pop(fingerprint, None)

    def escalated(self, fingerprint: str, target: Target) -> None:
        """The alert is a member of *target*, whose cause is ``escalated``: after `due` and after a restart."""
        life = self._lives.setdefault(fingerprint, _Life())
        life.passed.add(_group(target))
        for group, wait in list(life.waits.items()):
            further = _further(wait.target, 0.0)
            if further is not None and _group(further) == _group(target):
                del life.waits[group]

    def due(self, at: float, look: Callable[[str], AlertView | None]) -> Iterator[Joining]:
        """Yield the alerts that join another receiver now."""
        pause = max(LOOK_AGAIN, len(self._times) / LOOKS_PER_SECOND)
        while (look_at := self.next_at) is not None and look_at <= at:
            _, fingerprint, group = heapq.heappop(self._times)
            wait, view = self._lives[fingerprint].waits[group], look(fingerprint)
            further = _further(wait.target, at - wait.since)
            if view is None or further is None or not (view.state in FIRING_PHASES or view.flapping):
                del self._lives[fingerprint].waits[group]
            elif _is_quiet(view, wait.target, at):
                self._wait(fingerprint, wait._replace(look_at=at + pause))
            else:
                self.escalated(fingerprint, further)
                yield Joining(fingerprint, further)

    def _wait(self, fingerprint: str, wait: _Wait) -> None:
        group = _group(wait.target)
        self._lives[fingerprint].waits[group] = wait
        heapq.heappush(self._times, (wait.look_at, fingerprint, group))
        if len(self._times) > self._tidy_at:
            self._times = [
                (wait.look_at, name, group) for name, life in self._lives.items() for group, wait in life.waits.items()
            ]
            heapq.heapify(self._times)
            self._tidy_at = max(_TIDY_AT, 2 * len(self._times))


def fallbacks_of(routing: Routing, target: Target, reason: str) -> Sequence[Target]:
    """Return what the alerts of *target* join when its receiver cannot be told, because of *reason*.

    All fallbacks of one group have the same group key, also those of a fallback. So an alert joins each receiver once,
    and receivers that stand in for each other make no circle.
    """
    receiver = routing.receivers.get(target.receiver)
    about = f"{target.receiver} could not be told: {reason}"
    found = []
    for name in () if receiver is None else receiver.fallback:
        further = target.passed_on(name, FALLBACK, about)
        if target.cause == FALLBACK:
            further = further._replace(group_key=target.group_key)
        if name in routing.receivers and name != further.group_key.rpartition(f"!{FALLBACK}:")[2]:
            found.append(further)
    return found


def _further(target: Target, waited: float) -> Target | None:
    """Return what an alert of *target* joins when nobody has acknowledged it for *waited* seconds."""
    receiver = target.options.escalate_to
    if receiver is None or receiver == target.receiver:
        return None
    return target.passed_on(receiver, ESCALATED, f"nobody acknowledged it at {target.receiver} in {_duration(waited)}")


def _duration(seconds: float) -> str:
    return text_of(round(seconds), "s")


def _is_quiet(view: AlertView, target: Target, at: float) -> bool:
    """Whether an alert that nobody acknowledged is not told further for now."""
    return view.acknowledged or bool(suppressed_by(view, muted=target.options.muted(at)))


def _group(target: Target) -> _Group:
    return target.receiver, target.group_key
