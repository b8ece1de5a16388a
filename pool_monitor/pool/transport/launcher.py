"""Starts the workers of a pool: each by exec, or forked off a zygote that has loaded what they share."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pool_monitor.errors import ConfigError, StartError
from pool_monitor.log import logger
from pool_monitor.pool.transport.channel import ChannelEnds, one_socket, pipes
from pool_monitor.pool.transport.child.target import split_target
from pool_monitor.pool.transport.lifeline import Lifeline, own_lifeline
from pool_monitor.pool.transport.spawn import WatchedProcess, spawn
from pool_monitor.pool.transport.zygote import PYTHON_NEEDED, UnsafeForkError, Zygote, ZygoteGoneError

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig

_CHILD = str(Path(__file__).with_name("child") / "__main__.py")
_CODECS = {"auto": ["msgpack", "json"]}
_TEXT_ONLY = ("auto", "msgpack")  # codecs that carry only UTF-8
_NO_PROGRAM = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR)


class LaunchSpec(NamedTuple):
    """How to start the workers of a pool. The fields from ``concurrency`` on are those of PoolConfig."""

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
    log_output: bool = True
    context: Sequence[str] = ()
    stack_signal: int | None = None
    directory: str | None = None
    """Working directory of the workers. None, or a directory that no longer exists: that of the service."""

    @property
    def options(self) -> dict[str, Any]:
        """The options in the message ``init``."""
        options: dict[str, Any] = {"concurrency": self.concurrency}
        if self.context:
            options["context"] = list(self.context)
        if self.stack_signal is not None:
            options["stack"] = self.stack_signal
        return options

    def directory_now(self) -> str | None:
        return self.directory if self.directory is not None and os.access(self.directory, os.X_OK) else None


class Launcher(Protocol):
    """Starts the workers of one pool. `ProcessLauncher` is one."""

    @property
    def program(self) -> tuple[str, str]:
        """The program that a worker runs, and what it must be, in words."""

    @property
    def zygote_pid(self) -> int | None:
        """The pid of the process that workers are forked off. None if there is none at the moment."""

    def connect(self, ours: ExitStack, theirs: ExitStack) -> tuple[ChannelEnds, dict[str, int]]:
        """Return our ends of a new channel, and the worker's descriptors by the names of their environment variables.

        Both are closed with the stacks. Raises OSError, and StartError when the pool is closed.
        """

    async def start(self, fds: Mapping[str, int]) -> WatchedProcess:
        """Start a worker that inherits the descriptors *fds*. Raises StartError. Cancellation leaves nothing behind."""

    async def close(self) -> None:
        """Start no more workers, and return when nothing of the launcher is left."""

    def abandon(self) -> None:
        """As `close`, for use while the event loop is being closed: blocks (milliseconds)."""


class ProcessLauncher:
    """Starts the worker processes of one pool. Must be closed, or abandoned, after its workers.

    *warn* is called with a text when a zygote has ended and another is started, and, once, when workers are started by
    exec although the configuration asks for a zygote.
    """

    def __init__(self, launch: LaunchSpec, warn: Callable[[str], object] = lambda _reason: None) -> None:
        self._launch = launch
        self._warn = warn
        self._lifeline = Lifeline()
        self._zygote: Zygote | None = None
        self._zygotes: list[Zygote] = []  # the present one, and former ones that have not ended yet
        self._waiting = 0  # starts that wait for the zygote to be ready
        self._closed = self._fallen = False
        wanted, hindrance = launch.start_method, _hindrance(launch)
        self.method = "exec" if wanted == "exec" or hindrance else "zygote"
        if wanted == "zygote" and hindrance:
            self._fall_back(hindrance)

    @property
    def program(self) -> tuple[str, str]:
        """The program that a worker runs, and what it must be, in words."""
        if self._launch.command:
            return self._launch.command[0], "command= needs a program that implements docs/WORKER_PROTOCOL.md"
        return self._launch.python, f"{PYTHON_NEEDED}, and importing the target must not end it"

    @property
    def zygote_pid(self) -> int | None:
        """The pid of the zygote. None if there is none at the moment."""
        return None if self._zygote is None or not self._zygote.usable else self._zygote.pid

    def connect(self, ours: ExitStack, theirs: ExitStack) -> tuple[ChannelEnds, dict[str, int]]:
        """Return our ends of a new channel, and the worker's ends of it and of a life-line, by the names of their
        environment variables. All are closed with the stacks. Raises OSError, and StartError when the pool is closed.
        """
        if self._closed:
            raise StartError("the pool is closed")
        if sys.platform != "linux" or self._launch.command:
            channel, fds = one_socket(ours, theirs)
            return channel, {**fds, "POOL_MONITOR_LIFELINE": own_lifeline(ours, theirs)}
        channel, fds = pipes(ours, theirs)
        try:
            lifeline = self._lifeline.attach(theirs)
        except OSError:
            lifeline = own_lifeline(ours, theirs)
        return channel, {**fds, "POOL_MONITOR_LIFELINE": lifeline}

    async def start(self, fds: Mapping[str, int]) -> WatchedProcess:
        """Start a worker process that inherits the descriptors *fds*. Their numbers are in variables of those names.

        Raises StartError. If it is a ZygoteGoneError, the caller can try again with new descriptors. Cancellation
        leaves no process behind.
        """
        if self.method == "zygote":
            try:
                return await (await self._ready_zygote()).fork(fds)
            except UnsafeForkError as error:
                self._fall_back(str(error))
        return self._exec(fds)

    async def close(self) -> None:
        """Start no more workers, end the zygote, and return when it has ended."""
        self._closed = True
        try:
            for zygote in self._zygotes:
                await zygote.close()
            self._lifeline.close()
        except asyncio.CancelledError:
            self.abandon()
            raise

    def abandon(self) -> None:
        """As `close`, for use while the event loop is being closed: blocks (milliseconds)."""
        self._closed = True
        for zygote in self._zygotes:
            zygote.abandon()
        self._lifeline.close()

    async def _ready_zygote(self) -> Zygote:
        if self._closed:
            raise StartError("the pool is closed")
        zygote = self._zygote
        if zygote is None or not zygote.usable:
            if zygote is not None and zygote.ready.done() and not zygote.ready.exception():
                reason = f"the zygote, which forks the workers, ended ({zygote.how_it_ended}): another is started"
                logger("pool").warning("zygote ended", reason=reason)
                self._warn(reason)
            zygote = self._zygote = self._new_zygote()
            self._zygotes = [*(former for former in self._zygotes if not former.ended), zygote]
        self._waiting += 1
        try:
            await asyncio.shield(zygote.ready)
        finally:
            self._waiting -= 1
            if not self._waiting and not zygote.ready.done():
                zygote.kill()  # all starts were cancelled: the next must not wait for a stuck zygote
        return zygote

    def _new_zygote(self) -> Zygote:
        launch = self._launch
        preload = [*(["asyncio"] if launch.concurrency > 1 else []), *launch.preload]  # else each imports it, in 20 ms
        try:
            return Zygote(
                [launch.python, _CHILD], launch.env, launch.directory_now(),
                path=launch.path, codecs=launch.codecs, preload=preload, log_output=launch.log_output,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise self._cannot_run(error) from error

    def _exec(self, fds: Mapping[str, int]) -> WatchedProcess:
        launch = self._launch
        try:
            return spawn(launch.command or [launch.python, _CHILD], launch.env, fds, launch.directory_now())
        except (OSError, ValueError) as error:
            raise self._cannot_run(error) from error

    def _cannot_run(self, error: Exception) -> StartError:
        """Return the error for a program that cannot be run: not found, no descriptor left, a NUL in an argument ..."""
        program, _ = self.program
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if isinstance(error, OSError) and error.errno in _NO_PROGRAM:
            if os.sep in program and Path(program).is_dir():
                inside = Path(program, "bin", "python")  # as in a virtual environment or an installation
                why = "it is a directory" + (f", whose interpreter is {str(inside)!r}" if inside.exists() else "")
            needed = "command= needs a program" if self._launch.command else PYTHON_NEEDED
            why += f"; {needed}, as a path or as a name on PATH"
        return StartError(f"cannot run {program!r}: {why}")

    def _fall_back(self, reason: str) -> None:
        if not self._fallen:  # several starts can fail in the same way
            self.method, self._fallen = "exec", True
            logger("pool").warning("workers are started one by one, without a zygote", reason=reason)
            self._warn(reason)


async def start_process(
    launcher: Launcher, ours: ExitStack, share: Callable[[], AbstractContextManager[Mapping[str, int]]]
) -> tuple[ChannelEnds, WatchedProcess]:
    """Start a worker process. Return our ends of its channel, which are closed with *ours*, and the process.

    The process also inherits the descriptors that *share* yields. If the zygote ends meanwhile, the start is tried a
    second time. Raises StartError.
    """
    try:
        return await _start_once(launcher, ours, share)
    except ZygoteGoneError:
        ours.close()  # ends the worker that the zygote may have forked
        return await _start_once(launcher, ours, share)


async def _start_once(
    launcher: Launcher, ours: ExitStack, share: Callable[[], AbstractContextManager[Mapping[str, int]]]
) -> tuple[ChannelEnds, WatchedProcess]:
    with ExitStack() as theirs:
        try:
            channel, fds = launcher.connect(ours, theirs)
        except OSError as error:  # no descriptor left
            raise StartError(f"cannot start a worker: {error}") from error
        return channel, await launcher.start({**fds, **theirs.enter_context(share())})


def _hindrance(launch: LaunchSpec) -> str | None:
    """Return the reason why workers cannot be forked off a zygote here, or None."""
    if launch.command:
        return "a worker given as command= cannot be forked"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return "this system does not report the end of another process's child (Linux 5.3 or later does)"
    return None


# -- fixed when the pool is entered, so that every later start finds the same --------------------------------------


def resolve_launch_spec(target: str, config: PoolConfig, warn: Callable[[str], object]) -> LaunchSpec:
    """Return how to start the workers of a pool. Relative paths are resolved against the present working directory, so
    that later starts do not depend on it. *warn* is called with a text for each entry that is left out of the import
    path.

    Raises ConfigError for a configuration that no worker can be started with.
    """
    here = _working_directory()
    python = "" if config.command else _program(config.python or _own_interpreter(), "python", here)
    if config.python and config.python == sys.executable:
        _refuse_frozen()
    target = target if config.command else _absolute_target(target, here)
    additions = [str(Path(_absolute(entry, "sys_path", here)).resolve()) for entry in config.sys_path]
    path = import_path(python, additions)
    if config.codec in _TEXT_ONLY:
        _must_be_text(target, "target")
        for entry in additions:
            _must_be_text(entry, "sys_path")
        path = [entry for entry in path if _is_text(entry) or _left_out(entry, warn)]
    return LaunchSpec(
        target=target,
        python=python,
        path=path,
        env=config.env,
        init=(config.init_args, config.init_kwargs),
        codecs=_CODECS.get(config.codec, [config.codec]),
        frame_limit=config.frame_limit,
        session_data_limit=config.session_data_limit,
        concurrency=config.concurrency,
        command=[_program(config.command[0], "command", here), *config.command[1:]] if config.command else (),
        start_method=config.start_method,
        preload=config.preload,
        log_output=config.log_output,
        context=config.context,
        stack_signal=config.stack_signal,
        directory=None if here is None else str(here),
    )


def import_path(python: str, additions: Sequence[str]) -> list[str]:
    """Return the directories in front of a worker's import path: *additions*, the working directory and, if *python* is
    the service's own interpreter, the service's import path.
    """
    here = _working_directory()
    path = [Path(entry) for entry in additions]
    path += [here] if here else []
    if python == sys.executable:  # Python ignores entries that are no str
        inherited = [Path(entry) for entry in sys.path if isinstance(entry, str) and entry]
        path += [(here or entry) / entry for entry in inherited if here or entry.is_absolute()]
    return list(dict.fromkeys(map(str, path)))


def _working_directory() -> Path | None:
    """Return the working directory. None if it has been deleted or cannot be determined."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _absolute(path: str, field: str, here: Path | None) -> str:
    if "\0" in path:
        raise ConfigError(f"Pool({field}={path!a}): has a NUL in it, which a path cannot contain")
    if here is None and not Path(path).is_absolute():
        raise ConfigError(
            f"Pool({field}={path!a}): is relative, and the working directory is gone: give an absolute path, or "
            "change to a directory that exists"
        )
    return str((here or Path()) / path)  # links are kept: the interpreter of a virtual environment is one


