"""What `telemetry` accepts as an event's name, as a handler, and as what an event carries: checked where it is given.

A mistake in one of these would show only later: a handler of too few arguments is detached at its first event, a
coroutine function is called and never runs, and a name given as text matches nothing for ever.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

_ARGUMENTS = ("event", "measurements", "metadata", "config")


def checked_name(name: Any) -> tuple[str, ...]:
    """*name* as it is. Raises TypeError for what is no tuple of non-empty strings, and ValueError for an empty one."""
    if not isinstance(name, tuple) or not all(isinstance(part, str) and part for part in name):
        raise TypeError(f"an event name is a tuple of non-empty strings such as ('pool', 'ready'), not {name!r:.200}")
    if not name:
        raise ValueError("an event name needs at least one part, such as ('pool', 'ready')")
    return name


def checked_prefix(prefix: Any) -> tuple[str, ...]:
    """The same for the beginning of names, which may be empty: every name begins so."""
    return () if isinstance(prefix, tuple) and not prefix else checked_name(prefix)


def check_measurements(measurements: Any) -> None:
    """Raise TypeError unless an event can carry these."""
    if not isinstance(measurements, Mapping):
        raise TypeError(f"measurements are a mapping such as {{'count': 1}}, not {measurements!r:.200}")


def check_handler(handler_id: str, function: Any, bind: Any) -> None:
    """Raise TypeError unless *function* can be a handler, called with four arguments and done when it returns, and
    *bind*, unless None, its lane. What Python cannot tell the signature of is accepted.
    """
    _check_called(f"handler {handler_id!r}", function)
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - written in C, or an object with a __signature__ of its own
        signature = None
    if signature is not None:
        try:
            signature.bind(*_ARGUMENTS)
        except TypeError as error:
            raise TypeError(
                f"handler {handler_id!r} is called with four positional arguments, ({', '.join(_ARGUMENTS)}), which "
                f"{function!r:.200} does not take: {error}"
            ) from None
    if bind is not None:
        _check_called(f"bind of handler {handler_id!r}", bind)


def _check_called(what: str, function: Any) -> None:
    if not callable(function):
        raise TypeError(f"{what} needs a callable, not {function!r:.200}")
    run = function
    while isinstance(run, functools.partial):
        run = run.func
    if _only_begins(run) or _only_begins(type(run).__call__):
        raise TypeError(
            f"{what} runs to its end when it is called, which {function!r:.200} does not: to do something that awaits, "
            "have a plain function hand the event to a task, such as by asyncio.Queue.put_nowait"
        )


def _only_begins(function: Any) -> bool:
    """Whether calling *function* runs none of it: a coroutine function or a generator's."""
    kinds: tuple[Callable[[Any], bool], ...] = (
        inspect.iscoroutinefunction,
        inspect.isasyncgenfunction,
        inspect.isgeneratorfunction,
    )
    try:
        return any(kind(function) for kind in kinds)
    except Exception:  # noqa: BLE001 - an object that only says it is a function, such as Mock(spec=function)
        return False
