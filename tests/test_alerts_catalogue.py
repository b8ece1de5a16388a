"""The metrics of rules: each is a number of the Snapshot's types, with a unit."""

from __future__ import annotations

from types import NoneType
from typing import get_args, get_type_hints

import pytest
from msgspec import Struct

from pool_monitor.alerts.catalogue import LIMITS, METRICS, NO_METRICS, UNITS, VIEWS, find
from pool_monitor.errors import UnknownName


def _numeric_fields(view: type[Struct], names: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The numbers of a view, found without the catalogue."""
    found: list[tuple[str, ...]] = []
    hints = get_type_hints(view)
    for name in view.__struct_fields__:
        kinds = [kind for kind in (get_args(hints[name]) or (hints[name],)) if kind is not NoneType]
        if len(kinds) == 1 and kinds[0] in (int, float):
            found.append((*names, name))
        elif len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], Struct):
            found += _numeric_fields(kinds[0], (*names, name))
    return found


@pytest.mark.parametrize("scope", VIEWS)
def test_every_number_of_a_view_is_a_metric_or_is_known_to_be_none(scope: str) -> None:
    names = [tuple(name for name in path if name != "total") for path in _numeric_fields(VIEWS[scope])]  # type: ignore[index]
    undecided = [
        ".".join(path) for path in names if not NO_METRICS & {*path} and ".".join((scope, *path)) not in METRICS
    ]
    assert undecided == [], "decide their units in catalogue.UNITS, or name them in NO_METRICS"


def test_no_unit_and_no_limit_is_of_a_metric_that_does_not_exist() -> None:
    fields = {metric.path[-1] for metric in METRICS.values()}
    assert [name for name in UNITS if name not in fields and name not in METRICS] == []
    assert [name for pair in LIMITS.items() for name in pair if name not in METRICS] == []
    assert all(METRICS[name].unit == METRICS[limit].unit for name, limit in LIMITS.items())


@pytest.mark.parametrize(
    ("name", "unit", "windowed"),
    [
        ("pool.waiting", "count", False),
        ("pool.error_ratio", "ratio", True),
        ("pool.utilisation", "ratio", False),
        ("pool.rate", "/s", True),
        ("pool.queue.p95", "s", True),
        ("operation.latency.p99", "s", True),
        ("worker.rss", "bytes", False),
        ("worker.busy_ratio", "ratio", True),
        ("host.memory_ratio", "ratio", False),
        ("host.pressure.memory", "ratio", False),
        ("process.gc_pause", "s", True),
        ("loop.lag.p99", "s", True),
        ("loop.blocked", "s", False),
        ("monitor.dropped", "count", False),
        ("monitor.history.dropped", "s", False),
    ],
)
def test_units_and_windows(name: str, unit: str, windowed: bool) -> None:
    assert (METRICS[name].unit, METRICS[name].windowed) == (unit, windowed)


def test_the_fields_of_total_are_metrics_of_the_pool() -> None:
    assert "pool.latency.p95" in METRICS
    assert not [name for name in METRICS if ".total" in name]


def test_texts_flags_and_identifiers_are_no_metrics() -> None:
    assert not METRICS.keys() & {"pool.state", "worker.pid", "process.pid", "pool.shares_name", "host.cgroup"}


def test_every_metric_has_a_meaning_of_one_sentence() -> None:
    meanings = {name: metric.meaning for name, metric in METRICS.items()}
    assert [name for name, meaning in meanings.items() if not meaning.endswith(".") or "``" in meaning] == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("pool.eror_ratio", "pool.error_ratio"),
        ("error_ratio", "operation.error_ratio"),
        ("pools.rate", "pool.rate"),
        ("worker.latency.p59", "worker.latency.p95"),
        ("pool.total.rate", "pool.rate"),
        ("x" * 10_000, "rules metrics"),
    ],
)
def test_an_unknown_metric_is_refused_with_the_nearest_ones(name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=near) as caught:
        find(name)
    assert len(str(caught.value)) < 400
