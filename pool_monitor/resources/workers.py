"""The processes of the workers, read from /proc by the service.

A pid alone does not name a process: the kernel uses it again. A process is known by its pid and its start time. The
start time is read with every sample, and the first one must agree with the age that the pool knows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pool_monitor import run_token
from pool_monitor.events import RESOURCE_PROCESS, RESOURCE_WORKER
from pool_monitor.resources import proc
from pool_monitor.resources.proc import Identity
from pool_monitor.resources.rates import GAP
from pool_monitor.resources.sample import UNREADABLE, Execution, Moment, Reading, Slot, Unknown, reason_of

_START_NS = 60_000_000_000  # a worker may wait so long for its process: for the zygote to import what it preloads
_MOST_PROCESSES = 10_000
_SELDOM = 10
_TABLE_SHARE = 0.005
_MOST_ZOMBIES = 1_000
_EMPTY: Mapping[int, proc.Stat] = {}


class _Known:
    """What is kept of one process between two samples."""

    __slots__ = ("at_ns", "cpu_ns", "identity", "seldom", "seldom_in")

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.at_ns: int | None = None  # of the latest reading
        self.cpu_ns = 0
        self.seldom: dict[str, int] = {}  # figures that are not read with every sample
        self.seldom_in = identity.pid % _SELDOM  # samples until they are read again; spread over the workers


class Descendants(NamedTuple):
    """The descendants of a process."""

    children: int = 0
    zombies: int = 0
    zombie_ns: int | None = None
    """For how long the oldest zombie has been seen; None: there is none."""

    @property
    def measurements(self) -> dict[str, int]:
        """As measurements of an event."""
        waits = {} if self.zombie_ns is None else {"zombie_duration": self.zombie_ns}
        return {"children": self.children, "zombies": self.zombies, **waits}


class WorkerSampler:
    """Measures the process of each slot. Slots without a pid are skipped.

    The figures of a reading are of that moment, with two exceptions. ``uss`` and ``fds_limit`` are read at every tenth
    sample of a process, since the kernel walks the memory for the one, and the other hardly changes. The table of all
    processes, in which ``children`` and the zombies are counted, is read at most so often that it takes 0.5 % of a
    processor. A process that is stopped has no figures, because figures that cannot change would look like a quiet
    worker. Keeps one small object per process, 10,000 at most.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._known: dict[tuple[str, str], _Known] = {}  # by the pool's instance and the slot
        self._interval_ns = 0  # between the last two samples, or as it is set if that is longer
        self._sampled_ns: int | None = None
        self._last_ns = 0  # between the last two samples
        self._table: Mapping[int, proc.Stat] = _EMPTY
        self._table_due_ns = 0
        self._families: dict[int, Descendants] = {}
        self._zombies: dict[Identity, int] = {}  # when each was first seen
        self._own = Descendants()
        self._table_missing: str | None = "not read yet"

    def sample(self, moment: Moment) -> Sequence[Execution]:
        """Read the processes of the slots of *moment*."""
        now_ns = self._clock()
        self._interval_ns = moment.interval_ns
        if self._sampled_ns is not None:
            self._interval_ns = max(self._interval_ns, self._last_ns)
            self._last_ns = now_ns - self._sampled_ns
        slots = [slot for slot in moment.slots if slot.worker.pid is not None][:_MOST_PROCESSES]
        self._read_table(now_ns, [slot.worker.pid or 0 for slot in slots])
        found = [self._execution(slot, now_ns) for slot in slots]
        keys = set(map(_key, slots))
        self._known = {key: known for key, known in self._known.items() if key in keys}
        self._sampled_ns, self._table = now_ns, _EMPTY
        return found

    def complete(self, executions: Sequence[Execution]) -> Sequence[Execution]:
        """Return *executions* with the children of the service's own process added to its reading."""
        return [self._with_family(each) if each.spec is RESOURCE_PROCESS else each for each in executions]

    def _with_family(self, execution: Execution) -> Execution:
        if self._table_missing is not None:
            missing = {**execution.metadata.get("missing", {}), "children": self._table_missing}
            return execution._replace(metadata={**execution.metadata, "missing": missing})
        return execution._replace(measurements={**execution.measurements, **self._own.measurements})

    # -- one process ----------------------------------------------------------------------------------------------

    def _execution(self, slot: Slot, now_ns: int) -> Execution:
        pid = slot.worker.pid
        assert pid is not None
        found, letter = Reading(), None
        try:
            stat = self._table.get(pid) or proc.stat_of(pid)
            known = self._identified(slot, pid, stat)
            letter = stat.letter
            if letter in proc.STOPPED:
                found.missing["figures"] = "the process is stopped"
                known.at_ns = None
            elif letter in proc.ENDED:
                found.missing["figures"] = "the process has ended and waits to be reaped"
            elif not stat.rss:  # its memory is gone, or not there yet: the other figures say as little
                found.missing["figures"] = "the process is just starting or ending"
            else:
                self._take(found, known, stat, now_ns)
        except UNREADABLE as error:
            gone = isinstance(error, FileNotFoundError | ProcessLookupError)
            found.missing["figures"] = "the process has ended" if gone else reason_of(error)
        metadata: dict[str, Any] = {**slot.pool.worker(slot.worker.id), "pid": pid, "missing": found.missing}
        if letter is not None:
            metadata["state_letter"] = letter
        return Execution(RESOURCE_WORKER, found.values, metadata)

    def _identified(self, slot: Slot, pid: int, stat: proc.Stat) -> _Known:
        """Return what is known of the process. Raises Unknown when the pid is not the worker's any more."""
        known = self._known.get(_key(slot))
        if known is not None and known.identity.pid == pid:
            if known.identity.start == stat.start:
                return known
            if not _is_newer(slot.worker.age, known.identity):
                raise Unknown("the pid belongs to another process now")
        if pid != os.getpid():
            _check_owner(pid, stat, slot.worker.age)
        known = self._known[_key(slot)] = _Known(Identity(pid, stat.start))
        return known

    def _take(self, found: Reading, known: _Known, stat: proc.Stat, now_ns: int) -> None:
        pid = known.identity.pid
        found.values.update(rss=stat.rss, threads=stat.threads, cpu_duration=stat.cpu_ns)
        passed = None if known.at_ns is None else now_ns - known.at_ns
        if passed is None:
            found.missing["cpu_ratio"] = "needs two readings"
        elif passed <= 0 or passed > GAP * self._interval_ns:
            found.missing["cpu_ratio"] = "the last reading is too long ago"
        else:
            found.values["cpu_ratio"] = max(stat.cpu_ns - known.cpu_ns, 0) / passed
        known.at_ns, known.cpu_ns = now_ns, stat.cpu_ns
        found.take("fds", lambda: proc.count_fds(pid))
        found.take_all(("read_bytes", "written_bytes"), lambda: proc.io_of(pid))
        self._take_dear(found, known)
        family = self._families.get(pid)
        if family is not None:
            found.values.update(family.measurements)
        elif self._table_missing is not None:
            found.missing["children"] = self._table_missing

    @staticmethod
    def _take_dear(found: Reading, known: _Known) -> None:
        """Take what is read at every tenth sample only."""
        if known.seldom and known.seldom_in > 0:
            known.seldom_in -= 1
            found.values.update(known.seldom)
            return
        read = Reading(missing=found.missing)
        read.take("uss", lambda: proc.uss_of(known.identity.pid))
        read.take("fds_limit", lambda: proc.fds_limit(known.identity.pid))
        if known.seldom:
            known.seldom_in = _SELDOM - 1
        known.seldom = read.values
        found.values.update(read.values)

    # -- the table of processes -----------------------------------------------------------------------------------

    def _read_table(self, now_ns: int, workers: Sequence[int]) -> None:
        """Read the table, if it is due, and count the descendants of *workers* and of the service itself."""
        if now_ns < self._table_due_ns:
            self._families = {pid: self._families[pid] for pid in workers if pid in self._families}
            return
        began = time.thread_time_ns()
        try:
            self._table = proc.table()
            self._table_missing = None
        except OSError as error:
            self._table, self._table_missing = _EMPTY, reason_of(error)
        self._count(now_ns, workers)
        self._table_due_ns = now_ns + round((time.thread_time_ns() - began) / _TABLE_SHARE)

    def _count(self, now_ns: int, workers: Sequence[int]) -> None:
        children: dict[int, list[int]] = {}
        for pid, stat in self._table.items():
            children.setdefault(stat.parent, []).append(pid)
        zombies = [Identity(pid, stat.start) for pid, stat in self._table.items() if stat.letter == "Z"]
        self._zombies = {each: self._zombies.get(each, now_ns) for each in zombies[:_MOST_ZOMBIES]}
        all_workers = frozenset(workers)
        self._families = {
            worker: self._family(_descendants(worker, children, frozenset()), now_ns) for worker in all_workers
        }
        self._own = self._family(_descendants(os.getpid(), children, all_workers), now_ns)

    def _family(self, below: Sequence[int], now_ns: int) -> Descendants:
        zombies = [Identity(pid, self._table[pid].start) for pid in below if self._table[pid].letter == "Z"]
        seen = [self._zombies[each] for each in zombies if each in self._zombies]
        return Descendants(len(below), len(zombies), now_ns - min(seen) if seen else None)


