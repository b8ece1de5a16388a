"""The levels of a threshold: bounds that are fixed or relative, and hysteresis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.evaluation.baseline import Baseline
from pool_monitor.alerts.evaluation.memory import About, Memory
from pool_monitor.alerts.evaluation.plan import each, read, value_of
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels, Sample
from pool_monitor.alerts.rule import Absolute, Bound, OfLimit, OwnBaseline, Threshold


class _Product(NamedTuple):
    """A bound as a number times what it is relative to."""

    factor: float
    of: int
    """A place in the list of what bounds are relative to: 1, the limit, and then baselines."""


class _Level(NamedTuple):
    bound: _Product
    clear: _Product | None


class Levels:
    """The levels of *threshold*, ready to judge samples. *name* tells apart what is remembered of two of one rule.

    A level is reached beyond its bound. Once reached, it is left beyond its clear bound; without one, back at its
    bound. An instance has the highest level that is reached. A bound is unknown if it is relative to something that is
    unknown or not above 0; then the instance has what other levels say, and without that it is unknown.
    """

    def __init__(self, threshold: Threshold, min_samples: int, name: str = "") -> None:
        self._input = Input(metric=threshold.metric, window=threshold.window)
        self.what = f"{threshold.metric} {threshold.window or ''} {'above' if threshold.above else 'below'}{name}"
        self._above = threshold.above
        self._min_samples = min_samples
        self._limit: Input | None = None
        self._windows: list[float] = []
        self._levels = [_Level(self._product(one.bound), self._clear(one.clear)) for one in threshold.levels]
        self._latching = any(level.clear is not None for level in self._levels)
        self._fixed = [one.bound.value for one in threshold.levels if isinstance(one.bound, Absolute)]
        self.reads = frozenset({self._input} | ({self._limit} if self._limit else set()))

    def _clear(self, bound: Bound | None) -> _Product | None:
        return None if bound is None else self._product(bound)

    def _product(self, bound: Bound) -> _Product:
        match bound:
            case Absolute(value=value):
                return _Product(value, 0)
            case OfLimit(ratio=ratio):
                limit = METRICS[self._input.metric].limit
                assert limit is not None, "the checker refuses this"
                self._limit = Input(metric=limit)
                return _Product(ratio, 1)
            case OwnBaseline(times=times, seconds=seconds):
                if seconds not in self._windows:
                    self._windows.append(seconds)
                return _Product(times, 2 + self._windows.index(seconds))

    def judge(self, samples: Iterable[Sample], inputs: Inputs, memory: Memory) -> list[Judgement]:
        """Return a judgement for each of *samples*."""
        if not (self._limit or self._windows):
            return self._judge_fixed(samples, inputs, memory)
        if self._limit is None:
            return [self._judge_one(sample, None, inputs, memory) for sample in samples]
        pairs = each(samples, read(inputs, self._limit))
        return [self._judge_one(sample, limit and value_of(limit, 0), inputs, memory) for sample, limit in pairs]

    def _judge_fixed(self, samples: Iterable[Sample], inputs: Inputs, memory: Memory) -> list[Judgement]:
        """Judge by bounds that depend on nothing. Most rules have such bounds, and most values are not bad."""
        found = []
        latching, latches = self._latching, memory.latches
        above, least, bounds = self._above, self._min_samples, self._fixed
        first = bounds[0]
        for sample in samples:
            value = value_of(sample, least)
            if value is None:
                found.append(Judgement(sample.labels, None))
            elif (value <= first if above else value >= first) and not (latches and sample.labels in latches):
                found.append(Judgement(sample.labels, 0, value, "", first))
            elif latching:
                found.append(self._judge_one(sample, None, inputs, memory))
            else:
                level = sum([value > bound if above else value < bound for bound in bounds])
                found.append(Judgement(sample.labels, level, value, "", bounds[level - 1]))
        return found

    def _judge_one(self, sample: Sample, limit: float | None, inputs: Inputs, memory: Memory) -> Judgement:
        value = value_of(sample, self._min_samples)
        if value is None:
            return Judgement(sample.labels, None)
        baselines = [self._baseline(seconds, sample.labels, memory) for seconds in self._windows]
        of = [1.0, limit, *(baseline.median if baseline else None for baseline in baselines)]
        held = memory.held(self.what, sample.labels)
        level, bound = self._level(value, held, of)
        if level is not None and self._latching:
            memory.hold(self.what, sample.labels, level)
        if inputs.elapsed > 0:
            for baseline in baselines:
                if baseline and baseline.learn(value, inputs.elapsed, bad=bool(level)):
                    memory.learned()
        return Judgement(sample.labels, level, value, "", bound)

    def _level(self, value: float, held: int, of: list[float | None]) -> tuple[int | None, float | None]:
        """Return the highest level that is reached, and its bound, or that of the first level."""
        unknown = False
        bound: float | None = None
        for level in range(len(self._levels), 0, -1):
            one = self._levels[level - 1]
            bound = _bound(one.bound, of)
            clear = bound if one.clear is None else _bound(one.clear, of)
            if bound is None or clear is None:
                unknown = True
            elif _beyond(value, bound, self._above) or (
                level <= held and one.clear is not None and not _beyond(clear, value, self._above)
            ):
                return level, bound
        return None if unknown else 0, bound

    def _baseline(self, seconds: float, instance: Labels, memory: Memory) -> Baseline | None:
        about = About(f"{self.what} {seconds:g}", instance)
        return memory.baselines.get_or_make(about, lambda: Baseline(seconds))


def _beyond(value: float, bound: float, above: bool) -> bool:
    return value > bound if above else value < bound


def _bound(product: _Product, of: list[float | None]) -> float | None:
    base = of[product.of]
    return product.factor * base if base is not None and base > 0 else None
