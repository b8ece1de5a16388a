"""The table of handlers: attached, detached, filtered, and run when an event is executed.

Theory of operation
-------------------
One table, ``name -> tuple of handlers``, is never changed in place: attach and detach build a new one under a
lock and swap it in, so that ``execute`` reads it without a lock and costs one dictionary look-up when nobody
listens. A hot emitter holds its `Event` instead: its ``on`` flag and ``emit`` slot are re-bound whenever the
table changes, so that a guarded event nobody hears costs one attribute read.

For a handler that only counts, building two mappings costs the emitter several times what the handler does. Such a
handler may bring a second way to tell it, the lane: ``bind(*labels)`` is called once per combination of labels and
returns what takes the numbers, ``record(*numbers)``. An emitter that knows the lane of its event tells those
handlers by numbers and only the others by mappings, and builds the mappings only if there are others.

Filters (`configure`) are applied when the table is built and not when an event is told: a denied event is not in it,
and a sampled one has a single entry, `_Sample`, that counts down and now and then tells the handlers behind it.
"""

from __future__ import annotations

import operator
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pool_monitor.telemetry.checks import check_handler, check_measurements, checked_name, checked_prefix
from pool_monitor.telemetry.failures import FAILURES, describe, pass_on
from pool_monitor.telemetry.filtering import Filters, checked, skipper
from pool_monitor.telemetry.types import (
    Bind,
    EventName,
    Handler,
    HandlerExists,
    HandlerFunction,
    Measurements,
    Metadata,
    Record,
)

HANDLER_FAILURE: EventName = ("telemetry", "handler", "failure")
FILTER: EventName = ("telemetry", "filter")
SERIES_LIMIT = 10_000
"""Combinations of labels a `Series` remembers; with one more it forgets them all and binds anew."""


class _Table(dict[EventName, tuple[Handler, ...]]):
    """Who is told of every event somebody listens to, by the whole name. Never changed once published."""


class _TappedTable(_Table):
    """The table while at least one `capture` is open: taps match by prefix, exact handlers as always."""

    taps: tuple[Handler, ...]
    filters: Filters

    def get(self, name: EventName, default: Any = None) -> Any:
        heard = tuple(tap for tap in self.taps if name[: len(tap.event)] == tap.event)
        return _filtered(name, super().get(name, ()) + heard, self.filters) or default


class _Sample(NamedTuple):
    """What stands in the table for the handlers of a sampled event, as the config of `_sampled`."""

    skip: Callable[[], bool]
    handlers: tuple[Handler, ...]


_lock = threading.RLock()
_configuring = threading.RLock()
_attached: dict[EventName, tuple[Handler, ...]] = {}
_filters = Filters()
_table: _Table = _Table()
_taps: tuple[Handler, ...] = ()
_events: dict[EventName, Event] = {}


def attach(
    handler_id: str, event_name: EventName, function: HandlerFunction, config: Any = None, *, bind: Bind | None = None
) -> None:
    """Call ``function(event, measurements, metadata, config)`` at every execution of exactly *event_name*.

    The function runs synchronously in the emitting task or thread: it must be quick and must not block. When it
    raises, whatever it is, it is detached (from every event of its id) and ``telemetry.handler.failure`` is executed.
    Only KeyboardInterrupt and SystemExit pass to the emitter.

    *bind* is a faster way to tell the same handler, for events that have a lane (``labels`` and ``numbers`` of their
    entry in the catalogue): where the emitter uses it, ``bind(*labels)(*numbers)`` is called and not the function;
    every execution is told by one of the two. What ``bind`` returns is kept and called again for the same labels. It
    may be forgotten and bound anew at any time, so what has to last is kept elsewhere. Both fail as the function does.

    Raises HandlerExists when *handler_id* is in use, on whatever event, ValueError or TypeError for a name that is no
    non-empty tuple of strings, and TypeError for a function that does not take four positional arguments or that a
    call only begins: a coroutine function, a generator function. Safe from any thread.
    """
    _attach(handler_id, [event_name], function, config, bind)


