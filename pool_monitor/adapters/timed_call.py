"""The code that an adapter sends to another process with a call, and the timing that it gets back with the result.

Worker processes import only this file of the package, so it imports as little as possible.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

_KEY = "_pool_monitor_ran"


class Timing(NamedTuple):
    """Where and when a call ran, by the clock of that machine (monotonic nanoseconds)."""

    pid: int
    thread: int
    begun_ns: int
    ended_ns: int


class TimedResult(NamedTuple):
    """A result on its way back. *timing* holds the fields of a `Timing` as a plain tuple, which pickles faster."""

    result: Any
    timing: tuple[int, int, int, int]


class FunctionProxy:
    """Stands for the function in ``__wrapped__``, so that an executor that reads its name reads the function's name."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":  # not set yet
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return f"<monitored {self.__wrapped__!r}>"


class TimedCall(FunctionProxy):
    """Runs a function in the other process, and sends its timing back with the result. The timing also comes with an
    exception, unless the exception loses its attributes on the way.
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
    """Return *function*. A task is unpickled by this if its executor may inspect results, so nothing is added."""
    return function


def _timing(begun_ns: int) -> tuple[int, int, int, int]:
    return os.getpid(), threading.get_ident(), begun_ns, time.monotonic_ns()


def timing_of(error: BaseException) -> Timing | None:
    """Remove and return the timing that `TimedCall` put on *error*. None: the call did not run, or it was lost."""
    timing = vars(error).pop(_KEY, None)
    return None if timing is None else Timing(*timing)


def run_chunk(function: Callable[..., Any], chunk: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Run several calls of a ``map`` as one call, and return their results."""
    return [function(*args) for args in chunk]
