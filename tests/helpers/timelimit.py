"""Ends and names every test that exceeds its time limit, wherever it hangs.

pytest-timeout raises an error in the test. That ends most tests: they fail, and the run continues. It cannot end a
coroutine that shares its event loop with async fixtures, because their teardown waits for that coroutine. It cannot end
a call into C that does not return either. So a second process watches the test process. After a further quarter of the
limit, it ends the test process and everything that process has started. pytest-xdist then starts a new process and
continues; without pytest-xdist, the run ends there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

COLLECTION_S = FINISH_S = 120.0
GRACE = 1.25
"""The limit of the watching process, as a multiple of the limit of the test."""


class Watch:
    """The watching process, as the test process sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-E", __file__], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, bufsize=1
        )
        self.stderr = os.fdopen(
            os.dup(2), "w"
        )  # pytest captures descriptor 2, and may be killed before it shows the output

    def limit(self, name: str, seconds: float) -> None:
        """End this process unless another limit is set within *seconds*. 0: no limit."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds} {name!r}\n")

    def end(self) -> None:
        self._process.communicate()
        self.stderr.close()


watches: list[Watch] = []


def limit(name: str = "", seconds: float = 0.0) -> None:
    for watch in watches:
        watch.limit(name, seconds)


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "dist", "no") == "no":  # not in the pytest-xdist process that only distributes tests
        watches.append(Watch())


def pytest_unconfigure() -> None:
    while watches:
        watches.pop().end()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    limit("the collection of the tests", COLLECTION_S)
    result = yield
    limit()
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Iterator[None]:
    try:
        return (yield)
    finally:
        limit()


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> Iterator[Any]:
    limit(item.nodeid, settings.timeout * GRACE)
    done = yield
    fail = signal.getsignal(signal.SIGALRM)
    if callable(fail):

        def show_and_fail(number: int, frame: FrameType | None) -> None:
            for watch in watches:
                print(waiting(item.nodeid), file=watch.stderr, flush=True)
            fail(number, frame)

        signal.signal(signal.SIGALRM, show_and_fail)
    return done


def waiting(name: str) -> str:
    """Return what the coroutines of a test wait for, which the stacks of threads do not show."""
    lines = [f"\n{name} has reached its time limit."]
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no event loop runs
        return lines[0]
    for task in tasks:
        lines.append(f"{task.get_name()} waits here:")
        coroutine: Any = task.get_coro()
        while frame := getattr(coroutine, "cr_frame", None):
            lines.append(f"  {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
            coroutine = coroutine.cr_await
    return "\n".join(lines)


def pytest_enter_pdb() -> None:
    limit()


def pytest_sessionfinish() -> None:
    limit("the end of the run", FINISH_S)


def watch() -> None:
    """Kill the parent process when a limit it has set passes before it sets another. Return when the parent ends."""
    parent = os.getppid()
    name, end = "", float("inf")
    while os.getppid() == parent:
        if time.monotonic() > end:
            kill(parent, name)
            return
        if not select.select([0], [], [], 0.1)[0]:
            continue
        lines = os.read(0, 65536).decode().splitlines()
        if not lines:
            return
        seconds, _, name = lines[-1].partition(" ")
        end = time.monotonic() + float(seconds) if float(seconds) else float("inf")


def kill(pid: int, name: str) -> None:
    import psutil

    print(f"\n{name} hangs and is ended. The stacks of its threads:", file=sys.stderr, flush=True)
    started = [process for process in psutil.Process(pid).children(recursive=True) if process.pid != os.getpid()]
    os.kill(pid, signal.SIGABRT)  # on SIGABRT, the faulthandler of pytest writes the stacks
    tries = 50
    while os.getppid() == pid and tries:
        time.sleep(0.1)
        tries -= 1
    if os.getppid() == pid:
        os.kill(pid, signal.SIGKILL)
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    watch()