def attach_many(
    handler_id: str, event_names: Iterable[EventName], function: HandlerFunction, config: Any = None
) -> None:
    """Attach one *function* under one id to several events; all or none. Errors as for `attach`."""
    _attach(handler_id, event_names, function, config, None)


def _attach(
    handler_id: str, event_names: Iterable[EventName], function: HandlerFunction, config: Any, bind: Bind | None
) -> None:
    check_handler(handler_id, function, bind)
    names = dict.fromkeys(map(checked_name, event_names))
    if not names:
        raise ValueError(f"handler {handler_id!r} needs at least one event name")
    added = [Handler(handler_id, name, function, config, bind) for name in names]
    with _lock:
        if any(handler.id == handler_id for handlers in _attached.values() for handler in handlers):
            raise HandlerExists(
                f"a handler with id {handler_id!r} is attached already; detach it first or choose another id"
            )
        attached = dict(_attached)
        for handler in added:
            attached[handler.event] = (*attached.get(handler.event, ()), handler)
        _publish(attached, _taps, _filters)


def attach_tap(tap_id: str, prefix: EventName, function: HandlerFunction) -> None:
    """Call *function* at every execution of every event whose name starts with *prefix*, until `detach`."""
    with _lock:
        _publish(_attached, (*_taps, Handler(tap_id, prefix, function, None)), _filters)


def detach(handler_id: str) -> bool:
    """Take the handler off every event it is attached to. Returns whether there was one. Safe from any thread."""
    with _lock:
        attached: dict[EventName, tuple[Handler, ...]] = {}
        found = False
        for name, handlers in _attached.items():
            kept = tuple(handler for handler in handlers if handler.id != handler_id)
            found = found or len(kept) < len(handlers)
            if kept:
                attached[name] = kept
        taps = tuple(tap for tap in _taps if tap.id != handler_id)
        if not found and len(taps) == len(_taps):
            return False
        _publish(attached, taps, _filters)
        return True


def list_handlers(prefix: EventName = ()) -> list[Handler]:
    """The attached handlers of every event whose name starts with *prefix*, in order of attachment per event.

    Raises TypeError for a prefix that is no tuple of strings.
    """
    checked_prefix(prefix)
    return [handler for name, handlers in _attached.items() if name[: len(prefix)] == prefix for handler in handlers]


def configure(
    allow: Iterable[str] | None = None, deny: Iterable[str] | None = None, sample: Mapping[str, int] | None = None
) -> None:
    """Choose which events are told, to all handlers of this process, from now on; in place of what was chosen before.

    *allow* and *deny* are patterns of dotted names: ``pool.worker.checkout``, or with the wildcards of `fnmatch`,
    ``pool.worker.*`` (a ``*`` goes beyond dots). An event is told when one of *allow* matches (None: all do) and none
    of *deny* does. Of the events that *sample* names, one execution in so many is told, on average, chosen at random;
    the first pattern that matches counts. ``configure()`` takes every filter away. An event that is denied costs its
    emitter as little as one without handlers. ``telemetry.handler.failure`` and ``telemetry.filter`` are always told.

    A handler that counts can correct for this: one execution it hears stands for `weight` of them. Just before the
    new filters take effect ``telemetry.filter`` is executed. When a reader hears it, it counts what it has heard so
    far with the weight it knew and forgets that; when it counts next, it asks `weight` again. Where events are emitted
    in the thread that calls `configure`, that is exact; those of other threads that are told between the event and
    the effect (some microseconds) get the new weight. Nothing can be known of the executions a weight of 0 hid. The
    start and the end of a span, or of a call, are sampled independently of each other.

    Raises TypeError or ValueError for what is no such pattern or rate; then the filters stay as they were. Safe from
    any thread.
    """
    chosen = checked(allow, deny, sample)
    with _configuring:  # not _lock: handlers run
        execute(FILTER, {"system_time": time.time_ns()}, chosen.in_words())
        with _lock:
            _publish(_attached, _taps, chosen)


def filters() -> Filters:
    """What `configure` was given last: nothing denied and nothing sampled at first."""
    return _filters


