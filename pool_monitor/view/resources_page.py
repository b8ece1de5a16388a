"""The page of resources: the machine, the process, its event loop, GPUs, faults, and what the monitor itself takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pool_monitor.snapshot import (
    Distribution,
    FaultView,
    GpuView,
    HistoryView,
    HostView,
    LoopView,
    MonitorMode,
    MonitorView,
    OtlpView,
    PoolDetail,
    PressureView,
    ProcessView,
    ResourceView,
    SamplingView,
    Snapshot,
)
from pool_monitor.view import format as fmt
from pool_monitor.view.notices import SYMBOLS, subject
from pool_monitor.view.page_frame import Content, PageState, page_content
from pool_monitor.view.stack_lines import stack_lines
from pool_monitor.view.text import Line, PageSize, Segment, clean, fit_line, line_width, one_line, paragraph, wrap

LABEL = 12
"""Cells for the name of a line."""
CELL = 20
"""The fewest cells of a figure on a line."""
FAULTS_MAX = 50
"""The most faults that are listed."""
STACK_LINES = 24
"""The most lines of the stack of a blocked loop on this page."""


class Figure(NamedTuple):
    """A figure with its name and, as a note, what it is compared with."""

    name: str
    text: str
    note: str = ""


class ResourceRow(NamedTuple):
    label: str
    figures: Sequence[Figure]


def resources_page(snapshot: Snapshot, _pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the page of resources."""
    found, cells = snapshot.resources, size.width
    age = "not sampled yet" if found.sampled_age is None else f"sampled {fmt.whole_age(found.sampled_age)} ago"
    head: Line = [Segment(" RESOURCES", "head"), Segment(f"  {age}", "dim")]
    lines = [
        *resource_lines(found, snapshot.taken_at, cells),
        *_section("MONITOR", "", monitor_rows(snapshot.monitor, state.frame_seconds), _others(found.missing), cells),
        *degraded_lines(snapshot.monitor.degraded, cells),
    ]
    return page_content([head], lines, state)


def resource_lines(found: ResourceView, now: float, cells: int) -> list[Line]:
    """Return faults, host, process, event loop and GPUs, each as a section. *now* is the wall-clock time."""
    return [
        *_faults(found.faults, now, cells),
        *_section("HOST", _origin(found.host), host_rows(found.host), found.host.missing, cells),
        *_section("PROCESS", _pid(found.process), process_rows(found.process), found.process.missing, cells),
        *_section("EVENT LOOP", "", loop_rows(found.loop), {}, cells),
        *_stack(found.loop, cells),
        *_gpus(found.gpus, found.missing, cells),
    ]


def _section(title: str, note: str, rows: Iterable[ResourceRow], missing: Mapping[str, str], cells: int) -> list[Line]:
    lines: list[Line] = [[Segment(f" {title}", "head"), Segment(f"  {note}" if note else "", "dim")]]
    for row in rows:
        lines += _drawn(row, cells)
    return [*lines, *missing_lines(missing, cells)]


