"""Inputs that a recording does not have, from the calls and figures that the history keeps.

What a service read is recorded exactly. A rule that it did not have may read something else: that is reconstructed here
where the history has it, by the same code that reads the past for a service. It is less exact: it is read once in a
step of the finest tier that reaches back to the beginning of the replay, and a metric of one moment is its mean over a
minute. Findings, and metrics whose past is not kept, cannot be reconstructed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from math import inf
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from pool_monitor.alerts.catalogue import METRICS, figure_of
from pool_monitor.alerts.inputs import Input, Inputs, Sample
from pool_monitor.alerts.instances import Instances
from pool_monitor.alerts.past import COURSES, Past
from pool_monitor.alerts.recording import Recorded
from pool_monitor.config import HistoryConfig
from pool_monitor.errors import ConfigError
from pool_monitor.storage import HistoryMetrics

if TYPE_CHECKING:
    from pool_monitor.metrics.gauges import TimedGauges
    from pool_monitor.metrics.recording import Recording
    from pool_monitor.snapshot import PoolSummary
    from pool_monitor.storage import Reader

TICK_S = 15.0
"""Seconds between two evaluations of a service that has recorded none, at least."""
_INSTANCES_S = 3600.0
"""Pools, operations and workers exist for so long after their last call."""


class Reconstruction(AbstractContextManager["Reconstruction"]):
    """Adds to recorded evaluations what is not in them of *wanted*, from the file that *reader* reads. Use it with
    ``with``, in a thread without an event loop.

    Bounded as `Past` is. What cannot be read becomes an error of the inputs.
    """

    def __init__(self, reader: Reader, wanted: Iterable[Input]) -> None:
        self._possible = sorted(filter(_is_kept, frozenset(wanted)), key=repr)
        self.used: set[Input] = set()
        """What was reconstructed."""
        self._reader = reader
        self._runner = asyncio.Runner()
        self._past: Past | None = None
        self._clock = _Clock()
        self._history: HistoryMetrics | None = None
        self._pools: dict[str, PoolSummary] = {}
        self._pools_at = -inf
        self.step = 0.0
        """Seconds between two readings of what is reconstructed; 0: nothing was."""

    def filled(self, recorded: Recorded) -> Recorded:
        """Return *recorded* with what can be reconstructed."""
        inputs = recorded.inputs
        missing = [one for one in self._possible if one not in inputs.samples and one not in inputs.errors]
        if not missing:
            return recorded
        self.used.update(missing)
        self._clock.at = inputs.at
        samples, errors = self._runner.run(self._read(missing, recorded.interval))
        whole = inputs._replace(samples={**inputs.samples, **samples}, errors={**inputs.errors, **errors})
        return recorded._replace(inputs=whole)

    async def _read(
        self, missing: Sequence[Input], interval: float
    ) -> tuple[dict[Input, tuple[Sample, ...]], dict[Input, str]]:
        if self._past is None:
            self._open(interval)
        past, history = self._past, self._history
        assert past is not None
        assert history is not None
        at = self._clock.at
        if not 0 <= at - self._pools_at < self.step:
            self._pools_at = at
            try:
                self._pools = (await history.summary(at - _INSTANCES_S, at)).pools
            except ConfigError:
                self._pools = {}
        await past.prepare(missing)
        await past.settled()
        resources = SimpleNamespace(host=None, process=None, loop=None)
        instances = Instances(cast("Any", SimpleNamespace(pools=self._pools, resources=resources)))
        samples: dict[Input, tuple[Sample, ...]] = {}
        errors: dict[Input, str] = {}
        for one in missing:
            try:
                samples[one] = past.samples(one, instances)
            except LookupError as error:
                errors[one] = str(error)
        return samples, errors

    def _open(self, interval: float) -> None:
        kept = self._reader.tiers()
        reaching = [tier for tier in kept if tier.reaches(self._clock.at - _INSTANCES_S)] or kept[-1:]
        self.step = max(float(reaching[0].step), interval)
        config = HistoryConfig(tiers=tuple((tier.step, kept[-1].retention) for tier in reaching))  # type: ignore[misc]
        self._history = HistoryMetrics(cast("Any", _File(self._reader, config)), self._clock)
        metrics = cast("Any", SimpleNamespace(since=inf))  # nothing is in memory
        self._past = Past(metrics, lambda: self._history, self._clock, self.step, config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()


def _is_kept(one: Input) -> bool:
    """Whether the history has what *one* reads."""
    metric = METRICS.get(one.metric)
    if metric is None or one.kind == "finding":
        return False
    if one.kind == "fit":
        return metric.name in COURSES or figure_of(metric.scope, metric.path) is not None
    return bool(metric.kept) and metric.scope not in ("monitor", "llm")


class _Clock:
    """The time of the evaluation that is replayed."""

    at = 0.0

    def monotonic_ns(self) -> int:
        return round(self.at * 1e9)

    wall_ns = monotonic_ns


class _File:
    """A history that nobody writes, as far as `HistoryMetrics` needs one. The reader stays in its thread."""

    def __init__(self, reader: Reader, config: HistoryConfig) -> None:
        self._reader, self.config = reader, config

    async def read(self, start: int, end: int, step: int) -> Recording:
        return self._reader.read(start, end, step)

    async def read_gauges(self, start: int, end: int, step: int) -> list[TimedGauges]:
        return self._reader.gauges(start, end, step)

    async def extent(self) -> tuple[int, int] | None:
        return self._reader.extent()


def without_recording(reader: Reader) -> Iterator[Recorded]:
    """Yield an evaluation without inputs every `TICK_S` or step of the time that the file has. For a file of a service
    that has not recorded any.
    """
    extent = reader.extent()
    if extent is None:
        return
    start, end = extent
    kept = reader.tiers()
    every = max(float(next((tier.step for tier in kept if tier.reaches(start)), kept[-1].step)), TICK_S)
    for number in range(1, int((end - start) / every) + 1):
        inputs = Inputs(start + number * every, every if number > 1 else 0.0, {}, covered=number * every)
        yield Recorded(inputs, number == 1, every, keeps_state=True)
