"""Designs that count ended calls in histograms, each as small as possible, compared on the same calls.

All get the calls from `call_events.ended`. The designs that fold in bulk count into the package's windows. The others
have dense arrays or dictionaries instead, which is to their advantage.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import turns
from benchmarks.calls import POOL, Row, attached, done, emit_ended, rows_of, skip_all
from benchmarks.tables import Table
from pool_monitor import telemetry
from pool_monitor.clock import SystemClock
from pool_monitor.events import OPERATION_STOP
from pool_monitor.metrics import Collector
from pool_monitor.metrics.columns import DISTRIBUTIONS, TALLIES
from pool_monitor.metrics.fold import code_of, fold
from pool_monitor.metrics.histogram import BUCKETS, FIRST_INDEX, SCALE, bucket_of
from pool_monitor.metrics.window import Windows
from pool_monitor.telemetry import EventName, HandlerFunction, Measurements, Metadata, Record

SERIES, ROUNDS, CALLS = (20, 200, 960), 15, 1000
FIELDS = len(DISTRIBUTIONS)


class Design:
    """A handler for the calls of *rows*, which are counted after `fold`."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = {row: number for number, row in enumerate(rows)}

    def attach(self) -> None:
        telemetry.attach("design", OPERATION_STOP.name, self.handle, bind=self.bind)

    def detach(self) -> None:
        telemetry.detach("design")

    def bind(self, pool: str, operation: str, worker: str, session_kind: str, pool_instance: str) -> Record:
        raise NotImplementedError

    def handle(self, name: EventName, measurements: Measurements, metadata: Metadata, config: Any) -> None:
        raise NotImplementedError

    def fold(self) -> None:
        raise NotImplementedError

    def counted(self) -> int:
        """Return the number of durations in the histograms."""
        raise NotImplementedError


class InBulk(Design):
    """One flat list of numbers for all series, folded at once."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self.buffer: list[Any] = []
        self.windows = Windows(0, len(rows), 1, 1 << 30)
        self.pool_of_rows = np.zeros(len(rows), np.intp)

    def bind(self, _pool: str, operation: str, worker: str, _session_kind: str, _pool_instance: str) -> Record:
        code, extend = code_of(self.rows[operation, worker]), self.buffer.extend
        return lambda duration, queue, execution: extend((code, duration, queue, execution))

    def fold(self) -> None:
        self.windows.add(0, fold(self.buffer, self.pool_of_rows, 1))
        self.buffer.clear()

    def counted(self) -> int:
        return int(self.windows.open.sums.counts.sum())


class Mappings(InBulk):
    """As `InBulk`, with the mappings that any handler gets."""

    def attach(self) -> None:
        codes = {row: code_of(number) for row, number in self.rows.items()}
        extend = self.buffer.extend

        def handle(_name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
            extend(
                (
                    codes[metadata["operation"], metadata["worker"]],
                    measurements["duration"],
                    measurements["queue_duration"],
                    measurements["execution_duration"],
                )
            )

        function: HandlerFunction = handle
        telemetry.attach("design", OPERATION_STOP.name, function)


class Tuples(InBulk):
    """One list with a tuple per call, folded at once."""

    def bind(self, _pool: str, operation: str, worker: str, _session_kind: str, _pool_instance: str) -> Record:
        code, append = code_of(self.rows[operation, worker]), self.buffer.append
        return lambda duration, queue, execution: append((code, duration, queue, execution))

    def fold(self) -> None:
        self.windows.add(0, fold(list(chain.from_iterable(self.buffer)), self.pool_of_rows, 1))
        self.buffer.clear()


class Dense(Design):
    """Histograms, counts, sums and maxima of all series as dense arrays."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self.counts = np.zeros((len(rows), FIELDS, BUCKETS), np.int32)
        self.tallies = np.zeros((len(rows), TALLIES), np.int64)
        self.maxima = np.zeros((len(rows), FIELDS), np.int64)

    def add(self, row: int, times: NDArray[np.int64]) -> None:
        np.add.at(self.counts[row], (np.arange(FIELDS), bucket_of(times)), np.int32(1))
        self.tallies[row, 0] += len(times)
        self.tallies[row, 1 : 1 + FIELDS] += times.sum(axis=0)
        np.maximum(self.maxima[row], times.max(axis=0), out=self.maxima[row])

    def counted(self) -> int:
        return int(self.counts.sum())