def weight(event_name: EventName) -> int:
    """What one heard execution of *event_name* stands for now: n when one in n is told, 1 when all are, 0 when none is.

    Patterns are matched at every call: a reader keeps what it gets until it hears ``telemetry.filter``.
    """
    return _weight(_filters, checked_name(event_name))


def execute(event_name: EventName, measurements: Measurements, metadata: Metadata | None = None) -> None:
    """Run the handlers of *event_name* now, in the caller. Never raises because of a handler.

    Costs one dictionary look-up when no handler is attached. The mappings are handed to the handlers as they are:
    neither the emitter nor a handler may change them afterwards. Raises TypeError or ValueError, with handlers and
    without, for a name that is no tuple or is empty, and for measurements that are no mapping.
    """
    # Most are exactly these, and asking so takes a tenth of what isinstance does.
    if event_name.__class__ is not tuple or measurements.__class__ is not dict:
        checked_name(event_name)
        check_measurements(measurements)
    handlers = _table.get(event_name)
    if handlers:
        _dispatch(handlers, event_name, measurements, {} if metadata is None else metadata)
    elif not event_name:
        checked_name(event_name)


class Series(dict[tuple[str, ...], Record]):
    """From the labels of an event to the record that takes its numbers, bound when the labels are first used.

    The emitter calls it like this, so that a record costs it no frame of ours, and can hurt it no more than a
    handler: ``try: series[labels](*numbers)``, ``except FAILURES as error: series.failed(error)``. What is meant for
    the whole program comes out of ``failed`` again.
    """

    __slots__ = ("_handlers", "_name")

    def __init__(self, name: EventName, handlers: tuple[Handler, ...]) -> None:
        super().__init__()
        self._name = name
        self._handlers = handlers

    def __missing__(self, labels: tuple[str, ...]) -> Record:
        bound: list[tuple[Handler, Record]] = []
        for handler in self._handlers:
            try:
                assert handler.bind is not None
                bound.append((handler, handler.bind(*labels)))
            except FAILURES as error:
                _detach_failed(handler, self._name, error)
        if len(self) >= SERIES_LIMIT:
            self.clear()
        self[labels] = record = bound[0][1] if len(self._handlers) == len(bound) == 1 else self._each(bound)
        return record

    def failed(self, error: BaseException) -> None:
        """A record raised *error*: its handler is detached, as one whose function raises."""
        _detach_failed(self._handlers[0], self._name, error)

    def _each(self, bound: list[tuple[Handler, Record]]) -> Record:
        def record(*numbers: int) -> None:
            for handler, one in bound:
                try:
                    one(*numbers)
                except FAILURES as error:
                    _detach_failed(handler, self._name, error)

        return record


class Event:
    """A pre-bound event for hot emitters, one per name (see `event`).

    ``on`` tells whether anybody listens: guard with it and the measurements need not even be built. ``emit``
    takes measurements and metadata and behaves like `execute`.

    For an emitter to which building the mappings is dear, there are the steps of ``emit``, to be taken in this order
    and each read once, since any thread may re-bind them: ``skip``, unless None, says whether this execution is one of
    those to leave out, and is to be called once for each; ``emit_all`` tells everybody who listens. One that knows
    the event's lane does instead of the latter: when ``series`` is not None, tell the handlers that have a lane by it
    (see `Series`); when ``mapped`` is true, tell the others by ``emit_mapped``.
    """

    __slots__ = ("emit", "emit_all", "emit_mapped", "mapped", "name", "on", "series", "skip")

    name: EventName
    on: bool
    emit: Callable[[Measurements, Metadata], object]
    skip: Callable[[], bool] | None
    emit_all: Callable[[Measurements, Metadata], object]
    series: Series | None
    mapped: bool
    emit_mapped: Callable[[Measurements, Metadata], object]

    def __init__(self, name: EventName) -> None:
        self.name = name
        self.rebind()

    def __repr__(self) -> str:
        return f"<Event {'.'.join(self.name)} {'on' if self.on else 'off'}>"

    def rebind(self) -> None:
        entry: tuple[Handler, ...] = _table.get(self.name, ())
        sample = entry[0].config if entry and entry[0].function is _sampled else None
        handlers: tuple[Handler, ...] = entry if sample is None else sample.handlers
        bound = tuple(handler for handler in handlers if handler.bind is not None)
        others = tuple(handler for handler in handlers if handler.bind is None) if bound else handlers
        self.on, self.emit = bool(handlers), _emitter(self.name, entry)
        self.skip = None if sample is None else sample.skip
        self.emit_all = _emitter(self.name, handlers)
        self.mapped, self.emit_mapped = bool(others), _emitter(self.name, others)
        self.series = Series(self.name, bound) if bound else None


