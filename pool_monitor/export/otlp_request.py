"""OTLP metrics: an ExportMetricsServiceRequest with the metrics that are exported to Prometheus (families.py).

A backend that converts the names to Prometheus gets the same names: ``pool_monitor.calls`` becomes
``pool_monitor_calls_total``, and ``pool_monitor.call_latency`` with unit ``s`` becomes
``pool_monitor_call_latency_seconds``. Attributes are called ``pool.name``, ``pool.operation``, ``pool.worker``,
``pool.outcome`` and so on.

Counters and histograms are cumulative, so a lost push loses no data. Percentiles of the window are left out, because a
backend computes percentiles from the histograms, for any time. The histograms are exponential, of scale 5, with our own
buckets. Our first bucket begins at 0, so it is the zero bucket, and ``zero_threshold`` is its upper edge. The last
bucket has no upper end: it has durations longer than 71 minutes, which ``pool_monitor.durations_clamped`` counts.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from pool_monitor.errors import ConfigError
from pool_monitor.export.families import families
from pool_monitor.export.family import PREFIX, Family, Histograms, Labels
from pool_monitor.metrics.histogram import FIRST_INDEX, SCALE
from pool_monitor.metrics.totals import Totals
from pool_monitor.snapshot import ServiceView, Snapshot
from pool_monitor.version import __version__

Attribute: TypeAlias = str | bool | int | float

ZERO_THRESHOLD: float = 2 ** ((FIRST_INDEX + 1) / 2**SCALE)
"""Upper edge of our first bucket, in seconds."""

_CUMULATIVE = 2
_LEFT_OUT = ("start_time_seconds", "service_info")  # pool_info stays: a pool is no resource
"""Metrics that the resource and the times of the points make superfluous."""
_SINCE_UNKNOWN = (
    "restarts_total",
    "completed_calls_total",
    "refusals_total",
    "retries_refused_total",
    "worker_restarts_total",
    "host_oom_kills_total",
    *(f"worker_{what}_total" for what in ("cpu_time_seconds", "read_bytes", "written_bytes")),
)
"""Counters that pools or the kernel keep. They may have begun before the monitor, so their start is unknown."""
_ATTRIBUTES = {
    "pool": "pool.name",
    "session": "pool.session.kind",
    "category": "error.type",
    "resource": "host.pressure.resource",
    **{label: f"fault.{label}" for label in ("kind", "subject", "level")},
    "gpu": "gpu.index",
    "name": "gpu.name",
    "uuid": "gpu.uuid",
}
"""Attributes of labels. The attribute of any other label is ``pool.`` and its name."""
_SUFFIXES = {"_seconds": "s", "_bytes": "By", "_ratio": "1", "_celsius": "Cel", "_watts": "W"}
_THINGS = (
    *((word, "{call}") for word in ("calls", "errors", "refusals")),
    *((word, "{process}") for word in ("deaths", "restarts", "recycles")),
    *((f"{thing}s", f"{{{thing}}}") for thing in ("worker", "session", "event", "duration", "viewer", "block")),
    *((f"{thing}s", f"{{{thing}}}") for thing in ("transition", "check", "line", "message")),
    *((f"{thing}s", f"{{{thing}}}") for thing in ("thread", "task", "cpu")),
    *((word, "{process}") for word in ("processes", "oom_kills", "children", "zombies")),
    ("fds", "{descriptor}"),
    ("retries", "{retry}"),
    ("crash_loops", "{worker}"),
    ("series", "{series}"),
)
"""Units of metrics that count something: the unit of the first word that the name contains."""
_STEP_US, _NUMBER_US, _HISTOGRAM_US = 2_000, 4, 22
"""Duration of one step of encoding, and what a point of a number and of a histogram takes, in µs."""


def encode(snapshot: Snapshot, totals: Totals, resource_attributes: Mapping[str, Attribute] | None = None) -> bytes:
    """The encoded request. Raises ConfigError when opentelemetry-proto is not installed."""
    steps = encoded_in_steps(snapshot, totals, resource_attributes)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return bytes(done.value)


def encoded_in_steps(
    snapshot: Snapshot, totals: Totals, resource_attributes: Mapping[str, Attribute] | None = None
) -> Generator[None, None, bytes]:
    """`encode` in steps of a few milliseconds, so that the event loop can run between them."""
    proto = Proto()
    request = proto.Request()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.extend(proto.attributes(resource(snapshot.service, resource_attributes or {})))
    of_scope = of_resource.scope_metrics.add()
    of_scope.scope.name, of_scope.scope.version = "pool_monitor", __version__
    times = {"time_unix_nano": _ns(max(totals.at, totals.since)), "start_time_unix_nano": _ns(totals.since)}
    spent = 0
    for family in families(snapshot, totals):
        name = family.name.removeprefix(PREFIX)
        if not _wanted(name, family):
            continue
        metric = of_scope.metrics.add(description=family.help, **_named(name))
        if isinstance(family, Histograms):
            costs = _histogram_points(proto, metric, family, times)
        else:
            costs = _number_points(proto, metric, family, times)
        for cost in costs:
            spent += cost
            if spent > _STEP_US:
                yield
                spent = 0
    yield
    return bytes(request.SerializeToString())


def _wanted(name: str, family: Family | Histograms) -> bool:
    """Whether the metric has known numbers, and is neither in `_LEFT_OUT` nor a percentile."""
    if isinstance(family, Histograms):
        return bool(family.labels)
    known = any(number is not None for _labels, numbers in family.series for number in numbers)
    return known and name not in _LEFT_OUT and family.label != "percentile"


def resource(service: ServiceView, more: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """The attributes of the resource: those of the service, and *more*, which replaces attributes of the same name."""
    return {
        "service.name": service.name,
        # Two processes must never write the same series, so the service's name alone is not enough.
        "service.instance.id": f"{service.host}-{service.pid}",
        "host.name": service.host,
        "process.pid": service.pid,
        "process.runtime.version": service.python,
        **more,
    }


class Proto:
    """The message types of opentelemetry-proto, which is imported when the first `Proto` is made.

    Raises ConfigError when opentelemetry-proto is not installed.
    """

    def __init__(self) -> None:
        try:
            common = importlib.import_module("opentelemetry.proto.common.v1.common_pb2")
            service = importlib.import_module("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
            self.DecodeError = importlib.import_module("google.protobuf.message").DecodeError
        except ImportError as error:
            raise ConfigError(
                f"OTLP needs opentelemetry-proto ({error}); install it with: pip install 'pool-monitor[otlp]'"
            ) from error
        self._pair, self._value = common.KeyValue, common.AnyValue
        self.Request, self.Response = service.ExportMetricsServiceRequest, service.ExportMetricsServiceResponse

    def attributes(self, pairs: Mapping[str, Attribute]) -> list[Any]:
        return [self._pair(key=key, value=self._any(value)) for key, value in pairs.items()]

    def of_labels(self, labels: Iterable[tuple[str, str]]) -> list[Any]:
        return self.attributes({_ATTRIBUTES.get(name, f"pool.{name}"): value for name, value in labels})

    def _any(self, value: Attribute) -> Any:
        kinds = {bool: "bool_value", int: "int_value", float: "double_value"}
        return self._value(**{kinds.get(type(value), "string_value"): value})


def _named(name: str) -> dict[str, str]:
    """Name and unit of a metric, from its Prometheus name."""
    name = name.removesuffix("_total")
    for suffix, unit in _SUFFIXES.items():
        if name.endswith(suffix):
            return {"name": f"pool_monitor.{name.removesuffix(suffix)}", "unit": unit}
    unit = next((unit for word, unit in _THINGS if word in name), "")
    return {"name": f"pool_monitor.{name}", "unit": unit}


def _number_points(proto: Proto, metric: Any, family: Family, times: dict[str, int]) -> Generator[int, None, None]:
    if family.is_counter:
        metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, _CUMULATIVE
        points = metric.sum.data_points
        if family.name.removeprefix(PREFIX) in _SINCE_UNKNOWN:
            times = {"time_unix_nano": times["time_unix_nano"]}
    else:
        points, times = metric.gauge.data_points, {"time_unix_nano": times["time_unix_nano"]}
    created: Sequence[float | None] = family.created or [None] * len(family.series)
    label_sets: list[Labels] = [((family.label, value),) if family.label else () for value in family.values]
    by_value = [proto.of_labels(labels) for labels in label_sets]
    for (labels, numbers), since in zip(family.series, created, strict=True):
        shared = proto.of_labels(labels)
        of_series = _since(times, since)
        for own, number in zip(by_value, numbers, strict=True):
            if number is not None:
                kind = "as_int" if isinstance(number, int) else "as_double"
                points.add(attributes=[*shared, *own], **{kind: number}, **of_series)
        yield _NUMBER_US * len(numbers)


def _histogram_points(
    proto: Proto, metric: Any, family: Histograms, times: dict[str, int]
) -> Generator[int, None, None]:
    metric.exponential_histogram.aggregation_temporality = _CUMULATIVE
    points = metric.exponential_histogram.data_points
    created: Sequence[float | None] = family.created or [None] * len(family.labels)
    for labels, counts, total, since in zip(family.labels, family.counts, family.sums, created, strict=True):
        used = np.flatnonzero(counts)
        point = points.add(
            attributes=proto.of_labels(labels),
            count=int(counts.sum()),
            sum=total,
            scale=SCALE,
            zero_threshold=ZERO_THRESHOLD,
            **_since(times, since),
        )
        if family.first == 0:
            point.zero_count = int(counts[0])
            used = used[used > 0]
        if len(used):
            start, end = int(used[0]), int(used[-1]) + 1
            point.positive.offset = FIRST_INDEX + family.first + start
            point.positive.bucket_counts.extend(counts[start:end].tolist())
        yield _HISTOGRAM_US


def _since(times: dict[str, int], created: float | None) -> dict[str, int]:
    """*times*, with the start of a series that began to count at *created*, if that is known."""
    if created is None or "start_time_unix_nano" not in times:
        return times
    return {**times, "start_time_unix_nano": min(_ns(created), times["time_unix_nano"])}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