def _program(name: str, field: str, here: Path | None) -> str:
    """Return *name* as an absolute path if it is a path; else unchanged, to be looked up on PATH."""
    return _absolute(name, field, here) if os.sep in name else name


def _absolute_target(target: str, here: Path | None) -> str:
    where, attribute = split_target(target)
    if not where.endswith(".py"):
        return target
    return _absolute(where, "target", here) + (f":{attribute}" if attribute else "")


def _own_interpreter() -> str:
    _refuse_frozen()
    if not sys.executable:
        raise ConfigError(
            f"Pool(python=None): Python does not know the path of its interpreter, for example because it is embedded "
            f"(sys.executable is {sys.executable!r}); {PYTHON_NEEDED}, as a path"
        )
    return sys.executable


def _refuse_frozen() -> None:
    """Raise ConfigError in a frozen application, where ``sys.executable`` is the application itself."""
    if getattr(sys, "frozen", False):
        raise ConfigError(
            f"Pool(python=None): this is a frozen application: {sys.executable!r} is the application, not an "
            f"interpreter for workers; {PYTHON_NEEDED}, with the packages that the target imports"
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _must_be_text(name: str, field: str) -> None:
    if not _is_text(name):
        raise ConfigError(
            f"Pool({field}={name!a}): has bytes that are not UTF-8, which msgpack cannot carry to a worker: rename it, "
            "or use codec='json'"
        )


def _left_out(entry: str, warn: Callable[[str], object]) -> bool:
    reason = f"{entry!a} is not on the workers' import path: it has bytes that are not UTF-8"
    logger("pool").warning("a directory is left out", reason=reason)
    warn(reason)
    return False
