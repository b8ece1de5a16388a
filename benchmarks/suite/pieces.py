"""The pieces of work whose cost is measured, and the references they are compared with.

Absolute times of two machines, or of two hours on one machine, cannot be compared. So every piece names a reference:
work of the same kind that uses nothing of this package. The measure is how many times longer the piece takes.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import bench_alerts
from benchmarks.calls import PAST, Past, done, emit_ended
from benchmarks.delivery import Deliveries
from benchmarks.metrics_queries import watched
from pool_monitor import Monitor, MonitorConfig, Pool, telemetry
from pool_monitor.advisor.history import CALLS
from pool_monitor.advisor.journal import Journal
from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.inputs import Input
from pool_monitor.alerts.lifecycle import Phase
from pool_monitor.alerts.line import fit
from pool_monitor.alerts.reader import LiveReader
from pool_monitor.clock import ManualClock
from pool_monitor.config import ServiceConfig
from pool_monitor.findings import CONDITIONS
from pool_monitor.view import overview

Work = Callable[[], object]
NAME = ("benchmark", "event")
METADATA = {"pool": "a", "operation": "b"}
TARGET = f"{Path(__file__).parents[1] / 'targets.py'}:Work"
PAYLOAD = {"text": "some words", "number": 7}
WORKERS, OPERATIONS = 4, 25
NO_SOCKET = MonitorConfig(service=ServiceConfig(socket=False))


class Piece(NamedTuple):
    """Work to measure."""

    ready: Callable[[], AbstractContextManager[Work]]
    """Entered while the work is measured. Yields a function that does it *times* times."""
    times: int
    unit: str
    reference: str
    """A key of `REFERENCES`."""


# What the pieces are compared with.


def nothing(_event: Any, _measurements: Any, _metadata: Any, _config: Any) -> None:
    """A handler that does nothing."""


@contextmanager
def interpreter() -> Iterator[Work]:
    """Look handlers up in a dictionary, and call them."""
    table = {NAME: (nothing,)}

    def work() -> None:
        for _ in range(1000):
            for handler in table.get(NAME, ()):
                handler(NAME, {"duration": 1}, METADATA, None)

    yield work


@contextmanager
def arrays() -> Iterator[Work]:
    """Add up a table of counts along its rows, and look for places in it."""
    counts = np.arange(100 * 500, dtype=np.int64).reshape(100, 500)

    def work() -> None:
        for _ in range(10):
            sums = np.cumsum(counts, axis=1)
            (sums >= sums[:, -1:] // 2).argmax(axis=1)

    yield work


ECHO = "import os\nwhile data := os.read(0, 4096): os.write(1, data)"


@contextmanager
def pipe() -> Iterator[Work]:
    """Send a few bytes to another process, and wait until they are back. It takes several times as long if the system
    wakes the other process on another processor: good enough for a limit, not for a comparison.
    """
    with subprocess.Popen(
        [sys.executable, "-E", "-S", "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        write, read = process.stdin.write, process.stdout.read

        def work() -> None:
            for _ in range(50):
                write(bytes(64))
                read(4096)

        yield work


REFERENCES: dict[str, tuple[Callable[[], AbstractContextManager[Work]], int]] = {
    "interpreter": (interpreter, 1000),
    "arrays": (arrays, 10),
    "pipe": (pipe, 50),
}
"""Each with the number of times it does its work."""


# Events.


@contextmanager
def handled(work: Work, handlers: int) -> Iterator[Work]:
    with ExitStack() as stack:
        for number in range(handlers):
            telemetry.attach(f"benchmark-{number}", NAME, nothing)
            stack.callback(telemetry.detach, f"benchmark-{number}")
        yield work


def execute() -> None:
    run = telemetry.execute
    for _ in range(1000):
        run(NAME, {"duration": 1}, METADATA)


def emit() -> None:
    event = telemetry.event(NAME)
    for _ in range(1000):
        event.emit({"duration": 1}, METADATA)


def guarded() -> None:
    event = telemetry.event(NAME)
    for _ in range(1000):
        if event.on:
            event.emit({"duration": 1}, METADATA)


def span() -> None:
    for _ in range(200):
        with telemetry.span(NAME, METADATA):
            pass


# Metrics: a monitor that has been busy for as long as *past* says.


@contextmanager
def ingest(past: Past = PAST) -> Iterator[Work]:
    """Emit the end of calls, and have the collector put them into its windows."""
    with watched(OPERATIONS * 3, 50, past=past) as one:
        calls = done(one.rows, 1000)

        def work() -> None:
            emit_ended(calls)
            one.monitor._collector.tick()

        yield work


@contextmanager
def journalled() -> Iterator[Work]:
    """Pass the numbers of calls to the journal of the advisor, and have it count them. Its ring of calls is full."""
    clock = ManualClock()
    journal = Journal(["a"], clock, journal_id="benchmark")
    records = [journal.bind("a", f"operation {n % OPERATIONS}", f"a-{n % WORKERS}") for n in range(100)]

    def work() -> None:
        clock.advance(1)
        for _ in range(10):
            for record in records:
                record(5_000_000, 1_000_000, 3_000_000)
        journal.tick({})

    for _ in range(CALLS // 1000):
        work()
    yield work


@contextmanager
def advice_history() -> Iterator[Work]:
    """Copy the history of a pool with 50,000 calls, for a pass of the advisor."""
    clock = ManualClock()
    journal = Journal(["a"], clock, journal_id="benchmark")
    record = journal.bind("a", "operation", "a-0")
    for _ in range(CALLS // 50):
        clock.advance(10)
        for _ in range(50):
            record(5_000_000, 1_000_000, 3_000_000)
        journal.tick({})
    yield lambda: journal.history("a")


@contextmanager
def answer(method: str, past: Past = PAST) -> Iterator[Work]:
    """Call *method* a second after the last time, so that nothing of the last answer can be reused."""
    with watched(WORKERS * OPERATIONS * 3, 200, WORKERS, past) as one:
        ask = {
            "snapshot": one.monitor.snapshot,
            "range": one.range,
            "summary": one.monitor.metrics.summary,
            "error_rates": one.monitor.metrics.error_rates,
            "page": one.page,
        }[method]

        def work() -> None:
            one.clock.advance(1)
            one.monitor._collector.tick()
            ask()

        yield work


@contextmanager
def frame(columns: int, rows: int, past: Past = PAST) -> Iterator[Work]:
    with watched(WORKERS * OPERATIONS * 3, 200, WORKERS, past) as one:
        snapshot = one.monitor.snapshot()
    yield lambda: overview(snapshot, (columns, rows))


# Alerts.


@contextmanager
def evaluation() -> Iterator[Work]:
    """Evaluate 1,000 rules with one instance each, a second after the last time."""
    with bench_alerts.evaluation(bench_alerts.rules(1, bench_alerts.HIGH)) as now:

        def work() -> None:
            now.one.clock.advance(1)
            now.one.monitor._collector.tick()
            now.evaluate()

        yield work


@contextmanager
def alert_inputs(past: Past = PAST) -> Iterator[Work]:
    """Read all metrics and findings from a Snapshot of five minutes."""
    with watched(WORKERS * OPERATIONS * 3, 200, WORKERS, past) as one:
        snapshot = one.monitor.snapshot()
    reader = LiveReader(lambda _window: iter([snapshot]))
    wanted = [Input(metric=name, window="5m" if metric.windowed else None) for name, metric in METRICS.items()]
    wanted += [Input(metric=kind, kind="finding") for kind in CONDITIONS]
    yield lambda: reader.inputs(wanted, 5.0)


@contextmanager
def line() -> Iterator[Work]:
    """Draw 64 lines through 240 points each: a forecast of the memory of as many workers."""
    points = [(float(second), 1e8 + second % 7) for second in range(-3600, 0, 15)]

    def work() -> None:
        for _ in range(64):
            fit(points)

    yield work


@contextmanager
def judging(bound: float) -> Iterator[Work]:
    """Judge 100 rules with ten instances each by what was read once."""
    with bench_alerts.evaluation(bench_alerts.rules(10, bound, 100), past=((1, 20, 5),)) as now:
        inputs = now.read()
        yield lambda: now.engine.step(inputs)


@contextmanager
def delivering() -> Iterator[Work]:
    """Tell a receiver that 1,000 alerts of as many groups fire, and that they have ended."""
    one = Deliveries(("alertname",), 1000)

    def work() -> None:
        for phase in (Phase.FIRING, Phase.RESOLVED):
            one.become(phase)
            one.arrive()
            one.wait(400.0)

    yield work


# Calls of a pool with one worker.


@contextmanager
def pool(turn: Callable[[Pool], Coroutine[Any, Any, object]], *, monitored: bool = False) -> Iterator[Work]:
    stack = AsyncExitStack()

    async def entered() -> Pool:
        one = await stack.enter_async_context(Pool(TARGET, name="benchmark", size=1))
        if monitored:
            await stack.enter_async_context(Monitor(one, config=NO_SOCKET))
        return one

    with asyncio.Runner() as runner:
        try:
            one = runner.run(entered())
            yield lambda: runner.run(turn(one))
        finally:
            runner.run(stack.aclose())


async def one_after_the_other(one: Pool) -> None:
    for _ in range(50):
        await one.run("echo", PAYLOAD)


async def at_once(one: Pool) -> None:
    await asyncio.gather(*(one.run("echo", PAYLOAD) for _ in range(500)))


async def mapped(one: Pool) -> None:
    async for _ in one.map("echo", range(500), in_flight=64):
        pass


def _of_events() -> Iterator[tuple[str, Piece]]:
    for text, work in {"execute": execute, "emit": emit, "guarded emit": guarded}.items():
        for handlers in (0, 1, 8):
            yield (
                f"{text}, {handlers} handler{'s' * (handlers != 1)}",
                Piece(partial(handled, work, handlers), 1000, "event", "interpreter"),
            )
    yield "span, 1 handler", Piece(partial(handled, span, 1), 200, "span", "interpreter")


PIECES: dict[str, Piece] = {
    **dict(_of_events()),
    "ingest": Piece(ingest, 1000, "call", "interpreter"),
    "ingest for advice": Piece(journalled, 1000, "call", "interpreter"),
    "history for advice": Piece(advice_history, 1, "history", "arrays"),
    "snapshot": Piece(partial(answer, "snapshot"), 1, "query", "arrays"),
    "range of 15 minutes": Piece(partial(answer, "range"), 1, "query", "arrays"),
    "summary of 15 minutes": Piece(partial(answer, "summary"), 1, "query", "arrays"),
    "error rates": Piece(partial(answer, "error_rates"), 1, "query", "arrays"),
    "Prometheus page": Piece(partial(answer, "page"), 1, "page", "interpreter"),
    "frame 80x24": Piece(partial(frame, 80, 24), 1, "frame", "interpreter"),
    "frame 160x50": Piece(partial(frame, 160, 50), 1, "frame", "interpreter"),
    "alert evaluation": Piece(evaluation, 1, "evaluation", "interpreter"),
    "alert inputs": Piece(alert_inputs, 1, "reading", "interpreter"),
    "alert delivery": Piece(delivering, 1000, "alert", "interpreter"),
    "alert lines": Piece(line, 64, "line", "interpreter"),
    "calls one after the other": Piece(partial(pool, one_after_the_other), 50, "call", "interpreter"),
    "calls at once": Piece(partial(pool, at_once), 500, "call", "interpreter"),
    "calls at once, monitored": Piece(partial(pool, at_once, monitored=True), 500, "call", "interpreter"),
    "items of a map": Piece(partial(pool, mapped), 500, "item", "interpreter"),
}
