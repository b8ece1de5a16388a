"""The metrics that rules may name, drawn from the types of the Snapshot."""

from __future__ import annotations

from typing import Literal, NamedTuple

Unit = Literal["s", "bytes", "ratio", "/s", "count", ""]
"""Seconds, bytes, a share from 0 to 1, a rate per second, a number of things, or a number without a unit."""
Scope = Literal["pool", "operation", "worker", "host", "process", "loop", "monitor", "llm"]

LABELS_OF: dict[Scope, tuple[str, ...]] = {
    "pool": ("pool",),
    "operation": ("operation", "pool"),
    "worker": ("pool", "worker"),
    "host": (),
    "process": (),
    "loop": (),
    "monitor": (),
    "llm": ("pool",),
}
"""The labels of the instances of a scope, in order."""


class Metric(NamedTuple):
    """One number of the Snapshot."""

    name: str
    """Such as ``operation.latency.p95``."""
    scope: Scope
    unit: Unit
    windowed: bool
    """Whether it covers a window. Otherwise it is of the moment of the Snapshot."""
    meaning: str = ""
    limit: str | None = None
    """The metric that is its limit, such as ``worker.rss_limit`` of ``worker.rss``."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of its instances."""
        return LABELS_OF[self.scope]


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("operation.error_ratio", "operation", "ratio", windowed=True),
        Metric("pool.error_ratio", "pool", "ratio", windowed=True),
        Metric("pool.rate", "pool", "/s", windowed=True),
        Metric("pool.waiting", "pool", "count", windowed=False, limit="pool.queue_limit"),
        Metric("pool.queue_limit", "pool", "count", windowed=False),
        Metric("pool.utilisation", "pool", "ratio", windowed=False),
    )
}
"""Every metric, by name."""
