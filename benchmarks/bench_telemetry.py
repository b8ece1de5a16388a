"""What an event costs its emitter: nanoseconds per ``telemetry.execute`` with 0 and 1 handlers, and guarded."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from pool_monitor import telemetry

NAME = ("benchmark", "event")
CALLS, ROUNDS = 100_000, 15
METADATA = {"pool": "a", "operation": "b"}


def nothing(_event: Any, _measurements: Any, _metadata: Any, _config: Any) -> None:
    """A handler that does nothing."""


def per_call(loop: Callable[[], None]) -> float:
    """Median nanoseconds of one pass, of the rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter_ns()
        loop()
        rounds.append((time.perf_counter_ns() - began) / CALLS)
    return statistics.median(rounds)


def empty() -> None:
    for _ in range(CALLS):
        pass


def a_dict() -> None:
    for _ in range(CALLS):
        {"duration": 1}  # noqa: B018


def execute() -> None:
    run = telemetry.execute
    for _ in range(CALLS):
        run(NAME, {"duration": 1}, METADATA)


def emit() -> None:
    event = telemetry.event(NAME)
    for _ in range(CALLS):
        event.emit({"duration": 1}, METADATA)


def guarded() -> None:
    event = telemetry.event(NAME)
    for _ in range(CALLS):
        if event.on:
            event.emit({"duration": 1}, METADATA)


def main(_seconds: float = 0.0) -> None:
    base = per_call(empty)
    print(f"\ntelemetry, ns per call net of the loop ({base:.1f} ns); the measurements' dict alone is "
          f"{per_call(a_dict) - base:.0f} ns of it")  # fmt: skip
    print(f"{'':34}{'0 handlers':>12}{'1 handler':>12}")
    rows = {
        "telemetry.execute(name, {..}, m)": execute,
        "event.emit({..}, m)": emit,
        "if event.on: event.emit(..)": guarded,
    }
    for text, loop in rows.items():
        without = per_call(loop) - base
        telemetry.attach("benchmark", NAME, nothing)
        with_one = per_call(loop) - base
        telemetry.detach("benchmark")
        print(f"{text:34}{without:12.1f}{with_one:12.1f}")
