"""Events: attach handlers to names, execute events, span a piece of work.

The semantics are those of Elixir's ``:telemetry``: an event has a name (a tuple of strings), measurements
(numbers) and metadata (everything else). Handlers are matched by the whole name, run synchronously in the
caller, and can never hurt it: a handler that raises is detached, ``("telemetry", "handler", "failure")`` says
so, and the remaining handlers run.

Theory of operation
-------------------
One table, ``name -> tuple of handlers``, is never changed in place: attach and detach build a new one under a
lock and swap it in, so that ``execute`` reads it without a lock and costs one dictionary look-up when nobody
listens. A hot emitter holds its `Event` instead: its ``on`` flag and ``emit`` slot are re-bound whenever the
table changes, so that a guarded event nobody hears costs one attribute read.

Durations and ``monotonic_time`` are integer nanoseconds of `time.monotonic_ns`; ``system_time`` is integer
nanoseconds of the wall clock. The two are never mixed.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeAlias

__all__ = [
    "CapturedEvent",
    "Event",
    "Handler",
    "HandlerExists",
    "Span",
    "attach",
    "attach_many",
    "capture",
    "detach",
    "event",
    "execute",
    "list_handlers",
    "span",
]

EventName: TypeAlias = tuple[str, ...]
Measurements: TypeAlias = Mapping[str, int | float]
Metadata: TypeAlias = Mapping[str, Any]
HandlerFunction: TypeAlias = Callable[[EventName, Measurements, Metadata, Any], object]

HANDLER_FAILURE: EventName = ("telemetry", "handler", "failure")


class HandlerExists(ValueError):
    """A handler with this id is attached already; ids are unique across all events."""


class Handler(NamedTuple):
    """One attachment: what `list_handlers` returns."""

    id: str
    event: EventName
    function: HandlerFunction
    config: Any


class CapturedEvent(NamedTuple):
    """One event as `capture` saw it."""

    name: EventName
    measurements: dict[str, int | float]
    metadata: dict[str, Any]


class _Table(dict[EventName, tuple[Handler, ...]]):
    """The handlers of every event somebody listens to, by the whole name. Never changed once published."""


class _TappedTable(_Table):
    """The table while at least one `capture` is open: taps match by prefix, exact handlers as always."""

    taps: tuple[Handler, ...] = ()

    def get(self, name: EventName, default: Any = None) -> Any:
        heard = tuple(tap for tap in self.taps if name[: len(tap.event)] == tap.event)
        return super().get(name, ()) + heard or default


_lock = threading.RLock()
_table: _Table = _Table()
_taps: tuple[Handler, ...] = ()
_events: dict[EventName, Event] = {}
_span_ids = itertools.count(1)
_capture_ids = itertools.count(1)


def attach(handler_id: str, event_name: EventName, function: HandlerFunction, config: Any = None) -> None:
    """Call ``function(event, measurements, metadata, config)`` at every execution of exactly *event_name*.

    The function runs synchronously in the emitting task or thread: it must be quick and must not block. When it
    raises it is detached (from every event of its id) and ``telemetry.handler.failure`` is executed.

    Raises HandlerExists when *handler_id* is in use, on whatever event, and ValueError or TypeError for a name
    that is no non-empty tuple of strings. Safe from any thread.
    """
    attach_many(handler_id, [event_name], function, config)


def attach_many(handler_id: str, event_names: list[EventName], function: HandlerFunction, config: Any = None) -> None:
    """Attach one *function* under one id to several events; all or none. Errors as for `attach`."""
    if not event_names:
        raise ValueError(f"handler {handler_id!r} needs at least one event name")
    if not callable(function):
        raise TypeError(f"handler {handler_id!r} needs a callable, not {function!r}")
    added = [Handler(handler_id, _checked(name), function, config) for name in dict.fromkeys(event_names)]
    with _lock:
        if any(handler.id == handler_id for handlers in _table.values() for handler in handlers):
            raise HandlerExists(
                f"a handler with id {handler_id!r} is attached already; detach it first or choose another id"
            )
        table = dict(_table)
        for handler in added:
            table[handler.event] = (*table.get(handler.event, ()), handler)
        _publish(table, _taps)


def detach(handler_id: str) -> bool:
    """Take the handler off every event it is attached to. Returns whether there was one. Safe from any thread."""
    with _lock:
        table: dict[EventName, tuple[Handler, ...]] = {}
        found = False
        for name, handlers in _table.items():
            kept = tuple(handler for handler in handlers if handler.id != handler_id)
            found = found or len(kept) < len(handlers)
            if kept:
                table[name] = kept
        taps = tuple(tap for tap in _taps if tap.id != handler_id)
        if not found and len(taps) == len(_taps):
            return False
        _publish(table, taps)
        return True


def list_handlers(prefix: EventName = ()) -> list[Handler]:
    """The attached handlers of every event whose name starts with *prefix*, in order of attachment per event."""
    if prefix:
        _checked(prefix)
    return [handler for name, handlers in _table.items() if name[: len(prefix)] == prefix for handler in handlers]


def execute(event_name: EventName, measurements: Measurements, metadata: Metadata | None = None) -> None:
    """Run the handlers of *event_name* now, in the caller. Never raises because of a handler.

    Costs one dictionary look-up when nobody listens. The mappings are handed to the handlers as they are: neither
    the emitter nor a handler may change them afterwards.
    """
    handlers = _table.get(event_name)
    if handlers:
        _dispatch(handlers, event_name, measurements, {} if metadata is None else metadata)


class Event:
    """A pre-bound event for hot emitters, one per name (see `event`).

    ``on`` tells whether anybody listens: guard with it and the measurements need not even be built. ``emit``
    takes measurements and metadata and behaves like `execute`.
    """

    __slots__ = ("emit", "name", "on")

    emit: Callable[[Measurements, Metadata], object]
    name: EventName
    on: bool

    def __init__(self, name: EventName) -> None:
        self.name = name
        self.rebind()

    def __repr__(self) -> str:
        return f"<Event {'.'.join(self.name)} {'on' if self.on else 'off'}>"

    def rebind(self) -> None:
        handlers = _table.get(self.name)
        self.on = bool(handlers)
        # With nobody listening the slot holds a C function of two arguments that does nothing.
        self.emit = _emitter(self.name, handlers) if handlers else operator.is_


def event(name: EventName) -> Event:
    """The `Event` of *name*; the same object every time. For names known at import time: they are kept for good."""
    with _lock:
        if name not in _events:
            _events[name] = Event(_checked(name))
        return _events[name]


class Span:
    """One timed piece of work: ``start``, then exactly one of ``stop`` and ``exception``.

    ``metadata`` may be added to while the span is open; the closing event carries it. Made by `span`.
    """

    __slots__ = ("_started_ns", "metadata", "name")

    def __init__(self, name: EventName, metadata: Metadata) -> None:
        self.name = name
        self.metadata: dict[str, Any] = {"span_id": next(_span_ids), **metadata}
        self._started_ns = 0

    def __enter__(self) -> Self:
        self._started_ns = time.monotonic_ns()
        execute(
            (*self.name, "start"),
            {"monotonic_time": self._started_ns, "system_time": time.time_ns()},
            dict(self.metadata),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        now_ns = time.monotonic_ns()
        measurements = {"duration": now_ns - self._started_ns, "monotonic_time": now_ns}
        if error is None:
            execute((*self.name, "stop"), measurements, dict(self.metadata))
            return
        cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
        execute(
            (*self.name, "exception"),
            measurements,
            {
                **self.metadata,
                "kind": "cancelled" if cancelled else "error",
                "reason": describe(error),
                "stacktrace": "".join(traceback.format_exception(kind, error, trace)),
            },
        )


def span(prefix: EventName, metadata: Metadata | None = None) -> Span:
    """Time a ``with`` block as the events ``prefix + start`` and exactly one of ``stop`` and ``exception``.

    ``start`` measures ``monotonic_time`` and ``system_time``; the closing event ``duration`` and
    ``monotonic_time`` (nanoseconds). ``exception`` carries ``kind`` (``error``, or ``cancelled`` when the task was
    cancelled), ``reason`` and ``stacktrace``; what was raised goes on being raised. All three carry the same
    ``span_id``. Works across ``await``. It is no decorator: it cannot time what it does not enclose.
    """
    return Span(_checked(prefix), metadata or {})


@contextmanager
def capture(prefix: EventName = ()) -> Iterator[list[CapturedEvent]]:
    """Test helper: the list of every event whose name starts with *prefix*, growing while the block is open.

    Sees events from every thread and task of the process. Mappings are copied as they were at the execution.
    """
    seen: list[CapturedEvent] = []

    def record(name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        seen.append(CapturedEvent(name, dict(measurements), dict(metadata)))

    tap = Handler(f"telemetry.capture-{next(_capture_ids)}", _checked(prefix) if prefix else (), record, None)
    with _lock:
        _publish(dict(_table), (*_taps, tap))
    try:
        yield seen
    finally:
        detach(tap.id)


def describe(error: BaseException) -> str:
    """One line that says what *error* is: its type and its text. Never raises, whatever the error does."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - somebody else's __str__
        text = "(its __str__ failed)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _checked(name: EventName) -> EventName:
    untyped: object = name  # the check below is for callers without a type checker
    if not isinstance(untyped, tuple) or not all(isinstance(part, str) and part for part in untyped):
        raise TypeError(f"an event name is a tuple of non-empty strings such as ('pool', 'ready'), not {name!r}")
    if not name:
        raise ValueError("an event name needs at least one part, such as ('pool', 'ready')")
    return name


