"""The Prometheus page: read by other people's parsers, and by a Prometheus, every number is the one we counted."""

from __future__ import annotations

import bisect
import math
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from pathlib import Path
from typing import Any, get_args

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from pool_monitor.events import SESSION_KINDS
from pool_monitor.export.family import BOUNDS
from pool_monitor.export.prometheus import OPENMETRICS, PROTOBUF, TEXT, negotiate, render
from pool_monitor.metrics.columns import (
    BY_CATEGORY,
    BY_SESSION_KIND,
    CATEGORIES,
    DEATHS,
    DISTRIBUTIONS,
    OUTCOMES,
    POOL_SUMS,
)
from pool_monitor.metrics.event_counters import COLUMNS, COUNTERS
from pool_monitor.metrics.failure_histograms import FailureDurations, FailureKey
from pool_monitor.metrics.histogram import BUCKETS, HIGHEST_NS, RELATIVE_ERROR, SMALLEST_NS, bucket_of
from pool_monitor.metrics.loop_lag import LagTotals
from pool_monitor.metrics.series import Names, RowKey
from pool_monitor.metrics.totals import Totals
from pool_monitor.metrics.worker_readings import ProcessTotals
from pool_monitor.snapshot import AlertingView, FaultView, GpuView, HistoryView, MonitorMode, MonitorView, Snapshot
from tests.helpers import alert_samples, samples
from tests.helpers.programs import ROOT
from tests.helpers.prometheus_protobuf import created_of, metrics_of, native_buckets, read_protobuf
from tests.helpers.support import eventually

