"""Snapshots for tests: deterministic, and plausible enough to show to people."""

from __future__ import annotations

from collections.abc import Callable
from math import sin
from random import Random
from typing import Any

from msgspec.structs import replace

from pool_monitor.snapshot import (
    Bar,
    CallStats,
    Distribution,
    ErrorRate,
    MonitorView,
    OperationView,
    Point,
    PoolDetail,
    PoolSummary,
    Range,
    ServiceView,
    Snapshot,
    Summary,
    Trend,
    WorkerView,
)

START = 1_750_000_000.0
UPTIME = 724.0
STEPS = {"1m": (60, 1), "5m": (300, 1), "15m": (300, 3), "1h": (300, 12)}
"""The number of values in the trend of each window, and the seconds that each value covers."""


def snapshot(tick: int = 0, *, window: str = "5m", pools: tuple[str, ...] = ("text",), workers: int = 4) -> Snapshot:
    """Return a Snapshot of a service with small language jobs. *tick* seconds pass after a fixed quiet moment."""
    values, step = STEPS[window]
    seconds = float(values * step)
    return Snapshot(
        seq=724 + tick,
        taken_at=START + UPTIME + tick,
        uptime=UPTIME + tick,
        window=window,
        window_seconds=seconds,
        covered_seconds=min(seconds, UPTIME + tick),
        service=ServiceView(name="articles", pid=4101, host="host-1", python="3.11.7", started_at=START),
        pools={name: pool(tick, name=name, window=window, workers=workers) for name in pools},
        monitor=monitor(),
    )


def with_pool(snapshot: Snapshot, **changes: Any) -> Snapshot:
    """Return the Snapshot with *changes* to its first pool. CallStats fields change its total."""
    name, pool = next(iter(snapshot.pools.items()))
    total = {key: changes.pop(key) for key in list(changes) if key in CallStats.__struct_fields__}
    changed = replace(pool, total=replace(pool.total, **total), **changes)
    return replace(snapshot, pools={**snapshot.pools, name: changed})


def with_worker(snapshot: Snapshot, slot: str, **changes: Any) -> Snapshot:
    pool = next(iter(snapshot.pools.values()))
    return with_pool(snapshot, workers={**pool.workers, slot: replace(pool.workers[slot], **changes)})


def empty() -> Snapshot:
    """Return a Snapshot four seconds after the start: workers are ready, no call has ended."""
    trend = Trend(step=1.0, end=START + 4, ok=(None,) * 296 + (0.0,) * 4, errors=(None,) * 296 + (0.0,) * 4)
    idle = [worker(index, busy=None) for index in range(4)]
    return Snapshot(
        seq=4,
        taken_at=START + 4,
        uptime=4.0,
        window="5m",
        window_seconds=300.0,
        covered_seconds=4.0,
        service=ServiceView(name="articles", pid=4101, host="host-1", python="3.11.7", started_at=START),
        pools={"text": detail("text", trend, CallStats(), (), {}, {view.id: view for view in idle}, waiting=0)},
        monitor=monitor(),
    )


def monitor() -> MonitorView:
    return MonitorView(
        collecting=True,
        events=21_480,
        dropped=0,
        clamped=0,
        handler_failures=0,
        series=9,
        series_limit=512,
        overflowed=0,
        memory_bytes=1_843_200,
        memory_limit_bytes=96_000_000,
        viewers=1,
    )


def pool(tick: int, *, name: str, window: str, workers: int) -> PoolDetail:
    values, step = STEPS[window]
    seconds = values * step
    scale = seconds / 300
    views = {
        "chat": operation("chat", 506, 14, 0.61, 2.4, 4.1, scale),
        "generate": operation("generate", 702, 18, 0.39, 1.3, 2.2, scale),
        "keywords": operation("keywords", 1348, 2, 0.018, 0.044, 0.083, scale),
        "summary": operation("summary", 984, 8, 0.12, 0.41, 0.72, scale),
    }
    calls, failed = sum(view.calls for view in views.values()), sum(view.errors for view in views.values())
    total = CallStats(
        calls=calls,
        ok=calls - failed,
        errors=failed,
        timeouts=sum(view.timeouts for view in views.values()),
        workers_lost=1,
        error_ratio=failed / calls,
        rate=calls / seconds,
        latency=distribution(calls - failed, 0.084, 1.3, 2.9),
        queue=distribution(calls - failed, 0.0004, 0.062, 0.18),
        execution=distribution(calls - failed, 0.081, 1.2, 2.8),
    )
    shares = (0.006, 0.03, 0.08, 0.13, 0.17, 0.21, 0.16, 0.10, 0.05, 0.049, 0.015)
    bounds = (*(2.0**power for power in range(-8, 2)), None)
    histogram = tuple(Bar(upper, round(share * total.ok)) for upper, share in zip(bounds, shares, strict=True))
    slots = [worker(index, tick=tick, name=name, scale=scale * 4 / workers) for index in range(workers)]
    drawn = trend(int(START + UPTIME) + tick, window)
    return detail(name, drawn, total, histogram, views, {view.id: view for view in slots})


