"""Which services are watched, and what is wrong with each. No I/O; times are passed in, in seconds.

A service is a name, because a restart gives it another process. It may have several processes, each with a socket of
its own. What is wrong with one of them is wrong with the service.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from pool_monitor.alerts.pulse import REASON_MAX, REASONS_MAX, troubles
from pool_monitor.log import plain
from pool_monitor.snapshot import AlertingView

Kind = Literal["service_gone", "service_frozen", "service_stale"]
Verdict = Literal["answered", "odd", "silent", "refused", "left"]
"""What came of a poll:

- ``answered``: with a Snapshot.
- ``odd``: with something else.
- ``silent``: it takes connections and does not answer.
- ``refused``: nobody takes a connection, or there is nothing to connect to.
- ``left``: its socket was removed, as a process does that leaves in order.
"""

CONFIRM = 2
"""So many polls in a row have to fail."""
WATCHED_MAX = 1000
"""Most processes that are watched."""
FORGET_S = 86_400.0
"""A process of a service that was only discovered, and that stays gone, is forgotten after a day."""


class SeenService(Struct):
    """Which process has answered."""

    pid: int = 0
    started_at: float = 0.0


class SeenMonitor(Struct):
    """What it says about its monitor."""

    alerts: AlertingView | None = None
    degraded: dict[str, str] = {}


class Seen(Struct):
    """What is read of a Snapshot."""

    version: int
    seq: int
    uptime: float
    service: SeenService
    monitor: SeenMonitor


class Poll(NamedTuple):
    """What came of asking a process once."""

    verdict: Verdict
    reason: str = ""
    """In words, cleaned; empty: it answered."""
    seen: Seen | None = None


class Found(NamedTuple):
    """What is wrong with a service."""

    service: str
    kind: Kind
    reason: str


@dataclass
class _Process:
    service: str
    key: str
    joined_at: float
    fixed: bool = False
    answered_at: float = -inf
    failed: int = 0
    """Polls in a row that failed."""
    stale: int = 0
    """Polls in a row that were answered, and badly."""
    latest: Verdict | None = None
    reason: str = ""
    seen: Seen | None = None
    """Its latest answer, without what it said about its monitor."""
    replaces: bool = False
    """Whether it has taken the place of one that is gone."""
    failed_at: float = inf

    @property
    def kind(self) -> Kind | None:
        """What is wrong with it."""
        if self.failed >= CONFIRM:
            return "service_gone" if self.latest == "refused" else "service_frozen"
        return "service_stale" if self.stale >= CONFIRM else None

    @property
    def is_settled(self) -> bool:
        """Whether enough polls have ended to say something about it."""
        return self.kind is not None or (self.latest in ("answered", "odd") and not self.failed)


class WatchList:
    """The processes that are watched, at most `WATCHED_MAX`."""

    def __init__(self) -> None:
        self._expected: set[str] = set()
        self._processes: dict[str, _Process] = {}
        self.refused = 0
        """How often there was no room for a process."""

    # -- who is watched

    @property
    def keys(self) -> list[str]:
        """The keys of all processes."""
        return list(self._processes)

    def __contains__(self, key: str) -> bool:
        return key in self._processes

    @property
    def services(self) -> list[str]:
        """The names of the services, sorted."""
        return sorted({one.service for one in self._processes.values()} | self._expected)

    @property
    def trouble(self) -> str:
        """Why processes are left out, in words; empty: none is."""
        if not self.refused or len(self._processes) < WATCHED_MAX:
            return ""
        return f"there are more than {WATCHED_MAX:,} processes: the others are not watched"

    def is_doubtful(self, key: str) -> bool:
        """Whether the latest poll of a process failed, and a further one is needed to be sure."""
        one = self._processes.get(key)
        return one is not None and 0 < one.failed < CONFIRM

    def is_silent(self, key: str) -> bool:
        """Whether a process is known not to answer."""
        one = self._processes.get(key)
        return one is not None and one.kind == "service_frozen"

    @property
    def is_settled(self) -> bool:
        """Whether something can be said about every process."""
        return all(one.is_settled for one in self._processes.values())

    def expect(self, service: str) -> None:
        """*service* has to be there: it may not leave, and is gone while it has no process."""
        self._expected.add(service)
        self._miss(service)

    def restore(self, service: str) -> None:
        """An earlier life has found *service* gone. It is, until there is a process of it, or until others than it are
        expected: then it is not watched any more.
        """
        if self._expected and service not in self._expected:
            return
        one = self._miss(service)
        if one is not None:
            one.failed, one.latest, one.reason = CONFIRM, "refused", "it was gone before this watch began"

    def _miss(self, service: str) -> _Process | None:
        """Make an entry for a service without a process, unless there is one."""
        if len(self._processes) >= WATCHED_MAX or any(one.service == service for one in self._processes.values()):
            return self._processes.get(missing_key(service))
        key = missing_key(service)
        self._processes[key] = _Process(service, key, -inf)
        return self._processes[key]

    @property
    def missing(self) -> list[str]:
        """The services that have no process."""
        return [one.service for one in self._processes.values() if one.key == missing_key(one.service)]

    def join(self, service: str, key: str, at: float, *, fixed: bool = False) -> bool:
        """Watch the process *key* of *service*. Returns whether it is new; without room, it is left out. *fixed*: the
        key is an address that has to answer, whichever process it is.
        """
        if key in self._processes:
            return False
        self._processes.pop(missing_key(service), None)
        if len(self._processes) >= WATCHED_MAX:
            self.refused += 1
            return False
        self._processes[key] = _Process(service, key, at, fixed=fixed)
        return True

    # -- what is found

    def note(self, key: str, poll: Poll, at: float) -> None:
        """Take account of a poll of the process *key* that ended *at*."""
        one = self._processes.get(key)
        if one is None:
            return
        if poll.verdict == "left" and not one.fixed:
            del self._processes[key]
            if one.service in self._expected:
                self._miss(one.service)
            return
        was_answered, one.latest = one.answered_at > -inf, "refused" if poll.verdict == "left" else poll.verdict
        if poll.verdict == "answered":
            if not was_answered:
                one.joined_at = at
            why = _staleness(one.seen, poll.seen)
            one.answered_at, one.failed, one.failed_at = at, 0, inf
            one.seen = None if poll.seen is None else msgspec.structs.replace(poll.seen, monitor=SeenMonitor())
            one.stale, one.reason = (one.stale + 1, why) if why else (0, "")
        elif poll.verdict == "odd":
            one.failed, one.failed_at, one.stale, one.reason = 0, inf, one.stale + 1, poll.reason
        else:
            one.failed, one.stale, one.reason = one.failed + 1, 0, poll.reason
            one.failed_at = min(one.failed_at, at)
        self._replace(one.service)
        self._forget(at)

    def found(self) -> list[Found]:
        """Return what is wrong: for each service and kind once, with the first reason."""
        found: dict[tuple[str, Kind], Found] = {}
        for one in self._processes.values():
            if (kind := one.kind) is not None:
                found.setdefault((one.service, kind), Found(one.service, kind, one.reason))
        return list(found.values())

    def _replace(self, service: str) -> None:
        """A process that has come since one that is gone was last seen takes its place: it was started anew."""
        mine = [one for one in self._processes.values() if one.service == service]
        for gone in [one for one in mine if one.latest == "refused" and not one.fixed]:
            for new in mine:
                if new.latest == "answered" and not new.replaces and new.joined_at >= gone.answered_at:
                    new.replaces = True
                    self._processes.pop(gone.key, None)
                    break

    def _forget(self, at: float) -> None:
        for key in [one.key for one in self._processes.values() if at - one.failed_at > FORGET_S]:
            one = self._processes[key]
            if one.latest == "refused" and one.service not in self._expected:
                del self._processes[key]


def missing_key(service: str) -> str:
    """Return the key of the entry of a service that has no process."""
    return f"?{service}"


def _staleness(before: Seen | None, seen: Seen | None) -> str:
    """Return why an answer is no good sign, in words; empty: it is."""
    if seen is None:
        return ""
    # A service may list any number of parts, with any names.
    return "; ".join(plain(text[:REASON_MAX]) for text in islice(_stale_reasons(before, seen), REASONS_MAX))


def _stale_reasons(before: Seen | None, seen: Seen) -> Iterator[str]:
    if before is not None and (before.seq, before.uptime, before.service) == (seen.seq, seen.uptime, seen.service):
        yield "it answers with the same Snapshot as before"
    yield from (text for _, text in troubles(seen.monitor.alerts, seen.monitor.degraded))
