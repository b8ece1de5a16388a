"""The metrics that rules may name: every number of a Snapshot, drawn from its types.

A field that is added to a view becomes a metric once its unit is decided in `UNITS`. A test fails until then.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from msgspec import Struct

from pool_monitor.errors import UnknownName
from pool_monitor.events import RESOURCE_HOST, RESOURCE_PROCESS, RESOURCE_WORKER
from pool_monitor.snapshot import (
    CallStats,
    HostView,
    LoopView,
    MonitorView,
    OperationView,
    PoolDetail,
    ProcessView,
    WorkerView,
)

Unit = Literal["s", "bytes", "ratio", "/s", "count", ""]
"""Seconds, bytes, a share from 0 to 1, a rate per second, a number of things, or a number without a unit."""
Scope = Literal["pool", "operation", "worker", "host", "process", "loop", "monitor", "llm"]
Kept = Literal["calls", "figures", ""]
"""How the past of a metric is kept: with the calls, with the figures of resources, or not at all."""

LABELS_OF: dict[Scope, tuple[str, ...]] = {
    "pool": ("pool",),
    "operation": ("operation", "pool"),
    "worker": ("pool", "worker"),
    "host": (),
    "process": (),
    "loop": (),
    "monitor": (),
    "llm": ("pool",),
}
"""The labels of the instances of a scope, in order."""
VIEWS: dict[Scope, type[Struct]] = {
    "pool": PoolDetail,
    "operation": OperationView,
    "worker": WorkerView,
    "host": HostView,
    "process": ProcessView,
    "loop": LoopView,
    "monitor": MonitorView,
}
"""The type of a scope's instances in a Snapshot. The fields of a pool's ``total`` are metrics of the pool."""

UNITS: dict[str, Unit] = {
    **dict.fromkeys(
        (
            "age", "call_age", "state_age", "last_error_age", "stack_age", "reduced_age", "evaluated_age",
            "reloaded_age", "oldest_task", "time_to_limit", "relative_time", "gc_pause", "blocked", "lag", "lag_median",
            "tick_late", "tick_seconds", "snapshot_seconds", "encode_seconds", "flush_seconds", "off_seconds",
            "evaluation_seconds", "longest_hold", "interval", "wanted_interval", "sample_cpu", "sample_seconds",
            "overdue", "held", "mean", "max", "p50", "p90", "p95", "p99", "p999", "monitor.history.dropped",
            "wait_limit", "paused", "longest_block", "oldest_debt", "notified_age", "last_success_age", "every",
        ),
        "s",
    ),
    **dict.fromkeys(
        (
            "rss", "rss_limit", "uss", "memory_total", "memory_used", "swap_total", "swap_used", "disk_total",
            "disk_free", "shm_total", "shm_free", "memory_bytes", "memory_limit_bytes", "file_bytes", "size_limit",
            "held_bytes", "encode_bytes", "read_bytes", "written_bytes",
        ),
        "bytes",
    ),
    **dict.fromkeys(
        (
            "error_ratio", "rejected_ratio", "busy_ratio", "cpu_ratio", "throttled_ratio", "memory_ratio", "gc_ratio",
            "utilisation", "host.pressure.cpu", "host.pressure.memory", "host.pressure.io",
        ),
        "ratio",
    ),
    **dict.fromkeys(("rate", "leak_rate"), "/s"),
    **dict.fromkeys(
        (
            "calls", "ok", "errors", "timeouts", "workers_lost", "cancelled", "rejected", "count", "size", "busy",
            "idle", "starting", "draining", "dead", "waiting", "queue_limit", "sessions", "sessions_limit", "restarts",
            "completed", "crash_loops", "retries_refused", "deaths", "calls_held", "fds", "fds_limit", "threads",
            "threads_limit", "user_threads", "children", "zombies", "tasks", "processes", "processes_limit",
            "oom_kills", "blocks", "events", "dropped", "dropped_recent", "handler_failures_recent",
            "overflowed_recent", "clamped", "handler_failures", "series", "series_limit", "overflowed", "viewers",
            "buffered", "buffer_limit", "exported", "failed", "workers", "rules", "evaluations", "missed",
            "transitions", "refused", "owed", "parked", "held_back", "lost",
        ),
        "count",
    ),
    **dict.fromkeys(("load1", "cpus", "crash_loop", "collecting"), ""),
}  # fmt: skip
"""The unit of each field, by its name, or by the name of the metric where fields of one name differ."""
NO_METRICS = frozenset({"pid", "shares_name", "trend"})
"""Fields that are no quantity, or that other fields summarise."""
_WINDOWED = frozenset(
    {*CallStats.__struct_fields__, "rejected_ratio", "busy_ratio", "deaths", "gc_pause", "longest_block"}
)
"""Fields that cover the window of a Snapshot, and `LoopView.lag`."""
LIMITS: dict[str, str] = {
    "pool.waiting": "pool.queue_limit",
    "pool.busy": "pool.size",
    "pool.sessions": "pool.sessions_limit",
    **{f"pool.queue.{field}": "pool.wait_limit" for field in ("mean", "max", "p50", "p90", "p95", "p99", "p999")},
    "worker.rss": "worker.rss_limit",
    "worker.fds": "worker.fds_limit",
    "host.memory_used": "host.memory_total",
    "host.swap_used": "host.swap_total",
    "host.disk_free": "host.disk_total",
    "host.shm_free": "host.shm_total",
    "host.fds": "host.fds_limit",
    "host.processes": "host.processes_limit",
    "host.load1": "host.cpus",
    "process.fds": "process.fds_limit",
    "process.user_threads": "process.threads_limit",
    "monitor.series": "monitor.series_limit",
    "monitor.memory_bytes": "monitor.memory_limit_bytes",
    "monitor.buffered": "monitor.buffer_limit",
    "monitor.history.file_bytes": "monitor.history.size_limit",
    "monitor.history.disk_free": "monitor.history.disk_total",
}
"""The metric that limits another one: what ``of: limit`` is."""
MEANINGS = {
    "calls": "Calls that were accepted and have ended in the window: ok, errors and cancelled.",
    "ok": "Of these, calls that succeeded.",
    "errors": "Of these, calls that failed; timeouts and workers_lost are among them.",
    "timeouts": "Calls that failed because their deadline passed.",
    "workers_lost": "Calls that failed because their worker died.",
    "cancelled": "Calls that their caller cancelled.",
    "rejected": "Calls that were refused before they reached a worker; they are not among calls.",
    "busy": "Workers on calls.",
    "idle": "Workers that are free.",
    "pool.queue_limit": "The most calls that the queue holds.",
    "fds": "Open descriptors.",
    "threads": "Threads.",
    "worker.read_bytes": "Bytes read from disks since the process was started.",
    "worker.written_bytes": "Bytes written to disks since the process was started.",
    "worker.leak_rate": "Bytes per second by which its memory grows, if that is a leak.",
    "worker.crash_loop": "1 while its processes end more often than the restart limit allows, else 0.",
    "memory_ratio": "memory_used / memory_total.",
    "swap_total": "Size of the swap.",
    "swap_used": "Swap in use.",
    "disk_total": "Size of the disk that is measured.",
    "shm_free": "Free space of /dev/shm.",
    "host.fds_limit": "Most open files of the whole machine.",
    "fds_limit": "Most open descriptors.",
    "host.pressure.cpu": "Share of the last 10 s in which some task waited for a processor.",
    "host.pressure.memory": "Share of the last 10 s in which some task waited for memory.",
    "host.pressure.io": "Share of the last 10 s in which some task waited for a disk.",
    "loop.stack_age": "Seconds since the latest stack of the blocked event loop was taken.",
    "monitor.collecting": "1 while events are counted, 0 when no count changes any more.",
    "monitor.dropped_recent": "By how much monitor.dropped has grown in the last 5 minutes.",
    "monitor.handler_failures_recent": "By how much monitor.handler_failures has grown in the last 5 minutes.",
    "monitor.overflowed_recent": "By how much monitor.overflowed has grown in the last 5 minutes.",
    "monitor.series": "Histogram series in use.",
    "monitor.series_limit": "Most histogram series.",
    "monitor.memory_bytes": "Bytes that all stores of the monitor hold now.",
    "monitor.memory_limit_bytes": "The budget for these bytes.",
    "monitor.buffered": "Calls that were in the buffer when the Snapshot was made.",
    "monitor.buffer_limit": "The most calls that the buffer holds.",
    "monitor.encode_seconds": "How long it took to encode the last Snapshot for a viewer.",
    "monitor.encode_bytes": "Size of the last Snapshot that was encoded.",
    "monitor.history.size_limit": "The most bytes that the file and its log may have.",
    "monitor.history.disk_total": "Size of the disk of the file.",
    "monitor.resources.wanted_interval": "From one sample to the next, as configured.",
    "monitor.resources.overdue": "For how long the present sample has been running, if that is longer than 10 s.",
    "monitor.alerts.rules": "Rules that are evaluated.",
    "monitor.alerts.interval": "From one evaluation to the next.",
    "monitor.alerts.evaluations": "Evaluations since the monitor was made.",
    "monitor.alerts.reloaded_age": "Seconds since the files of rules were last read.",
}
"""What a metric means, where the docstring of its field does not say it. The keys are those of `UNITS`; the name of a
field counts only where it has no docstring."""
DURATIONS = {
    "latency": "the time from the start of a call to its end",
    "queue": "the time from the start of a call to its hand-over to a worker",
    "execution": "the time of a call in the worker",
    "lag": "the delay with which the event loop ran a callback that was due",
}
"""What the durations of a `Distribution` are, by its field."""
_STATISTICS = {"mean": "Mean of", "max": "Maximum of", "p50": "Median of", "p999": "99.9th percentile of"}
_POOL_PAST = frozenset({"size", "busy", "waiting", "utilisation", "busy_ratio", "deaths"})
"""What the blocks of the windows have of a pool beside its calls."""
_MEASURED = {"host": RESOURCE_HOST, "process": RESOURCE_PROCESS, "worker": RESOURCE_WORKER}


class Metric(NamedTuple):
    """One number of the Snapshot."""

    name: str
    """Such as ``operation.latency.p95``."""
    scope: Scope
    unit: Unit
    windowed: bool
    """Whether it covers a window. Otherwise it is of the moment of the Snapshot."""
    limit: str | None = None
    """The metric that is its limit, such as ``worker.rss_limit`` of ``worker.rss``."""
    kept: Kept = ""
    """How its past is kept. Empty: rules cannot compare it with what it was, nor draw a line through it."""
    path: tuple[str, ...] = ()
    """The attributes that lead to it from the view of its instance."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of its instances."""
        return LABELS_OF[self.scope]

    @property
    def meaning(self) -> str:
        """What it is, in a sentence. The first call reads the sources of the views."""
        return _meaning(self)