def trend(now: int, window: str) -> Trend:
    values, step = STEPS[window]
    end = now // step * step
    starts = range(end - values * step, end, step)
    return Trend(
        step=float(step),
        end=float(end),
        ok=tuple(_mean(_throughput, start, step) for start in starts),
        errors=tuple(_mean(_errors, start, step) for start in starts),
    )


def _mean(of: Callable[[int], float], start: int, step: int) -> float | None:
    if start < START:
        return None
    return sum(of(second) for second in range(start, start + step)) / step


def detail(
    name: str,
    trend: Trend,
    total: CallStats,
    histogram: tuple[Bar, ...],
    operations: dict[str, OperationView],
    workers: dict[str, WorkerView],
    waiting: int = 2,
) -> PoolDetail:
    states = [view.state for view in workers.values()]
    return PoolDetail(
        name=name,
        state="running",
        size=len(workers),
        busy=states.count("busy"),
        idle=states.count("ready"),
        starting=states.count("initializing"),
        draining=0,
        dead=0,
        waiting=waiting if total.calls else 0,
        queue_limit=64,
        sessions=12 if total.calls else 0,
        restarts=1 if total.calls else 0,
        completed=8_312 if total.calls else 0,
        total=total,
        histogram=histogram,
        trend=trend,
        operations=operations,
        workers=workers,
    )


def operation(
    name: str, calls: int, errors: int, p50: float, p95: float, p99: float, scale: float = 1.0
) -> OperationView:
    calls = round(calls * scale)
    return OperationView(
        operation=name,
        calls=calls,
        ok=calls - errors,
        errors=errors,
        timeouts=errors // 3,
        error_ratio=errors / calls,
        rate=calls / (300 * scale),
        latency=distribution(calls - errors, p50, p95, p99),
        queue=distribution(calls - errors, 0.0004, 0.061, 0.17),
        execution=distribution(calls - errors, p50 * 0.97, p95 * 0.95, p99 * 0.96),
    )


def distribution(count: int, p50: float, p95: float, p99: float) -> Distribution:
    return Distribution(
        count=count, mean=p50 * 1.6, max=p99 * 1.9, p50=p50, p90=p95 * 0.7, p95=p95, p99=p99, p999=p99 * 1.4
    )


_DOING = ("generate", "keywords", None, "chat")


def worker(
    index: int, *, tick: int = 0, name: str = "text", busy: bool | None = True, scale: float = 1.0
) -> WorkerView:
    """Return one of four kinds of workers, in turn: three busy and one idle, the second restarted a while ago."""
    kind = index % 4
    doing = _DOING[kind] if busy else None
    calls, errors = (round((921, 884, 871, 864)[kind] * scale), (12, 9, 10, 11)[kind]) if busy else (0, 0)
    return WorkerView(
        id=f"{name}-{index}",
        state="busy" if doing else "ready",
        state_age=(0.84, 0.03, 0.31, 1.92)[kind] + 0.1 * (tick % 7) if busy else 3.2,
        pid=4110 + index if kind != 1 else 4188,
        age=(721.0, 402.0, 721.0, 721.0)[kind] + tick if busy else 3.6,
        restarts=1 if kind == 1 and busy else 0,
        operation=doing,
        busy_ratio=(0.83, 0.64, 0.57, 0.91)[kind] if busy else 0.0,
        last_error=("OperationTimeout", "WorkerDied", None, "RateLimited")[kind] if busy else None,
        last_error_age=(42.0, 402.0, None, 8.0)[kind] if busy else None,
        calls=calls,
        ok=calls - errors,
        errors=errors,
        timeouts=errors // 3,
        error_ratio=errors / calls if calls else None,
        rate=calls / (300 * scale) if calls else None,
        latency=distribution(calls - errors, 0.083, 1.3, 2.8) if calls else Distribution(),
    )


