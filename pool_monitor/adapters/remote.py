"""What goes along with a call to another process, and what comes back with its answer.

Worker processes import this file and nothing else of ours, so it imports next to nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

_KEY = "_pool_monitor_ran"


class Ran(NamedTuple):
    """Where and when a call ran, by the clock of that place."""

    pid: int
    thread: int
    begun_ns: int
    ended_ns: int


class Answer(NamedTuple):
    """A result on its way back, with the fields of a `Ran`: a bare tuple, which is quicker to pickle."""

    result: Any
    ran: tuple[int, int, int, int]


class Wrapper:
    """Stands for the function in ``__wrapped__``: what an executor reads of a function (its name), it reads of that."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":  # not set yet
            raise AttributeError(name)
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return f"<monitored {self.__wrapped__!r}>"


class Away(Wrapper):
    """Runs a function, and sends back with its result when that was. With an exception too, where that one lets it."""

    __slots__ = ("__wrapped__",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Answer:
        begun_ns = time.monotonic_ns()
        try:
            result = self.__wrapped__(*args, **kwargs)
        except BaseException as error:
            vars(error)[_KEY] = _ran(begun_ns)
            raise
        return Answer(result, _ran(begun_ns))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Away, (self.__wrapped__,)


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a task becomes in a process of which nothing is known: its function."""
    return function


def _ran(begun_ns: int) -> tuple[int, int, int, int]:
    return os.getpid(), threading.get_ident(), begun_ns, time.monotonic_ns()


def taken_from(error: BaseException) -> Ran | None:
    """What `Away` wrote on *error*, which has it no longer. None: it did not run there, or lost it on the way."""
    ran = vars(error).pop(_KEY, None)
    return None if ran is None else Ran(*ran)


def run_chunk(function: Callable[..., Any], chunk: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Several calls of a ``map`` as one."""
    return [function(*args) for args in chunk]
