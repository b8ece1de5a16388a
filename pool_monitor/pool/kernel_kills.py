"""Tells apart the workers that the kernel killed for want of memory from those that something else killed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from pool_monitor.cgroup import KernelKills, OutOfMemoryKills
from pool_monitor.pool.policy.out_of_memory import KillLedger, Verdict
from pool_monitor.pool.transport.exiting import is_exiting

_READ_EVERY = 5.0


class KillCounter(Protocol):
    """Reads the counters of the kernel. Neither method raises."""

    def count(self) -> KernelKills: ...

    def limit(self) -> int | None: ...


class Ending(NamedTuple):
    """How a process ended, as far as memory is concerned."""

    out_of_memory: Verdict
    text: str | None
    """The end in words; None: memory has nothing to do with it."""


class KernelKillWatch:
    """Reads the kernel's counters when it is made, every few seconds, and when a process was ended by signal 9."""

    def __init__(self, clock: Callable[[], float], counter: KillCounter | None = None) -> None:
        self._clock = clock
        self._counter = counter or OutOfMemoryKills()
        self._ledger = KillLedger()
        self._read()

    def _read(self) -> None:
        self._read_at = self._clock()
        kills = self._counter.count()
        self._in_cgroup = kills.cgroup is not None
        self._ledger.note(self._read_at, kills.cgroup, kills.machine)

    def refresh(self) -> None:
        """Read the counters, if that is due: a kill of long ago is then not taken for that of a worker."""
        if self._clock() - self._read_at >= _READ_EVERY:
            self._read()

    def judge(self, exit_code: int | None, living: Callable[[], Iterable[int]] = tuple) -> Ending:
        """Say how a process ended that the pool did not end. *living* returns the pids of the others, as far as their
        ends were not noticed yet: of several that have ended at once, the kernel may have killed only some.
        """
        if exit_code != -signal.SIGKILL:
            return Ending("no", None)
        self._read()
        verdict = self._ledger.explain(self._clock(), sum(map(is_exiting, living())))
        if verdict == "no":
            return Ending(verdict, None)
        text = f"killed by signal {int(signal.SIGKILL)}: "
        if verdict == "probably" and self._in_cgroup:
            text += "probably the kernel's out-of-memory killer, which killed some of the processes that ended together"
            return Ending(verdict, text)
        if verdict == "probably":
            return Ending(verdict, f"{text}probably the kernel's out-of-memory killer, by the machine's count")
        limit = self._counter.limit()
        where = f" (cgroup limit {_size(limit)})" if limit is not None else ""
        return Ending(verdict, f"{text}the kernel's out-of-memory killer{where}")


def _size(count: int) -> str:
    """Bytes in the largest binary unit that leaves a number of at least 1: ``512 MiB``, ``1.5 GiB``."""
    number, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while number >= 1024 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:.4g} {units[0]}"
