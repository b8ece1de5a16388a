"""Gets the number of a metric, and the calls that it is from, from the view of an instance."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

from pool_monitor.alerts.catalogue import Metric
from pool_monitor.snapshot import CallStats

ABSENT = object()
"""There is no such thing: a part of the view is None, such as the history of a monitor without one."""
_OF_CALLS = frozenset({*CallStats.__struct_fields__, "rejected_ratio"})


class Getters(NamedTuple):
    """Functions of a view."""

    value: Callable[[Any], Any]
    """Returns the number; None: it is unknown; `ABSENT`."""
    calls: Callable[[Any], int] | None
    """Returns the calls that it is from; None: it is not from calls."""


@cache
def getters(metric: Metric) -> Getters:
    """Return the getters of *metric*, for views of the Snapshot."""
    return Getters(_value_getter(metric), calls_getter(metric))


def _value_getter(metric: Metric) -> Callable[[Any], Any]:
    path = metric.path
    if metric.scope in ("pool", "operation", "worker"):
        return attrgetter(".".join(path))  # no part of these views may be missing

    def value(view: Any) -> Any:
        for name in path[:-1]:
            view = getattr(view, name)
            if view is None:
                return ABSENT
        return getattr(view, path[-1])

    return value


def calls_getter(metric: Metric) -> Callable[[Any], int] | None:
    """Return what gets the calls of a view, or of a pool's or operation's summary; None: there are none."""
    path = metric.path
    base = path[:1] if path[0] == "total" else ()
    field, *statistic = path[len(base) :]
    if metric.scope not in ("pool", "operation", "worker") or field not in _OF_CALLS:
        return None
    if statistic:
        return attrgetter(".".join((*base, field, "count")))
    calls: Callable[[Any], int] = attrgetter(".".join((*base, "calls")))
    if field not in ("rejected", "rejected_ratio"):
        return calls
    rejected = attrgetter(".".join((*base, "rejected")))
    return lambda view: calls(view) + rejected(view)  # refused calls are not among the calls
