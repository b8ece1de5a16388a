"""The memory of a series. Each measurement is a separate process, which runs this module as a program."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.calls import an_hour, done, rows_of
from benchmarks.metrics_peers import MODULES, OPENTELEMETRY, PROMETHEUS, OpenTelemetry, Prometheus, installed
from benchmarks.tables import Table
from pool_monitor.metrics.collector import MEMORY_LIMIT
from pool_monitor.metrics.columns import DISTRIBUTIONS

OURS = "pool_monitor"
LOADS = ((200, 1), (200, 10), (200, 100), (2000, 1), (2000, 10))
PEER_SERIES, PATIENCE_S = 2000, 120.0


class Used(NamedTuple):
    """Bytes of all series together."""

    series: int
    counted: int | None
    """What the collector reports of itself."""
    uss: int
    """What the process got from the system for them."""


def measure(kind: str, series: int, rate: int) -> Used:
    """Measure *rate* calls a second of each operation for an hour. A peer, without windows, gets ten calls of each."""
    rows = rows_of(series)
    with ExitStack() as stack:
        kept: list[Any] = []
        if kind == OURS:
            with an_hour(rows[:1], 1):
                pass  # load and set up what exists only once
            before = _uss()
            hour = stack.enter_context(an_hour(rows, rate * len(rows)))
            counted = hour.collector.memory_bytes()
        else:
            work = done(rows, 10 * len(rows))
            counted = None
            before = _uss()
            peer = Prometheus() if kind == PROMETHEUS else OpenTelemetry(exponential=kind.endswith("exponential"))
            turn = peer.three_histograms(work)
            turn.run(turn.work)
            kept.append(peer)
            del turn, work
        return Used(len(rows) * len(DISTRIBUTIONS), counted, _uss() - before)


def _uss() -> int:
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # return freed memory to the system
    uss: int = psutil.Process().memory_full_info().uss
    return uss


def table(loads: Sequence[tuple[int, int]] = LOADS, peer_series: int = PEER_SERIES) -> Table:
    asked = {f"{OURS}, {series:,} series, {rate} a second of each": (OURS, series, rate) for series, rate in loads}
    base = f"{PROMETHEUS}, 15 buckets, {peer_series:,} series"
    if installed(PROMETHEUS):
        asked[base] = (PROMETHEUS, peer_series, 0)
    if installed(OPENTELEMETRY):
        for kind in ("explicit", "exponential"):
            asked[f"{OPENTELEMETRY}, {kind}, {peer_series:,} series"] = (f"{OPENTELEMETRY}, {kind}", peer_series, 0)
    processes = {name: _start(*question) for name, question in asked.items()}  # all at once, since no time is measured
    used = {name: _read(process) for name, process in processes.items()}
    rows = [[name, _times(one, used.get(base)), *_cells(one)] for name, one in used.items()]
    rows += [[package, "not installed", *"---"] for package in MODULES if not installed(package)]
    return Table(
        "memory",
        "Per series. Ours after an hour, all of it in four windows; the others have no windows. Counted: what the "
        "collector reports of itself. Taken: what the process got from the system. Compare all series together with "
        f"{MEMORY_LIMIT / 1e6:.0f} MB: a monitor with the default limit of series keeps within that, by keeping less "
        "history.",
        ["", f"times {PROMETHEUS}", "counted, KB", "taken, KB", "all, MB"],
        rows,
    )


def _start(kind: str, series: int, rate: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.metrics_memory", kind, str(series), str(rate)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)


def _read(process: subprocess.Popen[bytes]) -> Used:
    out, _ = process.communicate(timeout=PATIENCE_S)
    return Used(*json.loads(out))


def _times(one: Used, base: Used | None) -> str:
    return f"{one.uss / one.series / (base.uss / base.series):.1f}" if base else "-"


def _cells(one: Used) -> list[str]:
    counted = "-" if one.counted is None else f"{one.counted / one.series / 1e3:.1f}"
    return [counted, f"{one.uss / one.series / 1e3:.1f}", f"{one.uss / 1e6:.1f}"]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