def _drawn(row: ResourceRow, cells: int) -> list[Line]:
    """Return the figures of *row* in columns whose widths depend on *cells* alone."""
    room = max(cells - LABEL - 3, 1)
    columns = max(room // CELL, 1)
    column = room // columns
    lines: list[Line] = []
    line: Line = [Segment(f"  {row.label:<{LABEL}}", "dim")]
    used = 0
    for figure in row.figures:
        segments = _segments(figure)
        needed = -(-line_width(segments) // column)
        needed = min(max(needed, 1), columns)
        if used + needed > columns:
            lines.append(line)
            line, used = [Segment(f"{'':{LABEL + 2}}")], 0
        line += fit_line(segments, column * needed)
        used += needed
    return [*lines, line]


def _segments(figure: Figure) -> Line:
    unknown = figure.text == fmt.UNKNOWN
    return [
        Segment(f"{figure.name} " if figure.name else "", "dim"),
        Segment(figure.text, "dim" if unknown else "plain"),
        Segment(f" {figure.note} " if figure.note and not unknown else " ", "dim"),
    ]


# -- the figures ------------------------------------------------------------------------------------------------------


def host_rows(host: HostView) -> list[ResourceRow]:
    """Return what is known of the machine or container."""
    pressure = host.pressure or PressureView()
    cpus = "" if host.cpus is None else f"of {fmt.mean(host.cpus)} {'processor' if host.cpus == 1 else 'processors'}"
    return [
        ResourceRow(
            "cpu",
            [
                Figure("", fmt.percent(host.cpu_ratio), cpus),
                Figure("throttled", fmt.percent(host.throttled_ratio)),
                Figure("load", fmt.rate(host.load1)),
            ],
        ),
        ResourceRow(
            "memory",
            [
                Figure("", fmt.size(host.memory_used), _of_size(host.memory_total, host.memory_ratio)),
                Figure("swap", fmt.size(host.swap_used), _of_size(host.swap_total)),
                Figure("killed for memory", fmt.count(host.oom_kills)),
            ],
        ),
        ResourceRow(
            "disk",
            [
                Figure("", fmt.size(host.disk_free), f"free{_of_size(host.disk_total, before=' ')}"),
                Figure("shared memory", fmt.size(host.shm_free), f"free{_of_size(host.shm_total, before=' ')}"),
                Figure("", clean(host.disk_path or fmt.UNKNOWN)),
            ],
        ),
        ResourceRow(
            "in use",
            [
                Figure("files", fmt.count(host.fds), _of_count(host.fds_limit)),
                Figure("processes", fmt.count(host.processes), _of_count(host.processes_limit)),
            ],
        ),
        ResourceRow(
            "waited for", [Figure(name, fmt.percent(getattr(pressure, name))) for name in ("cpu", "memory", "io")]
        ),
    ]


def process_rows(process: ProcessView) -> list[ResourceRow]:
    """Return what is known of the service's process."""
    return [
        ResourceRow(
            "cpu",
            [
                Figure("", fmt.percent(process.cpu_ratio), "of a processor"),
                Figure("gc", fmt.percent(process.gc_ratio)),
                Figure("longest gc pause", fmt.duration(process.gc_pause)),
            ],
        ),
        ResourceRow("memory", [Figure("rss", fmt.size(process.rss)), Figure("uss", fmt.size(process.uss))]),
        ResourceRow(
            "in use",
            [
                Figure("fds", fmt.count(process.fds), _of_count(process.fds_limit)),
                Figure("threads", fmt.count(process.threads)),
                Figure("of this user", fmt.count(process.user_threads), _of_count(process.threads_limit)),
            ],
        ),
        ResourceRow(
            "children",
            [Figure("", fmt.count(process.children), "beside workers"), Figure("zombies", fmt.count(process.zombies))],
        ),
        ResourceRow("tasks", [Figure("", fmt.count(process.tasks)), Figure("oldest", fmt.age(process.oldest_task))]),
    ]


def loop_rows(loop: LoopView) -> list[ResourceRow]:
    """Return what is known of the event loop."""
    if loop.blocked is not None:
        now = Figure("", f"{SYMBOLS['bad']} now, for {fmt.whole_age(loop.blocked)}")
    else:
        now = Figure("", fmt.UNKNOWN if loop.blocks is None else "not now")
    times = fmt.UNKNOWN if loop.blocks is None else fmt.plural(loop.blocks, "time")
    return [
        ResourceRow("lag", _percentiles(loop.lag)),
        ResourceRow("blocked", [now, Figure("", times, "since the start")]),
    ]


def _percentiles(found: Distribution) -> list[Figure]:
    names = ("p50", "p95", "p99")
    return [
        *(Figure(name, fmt.percentile(getattr(found, name), found.count)) for name in names),
        Figure("max", fmt.duration(found.max)),
    ]


_MODES: dict[MonitorMode, str] = {
    "full": "everything",
    "sampled": "all counts, percentiles from a sample",
    "counters": "all counts, no durations",
    "off": "nothing",
}
"""What each mode keeps of a call."""


def monitor_rows(monitor: MonitorView, frame_seconds: float | None = None) -> list[ResourceRow]:
    """Return what the monitor itself takes and holds. *frame_seconds* is what drawing a frame of this screen takes."""
    rows = [
        ResourceRow("keeps", _mode(monitor)),
        ResourceRow(
            "events",
            [
                Figure("received", fmt.count(monitor.events)),
                Figure("dropped", fmt.count(monitor.dropped)),
                Figure("failed handlers", fmt.count(monitor.handler_failures)),
            ],
        ),
        ResourceRow(
            "buffer",
            [
                Figure("calls", fmt.count(monitor.buffered), _of_count(monitor.buffer_limit or None)),
                Figure("waited", fmt.duration(monitor.lag_median)),
                Figure("longest", fmt.duration(monitor.lag)),
            ],
        ),
        ResourceRow(
            "memory",
            [
                Figure("", fmt.size(monitor.memory_bytes), _of_size(monitor.memory_limit_bytes)),
                Figure("series", fmt.count(monitor.series), _of_count(monitor.series_limit)),
                Figure("beyond the limit", fmt.count(monitor.overflowed)),
            ],
        ),
        ResourceRow(
            "cpu",
            [
                Figure("", fmt.percent(monitor.cpu_ratio), "of a processor"),
                Figure("tick", fmt.duration(monitor.tick_seconds)),
                Figure("late", fmt.duration(monitor.tick_late)),
            ],
        ),
    ]
    if monitor.resources is not None:
        rows.append(ResourceRow("sampling", _sampling(monitor.resources)))
    if monitor.history is not None:
        rows.append(ResourceRow("history", _history(monitor.history)))
    if monitor.otlp is not None:
        rows.append(ResourceRow("otlp", _otlp(monitor.otlp)))
    rows.append(ResourceRow("snapshots", _snapshots(monitor)))
    screens = [Figure("viewers", fmt.count(monitor.viewers))]
    if frame_seconds is not None:
        screens.append(Figure("this screen", fmt.duration(frame_seconds), "a frame"))
    return [*rows, ResourceRow("screens", screens)]


def degraded_lines(degraded: Mapping[str, str], cells: int) -> list[Line]:
    """Return why each degraded part of the monitor is degraded."""
    lines: list[Line] = []
    for part, why in degraded.items():
        words = f"{SYMBOLS['warn']} {clean(part)}: {one_line(why)}"
        lines += paragraph(words, cells, "warn", indent=2)
    return lines


def _mode(monitor: MonitorView) -> list[Figure]:
    kept = _MODES[monitor.mode]
    if monitor.mode != "full":
        kept = f"{SYMBOLS['warn']} {kept}"
    figures = [Figure("", kept, f"({monitor.mode})")]
    if monitor.mode == "full" and monitor.reduced_age is not None:
        figures.append(Figure("", f"less until {fmt.whole_age(monitor.reduced_age)} ago"))
    if monitor.off_seconds:
        figures.append(Figure("off for", fmt.age(monitor.off_seconds)))
    return figures


def _snapshots(monitor: MonitorView) -> list[Figure]:
    encoded = "" if monitor.encode_bytes is None else f"for {fmt.size(monitor.encode_bytes)}"
    return [
        Figure("made in", fmt.duration(monitor.snapshot_seconds)),
        Figure("encoded in", fmt.duration(monitor.encode_seconds), encoded),
    ]


def _sampling(sampling: SamplingView) -> list[Figure]:
    every = f"every {fmt.period(sampling.interval)}" if sampling.interval >= 1 else fmt.duration(sampling.interval)
    wanted = "" if sampling.interval == sampling.wanted_interval else f"wanted {fmt.period(sampling.wanted_interval)}"
    overdue = [] if sampling.overdue is None else [Figure("", f"{SYMBOLS['warn']} late {fmt.age(sampling.overdue)}")]
    return [
        Figure("", every, wanted),
        Figure("cpu", fmt.percent(sampling.cpu_ratio), "of a processor"),
        Figure("took", fmt.duration(sampling.sample_seconds), f"for {fmt.plural(sampling.workers, 'worker')}"),
        *overdue,
    ]


def _history(history: HistoryView) -> list[Figure]:
    state = "written" if history.degraded is None else f"{SYMBOLS['warn']} {one_line(history.degraded)}"
    return [
        Figure("", fmt.size(history.file_bytes), _of_size(history.size_limit)),
        Figure("flush", fmt.duration(history.flush_seconds)),
        Figure("waiting", fmt.age(history.held)),
        Figure("disk", fmt.size(history.disk_free), "free"),
        Figure("", state),
    ]


def _otlp(otlp: OtlpView) -> list[Figure]:
    error = [] if otlp.last_error is None else [Figure("", one_line(otlp.last_error))]
    return [Figure("accepted", fmt.count(otlp.exported)), Figure("failed", fmt.count(otlp.failed)), *error]


def _of_size(total: int | None, ratio: float | None = None, before: str = "") -> str:
    share = "" if ratio is None else f", {fmt.percent(ratio)}"
    return "" if total is None else f"{before}of {fmt.size(total)}{share}"


def _of_count(limit: int | None) -> str:
    return "" if limit is None else f"of {fmt.count(limit)}"


# -- the other sections -----------------------------------------------------------------------------------------------


def _origin(host: HostView) -> str:
    return "" if host.cgroup is None else f"limits of the container (cgroup {clean(host.cgroup)})"


def _pid(process: ProcessView) -> str:
    return "" if process.pid is None else f"pid {process.pid}"


def _faults(faults: Sequence[FaultView], now: float, cells: int) -> list[Line]:
    if not faults:
        return [[Segment(" FAULTS", "head"), Segment("  none: no limit is reached", "dim")]]
    lines: list[Line] = [[Segment(" FAULTS", "head")]]
    lines += [line for fault in faults[:FAULTS_MAX] for line in fault_lines(fault, now, cells)]
    if len(faults) > FAULTS_MAX:
        lines.append([Segment(f"  … {fmt.count(len(faults) - FAULTS_MAX)} more", "dim")])
    return lines


def fault_lines(fault: FaultView, now: float, cells: int) -> list[Line]:
    """Return a fault in full: its level, subject and reason, and since when."""
    return paragraph(f"{SYMBOLS[fault.level]} {fault_text(fault, now)}", cells, fault.level, indent=2)


def fault_text(fault: FaultView, now: float) -> str:
    """Return a fault in words. *now* is the wall-clock time."""
    words = one_line(fault.reason or fault.kind)
    pool = f" of pool {clean(fault.pool)}" if fault.pool is not None and fault.worker is None else ""
    return f"{subject(fault.subject)}{pool}: {words}; for {fmt.whole_age(max(now - fault.since, 0.0))}"


def _stack(loop: LoopView, cells: int) -> list[Line]:
    if not loop.stack:
        return []
    ago = "" if loop.stack_age is None else f", {fmt.whole_age(loop.stack_age)} ago"
    words = f"  what blocked the loop{ago}; the innermost frame is last:"
    return [[Segment(words, "dim")], *stack_lines(loop.stack, cells, indent=4, last=STACK_LINES)]


def _gpus(gpus: Sequence[GpuView], missing: Mapping[str, str], cells: int) -> list[Line]:
    if not gpus:
        why = missing.get("gpus")
        words = "none" if why is None else f"not available: {one_line(why)}"
        return _labelled(" GPUS", words, cells)
    lines: list[Line] = [[Segment(" GPUS", "head")]]
    for gpu in gpus:
        lines += _drawn(gpu_row(gpu), cells)
    return lines


def gpu_row(gpu: GpuView) -> ResourceRow:
    """Return what is known of one GPU."""
    degrees = fmt.UNKNOWN if gpu.temperature is None else f"{gpu.temperature:.0f} C"
    watts = fmt.UNKNOWN if gpu.power is None else f"{gpu.power:.0f} W"
    return ResourceRow(
        f"gpu {gpu.index}",
        [
            Figure("", fmt.percent(gpu.utilisation), "busy"),
            Figure("memory", fmt.size(gpu.memory_used), _of_size(gpu.memory_total, gpu.memory_ratio)),
            Figure("", f"{degrees}, {watts}"),
            Figure("", clean(gpu.name or fmt.UNKNOWN)),
        ],
    )


def _labelled(title: str, words: str, cells: int) -> list[Line]:
    first, *rest = wrap(words, max(cells - len(title) - 3, 1))
    return [
        [Segment(title, "head"), Segment(f"  {first}", "dim")],
        *([Segment(f"{'':{len(title) + 2}}{part}", "dim")] for part in rest),
    ]


def _others(missing: Mapping[str, str]) -> Mapping[str, str]:
    return {part: why for part, why in missing.items() if part != "gpus"}


def missing_lines(missing: Mapping[str, str], cells: int) -> list[Line]:
    """Return why figures are unknown: one entry for each reason, with the names of its figures."""
    by_reason: dict[str, list[str]] = {}
    for name, why in missing.items():
        by_reason.setdefault(one_line(why), []).append(clean(name))
    lines: list[Line] = []
    for why, names in by_reason.items():
        words = f"{fmt.UNKNOWN} {', '.join(names)}: {why or 'no reason known'}"
        lines += paragraph(words, cells, "dim", indent=2)
    return lines
