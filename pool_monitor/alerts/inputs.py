"""What one evaluation reads and what it decides. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple

from msgspec import Struct

Labels = tuple[tuple[str, str], ...]
"""Pairs of name and value, ordered by name. The labels of an instance: those of its scope, such as pool."""

InputKind = Literal["value", "calls", "fit", "finding"]


class Input(Struct, frozen=True, kw_only=True, cache_hash=True):
    """One thing to read, for every instance that has it. Seconds, except *window*."""

    metric: str
    """A metric of the catalogue, such as ``pool.error_ratio``; of the kind ``finding``, the kind of the finding."""
    kind: InputKind = "value"
    """- ``value``: the value of the metric over *window*, which ended *back* seconds ago.
    - ``calls``: calls and failed calls in the last *over* seconds: `Sample.value` is the share of failed calls.
    - ``fit``: a straight line through the last *over* seconds of the metric: see `Sample.more`.
    - ``finding``: the findings of a kind.
    """
    window: str | None = None
    """``1m``, ``5m``, ``15m`` or ``1h``; None for a metric of one moment."""
    back: float = 0.0
    over: float = 0.0


class Sample(NamedTuple):
    """What an input had for one instance."""

    labels: Labels
    value: float | None
    """In the base unit of the metric. None: unknown."""
    calls: int | None = None
    """Calls that the value is from; None: it is not from calls."""
    more: tuple[float, ...] = ()
    """Of a fit: slope per second, standard error of the slope, share of the variance that the line explains, points.
    Of ``calls``: calls, failed calls, and for how many of the *over* seconds they were measured. Of a finding: its
    level (1 warn, 2 bad), and its limit if it has one."""
    note: str = ""
    """Of a finding: its reason, or its names."""


class Samples(tuple[Sample, ...]):  # noqa: SLOT001 - what is cached needs a place
    """The samples of one input. What all rules need to know of them is computed once for all."""

    @cached_property
    def instances(self) -> tuple[Labels, ...]:
        """The labels of each. The same object as long as the instances and their order stay the same."""
        return _the_same(tuple([sample.labels for sample in self]))

    @cached_property
    def by_labels(self) -> dict[Labels, Sample]:
        return {sample.labels: sample for sample in self}


@lru_cache(maxsize=64)  # a few scopes; where instances come and go, all of these are different
def _the_same(instances: tuple[Labels, ...]) -> tuple[Labels, ...]:
    """Return the first tuple that was equal to *instances*, so that rules compare identities."""
    return instances


_NO_ERRORS: Mapping[Input, str] = MappingProxyType({})


class Inputs(NamedTuple):
    """Everything that one evaluation reads."""

    at: float
    """Wall-clock time, seconds since the epoch."""
    elapsed: float
    """Seconds since the evaluation before, as far as they count. 0 for the first, and after a gap."""
    samples: Mapping[Input, tuple[Sample, ...]]
    """An input without an entry was not read. An instance without a sample does not exist now.
    Readers give `Samples`."""
    covered: float = 0.0
    """For how many seconds the monitor has measured without a gap: windows reach back no further."""
    errors: Mapping[Input, str] = _NO_ERRORS
    """Why an input could not be read."""


class Judgement(NamedTuple):
    """What one evaluation says about one instance of a rule."""

    labels: Labels
    level: int | None
    """0: not bad; n: the n-th level of the rule is reached, and all below it; None: unknown."""
    value: float | None = None
    """The value that was judged."""
    note: str = ""
    """For the placeholders ``{reason}`` of rules that read findings."""
    limit: float | None = None
    """The bound that was judged against, of the level reached, or of the first one."""


def labels_of(pairs: Mapping[str, str]) -> Labels:
    """Return *pairs* as `Labels`."""
    return tuple(sorted(pairs.items()))
