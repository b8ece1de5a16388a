"""A pool whose workers are threads of this process."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Mapping, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from pool_monitor.config import PoolConfig, PoolFields
from pool_monitor.errors import ConfigError, StartError
from pool_monitor.pool.pool import Pool
from pool_monitor.pool.transport.channel import ChannelEnds, one_socket
from pool_monitor.pool.transport.child.target import find_target, load_module_file, make_target
from pool_monitor.pool.transport.launcher import LaunchSpec, resolve_launch_spec
from pool_monitor.testing.thread import ThreadProcess

if TYPE_CHECKING:
    from pool_monitor.pool.transport.spawn import WatchedProcess

_SIZE = 4


class InlinePool(Pool):
    """A `Pool` for tests. It runs the target in this process and starts no other process.

    *target* is what `Pool` takes, or the class, module or object itself, such as a class that the test defines. All
    other arguments, methods, errors and events are those of `Pool`. Arguments and results are encoded as in a `Pool`: a
    value that could not be sent to a worker process raises PayloadError here too.

    Each worker is a thread. If the target is a class, each worker has its own instance. A coroutine operation runs in
    its worker's event loop, as in a worker process, and not in the loop of the test. All workers share the modules, and
    a target that is an object. Operations therefore see what a test patches in them. The operations themselves are
    looked up when the pool is entered.

    A thread differs from a process in these points:

    - A thread cannot be killed. An operation is interrupted at its deadline, or when its caller is cancelled. A
      coroutine ends at once. Other code ends as soon as it runs Python code again. If it still runs after
      ``cancel_grace`` (in a C function, say), the thread is abandoned: the call ends, another worker takes its place,
      and its result reaches no caller. An abandoned thread ends with the process of the test.
    - What would end a worker process (``os._exit``, a signal, too much memory) ends the test.
    - The target prints to the output of the test, and no event reports it. Processor time and memory of a call are
      unknown.
    - ``python``, ``start_method`` and ``preload`` have no effect. ``env`` and ``sys_path`` apply to the whole process
      while the pool is entered. ``command`` raises ConfigError, because its worker is another program.
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
                f"InlinePool(command={list(self.config.command)!r}): a worker that is another program cannot run in "
                "this process; use a Pool, or leave command= out and name a target in Python"
            )

    def _check_target(self, target: object, _config: PoolConfig) -> None:
        if not isinstance(target, str) or not target:
            raise ConfigError(
                f"InlinePool(target={target!r}): needs what Pool takes, or a class, a module or an object"
            )

    def _resolve_launch_spec(self) -> LaunchSpec:
        if getattr(_importing, "target", None) is not None:
            raise StartError(
                f"pool {self.name!r} is opened while {_importing.target!r} is imported as the target of an InlinePool: "
                'put what starts the program under `if __name__ == "__main__":`'
            )
        config = msgspec.structs.replace(self.config, python=sys.executable or "python")
        return resolve_launch_spec(self.target, config, self._warn)

    def _make_launcher(self, launch: LaunchSpec) -> ThreadLauncher:
        return ThreadLauncher(launch, self._object)


class ThreadLauncher:
    """Starts the workers of one pool as threads, in place of a `ProcessLauncher`."""

    program = ("a thread of this process", "importing the target must not end it")
    zygote_pid = None

    def __init__(self, launch: LaunchSpec, target: object | None) -> None:
        self._launch = launch
        self._undo = ExitStack()  # what this pool changes in the process
        self._lock = threading.Lock()
        self._found: tuple[Any, str] | None = None if target is None else (target, _module_of(target))
        self._undo.callback(self._restore_path)
        for shared in (_environment, _modules):
            self._undo.callback(shared.restore, self)
        for name, value in launch.env.items():
            _environment.set(self, name, value, os.environ.get(name))
        self._added = list(launch.path)  # entries that this pool has added to the import path
        sys.path[:0] = self._added

    def connect(self, ours: ExitStack, theirs: ExitStack) -> tuple[ChannelEnds, dict[str, int]]:
        return one_socket(ours, theirs)

    async def start(self, fds: Mapping[str, int]) -> WatchedProcess:
        return ThreadProcess(fds, self.make)

    async def close(self) -> None:
        self.abandon()

    def abandon(self) -> None:
        self._undo.close()

    def make(self, target: str, args: list[Any], kwargs: dict[str, Any], telemetry: object) -> Any:
        """Return the object with the operations, for one worker. Called in the worker's thread."""
        found, where = self._find(target)
        return make_target(found, target, where, args, kwargs, telemetry)

    def _find(self, target: str) -> tuple[Any, str]:
        """Return what *target* names, imported once for all workers."""
        with self._lock:
            if self._found is None:
                before = list(sys.path)
                _importing.target = target
                try:
                    self._found = find_target(target, [], self._load_file)
                finally:
                    _importing.target = None
                    self._added += Counter(sys.path) - Counter(before)
            return self._found

    def _restore_path(self) -> None:
        for entry in self._added:
            if entry in sys.path:
                sys.path.remove(entry)

    def _load_file(self, path: str) -> Any:
        """Return the module in the file *path*. If the test has imported that file itself, it is the same module."""
        name = Path(path).stem
        there = sys.modules.get(name)
        found: Any = there
        if there is not None and _same_file(getattr(there, "__file__", None), path):
            sys.path.insert(0, str(Path(path).parent))
        else:
            try:
                found = load_module_file(path)
            finally:
                if there is None:
                    sys.modules.pop(name, None)
                else:
                    sys.modules[name] = there  # another module of that name, which the rest of the process uses
        if there is None or found is there:  # the second: another pool may have loaded it
            _modules.set(self, name, found, there)
        return found


_importing = threading.local()  # `target`: what this thread imports, or None


def _text_of(target: object) -> str:
    """Return the name of a target that is an object, for events and errors."""
    if isinstance(target, ModuleType):
        return target.__name__
    kind = target if isinstance(target, type) else type(target)
    return f"{kind.__module__}:{kind.__qualname__}"


def _module_of(target: object) -> str:
    return target.__name__ if isinstance(target, ModuleType) else str(getattr(target, "__module__", None))


def _same_file(one: str | None, other: str) -> bool:
    return one is not None and os.path.realpath(one) == os.path.realpath(other)


class _PoolSettings:
    """Settings that pools make in this process while they are entered. Pools may be left in any order. The latest value
    counts; when the last pool is left, the value from before the first is restored.
    """

    def __init__(self, place: MutableMapping[str, Any]) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._before: dict[str, Any] = {}
        self._set: dict[str, dict[object, Any]] = {}  # by name and by owner, oldest first

    def set(self, owner: object, name: str, value: Any, before: Any) -> None:
        with self._lock:
            if name not in self._set:
                self._before[name], self._set[name] = before, {}
            self._set[name][owner] = self._place[name] = value

    def restore(self, owner: object) -> None:
        with self._lock:
            for name, values in list(self._set.items()):
                if values.pop(owner, None) is None:
                    continue
                value = next(reversed(values.values())) if values else self._before.pop(name)
                if not values:
                    del self._set[name]
                if value is None:
                    self._place.pop(name, None)
                else:
                    self._place[name] = value


_environment, _modules = _PoolSettings(os.environ), _PoolSettings(sys.modules)
