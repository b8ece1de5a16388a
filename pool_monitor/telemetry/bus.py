"""The table of handlers: handlers are attached, detached, filtered, and run when an event is executed.

Theory of operation
-------------------
The table, ``name -> tuple of handlers``, is never changed in place. Attach and detach build a new table under a lock
and swap it in. So ``execute`` reads the table without a lock, and costs one dictionary look-up for an event without
handlers. A hot emitter holds an `Event` instead, whose ``on`` flag and ``emit`` slot are re-bound whenever the table
changes. So a guarded event without handlers costs one attribute read.

For a handler that only counts, building two mappings costs the emitter several times what the handler costs. Such a
handler may offer a second, faster interface, the lane: ``bind(*labels)`` is called once per combination of labels and
returns ``record(*numbers)``, which takes the numbers. An emitter that knows the lane of its event passes numbers to
the handlers with a lane. It builds mappings only if there are other handlers.

Filters (`configure`) are applied when the table is built, not when an event is emitted. A denied event is not in the
table. A sampled event has a single entry in it, `_Sample`, which counts down and passes one execution in n on to the
handlers.
"""

from __future__ import annotations

import operator
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

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
from pool_monitor.telemetry.validation import check_handler, check_measurements, checked_name, checked_prefix

HANDLER_FAILURE: EventName = ("telemetry", "handler", "failure")
FILTER: EventName = ("telemetry", "filter")
SERIES_LIMIT = 10_000
"""Combinations of labels that a `Series` keeps. One more clears the `Series`, and labels are bound again on use."""


class _Table(dict[EventName, tuple[Handler, ...]]):
    """The handlers of every event that has any, by the whole name. Never changed once published."""


class _TappedTable(_Table):
    """The table while at least one `capture` is open. Taps are matched by prefix, handlers by the whole name."""

    taps: tuple[Handler, ...]
    filters: Filters

    def get(self, name: EventName, default: Any = None) -> Any:
        matching = tuple(tap for tap in self.taps if name[: len(tap.event)] == tap.event)
        return _filtered(name, super().get(name, ()) + matching, self.filters) or default


