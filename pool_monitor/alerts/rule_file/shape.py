"""What follows from the kind of a rule: the labels of its instances, the unit of its value, the rules it depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pool_monitor.alerts.catalogue import LABELS_OF, METRICS, Unit
from pool_monitor.alerts.rule import (
    Absence,
    AlertFires,
    AllOf,
    Anomaly,
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
INSTANCE_LABELS: LabelNames = frozenset().union(*LABELS_OF.values(), ("finding", "service"))
"""Every label that an instance may have; ``service`` is of a watch."""
SERVICE_FINDINGS = frozenset(("service_gone", "service_frozen", "service_stale"))
"""What ``pool-monitor watch`` finds. A service cannot find it in itself."""
TWO_LEVELS = ("warning", "critical")
"""The severities of the kinds that know two by themselves: findings and objectives."""


def leaves(kind: Kind | Condition) -> Iterator[tuple[Path, Kind | Condition]]:
    """Yield every condition within *kind* that has none within it, with its place. A kind that has none is the only
    one.
    """
    match kind:
        case AllOf() | AnyOf():
            name = "all" if isinstance(kind, AllOf) else "any"
            for index, one in enumerate(kind.conditions):
                yield from (((name, index, *path), leaf) for path, leaf in leaves(one))
        case Not():
            yield from ((("not", *path), leaf) for path, leaf in leaves(kind.condition))
        case _:
            yield (), kind


def alerts_named(kind: Kind) -> Iterator[tuple[Path, str]]:
    """Yield the names of the rules that *kind* depends on, with their places."""
    for path, leaf in leaves(kind):
        if isinstance(leaf, AlertFires):
            yield (*path, "alert"), leaf.alert


def instance_labels(kind: Kind | Condition, of_alert: Callable[[str], LabelNames | None]) -> LabelNames | None:
    """Return the names of the labels that the instances of *kind* have; None if that is not known.

    *of_alert* returns those of another rule, by name.
    """
    found: LabelNames = frozenset()
    for _, leaf in leaves(kind):
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
            if SERVICE_FINDINGS.issuperset(kind.kinds):
                return frozenset(("service",))
            return frozenset(("pool", "worker", "finding") if len(kind.kinds) > 1 else ("pool", "worker"))
        case SloBurn():
            return frozenset(("pool",) if kind.operation is None else ("pool", "operation"))
        case Threshold() | RateOfChange() | Anomaly() | Absence() | Forecast():
            return frozenset(METRICS[kind.metric].labels)
    raise AssertionError(f"{kind!r:.80} has conditions within it")


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
            first = next((leaf for _, leaf in leaves(kind) if isinstance(leaf, Threshold)), None)
            return "" if first is None else METRICS[first.metric].unit
        case _:
            return METRICS[kind.metric].unit