def _key(slot: Slot) -> tuple[str, str]:
    return slot.pool.instance or slot.pool.name, slot.worker.id


def _is_newer(age_s: float | None, known: Identity) -> bool:
    """Whether a worker of this age was started after the process *known* was, by a second at least."""
    return age_s is not None and age_s * 1e9 + 1e9 < proc.age_ns(known.start)


def _check_owner(pid: int, stat: proc.Stat, age_s: float | None) -> None:
    """Raise Unknown unless the process is the worker that the pool means. Called for the first reading.

    A worker of a pool has the run token of this service. One that was started without it, because the program clears
    its environment or the environment cannot be read, is judged by its age: a process that has taken the pid later is
    younger than the worker. *age_s* is None for other executors' workers, whose age is not known.
    """
    if age_s is None:
        return
    try:
        run = proc.run_of(pid)
    except PermissionError:
        run = None
    if run is None:
        if proc.age_ns(stat.start) + _START_NS < age_s * 1e9:
            raise Unknown("the pid belongs to another process now")
    elif run != run_token.own_run():
        raise Unknown("the process was started by another service")


def _descendants(root: int, children: Mapping[int, Sequence[int]], without: frozenset[int]) -> list[int]:
    """Return what *root* has started, and what that has started. *without* are not followed, and not returned."""
    found: list[int] = []
    todo, seen = [root], {root}
    while todo:
        for pid in children.get(todo.pop(), ()):
            if pid not in seen and pid not in without:
                seen.add(pid)
                found.append(pid)
                todo.append(pid)
    return found