class _Sample(NamedTuple):
    """The config of `_sampled`, the entry in the table that replaces the handlers of a sampled event."""

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

    The function runs synchronously in the emitting task or thread: it must be quick and must not block. If it raises
    an exception, its id is detached from every event and ``telemetry.handler.failure`` is executed. Only
    KeyboardInterrupt and SystemExit reach the emitter.

    *bind* is a faster interface to the same handler, for events with a lane (``labels`` and ``numbers`` of their entry
    in the catalogue). An emitter that uses the lane calls ``bind(*labels)(*numbers)`` instead of the function; each
    execution calls one of the two. The result of ``bind`` is kept and called again for the same labels. It may be
    dropped and bound again at any time, so keep lasting state elsewhere. An exception of either has the same effect as
    one of the function.

    Raises HandlerExists if *handler_id* is in use for any event. Raises ValueError or TypeError for a name that is not
    a non-empty tuple of strings. Raises TypeError for a function that does not take four positional arguments, and for
    a coroutine function or generator function, which a call does not run. Safe from any thread.
    """
    _attach(handler_id, [event_name], function, config, bind)


def attach_many(
    handler_id: str, event_names: Iterable[EventName], function: HandlerFunction, config: Any = None
) -> None:
    """Attach *function* under one id to several events, to all or to none. Raises the errors of `attach`."""
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
    """Detach the handler from every event. Return whether it was attached to any. Safe from any thread."""
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
    """Return the handlers of every event whose name starts with *prefix*, in order of attachment per event.

    Raises TypeError for a prefix that is not a tuple of strings.
    """
    checked_prefix(prefix)
    return [handler for name, handlers in _attached.items() if name[: len(prefix)] == prefix for handler in handlers]


def configure(
    allow: Iterable[str] | None = None, deny: Iterable[str] | None = None, sample: Mapping[str, int] | None = None
) -> None:
    """Choose which events are emitted to the handlers of this process. Replaces the filters that were set before.

    *allow* and *deny* are patterns of dotted names: ``pool.worker.checkout``, or with the wildcards of `fnmatch`,
    ``pool.worker.*`` (a ``*`` matches dots too). An event is emitted if a pattern of *allow* matches it (None: all
    match) and no pattern of *deny* does. *sample* maps a pattern to n: on average, one execution in n is emitted,
    chosen at random. The first pattern that matches applies. ``configure()`` removes all filters. A denied event costs
    its emitter as little as an event without handlers. ``telemetry.handler.failure`` and ``telemetry.filter`` are
    always emitted.

    A handler that counts can correct for sampling: one execution that it receives stands for `weight` of them. Just
    before new filters take effect, ``telemetry.filter`` is executed. At that event the handler multiplies its count by
    the old weight and drops that weight; at its next count it calls `weight` again. This is exact for events that are
    emitted in the thread that calls `configure`. Events that other threads emit between ``telemetry.filter`` and the
    change (some microseconds) get the new weight. Executions hidden by a weight of 0 cannot be counted. The start and
    the end of a span or a call are sampled independently of each other.

    Raises TypeError or ValueError for an invalid pattern or rate; the filters then stay unchanged. Safe from any
    thread.
    """
    chosen = checked(allow, deny, sample)
    with _configuring:  # not _lock: handlers run
        execute(FILTER, {"system_time": time.time_ns()}, chosen.in_words())
        with _lock:
            _publish(_attached, _taps, chosen)


def filters() -> Filters:
    """Return the filters of the last `configure`. By default, no event is denied or sampled."""
    return _filters


def weight(event_name: EventName) -> int:
    """Return how many executions of *event_name* one emitted execution stands for: n if one in n is emitted, 0 if none.

    Patterns are matched at every call, so keep the result until ``telemetry.filter`` is emitted.
    """
    return _weight(_filters, checked_name(event_name))


def execute(event_name: EventName, measurements: Measurements, metadata: Metadata | None = None) -> None:
    """Run the handlers of *event_name* now, in the caller. Never raises because of a handler.

    Costs one dictionary look-up if no handler is attached. The mappings are passed to the handlers without a copy:
    neither the emitter nor a handler may change them afterwards. Raises TypeError or ValueError for a name that is not
    a tuple or is empty, and for measurements that are not a mapping, whether or not a handler is attached.
    """
    # Nearly all arguments have exactly these classes, and this check takes a tenth of the time of isinstance.
    if event_name.__class__ is not tuple or measurements.__class__ is not dict:
        checked_name(event_name)
        check_measurements(measurements)
    handlers = _table.get(event_name)
    if handlers:
        _dispatch(handlers, event_name, measurements, {} if metadata is None else metadata)
    elif not event_name:
        checked_name(event_name)


class Series(dict[tuple[str, ...], Record]):
    """Maps the labels of an event to the record that takes its numbers, bound when the labels are first used.

    The emitter calls the record like this: ``try: series[labels](*numbers)``, ``except FAILURES as error:
    series.failed(error)``. This adds no frame to the call, and an exception of a record affects the emitter no more
    than one of a handler. ``failed`` raises KeyboardInterrupt and SystemExit again.
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
        """Detach the handler whose record raised *error*, as if its function had raised it."""
        _detach_failed(self._handlers[0], self._name, error)

    def _each(self, bound: list[tuple[Handler, Record]]) -> Record:
        if len(bound) == 2:  # the collector and the advisor
            return self._both(*bound)

        def record(*numbers: int) -> None:
            for handler, record_one in bound:
                try:
                    record_one(*numbers)
                except FAILURES as error:
                    _detach_failed(handler, self._name, error)

        return record

    def _both(self, first: tuple[Handler, Record], second: tuple[Handler, Record]) -> Record:
        """What `_each` makes, in less time: without its loop."""
        handler, record_one = first
        other_handler, record_other = second

        def record(*numbers: int) -> None:
            try:
                record_one(*numbers)
            except FAILURES as error:
                _detach_failed(handler, self._name, error)
            try:
                record_other(*numbers)
            except FAILURES as error:
                _detach_failed(other_handler, self._name, error)

        return record


class Event:
    """A pre-bound event for hot emitters, one per name (see `event`).

    ``on`` is whether the event has handlers: check it first and build the measurements only if it is true. ``emit``
    takes measurements and metadata and behaves like `execute`.

    An emitter that needs to avoid building the mappings takes the steps of ``emit`` itself, in this order. It reads
    each attribute once, because any thread may re-bind them.

    1. ``skip``, unless None, is called once for each execution. If it returns true, the execution is left out.
    2. ``emit_all`` calls all handlers. An emitter that knows the event's lane does this instead: if ``series`` is not
       None, it passes the numbers to the handlers with a lane (see `Series`); if ``mapped`` is true, it calls the other
       handlers with ``emit_mapped``.
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
    """Return the `Event` of *name*, always the same object. It is kept for good: use names known at import time."""
    with _lock:
        if name not in _events:
            _events[name] = Event(checked_name(name))
        return _events[name]


def _publish(attached: dict[EventName, tuple[Handler, ...]], taps: tuple[Handler, ...], chosen: Filters) -> None:
    """Swap in a new table and re-bind the pre-bound events. The caller holds the lock."""
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
    """Return the entry of the table for an event with *handlers*."""
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
    """Return what a pre-bound event calls: the handlers are looked up once here, not at every event."""
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
    # A handler of this event that fails has been detached above, so the recursion ends.
    execute(
        HANDLER_FAILURE,
        {"monotonic_time": time.monotonic_ns(), "system_time": time.time_ns()},
        {"event_name": name, "handler_config": handler.config, **about},
    )
    from pool_monitor.log import logger  # here, because most processes never need the import

    logger("telemetry").error("handler detached", event_name=".".join(name), **about)
