"""Spans: a block of code, timed by events."""

from __future__ import annotations

import asyncio
import itertools
import time
import traceback
from types import TracebackType
from typing import Any, Self

from pool_monitor.telemetry.bus import execute
from pool_monitor.telemetry.failures import describe
from pool_monitor.telemetry.types import EventName, Metadata
from pool_monitor.telemetry.validation import checked_name

_span_ids = itertools.count(1)


class Span:
    """A block of code that emits ``start``, then exactly one of ``stop`` and ``exception``. Made by `span`.

    ``metadata`` and ``measurements`` may be added to while the span is open; the closing event carries them. The
    measurements of the span itself have precedence.
    """

    __slots__ = ("_started_ns", "measurements", "metadata", "name")

    def __init__(self, name: EventName, metadata: Metadata) -> None:
        self.name = name
        self.metadata: dict[str, Any] = {"span_id": next(_span_ids), **metadata}
        self.measurements: dict[str, int | float] = {}
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
        measurements = {**self.measurements, "duration": now_ns - self._started_ns, "monotonic_time": now_ns}
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
    """Time a ``with`` block: emit ``prefix + start``, then exactly one of ``prefix + stop`` and ``prefix + exception``.

    ``start`` measures ``monotonic_time`` and ``system_time``. The closing event measures ``duration`` and
    ``monotonic_time``, both in nanoseconds, and has the ``measurements`` that were added to the span. ``exception``
    carries ``kind`` (``error``, or ``cancelled`` if the task was cancelled), ``reason`` and ``stacktrace``; the
    exception is raised again. All events of a span carry the same ``span_id``. Works across ``await``. A span is not a
    decorator, because it times only what it encloses.
    """
    return Span(checked_name(prefix), metadata or {})
