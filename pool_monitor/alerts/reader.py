"""Reads what rules need: the present from Snapshots, the past from memory or the history.

All rules that use a metric share one reading of it: one pass over the instances of a Snapshot. There is one Snapshot
for each window that rules use, and it is dropped when it has been read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from pool_monitor.alerts.catalogue import find
from pool_monitor.alerts.found import FindingReader
from pool_monitor.alerts.getters import ABSENT, getters
from pool_monitor.alerts.inputs import Input, Inputs, Sample, Samples
from pool_monitor.alerts.instances import Instances
from pool_monitor.alerts.past import Past, is_past
from pool_monitor.alerts.rule import DEFAULT_WINDOW
from pool_monitor.metrics import WINDOWS

if TYPE_CHECKING:
    from pool_monitor.snapshot import Snapshot


_ROUNDING_S = 1e-6


class InputReader(Protocol):
    """Reads what rules need, once for each evaluation."""

    async def prepare(self, wanted: Iterable[Input]) -> None:
        """Begin to read what takes long. Never raises for an input that fails."""

    def reading(self, wanted: Iterable[Input], elapsed: float) -> Iterator[Inputs | None]:
        """Read all *wanted* now. Yields None where the caller may let others work, and the inputs last."""

    async def close(self) -> None:
        """End what `prepare` has begun. The reader can still be used."""


class LiveReader:
    """Reads inputs from what a monitor knows now.

    *snapshot* makes the Snapshot of a window: it yields None where others may work, and the Snapshot last. *past* reads
    what lies in the past; None: such inputs are errors. It keeps nothing of a Snapshot; `Past` has a bound of its own.
    """

    def __init__(self, snapshot: Callable[[str], Iterator[Snapshot | None]], past: Past | None = None) -> None:
        self._snapshot, self._past = snapshot, past
        self._findings = FindingReader()
        self._measured_since = 0.0
        """The uptime since which there has been no gap."""

    async def prepare(self, wanted: Iterable[Input]) -> None:
        """Read what of *wanted* lies in the past, from memory or the history. Never raises for an input that fails:
        it becomes an error of the result. Waits for a slow disk at most `past.PATIENCE_S`; after that, what was read
        before is used for as long as it is not too old.
        """
        if self._past is not None:
            await self._past.prepare([one for one in wanted if is_past(one)])

    async def close(self) -> None:
        """End what `prepare` has begun. The reader can still be used."""
        if self._past is not None:
            await self._past.close()

    def inputs(self, wanted: Iterable[Input], elapsed: float) -> Inputs:
        """Read all *wanted* now. Does not block."""
        *_, found = self.reading(wanted, elapsed)
        assert found is not None
        return found

    def reading(self, wanted: Iterable[Input], elapsed: float) -> Iterator[Inputs | None]:
        """Do what `inputs` does. Yields None where the caller may let others work, and the inputs last."""
        past: list[Input] = []
        by_window: dict[str, list[Input]] = {}
        for one in wanted:
            if is_past(one):
                past.append(one)
            else:
                by_window.setdefault(one.window or DEFAULT_WINDOW, []).append(one)
        samples: dict[Input, Samples] = {}
        errors: dict[Input, str] = {}
        since: list[float] = []
        # The longest window comes last: it has the operations of all, for the inputs of the past.
        for window in [name for name in WINDOWS if name in by_window] or [DEFAULT_WINDOW]:
            made = None
            for made in self._snapshot(window):  # noqa: B007
                yield None
            assert made is not None
            instances = Instances(made)
            since.append(self._since(made))
            for one in by_window.pop(window, ()):
                try:
                    samples[one] = Samples(self._samples(one, instances))
                except LookupError as error:
                    errors[one] = str(error)
            yield None
        errors |= {one: f"there is no window {window!r:.20}" for window, some in by_window.items() for one in some}
        self._measured_since = min(since)
        for one in past:
            try:
                if self._past is None:
                    raise LookupError("the past is not read here")
                samples[one] = self._past.samples(one, instances)
            except LookupError as error:
                errors[one] = str(error)
        snapshot = instances.snapshot
        yield Inputs(snapshot.taken_at, elapsed, samples, max(snapshot.uptime - self._measured_since, 0.0), errors)

    def _samples(self, one: Input, instances: Instances) -> Iterable[Sample]:
        if one.kind == "finding":
            return self._findings.samples(one.metric, instances.snapshot)
        metric = find(one.metric)
        value_of, calls_of = getters(metric)
        found = []
        for labels, view in instances.of(metric.scope):
            value = value_of(view)
            if value is not ABSENT:
                calls = None if calls_of is None else calls_of(view)
                found.append(Sample(labels, None if value is None else float(value), calls))
        return found

    def _since(self, snapshot: Snapshot) -> float:
        """Return the uptime since which *snapshot* knows of no gap. A full window knows of none in itself."""
        window, covered = WINDOWS[snapshot.window], snapshot.covered_seconds
        since = snapshot.uptime - covered
        return since if covered < window.seconds - window.step - _ROUNDING_S else min(self._measured_since, since)
