"""Reads what rules need from Snapshots, from memory and from the history."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.inputs import Input, Inputs, Labels, Sample, Samples
from pool_monitor.alerts.rule import DEFAULT_WINDOW

if TYPE_CHECKING:
    from pool_monitor.snapshot import PoolDetail, Snapshot


class LiveReader:
    """Reads inputs from what a monitor knows now."""

    def __init__(self, snapshot: Callable[[str], Snapshot]) -> None:
        self._snapshot = snapshot

    async def prepare(self, wanted: Iterable[Input]) -> None:
        """Read what of *wanted* lies in the past, from memory or the history. Never raises for an input that fails:
        it becomes an error of the result.
        """

    def inputs(self, wanted: Iterable[Input], elapsed: float) -> Inputs:
        """Read all *wanted* now. Does not block."""
        snapshots: dict[str, Snapshot] = {}
        samples: dict[Input, tuple[Sample, ...]] = {}
        for one in wanted:
            window = one.window or DEFAULT_WINDOW
            if window not in snapshots:
                snapshots[window] = self._snapshot(window)
            samples[one] = Samples(_samples(one, snapshots[window]))
        any_of = next(iter(snapshots.values()), None) or self._snapshot(DEFAULT_WINDOW)
        return Inputs(any_of.taken_at, elapsed, samples, any_of.uptime)


def _samples(one: Input, snapshot: Snapshot) -> Iterator[Sample]:
    metric = METRICS[one.metric]
    path = one.metric.split(".")[1:]
    for labels, view in _instances(metric.scope, snapshot):
        value: Any = view
        for name in path:
            value = getattr(value, name, None)
        yield Sample(labels, None if value is None else float(value), getattr(view, "calls", None))


def _instances(scope: str, snapshot: Snapshot) -> Iterator[tuple[Labels, Any]]:
    for name, pool in snapshot.pools.items():
        if scope == "pool":
            yield (("pool", name),), _Pool(pool)
        elif scope == "operation":
            for operation, view in pool.operations.items():
                yield (("operation", operation), ("pool", name)), view


class _Pool:
    """A pool, with the statistics of its calls as attributes of its own."""

    def __init__(self, pool: PoolDetail) -> None:
        self._views = (pool, pool.total)

    def __getattr__(self, name: str) -> Any:
        return next((getattr(view, name) for view in self._views if hasattr(view, name)), None)