def _publish(handlers: dict[EventName, tuple[Handler, ...]], taps: tuple[Handler, ...]) -> None:
    """Swap in a new table and tell the pre-bound events. Called with the lock held."""
    global _table, _taps
    table: _Table
    if taps:
        table = tapped = _TappedTable(handlers)
        tapped.taps = taps
    else:
        table = _Table(handlers)
    _table, _taps = table, taps
    for known in _events.values():
        known.rebind()


def _dispatch(handlers: tuple[Handler, ...], name: EventName, measurements: Measurements, metadata: Metadata) -> None:
    for handler in handlers:
        try:
            handler.function(name, measurements, metadata, handler.config)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it was, the caller goes on
            # A handler is synchronous, so a CancelledError out of it is a defect of the handler and no request
            # to the caller's task. KeyboardInterrupt and SystemExit are meant for the whole program: they pass.
            _strike_out(handler, name, error)


def _emitter(name: EventName, handlers: tuple[Handler, ...]) -> Callable[[Measurements, Metadata], object]:
    """What a pre-bound event calls: the handlers are looked up now and not at every event."""
    if len(handlers) > 1:
        return lambda measurements, metadata: _dispatch(handlers, name, measurements, metadata)
    handler = handlers[0]
    function, config = handler.function, handler.config

    def emit(measurements: Measurements, metadata: Metadata) -> None:
        try:
            function(name, measurements, metadata, config)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as in _dispatch
            _strike_out(handler, name, error)

    return emit


def _strike_out(handler: Handler, name: EventName, error: BaseException) -> None:
    detach(handler.id)
    metadata = {
        "event_name": ".".join(name),
        "handler_id": handler.id,
        "kind": type(error).__name__,
        "reason": describe(error),
        "stacktrace": "".join(traceback.format_exception(error)),
    }
    # A failing failure handler has been detached by now, so this recursion ends.
    execute(
        HANDLER_FAILURE,
        {"monotonic_time": time.monotonic_ns(), "system_time": time.time_ns()},
        metadata,
    )
    from pool_monitor.log import logger  # only here: a working handler never pays for a logger's import

    logger("telemetry").error("handler detached", **metadata)