def find(name: str) -> Metric:
    """Return the metric *name*. Raises UnknownName, which names the nearest ones."""
    metric = METRICS.get(name)
    if metric is None:
        raise UnknownName(f"there is no metric {name!r:.100}; {_nearest(name)}")
    return metric


def _nearest(name: str) -> str:
    scope, _, field = name[:100].partition(".")
    # Without a scope that exists, the field decides.
    near = [] if scope in VIEWS else [metric for metric in METRICS if metric.partition(".")[2] in (name, field)][:4]
    near = near or difflib.get_close_matches(name[:100], METRICS, 4, 0.6)
    if near:
        return f"the nearest: {', '.join(near)}"
    return "`pool-monitor rules metrics` lists all"


# -- drawing them from the types ----------------------------------------------------------------------------------


def _drawn() -> Iterator[Metric]:
    for scope, view in VIEWS.items():
        if scope == "pool":
            yield from _of_view(scope, CallStats, (), ("total",))
        yield from _of_view(scope, view, ())


def _of_view(scope: Scope, view: type[Struct], names: tuple[str, ...], base: tuple[str, ...] = ()) -> Iterator[Metric]:
    for field, hint in numbers_of(view).items():
        if issubclass(hint, Struct):
            if not (scope == "pool" and field == "total"):
                yield from _of_view(scope, hint, (*names, field), base)
            continue
        name = ".".join((scope, *names, field))
        unit = UNITS.get(name, UNITS.get(field))
        if unit is not None:
            windowed = (names or (field,))[0] in _WINDOWED or (scope == "loop" and names == ("lag",))
            yield Metric(
                name, scope, unit, windowed, LIMITS.get(name), _kept(scope, (*names, field)), (*base, *names, field)
            )


