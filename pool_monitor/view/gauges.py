"""The row of resource gauges on the overview: the machine, the service's process and its event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pool_monitor.findings import Level
from pool_monitor.snapshot import ResourceView, Snapshot
from pool_monitor.view import format as fmt
from pool_monitor.view.notices import SYMBOLS
from pool_monitor.view.text import Line, Segment, fit_line, width

CELL = 13
"""The fewest cells of a gauge."""


class Gauge(NamedTuple):
    name: str
    show: Callable[[ResourceView], str]
    faults: tuple[tuple[str, str], ...] = ()
    """The subject and kind of each fault whose level the gauge shows."""
    limit: Callable[[ResourceView], str] = lambda _: ""
    """What follows the figure where there is room, such as its limit."""


GAUGES: tuple[Gauge, ...] = (
    Gauge(
        "CPU",
        lambda found: fmt.percent(found.host.cpu_ratio),
        (("host", "cpu"), ("host", "throttled")),
        lambda found: "" if found.host.cpus is None else f" of {fmt.mean(found.host.cpus)}",
    ),
    Gauge(
        "MEM",
        lambda found: fmt.percent(found.host.memory_ratio),
        (("host", "memory"), ("host", "oom")),
        lambda found: "" if found.host.memory_total is None else f" of {fmt.size(found.host.memory_total)}",
    ),
    Gauge("LAG", lambda found: fmt.duration(found.loop.lag.p99), (("loop", "lag"),)),
    Gauge("RSS", lambda found: fmt.size(found.process.rss), (("process", "memory"),)),
    Gauge(
        "FDS",
        lambda found: fmt.count(found.process.fds),
        (("process", "fds"), ("host", "fds")),
        lambda found: "" if found.process.fds_limit is None else f"/{fmt.count(found.process.fds_limit)}",
    ),
    Gauge("LOAD", lambda found: fmt.rate(found.host.load1)),
    Gauge("DISK", lambda found: fmt.size(found.host.disk_free), (("host", "disk"),), lambda _: " free"),
    Gauge("TASKS", lambda found: fmt.count(found.process.tasks)),
    Gauge("BLOCKED", lambda found: fmt.count(found.loop.blocks), (("loop", "blocked"),), lambda _: "x"),
    Gauge("OWN CPU", lambda found: fmt.percent(found.process.cpu_ratio), (("process", "cpu"),)),
)
"""The most important first: those that do not fit are left out, whole."""


def gauge_line(snapshot: Snapshot, cells: int) -> Line:
    """Return as many gauges as fit, in cells of equal width. While the loop is blocked, for how long stands in the
    place of its lag. Empty: nothing was measured yet.
    """
    found = snapshot.resources
    if found.sampled_age is None:
        return []
    number = max(min((cells - 1) // CELL, len(GAUGES)), 1)
    room = (cells - 1) // number
    line: Line = [Segment(" ")]
    for gauge in GAUGES[:number]:
        line += fit_line(_drawn(gauge, found, room), room)
    return line


def _drawn(gauge: Gauge, found: ResourceView, room: int) -> Line:
    name, text, level = gauge.name, gauge.show(found), _level(gauge, found)
    limit = gauge.limit(found) if text != fmt.UNKNOWN else ""
    if name == "LAG" and found.loop.blocked is not None:
        name, text, level, limit = "BLOCKED", fmt.whole_age(found.loop.blocked), "bad", ""
    symbol = SYMBOLS[level] if level else ""
    if width(f"{name} {text}{limit}{symbol}") >= room:
        limit = ""
    return [
        Segment(f"{name} ", "dim"),
        Segment(text + symbol, level or ("dim" if text == fmt.UNKNOWN else "plain")),
        Segment(limit, "dim"),
    ]


def _level(gauge: Gauge, found: ResourceView) -> Level | None:
    levels = {fault.level for fault in found.faults if (fault.subject, fault.kind) in gauge.faults}
    return "bad" if "bad" in levels else "warn" if levels else None
