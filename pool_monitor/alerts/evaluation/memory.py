"""What the evaluation of one rule keeps from one evaluation to the next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from pool_monitor.alerts.detectors import DETECTORS, AnomalyDetector
from pool_monitor.alerts.evaluation.baseline import Baseline, BaselineState
from pool_monitor.alerts.inputs import Labels

BASELINES = 1000
"""Most baselines of a rule: 7 MB."""
SERIES = 256
"""Most series with a detector, of a rule: 10 MB."""
LATCHED = 10_000
"""Most instances of a rule whose levels are remembered."""
SEEN = 1000
"""Most instances that a rule remembers to have been there."""
LEARNED_EVERY_S = 300.0
"""Seconds of counted time between two versions of a memory that differ only in what was learned."""

V = TypeVar("V")


class About(NamedTuple):
    """What something is remembered of."""

    what: str
    """What is looked at: such as a metric, its window and the side that is bad. It is no number, so that a rule whose
    conditions change finds what it knew of those that stay, and nothing else."""
    instance: Labels


class Remembered(Generic[V]):
    """Values by what they are about. Bounded to *most*: the one that was not used for longest gives way. One that was
    used in this evaluation or the one before does not give way; then a further one is not kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.turn = 0
        """The number of the evaluation."""
        self._items: OrderedDict[About, tuple[int, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[tuple[About, V]]:
        return iter([(about, value) for about, (_, value) in self._items.items()])

    def get(self, about: About) -> V | None:
        """Return what is known about *about*, and note that it was used."""
        found = self._items.get(about)
        if found is None:
            return None
        if found[0] != self.turn:
            self._items[about] = (self.turn, found[1])
            self._items.move_to_end(about)
        return found[1]

    def put(self, about: About, value: V) -> bool:
        """Keep *value*. Return False where there is no room for it."""
        if about not in self._items and len(self._items) >= self.most:
            oldest = next(iter(self._items))
            if self._items[oldest][0] >= self.turn - 1:
                return False
            del self._items[oldest]
        self._items[about] = (self.turn, value)
        self._items.move_to_end(about)
        return True

    def get_or_make(self, about: About, make: Callable[[], V]) -> V | None:
        """Return what is known about *about*, or else what *make* returns, and keep it. None: there is no room."""
        found = self.get(about)
        if found is None:
            found = make()
            return found if self.put(about, found) else None
        return found

    def drop(self, about: About) -> None:
        self._items.pop(about, None)


class Watch(NamedTuple):
    """A detector on one series."""

    detector: AnomalyDetector
    name: str
    """Of the table of detectors."""
    every: float


class Memory:
    """What one rule knows of earlier evaluations: levels that hold, baselines, detectors, instances that were there.

    Bounded by the constants of the module. Its time is the sum of `Inputs.elapsed`.
    """

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds of counted time, of all evaluations."""
        self.version = 0
        """Grows when `dump` has something new to store: at once for levels and instances; at most each
        `LEARNED_EVERY_S` for what baselines and detectors have learned."""
        self.latches: dict[Labels, dict[str, int]] = {}
        """The levels above 0 that instances have, where the level before matters; by what is looked at."""
        self.baselines: Remembered[Baseline] = Remembered(BASELINES)
        self.watches: Remembered[Watch] = Remembered(SERIES)
        self.seen: Remembered[float] = Remembered(SEEN)
        """When instances were last there, in the time of `now`."""
        self.prepared: tuple[object, Any] = (None, None)
        """The rule that was evaluated last, and what `evaluate` made of it. Not stored."""
        self._learned = False
        self._versioned_at = 0.0

    def begin(self, elapsed: float) -> None:
        """Begin an evaluation, *elapsed* seconds after the one before."""
        self.now += elapsed
        self.baselines.turn += 1
        self.watches.turn += 1
        self.seen.turn += 1
        if self._learned and self.now - self._versioned_at >= LEARNED_EVERY_S:
            self.changed()

    def changed(self) -> None:
        """Make a new version."""
        self.version += 1
        self._versioned_at = self.now
        self._learned = False

    def learned(self) -> None:
        """Make a new version soon."""
        self._learned = True

    def held(self, what: str, instance: Labels) -> int:
        """Return the level that *instance* had; 0: none, or not known."""
        levels = self.latches.get(instance)
        return levels.get(what, 0) if levels else 0

    def hold(self, what: str, instance: Labels, level: int) -> None:
        """Remember that *instance* has *level*. Where there are too many, what was remembered first gives way."""
        if level == self.held(what, instance):
            return
        if level:
            if instance not in self.latches and len(self.latches) >= LATCHED:
                del self.latches[next(iter(self.latches))]
            self.latches.setdefault(instance, {})[what] = level
        else:
            levels = self.latches[instance]
            del levels[what]
            if not levels:
                del self.latches[instance]
        self.changed()

    def holding(self, what: str) -> list[Labels]:
        """Return the instances that have a level."""
        return [instance for instance, levels in self.latches.items() if what in levels]

    def forget(self, instance: Labels) -> None:
        """Forget the levels of *instance*. For when its alert has ended: a new one begins at the bound again."""
        if self.latches.pop(instance, None):
            self.changed()

    def dump(self) -> dict[str, Any]:
        """Return the memory as plain values, for `restore`: numbers, texts, lists and dicts."""
        plain: dict[str, Any] = msgspec.to_builtins(
            _Saved(
                now=self.now,
                latches=[(what, of, level) for of, levels in self.latches.items() for what, level in levels.items()],
                baselines=[(*about, one.seconds, one.saved()) for about, one in self.baselines],
                watches=[(*about, one.name, one.every, one.detector.state()) for about, one in self.watches],
                seen=[(*about, at) for about, at in self.seen],
            )
        )
        return plain

    def restore(self, saved: Any) -> None:
        """Take over what `dump` returned, also through JSON. Raises ValueError for anything else; then nothing has
        changed. Detectors that are not in the table any more are left out.
        """
        found = msgspec.convert(saved, _Saved)
        baselines = [(About(what, of), Baseline(seconds, state)) for what, of, seconds, state in found.baselines]
        watches = [
            (About(what, of), _watch(name, every, state))
            for what, of, name, every, state in found.watches
            if name in DETECTORS
        ]
        new = Memory()
        new.now = new._versioned_at = found.now
        for what, instance, level in found.latches:
            new.latches.setdefault(instance, {})[what] = level
        for about, baseline in baselines:
            new.baselines.put(about, baseline)
        for about, watch in watches:
            new.watches.put(about, watch)
        for what, instance, at in found.seen:
            new.seen.put(About(what, instance), at)
        vars(self).update(vars(new))


def _watch(name: str, every: float, state: Any) -> Watch:
    detector = DETECTORS[name](every=every)
    detector.restore(state)
    return Watch(detector, name, every)


_Text = Annotated[str, Meta(max_length=2000)]
_Instance = Annotated[tuple[tuple[_Text, _Text], ...], Meta(max_length=20)]
_Seconds = Annotated[float, Meta(ge=0, le=1e12)]
_Positive = Annotated[float, Meta(gt=0, le=1e12)]


class _Saved(Struct, forbid_unknown_fields=True):
    """A memory outside of it."""

    now: _Seconds
    latches: Annotated[list[tuple[_Text, _Instance, Annotated[int, Meta(ge=1, le=100)]]], Meta(max_length=LATCHED * 10)]
    baselines: Annotated[list[tuple[_Text, _Instance, _Positive, BaselineState]], Meta(max_length=BASELINES)]
    watches: Annotated[list[tuple[_Text, _Instance, _Text, _Seconds, Any]], Meta(max_length=SERIES)]
    seen: Annotated[list[tuple[_Text, _Instance, _Seconds]], Meta(max_length=SEEN)]