def summary(*names: str) -> Summary:
    """Return a Summary of the 15 minutes up to `START` + 3600, of pools of these names (default ``text``), with a bad
    minute.
    """
    return Summary(
        start=START + 2700, end=START + 3600, pools={name: pool_summary(name) for name in names or ("text",)}
    )


def pool_summary(name: str) -> PoolSummary:
    quiet = pool(0, name=name, window="15m", workers=4)
    by_time = sorted(quiet.operations.values(), key=lambda view: -view.calls * (view.execution.mean or 0))
    total = replace(
        quiet.total, errors=126, workers_lost=3, ok=quiet.total.calls - 126, error_ratio=126 / quiet.total.calls
    )
    return PoolSummary(
        covered_seconds=840.0,
        total=total,
        operations={view.operation: view for view in by_time},
        workers={
            slot: CallStats(**{field: getattr(view, field) for field in CallStats.__struct_fields__})
            for slot, view in quiet.workers.items()
        },
        by_category={
            category: ErrorRate(calls=total.calls, errors=errors, error_ratio=errors / total.calls)
            for category, errors in (("operation", 111), ("timeout", 12), ("connection", 3))
        },
        by_session_kind={
            "none": ErrorRate(calls=total.calls - 506, errors=100, error_ratio=100 / (total.calls - 506)),
            "hint": ErrorRate(calls=506, errors=26, error_ratio=26 / 506),
        },
        busy_seconds=2412.0,
        utilisation=0.7178,
        deaths=3,
        size=4.0,
        busy=2.8714,
        busy_max=4,
        waiting=0.41,
        waiting_max=31,
    )


def course(name: str = "text", *, step: int = 10, number: int = 90) -> Range:
    """Return the timeline of `summary`: the third minute from the end is bad, an early minute was not measured."""
    end = int(START) + 3600
    starts = range(end - number * step, end, step)
    points = (point(start, step, gap=start // 60 == starts[0] // 60 + 2, bad=end - 180 <= start < end - 120)
              for start in starts)  # fmt: skip
    return Range(
        start=float(starts[0]), end=float(end), step=float(step), pool=name, operation=None, worker=None,
        points=tuple(points),
    )  # fmt: skip


def point(start: int, step: int = 10, *, gap: bool = False, bad: bool = False) -> Point:
    if gap:
        return Point(start=float(start), covered_seconds=0.0, deaths=0)
    some = range(start, start + step, max(step // 10, 1))
    ok = round(sum(map(_throughput, some)) * step / len(some) * (0.4 if bad else 1.0))
    errors = round(step * 1.9 + start // step % 3) if bad else 0
    slow = 3.0 if bad else 1.0 + start // step % 7 / 10
    return Point(
        start=float(start),
        covered_seconds=float(step),
        calls=ok + errors,
        ok=ok,
        errors=errors,
        error_ratio=errors / (ok + errors),
        rate=(ok + errors) / step,
        latency=distribution(ok, 0.084, 0.6 * slow, 1.7 * slow),
        deaths=1 + start // step % 2 if bad and start // step % 3 == 0 else 0,
        size=4.0,
        busy=3.9 if bad else 2.8,
        busy_max=4,
        waiting=12.0 if bad else 0.1,
        waiting_max=25 + start // step % 7 if bad else 1,
    )


def _throughput(second: int) -> float:
    """Return a throughput with slow waves, a short dip and noise, like a service under steady traffic."""
    dip = 0.45 if second % 300 in range(118, 131) else 1.0
    return float(round((11.6 + 3.2 * sin(second / 29) + 1.4 * sin(second / 7)) * dip + Random(second).gauss(0, 1.1)))


def _errors(second: int) -> float:
    busy_moment = second % 300 in range(118, 131)
    return float(Random(-second).random() < (0.7 if busy_moment else 0.09))
