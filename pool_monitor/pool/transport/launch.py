"""How the workers of a pool are started: each on its own, or forked off a zygote that has loaded what they share."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pool_monitor.errors import StartError
from pool_monitor.log import logger
from pool_monitor.pool.transport.spawn import Process, spawn
from pool_monitor.pool.transport.zygote import PYTHON_NEEDED, NotAloneError, Zygote

_CHILD = str(Path(__file__).with_name("child") / "__main__.py")
_NO_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR)


class Launch(NamedTuple):
    """How to start the workers of a pool. From ``concurrency`` on as in PoolConfig."""

    target: str
    python: str
    path: list[str]
    env: Mapping[str, str]
    init: tuple[Sequence[Any], Mapping[str, Any]]
    codecs: list[str]
    frame_limit: int
    session_data_limit: int
    concurrency: int = 1
    command: Sequence[str] = ()
    start_method: str = "auto"
    preload: Sequence[str] = ()


class Launcher:
    """Starts the worker processes of one pool. Must be closed, or abandoned, after its workers.

    *warn* is called with what the pool should know of: a zygote has ended, and another is started; workers are not
    forked although they were meant to be (once).
    """

    def __init__(self, launch: Launch, warn: Callable[[str], object] = lambda _reason: None) -> None:
        self._launch = launch
        self._warn = warn
        self._zygote: Zygote | None = None
        self._zygotes: list[Zygote] = []  # with the former ones that have not ended yet
        self._waiting = 0  # starts that wait for the zygote to be ready
        self._closed = self._fallen = False
        wanted, hindrance = launch.start_method, _hindrance(launch)
        self.method = "exec" if wanted == "exec" or hindrance else "zygote"
        if wanted == "zygote" and hindrance:
            self._fall_back(hindrance)

    @property
    def program(self) -> tuple[str, str]:
        """What a worker is made of: the program, and what it has to be, in words."""
        if self._launch.command:
            return self._launch.command[0], "command= needs a program that speaks docs/WORKER_PROTOCOL.md"
        return self._launch.python, f"{PYTHON_NEEDED}, and the target may not end it on import"

    @property
    def zygote_pid(self) -> int | None:
        """Its process, if there is one now."""
        return None if self._zygote is None or not self._zygote.usable else self._zygote.pid

    async def start(self, fds: Mapping[str, int]) -> Process:
        """A new worker process, which has the descriptors *fds*, their numbers in variables of those names.

        Raises StartError when there can be none; ZygoteGoneError, which is one, says that it is worth trying again
        with other descriptors. Cancellation leaves nothing behind.
        """
        if self.method == "zygote":
            try:
                return await (await self._ready_zygote()).fork(fds)
            except NotAloneError as error:
                self._fall_back(str(error))
        return self._exec(fds)

    async def close(self) -> None:
        """End the zygote and return when it is gone. No more workers can be started."""
        self._closed = True
        try:
            for zygote in self._zygotes:
                await zygote.close()
        except asyncio.CancelledError:
            self.abandon()
            raise

    def abandon(self) -> None:
        """As `close`, for when the event loop is going: blocks (milliseconds)."""
        self._closed = True
        for zygote in self._zygotes:
            zygote.abandon()

    async def _ready_zygote(self) -> Zygote:
        if self._closed:
            raise StartError("the pool is closed")
        zygote = self._zygote
        if zygote is None or not zygote.usable:
            if zygote is not None and zygote.ready.done() and not zygote.ready.exception():
                self._warn(f"the zygote, which forks the workers, ended ({zygote.how_it_ended}): another is started")
            zygote = self._zygote = self._new_zygote()
            self._zygotes = [*(former for former in self._zygotes if not former.ended), zygote]
        self._waiting += 1
        try:
            await asyncio.shield(zygote.ready)
        finally:
            self._waiting -= 1
            if not self._waiting and not zygote.ready.done():
                zygote.kill()  # nobody waits for it any more: whoever comes next shall not wait for a stuck one
        return zygote

    def _new_zygote(self) -> Zygote:
        launch = self._launch
        preload = [*(["asyncio"] if launch.concurrency > 1 else []), *launch.preload]  # it takes workers 20 ms
        try:
            return Zygote([launch.python, _CHILD], launch.env, path=launch.path, codecs=launch.codecs, preload=preload)
        except (OSError, ValueError) as error:
            raise self._cannot_run(error) from error

    def _exec(self, fds: Mapping[str, int]) -> Process:
        launch = self._launch
        try:
            return spawn(launch.command or [launch.python, _CHILD], launch.env, fds)
        except (OSError, ValueError) as error:
            raise self._cannot_run(error) from error

    def _cannot_run(self, error: Exception) -> StartError:
        """No such program, no descriptor left, a NUL in an argument ..."""
        program, _ = self.program
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if isinstance(error, OSError) and error.errno in _NO_PROGRAM:
            needed = "command= needs a program" if self._launch.command else PYTHON_NEEDED
            why += f"; {needed}, by its path or by its name on PATH"
        return StartError(f"cannot run {program!r}: {why}")

    def _fall_back(self, reason: str) -> None:
        if not self._fallen:  # several starts can learn of it
            self.method, self._fallen = "exec", True
            logger("pool").warning("workers are started one by one, without a zygote", reason=reason)
            self._warn(reason)


def _hindrance(launch: Launch) -> str | None:
    """Why there can be no zygote here, if there can be none."""
    if launch.command:
        return "a worker that is a command of its own cannot be forked"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return "this system cannot tell when another process's child has ended (it takes Linux 5.3 or later)"
    return None


def import_path(python: str, additions: Sequence[str]) -> list[str]:
    """What goes in front of a worker's import path: *additions*, the working directory and, in the service's own
    interpreter, whatever the service itself can import from.
    """
    inherited = [entry for entry in sys.path if entry] if python == sys.executable else []
    return list(dict.fromkeys([*(str(Path(entry).resolve()) for entry in additions), str(Path.cwd()), *inherited]))
