"""A pool whose workers are threads of this process."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from pool_monitor.config import PoolConfig, PoolFields
from pool_monitor.errors import ConfigError, StartError
from pool_monitor.pool.pool import Pool
from pool_monitor.pool.transport.channel import Channel, one_socket
from pool_monitor.pool.transport.child.target import find_target, load_module_file, make_target
from pool_monitor.pool.transport.launch import Launch, settled
from pool_monitor.testing.thread import ThreadProcess

if TYPE_CHECKING:
    from pool_monitor.pool.transport.spawn import Process

_SIZE = 4


class InlinePool(Pool):
    """A `Pool` for tests: it runs the target in this process and starts no other.

    *target* is what `Pool` takes, or the class, module or object itself, such as one that the test has made. All other
    arguments, all methods, errors and events are those of `Pool`, and so is what happens to arguments and results on
    their way: what a worker process could not be sent raises PayloadError here too.

    Each worker is a thread with an instance of its own where the target is a class. A coroutine operation runs in an
    event loop of its worker, as in a worker process, and not in that of the test. Modules, and a target that is an
    object, are there once, and all workers share them: what a test replaces in them, operations see.

    What is different, since a thread is no process:

    - A thread cannot be killed. An operation that is interrupted, at its deadline or when its caller is cancelled, ends
      at once if it is a coroutine, and as soon as it runs Python code of its own if it is not. One that goes on after
      ``cancel_grace`` (in a C function, say) is left to itself: the call has ended, another worker takes the place of
      this one, and what it still returns reaches no caller. A thread that is left ends with the test's process.
    - What would end a worker process (``os._exit``, a signal, too much memory) ends the test.
    - What the target prints goes where the test's own output goes, and no event tells of it. There are no figures of
      processor time and memory.
    - ``python``, ``start_method`` and ``preload`` mean nothing here. ``env`` and ``sys_path`` hold for the whole
      process while the pool is entered. A worker that is a program of its own (``command``) raises ConfigError.
    """

    def __init__(
        self,
        target: str | type | ModuleType | object,
        *,
        name: str = "default",
        size: int = _SIZE,
        min_size: int = 1,
        max_size: int | None = None,
        config: PoolConfig | None = None,
        **fields: Unpack[PoolFields],
    ) -> None:
        self._object = None if isinstance(target, str) else target
        text = target if isinstance(target, str) else _text_of(target)
        super().__init__(text, name=name, size=size, min_size=min_size, max_size=max_size, config=config, **fields)
        if self.config.command:
            raise ConfigError(
                f"InlinePool(command={list(self.config.command)!r}): a worker that is a program of its own cannot run "
                "in this process; use a Pool, or leave command= out and name a target in Python"
            )

    def _check_target(self, target: object) -> None:
        if not isinstance(target, str) or not target:
            raise ConfigError(
                f"InlinePool(target={target!r}): needs what Pool takes, or a class, a module or an object"
            )

    def _settled(self) -> Launch:
        if getattr(_loading, "target", None) is not None:
            raise StartError(
                f"pool {self.name!r} is opened while {_loading.target!r} is imported as the target of an InlinePool: "
                'put what starts the program under `if __name__ == "__main__":`'
            )
        config = msgspec.structs.replace(self.config, python=sys.executable or "python")
        return settled(self.target, config, self._warn)

    def _make_launcher(self, launch: Launch) -> Threads:
        return Threads(launch, self._object)


class Threads:
    """Starts the workers of one pool, as threads. It is what a `Launcher` is for processes."""

    program = ("a thread of this process", "the target may not end it on import")
    zygote_pid = None

    def __init__(self, launch: Launch, target: object | None) -> None:
        self._launch = launch
        self._undo = ExitStack()  # what this pool changes in the process
        self._lock = threading.Lock()
        self._found: tuple[Any, str] | None = None if target is None else (target, _module_of(target))
        self._undo.enter_context(_environment(launch.env))
        self._undo.callback(self._restore_path)
        self._added = [entry for entry in launch.path if entry not in sys.path]  # to the import path
        sys.path[:0] = self._added

    def connect(self, ours: ExitStack, theirs: ExitStack) -> tuple[Channel, dict[str, int]]:
        return one_socket(ours, theirs)

    async def start(self, fds: Mapping[str, int]) -> Process:
        return ThreadProcess(fds, self.make)

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        self._undo.close()

    def make(self, target: str, args: list[Any], kwargs: dict[str, Any], telemetry: object) -> Any:
        """What has the operations, for one worker. Called in its thread."""
        found, where = self._find(target)
        return make_target(found, target, where, args, kwargs, telemetry)

    def _find(self, target: str) -> tuple[Any, str]:
        """What *target* names, imported once for all workers."""
        with self._lock:
            if self._found is None:
                before = list(sys.path)
                _loading.target = target
                try:
                    self._found = find_target(target, [], self._load_file)
                finally:
                    _loading.target = None
                    self._added += [entry for entry in sys.path if entry not in before]
            return self._found

    def _restore_path(self) -> None:
        sys.path[:] = [entry for entry in sys.path if entry not in self._added]

    def _load_file(self, path: str) -> Any:
        """The module in the file *path*: the one that the test has imported itself, if it has."""
        name = Path(path).stem
        there = sys.modules.get(name)
        if there is not None and _same_file(getattr(there, "__file__", None), path):
            return there
        try:
            return load_module_file(path)
        finally:
            if there is None:
                self._undo.callback(sys.modules.pop, name, None)
            else:
                sys.modules[name] = there  # another one of that name, which the rest of the process goes on using


_loading = threading.local()  # in a thread that imports a target: its name


def _text_of(target: object) -> str:
    """What events and errors call a target that is given as it is."""
    if isinstance(target, ModuleType):
        return target.__name__
    kind = target if isinstance(target, type) else type(target)
    return f"{kind.__module__}:{kind.__qualname__}"


def _module_of(target: object) -> str:
    return target.__name__ if isinstance(target, ModuleType) else str(getattr(target, "__module__", None))


def _same_file(one: str | None, other: str) -> bool:
    return one is not None and os.path.realpath(one) == os.path.realpath(other)


@contextmanager
def _environment(additions: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in additions}
    os.environ.update(additions)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