def event(name: EventName) -> Event:
    """The `Event` of *name*; the same object every time. For names known at import time: they are kept for good."""
    with _lock:
        if name not in _events:
            _events[name] = Event(checked_name(name))
        return _events[name]


def _publish(attached: dict[EventName, tuple[Handler, ...]], taps: tuple[Handler, ...], chosen: Filters) -> None:
    """Swap in a new table and tell the pre-bound events. Called with the lock held."""
    global _attached, _filters, _table, _taps
    table: _Table
    if taps:
        table = tapped = _TappedTable(attached)
        tapped.taps, tapped.filters = taps, chosen
    else:
        entries = ((name, _filtered(name, handlers, chosen)) for name, handlers in attached.items())
        table = _Table((name, handlers) for name, handlers in entries if handlers)
    _attached, _taps, _filters, _table = attached, taps, chosen, table
    for known in _events.values():
        known.rebind()


def _filtered(name: EventName, handlers: tuple[Handler, ...], chosen: Filters) -> tuple[Handler, ...]:
    """What the table has for an event of these handlers."""
    rate = _weight(chosen, name) if handlers else 0
    if rate <= 1:
        return handlers if rate else ()
    return (Handler("telemetry.sample", name, _sampled, _Sample(skipper(rate), handlers)),)


def _sampled(name: EventName, measurements: Measurements, metadata: Metadata, sample: _Sample) -> None:
    if not sample.skip():
        _dispatch(sample.handlers, name, measurements, metadata)


def _weight(chosen: Filters, name: EventName) -> int:
    return 1 if name in (HANDLER_FAILURE, FILTER) else chosen.weight(".".join(name))


def _dispatch(handlers: tuple[Handler, ...], name: EventName, measurements: Measurements, metadata: Metadata) -> None:
    for handler in handlers:
        try:
            handler.function(name, measurements, metadata, handler.config)
        except FAILURES as error:
            _detach_failed(handler, name, error)


def _emitter(name: EventName, handlers: tuple[Handler, ...]) -> Callable[[Measurements, Metadata], object]:
    """What a pre-bound event calls: the handlers are looked up now and not at every event."""
    if not handlers:
        return operator.is_  # a C function of two arguments that does nothing
    if len(handlers) > 1:
        return lambda measurements, metadata: _dispatch(handlers, name, measurements, metadata)
    handler = handlers[0]
    function, config = handler.function, handler.config

    def emit(measurements: Measurements, metadata: Metadata) -> None:
        try:
            function(name, measurements, metadata, config)
        except FAILURES as error:
            _detach_failed(handler, name, error)

    return emit


def _detach_failed(handler: Handler, name: EventName, error: BaseException) -> None:
    pass_on(error)
    detach(handler.id)
    about = {
        "handler_id": handler.id,
        "kind": type(error).__name__,
        "reason": describe(error),
        "stacktrace": "".join(traceback.format_exception(error)),
    }
    # A failing failure handler has been detached by now, so this recursion ends.
    execute(
        HANDLER_FAILURE,
        {"monotonic_time": time.monotonic_ns(), "system_time": time.time_ns()},
        {"event_name": name, "handler_config": handler.config, **about},
    )
    from pool_monitor.log import logger  # only here: a working handler never pays for a logger's import

    logger("telemetry").error("handler detached", event_name=".".join(name), **about)
