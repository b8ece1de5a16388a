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
    ErrorGroup,
    ErrorRate,
    ErrorSample,
    FaultView,
    HostView,
    LoopView,
    MonitorView,
    OperationView,
    Point,
    PoolDetail,
    PoolSummary,
    PressureView,
    ProcessView,
    Range,
    ResourceView,
    SamplingView,
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


TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/summaries/client.py", line 88, in send
    raise RateLimited(f"try again in {seconds} s")
summaries.client.RateLimited: try again in 20 s
"""
STACK = """Thread main, the current one:
  File "/srv/shop/summaries/tools.py", line 31, in generate
    text = self.clean(prompt)
  File "/srv/shop/summaries/tools.py", line 57, in clean
    return PATTERN.sub("", prompt)
"""


def measured(tick: int = 0, **options: Any) -> Snapshot:
    """Return `snapshot` with resources, figures of the workers' processes, faults, and errors in groups."""
    made = snapshot(tick, **options)
    for index, slot in enumerate(next(iter(made.pools.values())).workers):
        made = with_worker(made, slot, **worker_figures(index))
    made = with_pool(made, error_groups=error_groups(made.taken_at))
    sampling = SamplingView(
        interval=1.0,
        wanted_interval=1.0,
        cpu_ratio=0.006,
        sample_cpu=0.005,
        sample_seconds=0.011,
        workers=4,
        overdue=None,
    )
    own = replace(
        made.monitor,
        resources=sampling,
        lag=0.98,
        lag_median=0.61,
        buffered=12,
        buffer_limit=8_192,
        cpu_ratio=0.011,
        tick_seconds=0.0042,
        tick_late=0.0003,
        snapshot_seconds=0.0021,
        encode_seconds=0.00014,
        encode_bytes=21_504,
    )
    return replace(made, resources=resources(made.taken_at), monitor=own)


def worker_figures(index: int) -> dict[str, Any]:
    """Return the figures of a worker's process. The third one of four is stopped, so it has none."""
    if index % 4 == 2:
        return {"state_letter": "T", "figures_missing": "the process is stopped"}
    return {
        "cpu_ratio": (0.83, 0.64, None, 1.42)[index % 4],
        "rss": (134_217_728, 101_711_872, None, 1_342_177_280)[index % 4],
        "uss": (121_634_816, 88_080_384, None, 1_330_000_000)[index % 4],
        "fds": (14, 12, None, 212)[index % 4],
        "threads": (3, 3, None, 11)[index % 4],
        "children": (0, 1, None, 0)[index % 4],
        "read_bytes": 4_194_304,
        "written_bytes": 65_536,
        "state_letter": "RS R"[index % 4],
    }


def resources(now: float = START + UPTIME) -> ResourceView:
    """Return the resources of a container with four processors and one fault, whose loop was blocked a while ago."""
    return ResourceView(
        host=HostView(
            cpus=4.0,
            cpu_ratio=0.43,
            throttled_ratio=0.012,
            load1=2.1,
            memory_total=4 * 2**30,
            memory_used=2_619_000_000,
            memory_ratio=0.61,
            disk_path="/var/lib/articles",
            disk_total=200 * 2**30,
            disk_free=41 * 2**30,
            shm_total=64 * 2**20,
            shm_free=60 * 2**20,
            fds=3_210,
            fds_limit=1_048_576,
            processes=312,
            processes_limit=4_096,
            oom_kills=0,
            pressure=PressureView(cpu=0.08, memory=0.0, io=0.004),
            cgroup="v2",
            missing={"swap_total": "the container has no swap", "swap_used": "the container has no swap"},
        ),
        process=ProcessView(
            pid=4101,
            cpu_ratio=0.12,
            rss=128 * 2**20,
            uss=96 * 2**20,
            fds=57,
            fds_limit=1024,
            threads=12,
            threads_limit=4_096,
            user_threads=301,
            children=0,
            zombies=0,
            tasks=23,
            oldest_task=UPTIME,
            gc_pause=0.012,
            gc_ratio=0.003,
        ),
        loop=LoopView(
            lag=Distribution(count=3000, mean=0.0004, max=0.81, p50=0.0001, p90=0.0006, p95=0.0011, p99=0.0084),
            stack='  File "/srv/shop/service.py", line 112, in handle\n    page = render(request)\n'
            '  File "/srv/shop/pages.py", line 40, in render\n    time.sleep(0.8)\n',
            stack_age=64.0,
            blocks=2,
        ),
        faults=(
            FaultView(
                kind="leak",
                level="warn",
                subject="worker text-3",
                pool="text",
                worker="text-3",
                value=1_200_000.0,
                since=now - 124.0,
                reason="leaks 1.1M/s: reaches its limit of 2.0G in 10m",
            ),
        ),
        missing={"gpus": "the library nvidia-ml-py is not installed"},
        sampled_age=0.4,
    )  # fmt: skip


def error_groups(now: float = START + UPTIME) -> tuple[ErrorGroup, ...]:
    """Return two groups of errors, the first with a traceback and the second with a stack."""
    return (
        ErrorGroup(
            fingerprint="3fb1c2d49e0a7765",
            type="RateLimited",
            message="try again in <n> s",
            frames=("client.py:send", "tools.py:chat"),
            count=31,
            total=120,
            rate=0.103,
            first_seen=now - 702.0,
            last_seen=now - 8.0,
            operations=("chat", "generate"),
            workers=("text-3", "text-0"),
            sample=ErrorSample(
                at=now - 8.0, message="try again in 20 s", operation="chat", worker="text-3", traceback=TRACEBACK
            ),
        ),
        ErrorGroup(
            fingerprint="90aa0c11e5b7d2f3",
            type="OperationTimeout",
            message="no result within <n> s",
            count=11,
            total=11,
            rate=0.037,
            first_seen=now - 250.0,
            last_seen=now - 42.0,
            operations=("generate",),
            workers=("text-0",),
            sample=ErrorSample(
                at=now - 42.0, message="no result within 10 s", operation="generate", worker="text-0", stack=STACK
            ),
        ),
    )
