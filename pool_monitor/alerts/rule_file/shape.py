"""What follows from the kind of a rule: the labels of its instances, the unit of its value, the rules it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pool_monitor.alerts.catalogue import LABELS_OF, METRICS, Unit
from pool_monitor.alerts.rule import (
    AlertFires,
    AllOf,
    AnyOf,
    Condition,
    FindingIs,
    Forecast,
    Kind,
    Not,
    RateOfChange,
    SloBurn,
    Threshold,
)
from pool_monitor.findings import VALUES

Path = tuple[str | int, ...]
"""The keys that lead to a place in a rule, such as ``("all", 1, "alert")``."""
LabelNames = frozenset[str]
INSTANCE_LABELS: LabelNames = frozenset().union(*LABELS_OF.values(), ("finding",))
"""Every label that an instance may have."""
TWO_LEVELS = ("warning", "critical")
"""The severities of the kinds that know two by themselves: findings and objectives."""


def conditions(kind: Kind) -> Iterator[tuple[Path, Condition]]:
    """Yield every condition of a composite rule that has none within it, with its place."""
    match kind:
        case AllOf() | AnyOf():
            name = "all" if isinstance(kind, AllOf) else "any"
            for index, one in enumerate(kind.conditions):
                yield from (((name, index, *path), leaf) for path, leaf in _leaves(one))
        case Not():
            yield from ((("not", *path), leaf) for path, leaf in _leaves(kind.condition))


def _leaves(condition: Condition) -> Iterator[tuple[Path, Condition]]:
    if isinstance(condition, AllOf | AnyOf | Not):
        yield from conditions(condition)
    else:
        yield (), condition


def alerts_named(kind: Kind) -> Iterator[tuple[Path, str]]:
    """Yield the names of the rules that *kind* depends on, with their places."""
    for path, leaf in conditions(kind):
        if isinstance(leaf, AlertFires):
            yield (*path, "alert"), leaf.alert


def instance_labels(kind: Kind, of_alert: Callable[[str], LabelNames | None]) -> LabelNames | None:
    """Return the names of the labels that the instances of *kind* have; None if that is not known.

    *of_alert* returns those of another rule, by name.
    """
    found: LabelNames = frozenset()
    for _, leaf in conditions(kind) if isinstance(kind, AllOf | AnyOf | Not) else [((), kind)]:
        names = _labels_of(leaf, of_alert)
        if names is None:
            return None
        found |= names
    return found


def _labels_of(kind: Kind | Condition, of_alert: Callable[[str], LabelNames | None]) -> LabelNames | None:
    match kind:
        case AlertFires():
            return of_alert(kind.alert)
        case FindingIs():
            return frozenset(("pool", "worker", "finding") if len(kind.kinds) > 1 else ("pool", "worker"))
        case SloBurn():
            return frozenset(("pool",) if kind.operation is None else ("pool", "operation"))
        case AllOf() | AnyOf() | Not():
            return instance_labels(kind, of_alert)
        case _:
            return frozenset(METRICS[kind.metric].labels)


def unit_of(kind: Kind) -> Unit:
    """Return the unit of the value that an alert of *kind* has.

    A rate of change has a share; an objective the factor by which its budget burns too fast; a forecast the time that
    is left; a composite rule the value of its first condition on a metric; a finding its own number, which has no unit
    if the rule reads findings with different ones.
    """
    match kind:
        case RateOfChange():
            return "ratio"
        case Forecast():
            return "s"
        case SloBurn():
            return ""
        case FindingIs():
            units: set[Unit] = {VALUES.get(one, "") for one in kind.kinds}
            return units.pop() if len(units) == 1 else ""
        case AllOf() | AnyOf() | Not():
            first = next((leaf for _, leaf in conditions(kind) if isinstance(leaf, Threshold)), None)
            return "" if first is None else METRICS[first.metric].unit
        case _:
            return METRICS[kind.metric].unit
