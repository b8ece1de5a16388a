"""Checks the names, handlers and measurements that `telemetry` is given.

Without these checks a mistake would show only later: a handler with too few arguments is detached at its first event,
a coroutine function is called and never runs, and a name given as text never matches an event.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

_ARGUMENTS = ("event", "measurements", "metadata", "config")


def checked_name(name: Any) -> tuple[str, ...]:
    """Return *name*. Raises TypeError unless it is a tuple of non-empty strings, and ValueError if it is empty."""
    if not isinstance(name, tuple) or not all(isinstance(part, str) and part for part in name):
        raise TypeError(f"an event name is a tuple of non-empty strings such as ('pool', 'ready'), not {name!r:.200}")
    if not name:
        raise ValueError("an event name needs at least one part, such as ('pool', 'ready')")
    return name


def checked_prefix(prefix: Any) -> tuple[str, ...]:
    """Return *prefix*. Raises TypeError unless it is a tuple of non-empty strings; it may be empty."""
    return () if isinstance(prefix, tuple) and not prefix else checked_name(prefix)


def check_measurements(measurements: Any) -> None:
    """Raise TypeError unless *measurements* is a mapping."""
    if not isinstance(measurements, Mapping):
        raise TypeError(f"measurements are a mapping such as {{'count': 1}}, not {measurements!r:.200}")


def check_handler(handler_id: str, function: Any, bind: Any) -> None:
    """Raise TypeError unless *function* can be a handler and *bind*, unless None, its lane.

    A handler takes four arguments and has finished when it returns. A callable whose signature Python does not know is
    accepted.
    """
    _check_called(f"handler {handler_id!r}", function)
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - written in C, or an object with a strange __signature__
        signature = None
    if signature is not None:
        try:
            signature.bind(*_ARGUMENTS)
        except TypeError as error:
            raise TypeError(
                f"handler {handler_id!r} is called with four positional arguments, ({', '.join(_ARGUMENTS)}), but "
                f"{function!r:.200} does not take them: {error}"
            ) from None
    if bind is not None:
        _check_called(f"bind of handler {handler_id!r}", bind)


def _check_called(what: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"{what} needs a callable, not {function!r:.200}")
    run = function
    while isinstance(run, functools.partial):
        run = run.func
    if _is_deferred(run) or _is_deferred(type(run).__call__):
        raise TypeError(
            f"{what} needs a plain function, not {function!r:.200}, which does not run when it is called; to await "
            "something, pass the event to a task, for example with asyncio.Queue.put_nowait"
        )


def _is_deferred(function: Any) -> bool:
    """Whether a call does not run *function*: a coroutine function or a generator function."""
    kinds: tuple[Callable[[Any], bool], ...] = (
        inspect.iscoroutinefunction,
        inspect.isasyncgenfunction,
        inspect.isgeneratorfunction,
    )
    try:
        return any(kind(function) for kind in kinds)
    except Exception:  # noqa: BLE001 - an object that pretends to be a function, such as Mock(spec=function)
        return False