@cache
def numbers_of(view: type[Struct]) -> dict[str, type]:
    """Return the fields and properties of *view* that are numbers or views, with their types."""
    hints = get_type_hints(view)
    hints = {name: hints[name] for name in view.__struct_fields__}
    for kind in view.__mro__:
        for name, found in vars(kind).items():
            if isinstance(found, property):
                hints[name] = get_type_hints(found.fget)["return"]
    numbers = {}
    for name, hint in hints.items():
        [kind, *others] = [kind for kind in (get_args(hint) or (hint,)) if kind is not NoneType]
        if others or name in NO_METRICS or not isinstance(kind, type):
            continue
        if issubclass(kind, Struct) or kind in (int, float) or (kind is bool and name in UNITS):
            numbers[name] = kind
    return numbers


def _kept(scope: Scope, names: tuple[str, ...]) -> Kept:
    field = names[0]
    if scope in ("pool", "operation", "worker") and field in CallStats.__struct_fields__:
        return "calls"
    if scope == "pool" and field in _POOL_PAST:
        return "calls"
    return "figures" if figure_of(scope, names) is not None else ""


def figure_of(scope: Scope, names: tuple[str, ...]) -> tuple[str, Literal["mean", "high"]] | None:
    """Return the figure of a `GaugeSeries` that a metric's past is in, and which of its values; None: it is in none."""
    if scope == "loop" and names in (("lag", "mean"), ("lag", "max")):
        return "lag", "mean" if names[1] == "mean" else "high"
    if scope == "process" and names == ("gc_pause",):
        return "gc_pause", "high"
    figure = "_".join(names)
    spec = _MEASURED.get(scope)
    if spec is not None and (figure in spec.measurements or f"{figure}_duration" in spec.measurements):
        return figure, "mean"
    return None