Page = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Samples: by name and labels."""

RATIO = 2 ** (1 / 32)
"""From one edge of a bucket to the next."""
STATES = ("busy", "idle", "starting", "draining", "dead")
PERCENTILES = {"50": "p50", "90": "p90", "95": "p95", "99": "p99", "99.9": "p999", "100": "max"}


FAULTS = (
    FaultView(kind="leak", level="warn", subject="worker text-3", pool="text", worker="text-3", since=5.0),
    FaultView(kind="memory", level="bad", subject="host", since=6.0),
)
OF_HOST = {
    "cpus": "cpus", "cpu_ratio": "cpu_ratio", "cpu_throttled_ratio": "throttled_ratio", "load1": "load1",
    "memory_limit_bytes": "memory_total", "memory_used_bytes": "memory_used", "memory_ratio": "memory_ratio",
    "swap_size_bytes": "swap_total", "swap_used_bytes": "swap_used", "disk_size_bytes": "disk_total",
    "disk_free_bytes": "disk_free", "shm_size_bytes": "shm_total", "shm_free_bytes": "shm_free", "open_fds": "fds",
    "open_fds_limit": "fds_limit", "processes": "processes", "processes_limit": "processes_limit",
    "oom_kills_total": "oom_kills",
}  # fmt: skip
OF_PROCESS = {
    "cpu_ratio": "cpu_ratio", "resident_memory_bytes": "rss", "unshared_memory_bytes": "uss", "open_fds": "fds",
    "open_fds_limit": "fds_limit", "threads": "threads", "threads_limit": "threads_limit",
    "user_threads": "user_threads", "children": "children", "zombies": "zombies", "tasks": "tasks",
    "oldest_task_seconds": "oldest_task", "gc_ratio": "gc_ratio",
}  # fmt: skip
OF_WORKER = {
    "memory_bytes": "rss", "unshared_memory_bytes": "uss", "cpu_ratio": "cpu_ratio", "open_fds": "fds",
    "open_fds_limit": "fds_limit", "threads": "threads", "children": "children", "zombies": "zombies",
    "time_to_limit_seconds": "time_to_limit", "leak_bytes_per_second": "leak_rate",
}  # fmt: skip


def sample(name: str, /, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"pool_monitor_{name}", frozenset(labels.items())


def totals(
    durations: dict[RowKey, tuple[list[int], list[int], list[int]]], pools: tuple[str, ...] = ("text",)
) -> Totals:
    """What a monitor holds after calls of these durations (latency, queue, execution, in ns), and others that failed.

    No two of its other numbers are the same.
    """
    shape = (len(durations), len(DISTRIBUTIONS))
    counts, sums = np.zeros((*shape, BUCKETS), np.int64), np.zeros(shape, np.int64)
    for row, of_row in enumerate(durations.values()):
        for number, values in enumerate(of_row):
            counts[row, number] = np.bincount(bucket_of(np.array(values, np.int64)), minlength=BUCKETS)
            sums[row, number] = sum(values)
    outcomes = np.arange(1, shape[0] * len(OUTCOMES) + 1, dtype=np.int64).reshape(-1, len(OUTCOMES))
    pool_sums = 1000 + np.arange(len(pools) * POOL_SUMS, dtype=np.int64).reshape(-1, POOL_SUMS)
    names = Names(tuple(durations), pools)
    return Totals(
        samples.START,
        samples.START + samples.UPTIME,
        names,
        outcomes,
        sums,
        counts,
        0,
        pool_sums,
        busy=(7 + np.arange(len(durations))) * 10**9,
        born=samples.START + 0.25 + np.arange(len(durations)),
        failures=failures(
            {(pool, name, outcome): [10**9 * at, 10**6] for at, (pool, name, outcome) in enumerate(_failing(names), 1)}
        ),
        occurrences=np.arange(len(pools) * COLUMNS).reshape(-1, COLUMNS),
    )


def _failing(names: Names) -> list[FailureKey]:
    operations = dict.fromkeys(key[:2] for key in names.rows)
    return [(*operation, outcome) for operation in operations for outcome in ("timeout", "error")]


def failures(durations: dict[FailureKey, list[int]]) -> FailureDurations:
    """Calls of these durations, in ns, that did not end well."""
    keys = tuple(sorted(durations))
    counts = [np.bincount(bucket_of(np.array(durations[key])), minlength=BUCKETS) for key in keys]
    return FailureDurations(
        keys,
        np.array(counts, np.int64).reshape(-1, BUCKETS),
        np.array([sum(durations[key]) for key in keys], np.int64),
        samples.START + 0.5 + np.arange(len(keys)),
    )


def some_totals() -> Totals:
    rng = np.random.default_rng(7)

    def draw(count: int) -> tuple[list[int], list[int], list[int]]:
        latency, queue, execution = (
            (rng.lognormal(mean, 2, count) * 1e9).astype(int).tolist() for mean in (-4, -9, -5)
        )
        return latency, queue, execution

    made = totals(
        {
            ("text", "chat", "text-0"): draw(900),
            ("text", "chat", "text-1"): draw(40),
            ("text", "chat", None): ([], [], []),
            ("text", "summary", "text-1"): draw(5),
            ("images", "scale", "images-0"): draw(1),
        },
        ("text", "images"),
    )
    return replace(made, lag=LAG, processes=PROCESSES)


LAG = LagTotals(np.bincount(bucket_of(np.array([10**5, 10**8])), minlength=BUCKETS), 10**5 + 10**8)
PROCESSES = (ProcessTotals("text", "text-1", (2.5, 4096, None)),)


def some_snapshot() -> Snapshot:
    """One in which everything is known that can be, and no two numbers of a kind are the same."""
    snapshot = samples.measured(pools=("text", "images"))
    resources = snapshot.resources
    gpus = (GpuView(index=0, name="A100", uuid="GPU-1", utilisation=0.5, memory_used=7, temperature=51.0, power=80.0),)
    loop = msgspec.structs.replace(resources.loop, blocked=1.5, blocks=3)
    snapshot = msgspec.structs.replace(
        snapshot, resources=msgspec.structs.replace(resources, gpus=gpus, loop=loop, faults=FAULTS)
    )
    text = snapshot.pools["text"]
    workers = {
        slot: msgspec.structs.replace(worker, rss=50_000_000 + number, calls_held=number, health=health, zombies=number)
        for number, ((slot, worker), health) in enumerate(
            zip(text.workers.items(), ("responsive", "responsive", "stuck", None), strict=True)
        )
    }
    text = msgspec.structs.replace(
        text,
        draining=6,
        dead=7,
        starting=8,
        crash_loops=9,
        breaker="half_open",
        refusals={"saturated": 31, "of_tomorrow": 32},
        relative_time=-0.25,
        retries_refused=33,
        target="articles.workers:Summarizer",
        workers=workers,
    )
    numbers = (2, 5, 3, 4, 11, 510, 6000, 70_000, 17)
    names = ("dropped", "clamped", "handler_failures", "overflowed", "series", "series_limit", "memory_bytes")
    monitor = msgspec.structs.replace(
        snapshot.monitor, **dict(zip((*names, "memory_limit_bytes", "viewers"), numbers, strict=True))
    )
    monitor = msgspec.structs.replace(monitor, mode="sampled", off_seconds=41.5, buffered=42, buffer_limit=43)
    monitor = msgspec.structs.replace(
        monitor, lag=0.25, cpu_ratio=0.125, tick_seconds=0.5, tick_late=0.75, snapshot_seconds=1.5, encode_seconds=2.5,
        encode_bytes=44, degraded={"otlp": "gone"},
        history=HistoryView(
            path="h", degraded=None, held=45, dropped=46, file_bytes=47, size_limit=48, flush_seconds=3.5,
            held_bytes=49, disk_free=50, disk_total=51,
        ),
        alerts=alert_samples.alerting(
            refused=52, failing={"Odd": "no"}, reload_error="rules.yaml:3:1: no such key", **alert_samples.troubled()
        ),
    )  # fmt: skip
    service = msgspec.structs.replace(snapshot.service, version="1.2.3")
    pools, alerts = {**snapshot.pools, "text": text}, alert_samples.alerts()
    return msgspec.structs.replace(snapshot, pools=pools, monitor=monitor, service=service, alerts=alerts)


def expected(snapshot: Snapshot, totals: Totals) -> Page:
    """Every sample there has to be, except those of histograms."""
    page: Page = {}
    for (pool, operation, worker), counts in zip(totals.names.rows, totals.outcomes.tolist(), strict=True):
        of_worker = {} if worker is None else {"worker": worker}
        for outcome, count in zip(OUTCOMES, counts, strict=True):
            page[sample("calls_total", pool=pool, operation=operation, outcome=outcome, **of_worker)] = count
    page |= _beside_calls(totals)
    for pool, sums in zip(totals.names.pools, totals.pool_sums.tolist(), strict=True):
        by_kind = iter(sums[BY_SESSION_KIND])
        for kind in SESSION_KINDS:
            for outcome in OUTCOMES:
                page[sample("session_calls_total", pool=pool, session=kind, outcome=outcome)] = next(by_kind)
        for category, count in zip(CATEGORIES, sums[BY_CATEGORY], strict=True):
            page[sample("errors_total", pool=pool, category=category)] = count
        page[sample("worker_deaths_total", pool=pool)] = sums[DEATHS]
    for pool in snapshot.pools.values():
        page |= _of_pool(pool, snapshot.window)
    page[sample("window_covered_seconds", window=snapshot.window)] = snapshot.covered_seconds
    page |= _of_resources(snapshot, totals)
    monitor = snapshot.monitor
    version = {} if snapshot.service.version is None else {"version": snapshot.service.version}
    page |= {
        sample("collecting"): 1,
        sample("events_total"): monitor.events,
        sample("events_dropped_total"): monitor.dropped,
        sample("events_overflowed_total"): monitor.overflowed,
        sample("durations_clamped_total"): monitor.clamped,
        sample("handler_failures_total"): monitor.handler_failures,
        sample("series"): monitor.series,
        sample("series_limit"): monitor.series_limit,
        sample("memory_bytes"): monitor.memory_bytes,
        sample("memory_limit_bytes"): monitor.memory_limit_bytes,
        sample("viewers"): monitor.viewers,
        **{sample("mode", mode=mode): int(mode == monitor.mode) for mode in get_args(MonitorMode)},
        **{sample("degraded", part=part): 1 for part in monitor.degraded},
        sample("off_seconds_total"): monitor.off_seconds,
        sample("buffered_events"): monitor.buffered,
        sample("buffered_events_limit"): monitor.buffer_limit,
        sample("start_time_seconds"): snapshot.service.started_at,
        sample("service_info", service="articles", python="3.11.7", **version): 1,
    }
    page |= _measured_of_monitor(monitor) | _of_alerts(snapshot)
    return {key: value for key, value in page.items() if value is not None}


def _of_resources(snapshot: Snapshot, totals: Totals) -> Page:
    found, window = snapshot.resources, snapshot.window
    page: Page = {sample(f"host_{name}"): getattr(found.host, field) for name, field in OF_HOST.items()}
    page |= {sample(f"process_{name}"): getattr(found.process, field) for name, field in OF_PROCESS.items()}
    page[sample("process_gc_pause_seconds", window=window)] = found.process.gc_pause
    for resource in ("cpu", "memory", "io"):
        page[sample("host_pressure_ratio", resource=resource)] = getattr(found.host.pressure, resource, None)
    for percentile, field in PERCENTILES.items():
        labels = {"window": window, "percentile": percentile}
        page[sample("loop_window_lag_seconds", **labels)] = getattr(found.loop.lag, field)
    page |= {sample("loop_blocked_seconds"): found.loop.blocked, sample("loop_blocks_total"): found.loop.blocks}
    for gpu in found.gpus:
        page |= {
            sample("gpu_utilisation_ratio", gpu="0"): gpu.utilisation,
            sample("gpu_memory_used_bytes", gpu="0"): gpu.memory_used,
            sample("gpu_temperature_celsius", gpu="0"): gpu.temperature,
            sample("gpu_power_watts", gpu="0"): gpu.power,
            sample("gpu_info", gpu="0", name="A100", uuid="GPU-1"): 1,
        }
    for fault in found.faults:
        pool = {} if fault.pool is None else {"pool": fault.pool}
        page[sample("resource_fault", kind=fault.kind, subject=fault.subject, level=fault.level, **pool)] = 1
    for of in totals.processes:
        names = ("worker_cpu_time_seconds_total", "worker_read_bytes_total", "worker_written_bytes_total")
        page |= {
            sample(name, pool=of.pool, worker=of.worker): number for name, number in zip(names, of.numbers, strict=True)
        }
    return page


MEASURED = {
    "lag_seconds": "lag", "cpu_ratio": "cpu_ratio", "tick_seconds": "tick_seconds", "tick_late_seconds": "tick_late",
    "snapshot_seconds": "snapshot_seconds", "encode_seconds": "encode_seconds",
    "encoded_snapshot_bytes": "encode_bytes",
}  # fmt: skip
OF_HISTORY = {
    "history_bytes": "file_bytes", "history_limit_bytes": "size_limit", "history_flush_seconds": "flush_seconds",
    "history_held_blocks": "held", "history_held_bytes": "held_bytes", "history_dropped_blocks_total": "dropped",
    "history_disk_free_bytes": "disk_free",
}  # fmt: skip


def _measured_of_monitor(monitor: MonitorView) -> Page:
    owners = [(MEASURED, monitor), *([] if monitor.history is None else [(OF_HISTORY, monitor.history)])]
    found = {sample(name): getattr(owner, field) for fields, owner in owners for name, field in fields.items()}
    return {name: value for name, value in found.items() if value is not None}


OF_ALERTING = {
    "alert_rules": "rules", "alert_interval_seconds": "interval", "alert_evaluations_total": "evaluations",
    "alert_evaluations_missed_total": "missed", "alert_evaluation_seconds": "evaluation_seconds",
    "alert_evaluation_hold_seconds": "longest_hold", "alert_evaluation_age_seconds": "evaluated_age",
    "alert_transitions_total": "transitions", "alerts_refused_total": "refused",
}  # fmt: skip


def _of_alerts(snapshot: Snapshot) -> Page:
    alerting = snapshot.monitor.alerts
    if alerting is None:
        return {}
    page: Page = {sample(name): getattr(alerting, field) for name, field in OF_ALERTING.items()}
    for found in snapshot.alerts:
        if found.state != "resolved":
            key = sample("alerts", alertname=found.alertname, severity=found.severity, state=found.state)
            page[key] = page.get(key, 0) + 1
    quiet = {"silenced": 1, "acknowledged": 1, "inhibited": 1, "muted": 0}  # of `alert_samples.alerts`
    page |= {sample("alerts_quiet", by=word): number for word, number in quiet.items()}
    return page | {
        sample("alert_rules_failing"): len(alerting.failing),
        sample("alert_silences"): len(alerting.silences),
        sample("alert_rules_reload_success"): int(alerting.reload_error is None),
        sample("alert_state_stored"): int(alerting.state_degraded is None),
        **_of_delivery(alerting),
    }


OF_RECEIVERS = {
    "notifications_owed": "owed", "notifications_parked": "parked", "notifications_held_back": "held_back",
    "notifications_oldest_debt_seconds": "oldest_debt", "notifications_failures": "failures",
    "notifications_last_success_age_seconds": "last_success_age",
}  # fmt: skip


def _of_delivery(alerting: AlertingView) -> Page:
    page: Page = {}
    for one in alerting.receivers:
        for result in ("sent", "failed", "lost"):
            page[sample("notifications_total", receiver=one.name, result=result)] = getattr(one, result)
        for name, field in OF_RECEIVERS.items():
            page[sample(name, receiver=one.name)] = getattr(one, field)
        for state in ("ready", "retrying", "paused", "open", "parked", "gone"):
            page[sample("receiver_state", receiver=one.name, state=state)] = int(one.state == state)
    if alerting.heartbeat is not None:
        page[sample("heartbeat_age_seconds")] = alerting.heartbeat.last_success_age
        page[sample("heartbeat_failing")] = int(bool(alerting.heartbeat.failing))
    return page


def test_alerts_are_counted_by_rule_and_never_by_label() -> None:
    many = [alert_samples.alert(number=number, labels={"pool": f"p{number}"}) for number in range(500)]
    alerting = alert_samples.alerting(state_path=None)
    changed = msgspec.structs.replace(
        samples.snapshot(), alerts=tuple(many), monitor=msgspec.structs.replace(samples.monitor(), alerts=alerting)
    )
    lines = [
        line for line in render(changed, totals({})).decode().splitlines() if line.startswith("pool_monitor_alert")
    ]
    assert 'pool_monitor_alerts{alertname="FailingCalls",severity="warning",state="firing"} 500' in lines
    assert sum(line.startswith("pool_monitor_alerts{") for line in lines) == 1
    assert not any("state_stored" in line for line in lines)


def _beside_calls(totals: Totals) -> Page:
    page: Page = {}
    assert totals.busy is not None
    for (pool, operation, worker), busy in zip(totals.names.rows, totals.busy.tolist(), strict=True):
        of_worker = {} if worker is None else {"worker": worker}
        page[sample("busy_seconds_total", pool=pool, operation=operation, **of_worker)] = busy / 1e9
    assert totals.occurrences is not None
    for pool, counters in zip(totals.names.pools, totals.occurrences.tolist(), strict=True):
        left = iter(counters)
        for counted in COUNTERS:
            for value in (*counted.values, "other") if counted.label else ("",):
                number, about = next(left), {counted.label: value} if counted.label else {}
                if value != "other" or number:
                    page[sample(f"{counted.name}_total", pool=pool, **about)] = number
    return page


def _of_pool(pool: Any, window: str) -> Page:
    name, page = pool.name, {}
    for state in STATES:
        page[sample("workers", pool=name, state=state)] = getattr(pool, state)
    healths = [worker.health for worker in pool.workers.values()]
    for health in ("responsive", "late", "busy", "stuck", "unresponsive"):
        page[sample("workers_by_health", pool=name, health=health)] = healths.count(health)
    for state in ("new", "starting", "running", "paused", "draining", "closed"):
        page[sample("pool_state", pool=name, state=state)] = state == pool.state
    for state in ("closed", "open", "half_open") if pool.breaker else ():
        page[sample("breaker_state", pool=name, state=state)] = state == pool.breaker
    for reason in {"saturated", "deadline", "timeout", "circuit_open", "closed", *pool.refusals}:
        page[sample("refusals_total", pool=name, reason=reason)] = pool.refusals.get(reason, 0)
    page |= {
        sample("workers_wanted", pool=name): pool.size,
        sample("crash_loops", pool=name): pool.crash_loops,
        sample("waiting_calls", pool=name): pool.waiting,
        sample("waiting_calls_limit", pool=name): pool.queue_limit,
        sample("sessions", pool=name): pool.sessions,
        sample("relative_time_seconds", pool=name): pool.relative_time,
        sample("restarts_total", pool=name): pool.restarts,
        sample("completed_calls_total", pool=name): pool.completed,
        sample("retries_refused_total", pool=name): pool.retries_refused,
    }
    if pool.target is not None:
        page[sample("pool_info", pool=name, target=pool.target)] = 1
    for worker in pool.workers.values():
        of_worker = {"pool": name, "worker": worker.id}
        page[sample("worker_restarts_total", **of_worker)] = worker.restarts
        page |= {sample(f"worker_{named}", **of_worker): getattr(worker, field) for named, field in OF_WORKER.items()}
        page[sample("worker_calls_held", **of_worker)] = worker.calls_held
        page[sample("worker_busy_ratio", **of_worker, window=window)] = worker.busy_ratio
    for distribution in DISTRIBUTIONS:
        for percentile, field in PERCENTILES.items():
            labels = {"pool": name, "window": window, "percentile": percentile}
            page[sample(f"pool_window_{distribution}_seconds", **labels)] = getattr(
                getattr(pool.total, distribution), field
            )
            for operation, view in pool.operations.items():
                page[sample(f"window_{distribution}_seconds", operation=operation, **labels)] = getattr(
                    getattr(view, distribution), field
                )
    return {key: value for key, value in page.items() if value is not None}


def of_histograms(totals: Totals) -> Page:
    """Every sample of histograms, worked out bucket by bucket."""
    page: Page = {}
    edges = [2 ** ((index - 637) / 32) for index in range(BUCKETS)]  # upper ones

    def add(name: str, labels: dict[str, str], counts: Any, sum_ns: int) -> None:
        running = list(accumulate(counts.tolist()))
        for bound in BOUNDS:
            page[sample(f"{name}_bucket", **labels, le=repr(bound))] = running[edges.index(bound)]
        page[sample(f"{name}_bucket", **labels, le="+Inf")] = running[-1]
        page[sample(f"{name}_count", **labels)] = running[-1]
        page[sample(f"{name}_sum", **labels)] = sum_ns / 1e9

    operations = totals.by_operation()
    for row, (pool, operation, _worker) in enumerate(operations.names.rows):
        for number, distribution in enumerate(DISTRIBUTIONS):
            labels, name = {"pool": pool, "operation": operation}, f"call_{distribution}_seconds"
            add(name, labels, operations.counts[row, number], int(operations.sums[row, number]))
    workers = {(pool, worker) for pool, _operation, worker in totals.names.rows if worker is not None}
    for pool, worker in workers:
        rows = [row for row, key in enumerate(totals.names.rows) if (key[0], key[2]) == (pool, worker)]
        labels = {"pool": pool, "worker": worker}
        add("worker_latency_seconds", labels, totals.counts[rows, 0].sum(axis=0), int(totals.sums[rows, 0].sum()))
    if totals.lag is not None:
        add("loop_lag_seconds", {}, totals.lag.counts, totals.lag.sum_ns)
    found = totals.failures
    for (pool, operation, outcome), counts, total in zip(found.keys, found.counts, found.sums.tolist(), strict=True):
        labels = {"pool": pool, "operation": operation, "outcome": outcome}
        add("failed_call_latency_seconds", labels, counts, total)
    return page


def samples_of(families: Any) -> Page:
    """What a parser found, which must not have found anything twice."""
    found = [(each.name, frozenset(each.labels.items()), each.value) for family in families for each in family.samples]
    page = {(name, labels): value for name, labels, value in found}
    assert len(page) == len(found)
    return page


# -- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "read"),
    [
        (TEXT, lambda page: samples_of(read_text(page.decode()))),
        (OPENMETRICS, lambda page: samples_of(read_openmetrics(page.decode()))),
        (PROTOBUF, read_protobuf),
    ],
    ids=["text", "openmetrics", "protobuf"],
)
def test_every_number_arrives_under_its_name_and_labels_and_there_is_no_other(
    content_type: str, read: Callable[[bytes], Page]
):
    snapshot, counted = some_snapshot(), some_totals()
    assert read(render(snapshot, counted, content_type)) == expected(snapshot, counted) | of_histograms(counted)


def test_a_metric_is_a_counter_a_gauge_or_a_histogram_and_says_what_it_is():
    found = list(read_text(render(some_snapshot(), some_totals()).decode()))
    kinds = {family.name: family.type for family in found}
    assert {kind for name, kind in kinds.items() if re.fullmatch("pool_monitor_call_[a-z]+_seconds", name)} == {
        "histogram"
    }
    counters = {name for name, kind in kinds.items() if kind == "counter"}
    assert {f"pool_monitor_{name}" for name in ("calls", "errors", "refusals", "worker_deaths", "events")} <= counters
    assert all(family.documentation.endswith(".") for family in found)


@pytest.mark.parametrize("content_type", [TEXT, OPENMETRICS, PROTOBUF])
def test_what_is_unknown_is_left_out(content_type: str):
    nothing = totals({}, ("text",))
    page = render(samples.empty(), nothing, content_type)
    found = read_protobuf(page) if content_type == PROTOBUF else samples_of(read_text(page.decode()))
    assert found == expected(samples.empty(), nothing)
    absent = ("worker_memory_bytes", "window_latency", "breaker_state", "relative_time_seconds", "nan", "None")
    assert not [word for word in absent if word.encode() in page]


def test_a_page_names_no_process_and_carries_no_timestamp():
    page = render(some_snapshot(), some_totals()).decode()
    assert not [pid for pid in ("4101", "4110", "4188") if re.search(rf"\b{pid}\b", page)]
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r"\w+(\{.*\})? [^ ]+", line)]


def test_all_histograms_have_the_same_bounds_whatever_they_hold():
    bounds: dict[tuple[str, Any], list[str]] = {}
    counted = totals({("p", "none", "w"): ([], [], []), ("p", "long", "w"): ([10**13], [1], [10**9])}, ("p",))
    for family in read_text(render(samples.snapshot(), counted).decode()):
        for each in family.samples:
            if each.name.endswith("_bucket"):
                of = tuple(value for name, value in each.labels.items() if name != "le")
                bounds.setdefault((each.name, of), []).append(each.labels["le"])
    assert len(bounds) == 2 * len(DISTRIBUTIONS) + 1 + 4  # by operation; by worker; by operation and outcome
    assert {tuple(found) for found in bounds.values()} == {(*map(repr, BOUNDS), "+Inf")}


def test_the_bounds_are_those_that_dashboards_were_made_with():
    assert BOUNDS[:6] == (2**-14, 2**-12, 2**-10, 2**-9, 2**-8, 2**-7)
    assert BOUNDS[6:] == (2**-6, 2**-5, 2**-4, 2**-3, 2**-2, 2**-1, 1, 2, 4, 8, 16, 32, 64, 256, 1024)


@pytest.mark.parametrize("content_type", [TEXT, PROTOBUF])
def test_where_the_buckets_in_use_begin_and_end_changes_nothing(content_type: str):
    whole = totals({("text", "chat", "text-0"): ([3_000, 10**6, 10**7, 10**7], [10**6], [10**8])})
    used = np.flatnonzero(whole.counts.any(axis=(0, 1)))
    trimmed = replace(whole, counts=whole.counts[..., used[0] : used[-1] + 1], first=int(used[0]))
    assert render(samples.snapshot(), trimmed, content_type) == render(samples.snapshot(), whole, content_type)


def _drawn(seed: int, shape: str, count: int) -> list[int]:
    rng = np.random.default_rng(seed)
    seconds = {
        "heavy-tailed": lambda: 0.0005 * (1 + rng.pareto(0.9, count)),
        "bimodal": lambda: np.where(rng.random(count) < 0.95, rng.normal(1e-4, 1e-5, count), rng.normal(60, 9, count)),
        "tiny": lambda: rng.exponential(1e-6, count),
    }[shape]()
    return np.clip(seconds * 1e9, 0, HIGHEST_NS).astype(int).tolist()


_edges = [round(bound * 1e9) for bound in BOUNDS]
streams = st.one_of(
    st.lists(st.one_of(st.integers(0, HIGHEST_NS), st.sampled_from([n + d for n in _edges for d in (-1, 0, 1)]))),
    st.builds(lambda value, count: [value] * count, st.integers(0, HIGHEST_NS), st.integers(1, 300)),
    st.builds(
        _drawn, st.integers(0, 2**32), st.sampled_from(["heavy-tailed", "bimodal", "tiny"]), st.integers(1, 2000)
    ),
)


@given(streams)
@settings(max_examples=150)
def test_each_classic_bucket_holds_exactly_the_durations_up_to_its_bound(values: list[int]):
    page = render(samples.empty(), totals({("text", "chat", "text-0"): (values, [], [])}))
    ordered = sorted(values)
    found = {
        float(each.labels["le"]): each.value
        for family in read_text(page.decode())
        for each in family.samples
        if each.name == "pool_monitor_call_latency_seconds_bucket"
    }
    exact = {bound: bisect.bisect_right(ordered, Fraction(bound) * 10**9) for bound in BOUNDS}
    assert found == {**exact, math.inf: len(values)}


@given(streams.filter(bool))
@settings(max_examples=150)
def test_a_quantile_of_the_native_buckets_is_within_their_error_of_the_exact_one(values: list[int]):
    page = render(samples.empty(), totals({("text", "chat", "text-0"): ([], [], values)}), PROTOBUF)
    size, buckets = native_buckets(page, "execution", "chat")
    assert size == sum(count for _low, _high, count in buckets) == len(values)
    assert all(count > 0 for _low, _high, count in buckets)
    for share in ("0.01", "0.5", "0.9", "0.99", "0.999", "1"):
        rank = math.ceil(Fraction(share) * len(values))
        exact = sorted(values)[rank - 1] / 1e9
        running = accumulate(count for _low, _high, count in buckets)
        low, high = next(bucket[:2] for bucket, reached in zip(buckets, running, strict=True) if reached >= rank)
        if exact * 1e9 > SMALLEST_NS:
            assert abs(2 * low * high / (low + high) - exact) <= exact * RELATIVE_ERROR * (1 + 1e-9)
        else:
            assert (low, high) == (0.0, 2 ** (-637 / 32))  # the zero bucket


def test_native_histograms_side_by_side_stay_apart_however_much_they_hold():
    held = {"a": {0: 4, 100: 10**15, 101: 3}, "b": {102: 1, 103: 2**40}, "c": {}, "d": {103: 300, 1023: 2}}
    counted = totals({("text", name, None): ([], [], []) for name in held})
    for row, buckets in enumerate(held.values()):
        for bucket, count in buckets.items():
            counted.counts[row, 1, bucket] = count
    page = render(samples.empty(), counted, PROTOBUF)
    edges = [0.0, *(2 ** ((index - 637) / 32) for index in range(BUCKETS))]
    for name, buckets in held.items():
        exact = [(edges[bucket], edges[bucket + 1], count) for bucket, count in buckets.items()]
        assert native_buckets(page, "queue", name) == (sum(buckets.values()), exact)


# -- what a series is -------------------------------------------------------------------------------------------------


def test_the_operation_other_is_there_once_it_has_calls():
    with_other = totals({("text", "other", None): ([], [], []), ("text", "chat", "text-0"): ([10**6], [], [])})
    calls = {key for key in samples_of(read_text(render(samples.empty(), with_other).decode())) if "call" in key[0]}
    assert any(("operation", "other") in about for _name, about in calls)
    unused = replace(with_other, outcomes=with_other.outcomes * [[0], [1]], failures=FailureDurations())
    for content_type in (TEXT, OPENMETRICS, PROTOBUF):
        page = render(samples.empty(), unused, content_type)
        assert b"chat" in page
        found = read_protobuf(page) if content_type == PROTOBUF else samples_of(read_text(page.decode()))
        assert not [labels for _name, labels in found if ("operation", "other") in labels]


def test_openmetrics_names_the_units():
    families = list(read_openmetrics(render(some_snapshot(), some_totals(), OPENMETRICS).decode()))
    units = {family.name.removeprefix("pool_monitor_"): family.unit for family in families}
    assert units["call_latency_seconds"] == units["busy_seconds"] == units["start_time_seconds"] == "seconds"
    assert (units["worker_memory_bytes"], units["worker_busy_ratio"], units["calls"]) == ("bytes", "ratio", "")
    assert b"# UNIT" not in render(some_snapshot(), some_totals())


def test_protobuf_says_when_each_counter_and_histogram_began():
    counted = some_totals()
    assert counted.born is not None
    began = {
        (name.removeprefix("pool_monitor_"), *labels.values()): created_of(kind, values)
        for name, kind, labels, values in metrics_of(render(some_snapshot(), counted, PROTOBUF))
    }
    (first, *_), since = counted.born.tolist(), counted.since
    assert began["calls_total", "text", "chat", "text-0", "ok"] == first != since
    assert began["call_latency_seconds", "text", "chat"] == first
    assert began["failed_call_latency_seconds", "images", "scale", "error"] == counted.failures.born[0]
    assert began["errors_total", "text", "timeout"] == began["retries_total", "text", "timeout"] == since
    assert began["worker_latency_seconds", "text", "text-1"] == counted.born[1]
    assert began["restarts_total", "text"] is None  # the pool may be older than the monitor
    assert began["waiting_calls", "text"] is None


def test_text_has_no_series_more_for_what_only_some_can_read():
    for content_type in (TEXT, OPENMETRICS):
        assert b"_created" not in render(some_snapshot(), some_totals(), content_type)


# -- names ------------------------------------------------------------------------------------------------------------

# No lone surrogates here: they have a test of their own.
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
awkward = st.one_of(names, st.lists(st.sampled_from(list('\\"\n{}=,%# é\r\x85\u2028')), min_size=1).map("".join))


@pytest.mark.slow
@pytest.mark.gate
@given(st.tuples(awkward, awkward, awkward))
@settings(max_examples=60)
def test_any_name_comes_out_as_it_went_in(name: tuple[str, str, str]):
    pool, operation, worker = name
    counted = totals({(pool, operation, worker): ([10**6], [10**3], [10**6])}, (pool,))
    snapshot = samples.snapshot(pools=(pool,))
    exact = expected(snapshot, counted) | of_histograms(counted)
    assert samples_of(read_text(render(snapshot, counted).decode())) == exact
    assert samples_of(read_openmetrics(render(snapshot, counted, OPENMETRICS).decode())) == exact
    assert read_protobuf(render(snapshot, counted, PROTOBUF)) == exact


@pytest.mark.parametrize("content_type", [TEXT, OPENMETRICS, PROTOBUF])
def test_half_a_surrogate_pair_does_not_spoil_the_page(content_type: str):
    counted = totals({("text", name, None): ([], [], []) for name in ("\ud800", "\ud801")})
    page = render(samples.empty(), counted, content_type)
    found = read_protobuf(page) if content_type == PROTOBUF else samples_of(read_text(page.decode()))
    assert found[sample("calls_total", pool="text", operation=r"\ud800", outcome="ok")] == 1
    assert found[sample("calls_total", pool="text", operation=r"\ud801", outcome="ok")] == 7


# -- what is asked for ------------------------------------------------------------------------------------------------

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, TEXT),
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("application/json", TEXT),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_2_NATIVE, PROTOBUF),
        (PROMETHEUS_3, OPENMETRICS),
        ("Application/OpenMetrics-Text", OPENMETRICS),
        ("application/openmetrics-text; version=0.0.1", TEXT),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ('application/vnd.google.protobuf; proto="io.prometheus.client.MetricFamily"; encoding="delimited"', PROTOBUF),
        ("text/plain;version=0.0.4;q=0.2, application/openmetrics-text; version=1.0.0; q=0.3", OPENMETRICS),
        ("text/plain, application/openmetrics-text", TEXT),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", TEXT),
        ("application/vnd.google.protobuf;proto=other.Message;encoding=delimited", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=high, ;;=,", TEXT),
    ],
)
def test_the_form_is_the_one_the_accept_header_likes_best(accept: str | None, content_type: str):
    assert negotiate(accept) == content_type


# -- Prometheus itself ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")
@pytest.mark.parametrize("snapshot", [some_snapshot(), samples.empty()], ids=["full", "empty"])
def test_promtool_has_nothing_to_object_to(snapshot: Snapshot):
    odd = totals({('"pool"\n', "a\\b", "é\0\r%"): ([1], [2], [3])}, ('"pool"\n',))
    for counted in (some_totals(), odd, totals({})):
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=render(snapshot, counted), capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def guide_queries() -> list[str]:
    guide = (ROOT / "docs" / "MONITORING_GUIDE.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```promql\n(.*?)```", guide, re.DOTALL)
    return [query.strip() for query in re.split(r"#.*\n", block) if query.strip()]


def test_the_queries_of_the_guide_ask_for_metrics_there_are():
    page = render(some_snapshot(), some_totals()).decode()
    names = {name for query in guide_queries() for name in re.findall(r"pool_monitor_\w+", query)}
    assert len(names) > 5
    assert not [name for name in names if f"\n{name}" not in page]  # a histogram's own name begins those of its parts


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on this machine")
def test_promtool_understands_the_queries_of_the_guide(tmp_path: Path):
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(guide_queries())]
    file = tmp_path / "rules.json"  # which is YAML
    file.write_bytes(msgspec.json.encode({"groups": [{"name": "guide", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def served(page_for: Callable[[str, str | None], tuple[bytes, str]]) -> Iterator[int]:
    """A server on loopback that answers with the page and content type for a path and an Accept header; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page, content_type = page_for(self.path, self.headers["Accept"])
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


