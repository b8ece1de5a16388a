"""The exported metrics, their labels, and the sources of their numbers. Prometheus and OTLP share them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import get_args

from pool_monitor.events import SESSION_KINDS
from pool_monitor.export.alert_families import alert_families
from pool_monitor.export.family import (
    PERCENTILES,
    PREFIX,
    Family,
    Histograms,
    Labels,
    Number,
    family_of,
    labels,
    percentiles,
    read_family,
)
from pool_monitor.export.resource_families import resource_families
from pool_monitor.export.tuning_families import tuning_families
from pool_monitor.metrics.columns import BY_CATEGORY, CATEGORIES, DEATHS, OUTCOMES, by_session_kind
from pool_monitor.metrics.event_counters import by_counter
from pool_monitor.metrics.failure_histograms import FailureDurations
from pool_monitor.metrics.series import OTHER
from pool_monitor.metrics.totals import Totals
from pool_monitor.snapshot import Breaker, CallStats, Health, MonitorMode, PoolDetail, PoolState, Snapshot

REASONS = ("saturated", "deadline", "timeout", "circuit_open", "closed")
"""Reasons of refusals that are exported from the start, as 0: a counter that begins at 1 hides its first increase."""
STATES = ("busy", "idle", "starting", "draining", "dead")


def families(snapshot: Snapshot, totals: Totals) -> Iterator[Family | Histograms]:
    """Every metric, also metrics that have no series now.

    The label ``pool`` identifies a pool. A pool that shares its name with another also has ``pool_instance``.
    """
    shared = {pool.name: pool.instance for pool in snapshot.pools.values() if pool.shares_name}
    for family in _families(snapshot, totals):
        yield _with_instances(family, shared) if shared else family


def _with_instances(family: Family | Histograms, instances: Mapping[str, str | None]) -> Family | Histograms:
    """*family* with the label ``pool_instance`` on the series of the pools that *instances* names."""
    extra = {labels(pool=name)[0]: labels(pool_instance=instance) for name, instance in instances.items()}

    def more(found: Labels) -> Labels:
        return (*found, *(pair for label in found for pair in extra.get(label, ())))

    if isinstance(family, Histograms):
        return replace(family, labels=[more(found) for found in family.labels])
    return family._replace(series=[(more(found), numbers) for found, numbers in family.series])


def _families(snapshot: Snapshot, totals: Totals) -> Iterator[Family | Histograms]:
    yield from _counted(totals)
    yield from _occurred(totals)
    yield from _distributions(totals)
    yield from _windowed(snapshot)
    yield from _pools(list(snapshot.pools.values()))
    yield from _workers(snapshot)
    yield from resource_families(snapshot, totals)
    yield from alert_families(snapshot)
    yield from tuning_families(snapshot)
    yield from _monitor(snapshot)


# -- since the monitor was entered ------------------------------------------------------------------------------------


def _counted(totals: Totals) -> Iterator[Family]:
    rows = [
        (place, labels(pool=pool, operation=name, worker=worker))
        for place, (pool, name, worker) in enumerate(totals.names.rows)
        if _is_used(totals, place)
    ]
    places = [place for place, _of in rows]
    born = () if totals.born is None else totals.born[places].tolist()
    yield family_of(
        "calls_total",
        "Calls that ended, by outcome; calls that never reached a worker have no worker label.",
        zip((of for _place, of in rows), totals.outcomes[places].tolist(), strict=True),
        "outcome",
        OUTCOMES,
        born,
    )
    if totals.busy is not None:
        yield family_of(
            "busy_seconds_total",
            "Time that calls spent on workers, with any outcome.",
            zip((of for _place, of in rows), (totals.busy[places, None] / 1e9).tolist(), strict=True),
            created=born,
        )
    pools = [labels(pool=pool) for pool in totals.names.pools]
    by_kind = by_session_kind(totals.pool_sums)
    yield family_of(
        "session_calls_total",
        "Calls that ended, by the affinity of their session.",
        (
            ((*pool, ("session", kind)), counts)
            for pool, kinds in zip(pools, by_kind.tolist(), strict=True)
            for kind, counts in zip(SESSION_KINDS, kinds, strict=True)
        ),
        "outcome",
        OUTCOMES,
        totals.since,
    )
    yield family_of(
        "errors_total",
        "Calls that failed, by category of the error.",
        zip(pools, totals.pool_sums[:, BY_CATEGORY].tolist(), strict=True),
        "category",
        CATEGORIES,
        totals.since,
    )
    yield family_of(
        "worker_deaths_total",
        "Worker processes that ended unplanned.",
        zip(pools, totals.pool_sums[:, DEATHS, None].tolist(), strict=True),
        created=totals.since,
    )


def _is_used(totals: Totals, row: int) -> bool:
    """Whether to export a row. The row of `OTHER` exists for every pool, so it is exported only once it has calls."""
    return totals.names.rows[row][1] != OTHER or bool(totals.outcomes[row].any())


def _occurred(totals: Totals) -> Iterator[Family]:
    if totals.occurrences is None:
        return
    pools = [labels(pool=pool) for pool in totals.names.pools]
    for counted, numbers in by_counter(totals.occurrences):
        # Known values are exported from the start; the last column, `OTHER`, once it is above 0.
        shown: list[list[Number]] = [[*row[:-1], row[-1] or None] if counted.label else [*row] for row in numbers]
        yield family_of(
            f"{counted.name}_total",
            counted.help,
            zip(pools, shown, strict=True),
            counted.label,
            counted.columns,
            totals.since,
        )


_DISTRIBUTIONS = {
    "latency": "Time from the call to its end, of calls that ended well.",
    "queue": "Time from the call to its hand-over to a worker, of calls that ended well.",
    "execution": "Time in the worker, of calls that ended well.",
}
"""Help texts of `pool_monitor.metrics.columns.DISTRIBUTIONS`."""


def _distributions(totals: Totals) -> Iterator[Histograms]:
    operations, workers = totals.by_operation(), totals.by_worker()
    places = [place for place in range(len(operations.names.rows)) if _is_used(operations, place)]
    owners = [
        labels(pool=pool, operation=name) for pool, name, _worker in map(operations.names.rows.__getitem__, places)
    ]
    for number, (name, text) in enumerate(_DISTRIBUTIONS.items()):
        yield _histograms(f"call_{name}_seconds", text, owners, operations, number, places)
    yield _failed(totals.failures)
    yield _histograms(
        "worker_latency_seconds",
        "Time from the call to its end, of calls that ended well, by worker.",
        [labels(pool=pool, worker=worker) for pool, _operation, worker in workers.names.rows],
        workers,
        0,
        list(range(len(workers.names.rows))),
    )


def _histograms(
    name: str, text: str, owners: list[Labels], totals: Totals, number: int, places: list[int]
) -> Histograms:
    """The histograms of distribution *number* for the rows at *places*."""
    return Histograms(
        PREFIX + name,
        text,
        owners,
        totals.counts[places, number],
        totals.first,
        (totals.sums[places, number] / 1e9).tolist(),
        () if totals.born is None else totals.born[places].tolist(),
    )


def _failed(failures: FailureDurations) -> Histograms:
    return Histograms(
        f"{PREFIX}failed_call_latency_seconds",
        "Time from the call to its end, of calls that did not end well, by outcome.",
        [labels(pool=pool, operation=name, outcome=outcome) for pool, name, outcome in failures.keys],
        failures.counts,
        0,
        (failures.sums / 1e9).tolist(),
        failures.born.tolist(),
    )


# -- in the window ----------------------------------------------------------------------------------------------------


def _windowed(snapshot: Snapshot) -> Iterator[Family]:
    window, pools = snapshot.window, snapshot.pools.values()
    operations: list[tuple[Labels, CallStats]] = [
        (labels(pool=pool.name, operation=view.operation, window=window), view)
        for pool in pools
        for view in pool.operations.values()
    ]
    totals = [(labels(pool=pool.name, window=window), pool.total) for pool in pools]
    for prefix, whose, owners in (("window", "an operation", operations), ("pool_window", "a pool", totals)):
        for name, text in _DISTRIBUTIONS.items():
            yield family_of(
                f"{prefix}_{name}_seconds",
                f"Percentiles of {whose} in the window; 100 is the maximum. {text}",
                ((owner, percentiles(getattr(stats, name))) for owner, stats in owners),
                # Not "quantile": that label is reserved for summaries, whose counts never shrink.
                "percentile",
                PERCENTILES,
            )
    yield read_family(
        "covered_seconds",
        "window_covered_seconds",
        "Time that the window really covers: less than its length until the monitor has run that long.",
        [(labels(window=window), snapshot)],
    )


# -- now --------------------------------------------------------------------------------------------------------------

_POOL = (
    ("size", "workers_wanted", "Number of workers that the pool wants."),
    ("crash_loops", "crash_loops", "Workers in a crash loop."),
    ("waiting", "waiting_calls", "Calls in the queue."),
    ("queue_limit", "waiting_calls_limit", "Calls the queue has room for."),
    ("sessions", "sessions", "Sessions alive."),
    (
        "relative_time",
        "relative_time_seconds",
        "Mean over the latest hand-overs: above 0, calls waited for workers; below 0, workers waited for calls.",
    ),
    ("restarts", "restarts_total", "Processes started after one ended unplanned, since the pool was entered."),
    ("completed", "completed_calls_total", "Calls that ended, with any outcome, since the pool was entered."),
    (
        "retries_refused",
        "retries_refused_total",
        "Calls that were not sent again because the retry budget was spent, since the pool was entered.",
    ),
)


def _pools(pools: list[PoolDetail]) -> Iterator[Family]:
    owners = [(labels(pool=pool.name), pool) for pool in pools]
    for attribute, name, text in _POOL:
        yield read_family(attribute, name, text, owners)
    yield family_of(
        "workers",
        "Workers by state.",
        ((owner, [getattr(pool, state) for state in STATES]) for owner, pool in owners),
        "state",
        STATES,
    )
    healths = [(owner, [worker.health for worker in pool.workers.values()]) for owner, pool in owners]
    yield family_of(
        "workers_by_health",
        "Workers by the verdict of their last checkup.",
        ((owner, [found.count(health) for health in get_args(Health)]) for owner, found in healths),
        "health",
        get_args(Health),
    )
    for attribute, name, text, states in (
        ("state", "pool_state", "1 for the present state of the pool.", get_args(PoolState)),
        ("breaker", "breaker_state", "1 for the present state of the circuit breaker, if any.", get_args(Breaker)),
    ):
        found = [(owner, state) for owner, pool in owners if (state := getattr(pool, attribute)) is not None]
        yield family_of(
            name, text, ((owner, [int(each == state) for each in states]) for owner, state in found), "state", states
        )
    yield family_of(
        "pool_info",
        "Information on a pool; target is what its workers load.",
        (((*owner, *labels(target=pool.target)), [1]) for owner, pool in owners if pool.target is not None),
    )
    yield family_of(
        "refusals_total",
        "Calls refused before any worker saw them, since the pool was entered.",
        (
            ((*owner, *labels(reason=reason)), [count])
            for owner, pool in owners
            for reason, count in {**dict.fromkeys(REASONS, 0), **pool.refusals}.items()
        ),
    )


_WORKER = (
    (
        "restarts",
        "worker_restarts_total",
        "Processes started in the slot after one ended unplanned, since the pool was entered.",
    ),
    ("rss", "worker_memory_bytes", "Resident memory."),
    ("uss", "worker_unshared_memory_bytes", "Memory that no other process shares."),
    ("cpu_ratio", "worker_cpu_ratio", "Processor time used, as a share of one processor."),
    ("fds", "worker_open_fds", "Open descriptors."),
    ("fds_limit", "worker_open_fds_limit", "Most open descriptors of the process."),
    ("threads", "worker_threads", "Threads."),
    ("children", "worker_children", "Processes that the worker has started, and these, and that still exist."),
    ("zombies", "worker_zombies", "Of these, those that have ended and wait to be reaped."),
    ("leak_rate", "worker_leak_bytes_per_second", "Growth of its memory, if that is a leak."),
    ("time_to_limit", "worker_time_to_limit_seconds", "Time until a leak of memory reaches its limit."),
    ("calls_held", "worker_calls_held", "Calls that were handed to the worker and are not answered yet."),
)


def _workers(snapshot: Snapshot) -> Iterator[Family]:
    owners = [
        (labels(pool=pool.name, worker=worker.id), worker)
        for pool in snapshot.pools.values()
        for worker in pool.workers.values()
    ]
    for attribute, name, text in _WORKER:
        yield read_family(attribute, name, text, owners)
    yield read_family(
        "busy_ratio",
        "worker_busy_ratio",
        "Share of the window's time that the worker spent executing.",
        (((*owner, ("window", snapshot.window)), worker) for owner, worker in owners),
    )


# -- the monitor itself -----------------------------------------------------------------------------------------------

_MONITOR = (
    ("collecting", "collecting", "0 once a handler of the monitor was detached: its numbers no longer change."),
    ("events", "events_total", "Events counted."),
    ("dropped", "events_dropped_total", "Events that could not be counted: above 0, counts are lower bounds."),
    ("overflowed", "events_overflowed_total", "Events counted under operation 'other' because no series was left."),
    ("clamped", "durations_clamped_total", "Durations beyond the histograms, counted in the last bucket."),
    ("handler_failures", "handler_failures_total", "Telemetry handlers of any kind detached because they raised."),
    ("series", "series", "Histogram series in use."),
    ("series_limit", "series_limit", "Maximum number of histogram series."),
    ("memory_bytes", "memory_bytes", "Memory held by the monitor's stores."),
    ("memory_limit_bytes", "memory_limit_bytes", "Maximum memory of the monitor's stores."),
    ("viewers", "viewers", "Remote viewers attached."),
    ("off_seconds", "off_seconds_total", "Time in which nothing was counted because of the mode off."),
    ("lag", "lag_seconds", "Longest time that a call waited to be counted, over the last 10 s."),
    ("buffered", "buffered_events", "Calls that have ended and were not counted yet."),
    ("buffer_limit", "buffered_events_limit", "Most calls that the buffer holds."),
    ("cpu_ratio", "cpu_ratio", "Processor time of the monitor's own work, as a share of one processor."),
    ("tick_seconds", "tick_seconds", "How long the work of the last tick took."),
    ("tick_late", "tick_late_seconds", "How late the last tick began."),
    ("snapshot_seconds", "snapshot_seconds", "How long it took to make the last Snapshot."),
    ("encode_seconds", "encode_seconds", "How long it took to encode the last Snapshot for a viewer."),
    ("encode_bytes", "encoded_snapshot_bytes", "Size of the last Snapshot that was encoded for a viewer."),
)

_HISTORY = (
    ("file_bytes", "history_bytes", "Size of the history's file and its log."),
    ("size_limit", "history_limit_bytes", "Largest size of the history's file and its log."),
    ("flush_seconds", "history_flush_seconds", "How long the last flush of the history took."),
    ("held", "history_held_blocks", "Seconds of counts that wait to be written."),
    ("held_bytes", "history_held_bytes", "Memory of the counts that wait to be written."),
    ("dropped", "history_dropped_blocks_total", "Seconds of counts that were never written."),
    ("disk_free", "history_disk_free_bytes", "Bytes that may still be written on the disk of the history."),
)


def _monitor(snapshot: Snapshot) -> Iterator[Family]:
    service = snapshot.service
    for attribute, name, text in _MONITOR:
        yield read_family(attribute, name, text, [((), snapshot.monitor)], service.started_at)
    yield family_of(
        "mode",
        "1 for what the monitor keeps of each call.",
        ((labels(mode=mode), [int(mode == snapshot.monitor.mode)]) for mode in get_args(MonitorMode)),
    )
    yield family_of(
        "degraded",
        "1 for each part of the monitor that is degraded.",
        ((labels(part=part), [1]) for part in snapshot.monitor.degraded),
    )
    history = snapshot.monitor.history
    for attribute, name, text in _HISTORY:
        yield read_family(attribute, name, text, [] if history is None else [((), history)])
    yield read_family(
        "started_at", "start_time_seconds", "When the monitor was entered, since the epoch.", [((), service)]
    )
    about = labels(service=service.name, python=service.python, version=service.version)
    yield family_of("service_info", "The monitored service; version is the version of pool_monitor.", [(about, [1])])