class PerSeries(Dense):
    """A list of numbers for each series, folded one by one."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self.buffers: list[list[int]] = [[] for _ in rows]

    def bind(self, _pool: str, operation: str, worker: str, _session_kind: str, _pool_instance: str) -> Record:
        extend = self.buffers[self.rows[operation, worker]].extend
        return lambda *numbers: extend(numbers)

    def fold(self) -> None:
        for row, buffer in enumerate(self.buffers):
            if buffer:
                self.add(row, np.array(buffer).reshape(-1, FIELDS))
                buffer.clear()


class AtOnceWithNumpy(Dense):
    """Folds each call at once, with the functions that fold in bulk."""

    def bind(self, _pool: str, operation: str, worker: str, _session_kind: str, _pool_instance: str) -> Record:
        row, add = self.rows[operation, worker], self.add
        return lambda *numbers: add(row, np.array([numbers]))

    def fold(self) -> None:
        pass


class AtOnce(Design):
    """Folds each call at once, in pure Python."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self.counts: list[list[dict[int, int]]] = [[{} for _ in range(FIELDS)] for _ in rows]
        self.sums = [[0] * FIELDS for _ in rows]
        self.maxima = [[0] * FIELDS for _ in rows]

    def bind(self, _pool: str, operation: str, worker: str, _session_kind: str, _pool_instance: str) -> Record:
        row = self.rows[operation, worker]
        histograms, sums, maxima = self.counts[row], self.sums[row], self.maxima[row]
        log2, ceil, per_octave = math.log2, math.ceil, 1 << SCALE

        def record(*numbers: int) -> None:
            for at, number in enumerate(numbers):
                bucket = ceil(log2(number / 1e9) * per_octave) - 1 - FIRST_INDEX
                histogram = histograms[at]
                histogram[bucket] = histogram.get(bucket, 0) + 1
                sums[at] += number
                if number > maxima[at]:
                    maxima[at] = number

        return record

    def fold(self) -> None:
        pass

    def counted(self) -> int:
        return sum(sum(histogram.values()) for row in self.counts for histogram in row)


class AsBuilt(Design):
    """The collector itself. It also handles time, new names, invalid numbers and the timelines of the last minutes."""

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self.collector = Collector([POOL], SystemClock())

    def attach(self) -> None:
        self.collector.attach()

    def detach(self) -> None:
        self.collector.detach()

    def fold(self) -> None:
        self.collector.tick()

    def counted(self) -> int:
        return int(self.collector.totals().counts.sum())


DESIGNS: dict[str, Callable[[Sequence[Row]], Design]] = {
    "numbers, one flat list, folded in bulk": InBulk,
    "mappings, one flat list, folded in bulk": Mappings,
    "numbers, one list of tuples, folded in bulk": Tuples,
    "numbers, a list per series, folded per series": PerSeries,
    "numbers, folded at once in Python": AtOnce,
    "numbers, folded at once with numpy": AtOnceWithNumpy,
    "the collector": AsBuilt,
}
BASE = next(iter(DESIGNS))


def table(rounds: int = ROUNDS, calls: int = CALLS) -> Table:
    costs = {series: measure(series, rounds, calls) for series in SERIES}
    rows = []
    for name in DESIGNS:
        cells = [name]
        for column in costs.values():
            all_in = [sum(pair) for pair in column[name]]
            ratio = turns.ratio(all_in, [sum(pair) for pair in column[BASE]])
            blocking = statistics.median(blocked for blocked, _ in column[name])
            cells += [f"{ratio:.2f}", f"{blocking:,.0f}", f"{statistics.median(all_in):,.0f}"]
        rows.append(cells)
    head = [[f"{series} series: times", "blocking ns", "all in ns"] for series in SERIES]
    return Table(
        "ways to count a call",
        f"What a call costs the code that ends it, with all of `call_events.ended` (blocking), and with the folding of "
        f"{calls:,} calls at a time as well (all in). Times: all in, compared with the first row. Windows do not move "
        f"on. Calls come in random order. Median of {rounds} rounds.",
        ["", *chain.from_iterable(head)],
        rows,
    )


def measure(series: int, rounds: int, calls: int) -> dict[str, list[tuple[float, float]]]:
    """Return ns per call of every design in each round: blocking, folding."""
    rows = rows_of(series)
    work = done(rows, calls)
    designs = {name: make(rows) for name, make in DESIGNS.items()}
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in designs}
    for _, name in turns.in_turns(list(designs), rounds, f"designs, {series} series"):
        design = designs[name]
        with attached(design):
            emit_ended(work)
            design.fold()
            loop_ns = turns.cpu_ns(partial(skip_all, work))
            blocking_ns = turns.cpu_ns(partial(emit_ended, work)) - loop_ns
            folding_ns = turns.cpu_ns(design.fold)
        costs[name].append((blocking_ns / calls, folding_ns / calls))
    return costs