CONFIGURATION = """
global: {{scrape_interval: 400ms, scrape_timeout: 400ms}}
scrape_configs:
- job_name: protobuf
  static_configs: [targets: ["127.0.0.1:{port}"]]
- job_name: openmetrics
  metrics_path: /openmetrics
  static_configs: [targets: ["127.0.0.1:{port}"]]
- job_name: text
  metrics_path: /text
  static_configs: [targets: ["127.0.0.1:{port}"]]
"""


@contextmanager
def prometheus(directory: Path, port: int) -> Iterator[Callable[[], httpx.Client | None]]:
    """A Prometheus that scrapes what is served at *port*. Gives a client of its API as soon as there is one."""
    (directory / "prometheus.yml").write_text(CONFIGURATION.format(port=port))
    log = directory / "log"
    command = [
        "prometheus",
        "--enable-feature=native-histograms",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        "--web.listen-address=127.0.0.1:0",
    ]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:

            def client() -> httpx.Client | None:
                assert process.poll() is None, log.read_text()
                listening = re.search(r'msg="Listening on" address=(\S+)', log.read_text())
                return httpx.Client(base_url=f"http://{listening[1]}/api/v1/") if listening else None

            yield client
        finally:
            process.terminate()


def asked(api: httpx.Client, query: str) -> dict[frozenset[tuple[str, str]], float]:
    """An instant query's answer, by labels."""
    answer = api.get("query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    own = ("__name__", "instance", "job")
    return {
        frozenset((name, value) for name, value in each["metric"].items() if name not in own): float(each["value"][1])
        for each in answer["data"]["result"]
    }


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus on this machine")
async def test_a_prometheus_has_the_numbers_we_have_and_true_quantiles(tmp_path: Path):
    rng = np.random.default_rng(3)
    durations = {
        "heavy": (rng.pareto(1.1, 5000) * 1e6).astype(int).tolist(),
        "constant": [250_000_000] * 77,
        "never": [],
    }
    snapshot = some_snapshot()
    counted = totals({("text", name, "text-0"): (values, values, values) for name, values in durations.items()})
    pages = {content_type: render(snapshot, counted, content_type) for content_type in (TEXT, OPENMETRICS, PROTOBUF)}

    def page_for(path: str, accept: str | None) -> tuple[bytes, str]:
        content_type = {"/text": TEXT, "/openmetrics": OPENMETRICS}.get(path) or negotiate(accept)
        return pages[content_type], content_type

    with served(page_for) as port, prometheus(tmp_path, port) as started, await eventually(started) as api:
        # The last metric of a page: when it is there, all are.
        for job in ("text", "openmetrics", "protobuf"):
            last = f'pool_monitor_service_info{{job="{job}"}}'
            await eventually(lambda last=last: asked(api, last), timeout=20.0)

        classic = expected(snapshot, counted) | of_histograms(counted)
        for job in ("text", "openmetrics"):
            assert _series(api, job) == classic
        assert _series(api, "protobuf") == expected(snapshot, counted)

        latency = 'pool_monitor_call_latency_seconds{job="protobuf"}'
        within = asked(api, f"histogram_fraction(0, 0.25, {latency})")
        for name, values in durations.items():
            if values:
                share = sum(value <= 250_000_000 for value in values) / len(values)
                assert within[sample("", pool="text", operation=name)[1]] == pytest.approx(share, abs=1e-9)
        sizes, sums = asked(api, f"histogram_count({latency})"), asked(api, f"histogram_sum({latency})")
        for name, values in durations.items():
            of = sample("", pool="text", operation=name)[1]
            assert sizes[of] == len(values)
            assert sums[of] == sum(values) / 1e9
        for share in ("0.5", "0.9", "0.99", "0.999"):
            found = asked(api, f"histogram_quantile({share}, {latency})")
            for name, values in durations.items():
                quantile = found[sample("", pool="text", operation=name)[1]]
                if values:
                    exact = sorted(values)[math.ceil(Fraction(share) * len(values)) - 1] / 1e9
                    assert exact / RATIO <= quantile <= exact * RATIO
                else:
                    assert math.isnan(quantile)


def _series(api: httpx.Client, job: str) -> Page:
    """Everything of ours that Prometheus holds as plain numbers."""
    answer = api.get("query", params={"query": f'{{__name__=~"pool_monitor_.+", job="{job}"}}'}).json()
    page: Page = {}
    for each in answer["data"]["result"]:
        labels = {name: value for name, value in each["metric"].items() if name not in ("instance", "job")}
        if "value" in each:
            page[labels.pop("__name__"), frozenset(labels.items())] = float(each["value"][1])
    return page
