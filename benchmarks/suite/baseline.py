"""Compares the last run of the suite with the baseline in this folder.

Nanoseconds differ between machines. How many times longer a piece takes than its reference differs only by some tens of
per cent. So ratios are compared, and bytes.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec

from benchmarks.tables import Table

ROOT = Path(__file__).parents[2]
BASELINE = Path(__file__).with_name("baseline.json")
LAST = ROOT / ".benchmarks" / "suite.json"
MOVED, TOO_MUCH = 1.3, 2.0
"""Factors over the baseline: a row is marked from the first, and the comparison fails above the second."""
SLACK_BYTES = 16 * 1024, 16
"""How many more bytes are no failure, whatever the factor: of the peak, and kept by each unit."""


class Cost(msgspec.Struct, frozen=True):
    """What one piece of work costs."""

    unit: str
    ns: float
    """Per unit, on that machine."""
    reference: str
    ratio: float
    """Times longer than the reference, in the same run."""
    peak_bytes: int
    """The peak of one turn."""
    kept_bytes: float
    """What each unit leaves behind."""


class Suite(msgspec.Struct, frozen=True):
    """One run."""

    machine: str
    costs: dict[str, Cost]


class _Benchmark(msgspec.Struct):
    param: str
    extra_info: Cost


class _Run(msgspec.Struct):
    benchmarks: list[_Benchmark]
    datetime: str


def reduced(path: Path) -> Suite:
    """Return what is kept of the JSON file that pytest-benchmark wrote."""
    run = msgspec.json.decode(path.read_bytes(), type=_Run)
    machine = (
        f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {run.datetime[:10]}"
    )
    return Suite(machine, {one.param: one.extra_info for one in run.benchmarks})


def read(path: Path = BASELINE) -> Suite:
    return msgspec.json.decode(path.read_bytes(), type=Suite)


def write(suite: Suite, path: Path = BASELINE) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(suite), indent=1) + b"\n")


def compare(now: Suite, base: Suite) -> tuple[Table, list[str]]:
    """Return a table with a row for each piece, and the failures in words."""
    rows, failures = [], []
    for name, cost in now.costs.items():
        before = base.costs.get(name)
        cells = [name, f"{cost.ns:,.0f}", cost.reference, f"{cost.ratio:,.2f}"]
        memory = [f"{cost.peak_bytes / 1024:,.1f}", f"{cost.kept_bytes:,.1f}"]
        if before is None:
            rows.append([*cells, "-", "new", *memory, "-"])
            continue
        slower, larger = cost.ratio / before.ratio, cost.peak_bytes / max(before.peak_bytes, 1)
        rows.append([*cells, f"{before.ratio:,.2f}", _moved(slower), *memory, _moved(larger)])
        failures += _failures(name, cost, before)
    about = (
        f"Now: {now.machine}. Baseline: {base.machine}. *now* and *base*: how many times longer the piece takes than "
        f"its reference in the same run. *moved*: *now* divided by *base*, marked from {MOVED:g}. "
        "Bytes by tracemalloc: the peak of one turn, and what each unit leaves behind."
    )
    head = ["", "ns each", "reference", "now", "base", "moved", "peak KiB", "kept B", "moved"]
    return Table("suite", about, head, rows), failures


def _failures(name: str, now: Cost, base: Cost) -> list[str]:
    peak_slack, kept_slack = SLACK_BYTES
    found = []
    if now.ratio > TOO_MUCH * base.ratio:
        found.append(f"{name}: takes {now.ratio / base.ratio:.1f} times as long as in the baseline")
    if now.peak_bytes > TOO_MUCH * base.peak_bytes + peak_slack:
        found.append(f"{name}: takes {now.peak_bytes:,} bytes, {base.peak_bytes:,} in the baseline")
    if now.kept_bytes > TOO_MUCH * max(base.kept_bytes, 0.0) + kept_slack:
        found.append(f"{name}: each {now.unit} keeps {now.kept_bytes:.0f} bytes, {base.kept_bytes:.0f} in the baseline")
    return found


def _moved(times: float) -> str:
    mark = " slower" if times >= MOVED else " less" if times <= 1 / MOVED else ""
    return f"x {times:.2f}{mark}"
