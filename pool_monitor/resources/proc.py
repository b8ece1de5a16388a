"""Reads processes from /proc: one system call or three for each figure, and no object per process.

psutil reads the same files. Its ``oneshot`` takes several times as long for what is read here of a worker, every second
(``python -m benchmarks resources`` measures both).
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from pool_monitor import run_token
from pool_monitor.run_token import ServiceRun

TICK_NS = 1_000_000_000 // (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_MOST_PROCESSES = 20_000
_ENVIRONMENT_MOST = 256 * 1024
_MARK = run_token.VARIABLE.encode() + b"="
STOPPED = ("T", "t")
"""The letters of a process that was stopped, by a signal or by a debugger."""
ENDED = ("Z", "X")
"""The letters of a process that has ended."""


class Identity(NamedTuple):
    """One process, and no other that has its pid later."""

    pid: int
    start: int
    """Clock ticks since the machine's start."""


class Stat(NamedTuple):
    """The figures in ``/proc/PID/stat``."""

    letter: str
    parent: int
    cpu_ns: int
    """Processor time of the process, without that of its children."""
    threads: int
    start: int
    """Clock ticks since the machine's start."""
    rss: int
    """Bytes."""


def stat_of(pid: int) -> Stat:
    """Read ``/proc/PID/stat``. Raises OSError, and ValueError for a text that is not one."""
    return parse_stat(read(f"/proc/{pid}/stat", 1024))


def parse_stat(text: bytes) -> Stat:
    """Return the figures in the text of ``/proc/PID/stat``. Raises ValueError for another text."""
    # The name of the program, in parentheses, may contain anything, a parenthesis too.
    fields = text[text.rindex(b")") + 2 :].split(None, 22)
    if len(fields) < 22:
        raise ValueError("the text of /proc/PID/stat is too short")
    cpu_ns = (int(fields[11]) + int(fields[12])) * TICK_NS
    letter = fields[0].decode("ascii", "replace")[:1]
    return Stat(letter, int(fields[1]), cpu_ns, int(fields[17]), int(fields[19]), max(int(fields[21]), 0) * PAGE)


def age_ns(start: int) -> int:
    """Return the age of a process that started at *start*, with the time that the machine was suspended."""
    return time.clock_gettime_ns(_BOOT) - start * TICK_NS


def table() -> dict[int, Stat]:
    """Read every process that can be seen, at most 20,000. Processes that end meanwhile are left out."""
    found: dict[int, Stat] = {}
    for pid in pids()[:_MOST_PROCESSES]:
        try:
            found[pid] = stat_of(pid)
        except (OSError, ValueError):
            continue
    return found


def pids() -> list[int]:
    """Return the processes that can be seen. Raises OSError where there is no /proc."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - Path objects cost more


def count_fds(pid: int) -> int:
    """Count the open descriptors of a process. Raises OSError."""
    path = f"/proc/{pid}/fd"
    # From Linux 6.2 on, the size of the folder is their number. Counting takes a time that grows with it.
    return os.stat(path).st_size or len(os.listdir(path))  # noqa: PTH116, PTH208 - as above


def fds_limit(pid: int) -> int | None:
    """Return the soft limit of open descriptors of a process; None: unlimited. Raises OSError and ValueError."""
    for line in read(f"/proc/{pid}/limits", 4096).splitlines():
        if line.startswith(b"Max open files"):
            soft = line.split()[3]
            return None if soft == b"unlimited" else int(soft)
    raise ValueError("/proc/PID/limits has no line of open files")


def uss_of(pid: int) -> int:
    """Return the bytes of memory that no other process shares. Raises OSError and ValueError.

    The kernel walks the memory of the process: this takes from 0.05 ms up to tens of milliseconds for gigabytes.
    """
    private = 0
    for line in read(f"/proc/{pid}/smaps_rollup", 4096).splitlines():
        if line.startswith(b"Private_"):
            private += int(line.split()[1]) * 1024
    return private


def io_of(pid: int) -> tuple[int, int]:
    """Return the bytes that a process has read from and written to disks. Raises OSError and ValueError."""
    found = {}
    for line in read(f"/proc/{pid}/io", 1024).splitlines():
        name, _, number = line.partition(b":")
        found[name] = int(number)
    try:
        return found[b"read_bytes"], found[b"write_bytes"]
    except KeyError:
        raise ValueError("/proc/PID/io has no bytes read and written") from None


def run_of(pid: int) -> ServiceRun | None:
    """Return the run whose token a process was started with; None: it was started without. Raises OSError."""
    environment = read(f"/proc/{pid}/environ", _ENVIRONMENT_MOST)
    if environment.startswith(_MARK):
        at = len(_MARK)
    else:
        before = environment.find(b"\0" + _MARK)
        if before < 0:
            return None
        at = before + 1 + len(_MARK)
    return run_token.parse(environment[at : at + 200].partition(b"\0")[0].decode("ascii", "replace"))


def read(path: str, most: int) -> bytes:
    """Read at most *most* bytes of a file. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)
