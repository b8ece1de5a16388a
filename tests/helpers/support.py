"""What several tests need: waiting without sleeping, targets for workers, other interpreters, leftovers."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from pool_monitor import Pool, telemetry
from pool_monitor.testing import InlinePool

TARGETS = Path(__file__).parent.parent / "targets"
OPS = f"{TARGETS / 'ops.py'}:Ops"
ODD = str(TARGETS / "odd.py")


_sleep = time.sleep


def sleep_in_slices(seconds: float) -> None:
    """Like `time.sleep`, but in short slices: a thread can be interrupted only between two Python instructions."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        _sleep(min(left, 0.01))


async def eventually(predicate: Callable[[], object], timeout: float = 10.0) -> Any:
    """Wait until *predicate* returns a true value, and return that value. Fail after *timeout* seconds."""
    end = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < end, f"not true within {timeout} s: {predicate}"
        await asyncio.sleep(0.005)
    return value


POOLS: dict[str, type[Pool]] = {"processes": Pool, "inline": InlinePool}
"""The kinds of pools."""
made_of = "processes"
"""The kind of pool that `ops_pool` makes. The fixture `both_pools` changes it."""


def ops_pool(**fields: Any) -> Pool:
    """Return a pool of one worker with the operations of targets/ops.py, with timeouts short enough for tests."""
    return POOLS[made_of](OPS, **{"size": 1, "name": "ops", "timeout": 20.0, "cancel_grace": 0.1, **fields})


def odd_pool(**fields: Any) -> Pool:
    """Return a pool of one worker with the operations of targets/odd.py, which misbehave."""
    return Pool(ODD, **{"size": 1, "name": "odd", "timeout": 10.0, "cancel_grace": 0.1, **fields})


def pid_of(pool: Pool, slot: int = 0) -> int:
    """Return the pid of the process that is in the slot now."""
    pid = pool.workers()[slot].pid
    assert pid is not None
    return pid


async def running(pool: Pool, operation: str, *args: Any, **options: Any) -> asyncio.Task[Any]:
    """Start a task that runs *operation*, and return the task once a worker runs the call."""
    calls = pool._calls()
    before = set(calls._open)
    task = asyncio.ensure_future(pool.options(**options).run(operation, *args))
    await eventually(lambda: task.done() or any(call.running for call in calls._open.values() if call.id not in before))
    return task


async def read(stream: AsyncIterator[Any], into: list[Any] | None = None) -> list[Any]:
    """Return all items of *stream*. If it raises, *into* has the items before the error."""
    got = [] if into is None else into
    async for item in stream:
        got.append(item)
    return got


def words(events: list[telemetry.CapturedEvent], *, of: str = "") -> list[str]:
    """Return the dotted names of *events* that start with *of*."""
    return [dotted for event in events if (dotted := ".".join(event.name)).startswith(of)]


def metadata(events: list[telemetry.CapturedEvent], key: str, of: str = "") -> list[Any]:
    """Return the metadata *key* of the *events* whose dotted names start with *of*."""
    return [event.metadata[key] for event in events if ".".join(event.name).startswith(of)]


def alive(pid: int) -> bool:
    """Return whether the process runs. A zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Leftovers:
    """Finds child processes, tasks, handlers and descriptors that were made after it and still exist."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> dict[str, set[Any]]:
        fds = Path("/proc/self/fd")
        return {
            "children": {child.pid for child in psutil.Process().children(recursive=True)},
            "tasks": {task for task in asyncio.all_tasks() if "TestRunner" not in repr(task.get_coro())},
            "handlers": {handler.id for handler in telemetry.list_handlers()},
            "descriptors": {entry.name for entry in fds.iterdir()} if fds.exists() else set(),
        }

    def found(self) -> dict[str, set[Any]]:
        now = self._now()
        return {kind: more for kind in now if (more := now[kind] - self._before[kind])}


def python_program(path: Path, code: str) -> str:
    """Write a program that can replace an interpreter and runs *code* with any arguments. Return its path.

    A line ``#!PYTHON`` would not work: the path of the interpreter may contain spaces, or be too long for such a line.
    """
    source = path.with_suffix(".code")
    source.write_text(code)
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(source))} "$@"\n')
    path.chmod(0o755)
    return str(path)


def interpreter(version: str) -> str:
    """Return the path of that Python version. Skip the test if this machine does not have it."""
    if version not in interpreters():
        pytest.skip(f"no Python {version} on this machine")
    return interpreters()[version]


def interpreters() -> dict[str, str]:
    """Return the Pythons of this machine that a worker can run in, by version such as ``3.8``."""
    return {version: path for version, path in _pythons().items() if _numbers(version) >= (3, 8)}


def old_interpreters() -> dict[str, str]:
    """Return the Pythons of this machine that are too old for a worker, by version."""
    return {version: path for version, path in _pythons().items() if _numbers(version) < (3, 8)}


@cache
def _pythons() -> dict[str, str]:
    """Return the Pythons of this machine by version, oldest first: from PATH and from pyenv.

    Version and path are those that each interpreter reports: a file on PATH may be a shim that starts another one.
    """
    names = ["python2.7", *(f"python3.{minor}" for minor in range(6, 16))]
    candidates = [path for name in names if (path := shutil.which(name))]
    candidates += map(str, sorted(Path.home().glob(".pyenv/versions/*/bin/python")))
    found: dict[str, str] = {}
    for path in candidates:
        program = "import sys; print('%d.%d %s' % (sys.version_info[0], sys.version_info[1], sys.executable))"
        try:
            done = subprocess.run([path, "-c", program], capture_output=True, text=True, timeout=20, check=False)
        except OSError:
            continue
        version, _, python = done.stdout.strip().partition(" ")
        if done.returncode == 0 and re.fullmatch(r"\d+\.\d+", version):
            found.setdefault(version, python)
    return dict(sorted(found.items(), key=lambda item: _numbers(item[0])))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def controlled(module: str) -> subprocess.Popen[str]:
    """Start a process that runs *module* and is controlled over its stdin and stdout."""
    return subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
