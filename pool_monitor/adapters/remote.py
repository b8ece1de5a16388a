"""What an adapter sends to another process with a call, and gets back with its result.

Worker processes import this file and no other of this package, so it imports next to nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

_KEY = "_pool_monitor_ran"


class Timing(NamedTuple):
    """Where and when a call ran, by the clock of that place (monotonic nanoseconds)."""

    pid: int
    thread: int
    begun_ns: int
    ended_ns: int


class TimedResult(NamedTuple):
    """A result on its way back. *timing* holds the fields of a `Timing` as a bare tuple, which is quicker to pickle."""

    result: Any
    timing: tuple[int, int, int, int]


class FunctionProxy:
    """Stands for the function in ``__wrapped__``: an executor that reads its name, say, reads that of the function."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":  # not set yet
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return f"<monitored {self.__wrapped__!r}>"


class TimedCall(FunctionProxy):
    """Runs a function in the other process, and sends its timing back with the result. With an exception too, if the
    exception keeps an attribute on its way.
    """

    __slots__ = ("__wrapped__",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function

    def __call__(self, /, *args: Any, **kwargs: Any) -> TimedResult:
        begun_ns = time.monotonic_ns()
        try:
            result = self.__wrapped__(*args, **kwargs)
        except BaseException as error:
            vars(error)[_KEY] = _timing(begun_ns)
            raise
        return TimedResult(result, _timing(begun_ns))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return TimedCall, (self.__wrapped__,)


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a task is unpickled as where its results may be looked at on the way: the function itself."""
    return function


def _timing(begun_ns: int) -> tuple[int, int, int, int]:
    return os.getpid(), threading.get_ident(), begun_ns, time.monotonic_ns()


def timing_of(error: BaseException) -> Timing | None:
    """The timing that `TimedCall` wrote on *error*; removes it. None: the call did not run there, or it was lost."""
    timing = vars(error).pop(_KEY, None)
    return None if timing is None else Timing(*timing)


def run_chunk(function: Callable[..., Any], chunk: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Several calls of a ``map`` as one."""
    return [function(*args) for args in chunk]