# -- their meanings ---------------------------------------------------------------------------------------------------


def _meaning(metric: Metric) -> str:
    *before, field = metric.path
    duration = DURATIONS.get(before[-1]) if before else None
    if duration is not None:
        whose = "" if before[-1] == "lag" else ", of the calls that succeeded"
        if field == "count":
            return f"Number of durations in the window: {duration}{whose}."
        statistic = _STATISTICS.get(field, f"{field[1:]}th percentile of")
        return f"{statistic} {duration}, in the window{whose}."
    if metric.name in MEANINGS:
        return MEANINGS[metric.name]
    view: Any = VIEWS[metric.scope]
    for name in before:
        view = numbers_of(view)[name]
    documented = (_field_docs(kind).get(field) for kind in view.__mro__)
    return next(filter(None, documented), MEANINGS.get(field, ""))


@cache
def _field_docs(view: type) -> dict[str, str]:
    """Return the first sentence of the docstring below each field of a class, and of each property. Empty where the
    source is not installed.
    """
    try:
        [node] = ast.parse(textwrap.dedent(inspect.getsource(view))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    assert isinstance(node, ast.ClassDef)
    found: dict[str, str] = {}
    field = None
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef):
            found[statement.name] = _first_sentence(ast.get_docstring(statement) or "")
        elif field is not None and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            found[field] = _first_sentence(str(statement.value.value))
        target = statement.target if isinstance(statement, ast.AnnAssign) else None
        field = target.id if isinstance(target, ast.Name) else None
    return found


def _first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, without the part that says what None means."""
    sentence, _, _rest = " ".join(text.split()).replace("`", "").partition(". ")
    return sentence.partition("; None")[0].rstrip(".") + "." if sentence else ""


METRICS: dict[str, Metric] = {metric.name: metric for metric in _drawn()}
"""Every metric, by name."""
