"""Finds processes that workers of an earlier service have left behind, by the run token in their environment.

A process is an orphan when its token names a service that no longer exists in our namespaces of pids and time. A
process that has cleared its environment, or belongs to another user, is not found. A signal is only sent through a
process descriptor after the token and the start time were read once more, so it cannot reach another process that has
the pid by then.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping
from typing import NamedTuple

from pool_monitor import run_token
from pool_monitor.redaction import redact
from pool_monitor.resources import proc
from pool_monitor.resources.proc import Identity, run_of
from pool_monitor.run_token import ServiceRun

_COMMAND_MOST = 200
_MOST = 100
_READ_ERRORS = (OSError, ValueError)


class Orphan(NamedTuple):
    """One process that a service has left behind."""

    identity: Identity
    run: ServiceRun
    """The service that is gone."""
    command: str
    """The beginning of its command line, as one printable line."""

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return proc.age_ns(self.identity.start) / 1e9


def scan(most: int = _MOST) -> list[Orphan]:
    """Return the orphans of this user, at most *most*, the oldest first. Raises OSError where there is no /proc.

    Reads the environment of every process of the user: about 20 us each.
    """
    own, user = run_token.own_run(), os.getuid()
    if own is None:
        return []
    ours = _ancestors()  # what this service runs in, though a worker may have started it
    marked: dict[Identity, ServiceRun] = {}
    for pid in proc.pids():
        with contextlib.suppress(*_READ_ERRORS):
            if pid in ours or os.stat(f"/proc/{pid}").st_uid != user:  # noqa: PTH116 - one call, no object
                continue
            run = run_of(pid)
            if run is not None and run.namespaces == own.namespaces == run_token.namespaces_of(pid):
                marked[Identity(pid, proc.stat_of(pid).start)] = run
    runs = {Identity(run.pid, run.start) for run in marked.values()}
    alive = {run: exists(run) for run in runs}
    # A process that is itself the service of others has its own life, though a worker has started it.
    lost = [
        (identity, run)
        for identity, run in marked.items()
        if not alive[Identity(run.pid, run.start)] and identity not in runs and run != own
    ]
    return [Orphan(identity, run, command_of(identity.pid)) for identity, run in sorted(lost, key=_oldest)[:most]]


def _ancestors() -> set[int]:
    """Return this process, its parent, and so on."""
    found, pid = {os.getpid()}, os.getppid()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            pid = proc.stat_of(pid).parent
        except _READ_ERRORS:
            break
    return found


def still_there(orphan: Orphan) -> bool:
    """Whether the process still exists and has not ended: the same pid, start time and token."""
    try:
        stat = proc.stat_of(orphan.identity.pid)
        same = stat.start == orphan.identity.start and stat.letter not in proc.ENDED
        return same and run_of(orphan.identity.pid) == orphan.run
    except _READ_ERRORS:
        return False


def end(orphan: Orphan, number: signal.Signals) -> bool:
    """Send a signal to the orphan, if it is still the same process. Returns whether it was sent."""
    pid = orphan.identity.pid
    if pid in _ancestors() or exists(Identity(orphan.run.pid, orphan.run.start)):
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return False
    try:
        if not still_there(orphan):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def exists(process: Identity) -> bool:
    """Whether this very process exists. True when that cannot be read, so that nothing is taken for an orphan."""
    try:
        stat = proc.stat_of(process.pid)
    except (FileNotFoundError, ProcessLookupError):
        return _hidden(process.pid)
    except _READ_ERRORS:
        return True
    return stat.start == process.start and stat.letter not in proc.ENDED


def _hidden(pid: int) -> bool:
    """Whether a process without a folder in /proc exists nevertheless: another user's, with ``hidepid``."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def command_of(pid: int) -> str:
    """Return the beginning of the command line of a process as one printable line; ``?`` when it cannot be read.

    Secrets are replaced.
    """
    try:
        command = proc.read(f"/proc/{pid}/cmdline", _COMMAND_MOST + 1)
    except OSError:
        return "?"
    text = redact(command.replace(b"\0", b" ").decode("utf-8", "replace").strip())
    shown = "".join(each if each.isprintable() else "?" for each in text)
    return (shown if len(shown) <= _COMMAND_MOST else shown[: _COMMAND_MOST - 1] + "…") or "?"


def _oldest(found: tuple[Identity, ServiceRun]) -> int:
    return found[0].start


class OrphanWatch:
    """Scans at an interval, confirms what it finds, and ends it if that is asked for.

    A process counts as an orphan once it was seen twice, `confirm_s` apart: workers need a moment to end with their
    service. A state per orphan, and at most 100 orphans. With *ending*, a confirmed orphan gets SIGTERM, and SIGKILL
    when it is still there `grace_s` later.
    """

    def __init__(self, *, ending: bool, interval_s: float = 60.0, confirm_s: float = 5.0, grace_s: float = 5.0) -> None:
        self._ending = ending
        self._interval_ns, self._confirm_ns, self._grace_ns = (
            round(seconds * 1e9) for seconds in (interval_s, confirm_s, grace_s)
        )
        self._due_ns: int | None = None
        self._seen: dict[Identity, tuple[int, Orphan]] = {}
        self._terminated: dict[Identity, int] = {}
        self.ended = 0
        """Orphans that were sent SIGTERM."""

    def look(self, now_ns: int) -> Mapping[Identity, Orphan]:
        """Return the confirmed orphans at *now_ns*. Reads each known one, and scans when that is due."""
        self._seen = {key: seen for key, seen in self._seen.items() if still_there(seen[1])}
        if self._due_ns is None or now_ns >= self._due_ns:
            self._due_ns = now_ns + self._interval_ns
            with contextlib.suppress(OSError):
                for orphan in scan():
                    if len(self._seen) < _MOST:
                        self._seen.setdefault(orphan.identity, (now_ns, orphan))
        confirmed = {key: orphan for key, (at, orphan) in self._seen.items() if now_ns - at >= self._confirm_ns}
        self._terminated = {key: at for key, at in self._terminated.items() if key in confirmed}
        if self._ending:
            for key, orphan in confirmed.items():
                self._end(key, orphan, now_ns)
        return confirmed

    def _end(self, key: Identity, orphan: Orphan, now_ns: int) -> None:
        if key not in self._terminated:
            if end(orphan, signal.SIGTERM):
                self._terminated[key] = now_ns
                self.ended += 1
        elif now_ns - self._terminated[key] >= self._grace_ns:
            end(orphan, signal.SIGKILL)
