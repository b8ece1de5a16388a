"""Rules of the kinds all, any and not: conditions that are combined, in a logic with three values.

A condition is true, false or unknown. ``all`` is false where one condition is false, and else unknown where one is
unknown. ``any`` is true where one is true, and else unknown where one is unknown. What is unknown stays so under
``not``.

Two sorts of conditions differ in what their instances are:

- A condition on a metric has an instance wherever there is a value, good or bad. One that is not there is unknown.
- A finding, and an alert of another rule, are there only while they are true. One that is not there is false.

The instances of the rule are those of the conditions on metrics, of those with the most labels. Another such condition
is looked up by the labels that it has: ``pool.waiting`` of the pool of the operation. A finding or an alert is true
where one is there whose labels agree, as far as both have them. Without a condition on a metric, the instances are
those of the findings and alerts that are there, and one without labels if there are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.evaluation.levels import Levels
from pool_monitor.alerts.evaluation.memory import Memory
from pool_monitor.alerts.evaluation.plan import Firing, Matching, joined, read
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels
from pool_monitor.alerts.rule import AlertFires, AllOf, AnyOf, CheckedRule, Condition, FindingIs, Not, Threshold

Truth = bool | None


class _Answer(NamedTuple):
    """What one condition says about one instance."""

    truth: Truth
    value: float | None = None


_UNKNOWN, _FALSE = _Answer(None), _Answer(truth=False)
Ask = Callable[[Labels], _Answer]


class _Leaf(Protocol):
    """One condition that is not made of others."""

    reads: frozenset[Input]
    labels: frozenset[str] | None
    """The labels of its instances; None: they are there only while it is true."""

    def ask(self, inputs: Inputs, memory: Memory, firing: Firing) -> tuple[Iterable[Labels], Ask]:
        """Return the instances, and a function that answers for any instance of the rule."""
        ...


class _Measured:
    def __init__(self, kind: Threshold, min_samples: int, name: str) -> None:
        self._levels = Levels(kind, min_samples, name)
        self._input = Input(metric=kind.metric, window=kind.window)
        self.reads = self._levels.reads
        self.labels: frozenset[str] | None = frozenset(METRICS[kind.metric].labels)

    def ask(self, inputs: Inputs, memory: Memory, firing: Firing) -> tuple[Iterable[Labels], Ask]:  # noqa: ARG002
        judged = self._levels.judge(read(inputs, self._input), inputs, memory)
        found = {one.labels: _Answer(None if one.level is None else one.level > 0, one.value) for one in judged}
        names = self.labels
        assert names is not None

        def ask(instance: Labels) -> _Answer:
            return found.get(instance if len(instance) == len(names) else joined(instance, names), _UNKNOWN)

        return found, ask


class _Found:
    labels: frozenset[str] | None = None

    def __init__(self, kind: FindingIs) -> None:
        self._inputs = [Input(metric=one, kind="finding") for one in kind.kinds]
        self.reads = frozenset(self._inputs)

    def ask(self, inputs: Inputs, memory: Memory, firing: Firing) -> tuple[Iterable[Labels], Ask]:  # noqa: ARG002
        there = {sample.labels: sample.value for one in self._inputs for sample in read(inputs, one)}
        return there, _agreeing(there)


class _Fires:
    labels: frozenset[str] | None = None
    reads: frozenset[Input] = frozenset()

    def __init__(self, kind: AlertFires) -> None:
        self._alert = kind.alert

    def ask(self, inputs: Inputs, memory: Memory, firing: Firing) -> tuple[Iterable[Labels], Ask]:  # noqa: ARG002
        there = dict.fromkeys(firing(self._alert))
        return there, _agreeing(there)


def _agreeing(there: Mapping[Labels, float | None]) -> Ask:
    """Return a function that answers whether one of *there* agrees with an instance, with the value of the first one.

    They are looked up by the labels that both have. To compare each instance with each of them would hold the event
    loop for seconds where thousands meet thousands.
    """
    groups = _by_names(there)
    if not groups:
        return lambda _: _FALSE
    places = {one: place for place, one in enumerate(there)}
    indexes: dict[tuple[str, ...], list[tuple[frozenset[str], dict[Labels, Labels]]]] = {}

    def ask(instance: Labels) -> _Answer:
        names = _names(instance)
        index = indexes.get(names)
        if index is None:
            index = indexes[names] = [_first_by(frozenset(names).intersection(of), some) for of, some in groups.items()]
        agreeing = [first[key] for shared, first in index if (key := joined(instance, shared)) in first]
        return _Answer(truth=True, value=there[min(agreeing, key=places.__getitem__)]) if agreeing else _FALSE

    return ask


def _names(labels: Labels) -> tuple[str, ...]:
    return tuple([name for name, _ in labels])


def _by_names(instances: Iterable[Labels]) -> dict[tuple[str, ...], list[Labels]]:
    """Return *instances* by the names of their labels."""
    groups: dict[tuple[str, ...], list[Labels]] = {}
    for one in instances:
        groups.setdefault(_names(one), []).append(one)
    return groups


def _first_by(names: frozenset[str], instances: Iterable[Labels]) -> tuple[frozenset[str], dict[Labels, Labels]]:
    """Return *names*, and the first of *instances* for each combination of the values of these labels."""
    first: dict[Labels, Labels] = {}
    for one in instances:
        first.setdefault(joined(one, names), one)
    return names, first


Combine = Callable[[Sequence[_Answer]], Truth]


def all_of(truths: Iterable[Truth]) -> Truth:
    found = list(truths)
    return False if False in found else None if None in found else True


def any_of(truths: Iterable[Truth]) -> Truth:
    found = list(truths)
    return True if True in found else None if None in found else False


def negated(truth: Truth) -> Truth:
    return None if truth is None else not truth


class CompositePlan:
    """Combines what conditions say. See the top of the file. The value of a judgement is that of the first condition on
    a metric; without one, of the first finding that has one.
    """

    def __init__(self, rule: CheckedRule, kind: AllOf | AnyOf | Not) -> None:
        self._min_samples = rule.min_samples
        self._leaves: list[_Leaf] = []
        self._looks: Counter[tuple[str, str | None, bool]] = Counter()
        self._combine = self._prepare(kind)
        self._matching = Matching(rule.match)
        most = max((len(leaf.labels) for leaf in self._leaves if leaf.labels is not None), default=None)
        self._leading = [
            place for place, leaf in enumerate(self._leaves) if leaf.labels is not None and len(leaf.labels) == most
        ]
        """The conditions whose instances are those of the rule."""
        self._shown = next(
            (slice(at, at + 1) for at, leaf in enumerate(self._leaves) if leaf.labels is not None), slice(None)
        )
        self.reads = frozenset(one for leaf in self._leaves for one in leaf.reads)

    def _prepare(self, condition: Condition) -> Combine:
        """Return a function that combines the answers of the leaves below *condition*."""
        match condition:
            case AllOf(conditions=conditions):
                every = [self._prepare(one) for one in conditions]
                return lambda answers: all_of(one(answers) for one in every)
            case AnyOf(conditions=conditions):
                some = [self._prepare(one) for one in conditions]
                return lambda answers: any_of(one(answers) for one in some)
            case Not(condition=inner):
                one = self._prepare(inner)
                return lambda answers: negated(one(answers))
        place = len(self._leaves)
        self._leaves.append(self._leaf(condition))
        return lambda answers: answers[place].truth

    def _leaf(self, condition: Threshold | FindingIs | AlertFires) -> _Leaf:
        match condition:
            case Threshold():
                return _Measured(condition, self._min_samples, self._name(condition))
            case FindingIs():
                return _Found(condition)
            case AlertFires():
                return _Fires(condition)

    def _name(self, condition: Threshold) -> str:
        """Return what tells *condition* apart from others that look at the same. It stays when conditions are put into
        another order.
        """
        same = (condition.metric, condition.window, condition.above)
        self._looks[same] += 1
        return f" {self._looks[same]}"

    def judge(self, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:
        asked = [leaf.ask(inputs, memory, firing) for leaf in self._leaves]
        asks = [ask for _, ask in asked]
        if self._leading:
            instances = dict.fromkeys(instance for place in self._leading for instance in asked[place][0])
            return [self._judge_one(one, asks) for one in instances if self._matching(one)]
        there = dict.fromkeys(instance for instances, _ in asked for instance in instances)
        known = [*_most_labels(there), *memory.holding(_ITSELF)] or [()]
        judged = [self._judge_one(one, asks) for one in dict.fromkeys(known) if self._matching(one)]
        for one in judged:
            memory.hold(_ITSELF, one.labels, one.level or 0)
        return judged

    def _judge_one(self, instance: Labels, asks: Sequence[Ask]) -> Judgement:
        answers = [ask(instance) for ask in asks]
        truth = self._combine(answers)
        value = next((answer.value for answer in answers[self._shown] if answer.value is not None), None)
        return Judgement(instance, None if truth is None else int(truth), value)


_ITSELF = "itself"
"""What is remembered of a rule without a condition on a metric: at which instances it was true. They are good, and not
unknown, when the findings and alerts are there no more."""


def _most_labels(instances: Collection[Labels]) -> list[Labels]:
    """Return *instances* without those whose labels are a part of another's."""
    groups = _by_names(instances)
    parts = {
        joined(one, frozenset(names))
        for names in groups
        for more, some in groups.items()
        if frozenset(names) < frozenset(more)
        for one in some
    }
    return [one for one in instances if one not in parts]
