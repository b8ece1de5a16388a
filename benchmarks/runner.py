"""Starts the processes of a benchmark, reads their results, and ends whatever they leave behind.

Every process carries a mark in its environment. All its descendants inherit the mark, and keep it when their parent
ends. So every process of a run can be found, and ended by its pid, without touching anything else.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import msgspec
import psutil

from benchmarks import tables
from benchmarks.load import Load, Slice
from benchmarks.tables import Table

ROOT = Path(__file__).parent.parent
MARK = "POOL_MONITOR_BENCHMARK"
PROGRAM = "from benchmarks.scenarios import main; main()"
START_S = 30.0

Result = TypeVar("Result")


class Trouble(str):
    """What went wrong, in a few words, in place of a result."""

    __slots__ = ()


class Orphans(NamedTuple):
    """What is left of a pool after its parent was killed."""

    workers: int
    workers_left: int
    others: int
    others_left: int
    gone_ms: float | None
    """Time until nothing was left; None: something remained."""


class Used(NamedTuple):
    """Readings of clocks, or their differences, in seconds. All except the first are processor time."""

    seconds: float
    idle: float
    benchmark: float
    parent: float
    workers: float


class Runner:
    """The processes of one run. Leaving the context ends all that are left, and removes their files."""

    def __init__(self) -> None:
        self._mark = secrets.token_hex(8)
        self._count = 0
        self._files = tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._mark)
        self._files.cleanup()

    def start(self, label: str, scenario: str, size: int) -> Child:
        """Start *scenario* (see scenarios.py) with the pool *label* in a new process."""
        self._count += 1
        return Child([label, scenario, str(size)], f"{self._mark}.{self._count}.", self._files.name)

    def ask(self, label: str, scenario: str, size: int, kind: type[Result], timeout: float) -> Result | Trouble:
        """Return the single result of *scenario*. Afterwards nothing of it is left."""
        child = self.start(label, scenario, size)
        try:
            return child.read(kind, timeout)
        finally:
            child.end()

    def left(self) -> list[psutil.Process]:
        """Return the running processes of this run."""
        return marked(self._mark)


def show(made: Callable[[Runner], Iterable[Table]], *, as_markdown: bool) -> None:
    """Print the tables that *made* yields, and what was left of the processes of the run."""
    began = time.monotonic()
    with Runner() as runner:
        tables.show(made(runner), as_markdown=as_markdown)
        left = runner.left()
    took = time.monotonic() - began
    print(f"{took:.0f} s; left behind: {', '.join(map(str, left)) or 'nothing'}", file=sys.stderr)


class Child:
    """The parent of one pool."""

    def __init__(self, arguments: list[str], mark: str, directory: str) -> None:
        self._mark = mark
        self._errors = Path(directory, f"{mark}errors")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, *arguments],
                cwd=ROOT,
                env={**os.environ, MARK: mark, "TMPDIR": directory},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Return how the process ended; None if it runs."""
        return self._process.poll()

    def write(self, message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(message) + b"\n")
            self._process.stdin.flush()

    def read(self, kind: type[Result], timeout: float) -> Result | Trouble:
        """Return the next result. The end of the pipe does not show that none will come: forked workers hold it too."""
        assert self._process.stdout is not None
        end_s = time.monotonic() + timeout
        while not select.select([self._process.stdout], [], [], 0.05)[0]:
            if self._process.poll() is not None:
                return self._failed()
            if time.monotonic() > end_s:
                return Trouble("hangs")
        line = self._process.stdout.readline()
        return msgspec.json.decode(line, type=kind) if line else self._failed()

    def serve(self, load: Load) -> Slice | Trouble:
        """Return the slice of *load* that a child with the scenario "serve" measures."""
        before = self._used()
        self.write(load)
        done = self.read(Slice, load.seconds + 10.0 + load.callers / 1000)
        if isinstance(done, Trouble):
            return done
        spent = Used(*(after - earlier for after, earlier in zip(self._used(), before, strict=True)))
        others = (os.cpu_count() or 1) - (spent.idle + spent.benchmark + spent.parent + spent.workers) / spent.seconds
        return done._replace(workers_s=max(0.0, spent.workers), others=max(0.0, others))

    def _used(self) -> Used:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return Used(time.monotonic(), idle, time.process_time(), cpu_s(self.pid), sum(map(cpu_s, self._below)))

    @cached_property
    def _below(self) -> list[int]:
        """Return the pids of the workers, and of the other processes that the pool has started."""
        return [process.pid for process in marked(self._mark) if process.pid != self.pid]

    def finish(self, patience: float = 5.0) -> list[psutil.Process]:
        """Let the process end by itself. Return what is left of it after *patience* seconds, and end that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        end_s = time.monotonic() + patience
        while (left := marked(self._mark)) and time.monotonic() < end_s:
            self._process.poll()
            time.sleep(0.01)
        self.end()
        return left

    def kill_parent(self, pids: list[int], patience: float = 1.0) -> Orphans:
        """Kill the parent of the workers *pids*. Return what is left of it after *patience* seconds."""
        family = [process for process in marked(self._mark) if process.pid != self.pid]
        began = time.monotonic()
        self._process.kill()
        self._process.wait()
        left, gone_ms = family, None
        while left and time.monotonic() - began < patience:
            left = [process for process in left if alive(process)]
            time.sleep(0.001)
        if not left and not marked(self._mark):
            gone_ms = (time.monotonic() - began) * 1e3
        left = marked(self._mark)
        workers_left = sum(process.pid in pids for process in left)
        return Orphans(len(pids), workers_left, len(family) - len(pids), len(left) - workers_left, gone_ms)

    def end(self) -> None:
        """End the process and everything it started, now."""
        self._process.kill()
        self._process.wait()
        end(self._mark)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _failed(self) -> Trouble:
        words = self._errors.read_text(errors="replace").strip().splitlines()
        return Trouble(f"failed: {words[-1] if words else 'no output'}"[:80])


def cpu_s(pid: int) -> float:
    """Return the processor time of all threads of a process, in seconds; 0 once it has ended.

    Linux has a clock for each process; its number is made from the pid as in clock_getcpuclockid(3). The resolution of
    psutil is only a hundredth of a second.
    """
    try:
        if sys.platform == "linux":
            return time.clock_gettime(~pid << 3 | 2)
        return float(sum(psutil.Process(pid).cpu_times()[:2]))
    except (OSError, psutil.Error):
        return 0.0


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def marked(mark: str) -> list[psutil.Process]:
    """Return the running processes whose mark begins with *mark*."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK, "").startswith(mark) and alive(process):
                found.append(process)
    return found


def end(mark: str) -> None:
    """Kill all marked processes and what they start meanwhile. Returns when none runs."""
    end_s = time.monotonic() + 5.0
    while (left := marked(mark)) and time.monotonic() < end_s:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.005)
