"""Other metrics libraries, set up as their documentation says, doing what the collector does."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from benchmarks.calls import Done, Row
from benchmarks.turns import Turn

PROMETHEUS, OPENTELEMETRY = "prometheus_client", "opentelemetry-sdk"
MODULES = {PROMETHEUS: "prometheus_client", OPENTELEMETRY: "opentelemetry.sdk.metrics"}
LABELS = ("operation", "worker")


def installed(package: str) -> bool:
    try:
        import_module(MODULES[package])
    except ImportError:
        return False
    return True


class Prometheus:
    """Three histograms with the default 15 buckets and a counter per row, and a gauge of calls in flight."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        self.histograms = [
            Histogram(f"{name}_seconds", name, LABELS, registry=self.registry)
            for name in ("latency", "queue", "execution")
        ]
        self.counter = Counter("calls", "calls", (*LABELS, "outcome"), registry=self.registry)
        self.gauge = Gauge("under_way", "calls", LABELS, registry=self.registry)
        self._bound: dict[Row, tuple[Any, ...]] = {}

    def bound(self, row: Row) -> tuple[Any, ...]:
        """Return the functions to call for a call of *row*: three `observe`, one `inc`."""
        if row not in self._bound:
            observe = [histogram.labels(*row).observe for histogram in self.histograms]
            self._bound[row] = (*observe, self.counter.labels(*row, "ok").inc)
        return self._bound[row]

    def three_histograms(self, work: Sequence[Done]) -> Turn:
        return Turn(_observe_three, _nothing_of_seven, [(*self.bound(one.row), *one.seconds) for one in work])

    def one_histogram(self, work: Sequence[Done]) -> Turn:
        def needed(one: Done) -> tuple[Any, ...]:
            gauge = self.gauge.labels(*one.row)
            observe, *_, count = self.bound(one.row)
            return gauge.inc, gauge.dec, observe, count, one.seconds[0]

        return Turn(_observe_one, _nothing_of_five, [needed(one) for one in work])

    def with_labels(self, work: Sequence[Done]) -> Turn:
        latency, queue, execution = self.histograms
        counter = self.counter

        def run(work: Sequence[Any]) -> None:
            for operation, worker, one, two, three in work:
                latency.labels(operation, worker).observe(one)
                queue.labels(operation, worker).observe(two)
                execution.labels(operation, worker).observe(three)
                counter.labels(operation, worker, "ok").inc()

        return Turn(run, _nothing_of_five, [(*one.row, *one.seconds) for one in work])


class OpenTelemetry:
    """Three histograms and a counter, with attributes at every call: the library has no bound form."""

    def __init__(self, *, exponential: bool) -> None:
        from opentelemetry.sdk.metrics import Histogram, MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

        views = [View(instrument_type=Histogram, aggregation=ExponentialBucketHistogramAggregation())]
        self.reader = InMemoryMetricReader()
        meter = MeterProvider([self.reader], views=views if exponential else []).get_meter("benchmark")
        self.histograms = [meter.create_histogram(name, "s") for name in ("latency", "queue", "execution")]
        self.counter = meter.create_counter("calls")

    def three_histograms(self, work: Sequence[Done]) -> Turn:
        latency, queue, execution = (histogram.record for histogram in self.histograms)
        count = self.counter.add

        def run(work: Sequence[Any]) -> None:
            for operation, worker, one, two, three in work:
                attributes = {"operation": operation, "worker": worker}
                latency(one, attributes)
                queue(two, attributes)
                execution(three, attributes)
                count(1, {"operation": operation, "worker": worker, "outcome": "ok"})

        return Turn(run, _nothing_of_five, [(*one.row, *one.seconds) for one in work])


def _observe_three(work: Sequence[Any]) -> None:
    for latency, queue, execution, count, one, two, three in work:
        latency(one)
        queue(two)
        execution(three)
        count()


def _nothing_of_seven(work: Sequence[Any]) -> None:
    for _1, _2, _3, _4, _5, _6, _7 in work:
        pass


def _observe_one(work: Sequence[Any]) -> None:
    for begin, end, latency, count, one in work:
        begin()
        latency(one)
        count()
        end()


def _nothing_of_five(work: Sequence[Any]) -> None:
    for _1, _2, _3, _4, _5 in work:
        pass
