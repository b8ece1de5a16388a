"""What all kinds of rules share: how a rule is made ready, how it finds its instances, which values are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from pool_monitor.alerts.evaluation.memory import Memory
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels, Sample, Samples
from pool_monitor.alerts.pattern import LabelMatch
from pool_monitor.alerts.rule import Matcher

Firing = Callable[[str], Iterable[Labels]]
"""Returns the instances at which the rule of a name fires. Rules that others name are evaluated before them."""


class NotRead(LookupError):
    """An input that a rule needs was not read. The text says why."""


class Plan(Protocol):
    """A rule that was made ready to be evaluated often."""

    reads: frozenset[Input]
    """What has to be read."""

    def judge(self, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:
        """Return a judgement for each instance. Raises NotRead."""
        ...


def read(inputs: Inputs, one: Input) -> Samples:
    """Return the samples of *one*. Raises NotRead."""
    try:
        found = inputs.samples[one]
    except KeyError:
        raise NotRead(inputs.errors.get(one) or f"{one.metric} was not read") from None
    return found if isinstance(found, Samples) else Samples(found)


def value_of(sample: Sample, min_samples: int) -> float | None:
    """Return the value of *sample*; None where it is unknown, no number, or from fewer calls than *min_samples*."""
    value = sample.value
    if value is None or (sample.calls is not None and sample.calls < min_samples) or not math.isfinite(value):
        return None
    return value


class Matching:
    """Which instances the matchers of a rule choose. What it found is kept for as long as the instances stay."""

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self._matchers, self._match = matchers, LabelMatch(matchers)
        self._seen: tuple[Labels, ...] = ()
        self._chosen: tuple[int, ...] = ()

    def __call__(self, instance: Labels) -> bool:
        return self._match(dict(instance))

    def choose(self, samples: Samples) -> Iterable[Sample]:
        """Return the samples whose instances match."""
        if not self._matchers:
            return samples
        instances = samples.instances
        if instances is not self._seen:
            self._seen = instances
            self._chosen = tuple([place for place, instance in enumerate(instances) if self(instance)])
        return [samples[place] for place in self._chosen]


def joined(instance: Labels, names: frozenset[str]) -> Labels:
    """Return the labels of *instance* that are in *names*."""
    return tuple([pair for pair in instance if pair[0] in names])


def each(samples: Iterable[Sample], beside: Samples) -> Iterator[tuple[Sample, Sample | None]]:
    """Yield each of *samples* with the one of the same instance in *beside*."""
    found = beside.by_labels
    for sample in samples:
        yield sample, found.get(sample.labels)
