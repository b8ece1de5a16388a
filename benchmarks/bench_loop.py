"""What finds a blocked event loop, and what does it cost? The watchdog beside aiocop, which instruments the loop."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks import tables
from benchmarks.loop_blocks import BLOCK_S, BLOCKS, CALLERS, THRESHOLD_S, TOOLS
from benchmarks.runner import ROOT
from benchmarks.tables import Table

NAMES = {
    "none": "nothing",
    "watchdog": "pool_monitor's watchdog",
    "aiocop": "aiocop",
    "aiocop without sampling": "aiocop, cpu_sampling=False",
}
TRIES, ROUNDS, SLICE_S, IDLE_S = 3, 12, 0.5, 3.0


@contextlib.contextmanager
def service(tool: str) -> Iterator[subprocess.Popen[str]]:
    """A service that is watched by *tool*."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.loop_blocks", tool],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(process: subprocess.Popen[str], job: str) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{job}\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


def available() -> list[str]:
    found = importlib.util.find_spec("aiocop") is not None
    return [tool for tool in TOOLS if found or not tool.startswith("aiocop")]


def recall_table(tries: int = TRIES) -> Table:
    rows = []
    for tool in available():
        if tool == "none":
            continue
        row = [NAMES[tool]]
        for block in BLOCKS:
            results = []
            for _ in range(tries):
                with service(tool) as process:  # a new one: the watchdog takes one stack in 10 s
                    results.append(ask(process, block))
            named, found = sum(result["named"] for result in results), sum(result["found"] for result in results)
            after = [result["after"] for result in results if result["after"] is not None]
            when = f", {statistics.median(after):.2f} s of {max(r['lasted'] for r in results):.2f}" if after else ""
            row.append(f"{named}/{found}/{tries}{when}")
        rows.append(row)
    about = (
        f"One callback blocks the loop for about {BLOCK_S:g} s; reported from {THRESHOLD_S:g} s on. In each cell: how "
        "often a guilty line was named, how often the block was reported, of how many; and the median time from its "
        "beginning to the report, of the length of the longest block. An expression is in C code that holds the "
        "interpreter, so that no thread can report it earlier."
    )
    return Table("blocks of the event loop", about, ["", *BLOCKS], rows)


def cost_table(rounds: int = ROUNDS, seconds: float = SLICE_S, idle_s: float = IDLE_S) -> Table:
    tools = available()
    served: dict[str, list[dict[str, Any]]] = {tool: [] for tool in tools}
    with contextlib.ExitStack() as stack:
        services = {tool: stack.enter_context(service(tool)) for tool in tools}
        for number in range(rounds):
            for tool in [*tools[number % len(tools) :], *tools[: number % len(tools)]]:
                served[tool].append(ask(services[tool], f"serve {seconds:g}"))
        idle = {tool: ask(services[tool], f"idle {idle_s:g}")["share"] for tool in tools}
    rows = []
    for tool in tools:
        pairs = list(zip(served[tool], served["none"], strict=True))
        rows.append(
            [
                NAMES[tool],
                f"{statistics.median(one['rate'] / base['rate'] for one, base in pairs):.2f} x",
                f"{statistics.median(one['cpu'] for one, _ in pairs) * 1e6:.1f}",
                f"{statistics.median(one['cpu'] / base['cpu'] for one, base in pairs):.2f} x",
                f"{idle[tool]:.2%}",
            ]
        )
    about = (
        f"A loop that does nothing wrong: {CALLERS} callers and an echo server on it. Ratios are medians of pairs of "
        f"slices of {seconds:g} s in {rounds} rounds. Idle: processor time of the process while the loop waits, as a "
        "share of one processor; the watchdog wakes it ten times a second."
    )
    return Table("what watching the loop costs", about, ["", "requests/s", "CPU µs/request", "ratio", "idle"], rows)


def _tables(seconds: float) -> Iterator[Table]:
    yield recall_table()
    yield cost_table(seconds=seconds)


def main(seconds: float, *, as_markdown: bool) -> None:
    tables.show(_tables(seconds), as_markdown=as_markdown)
    if "aiocop" not in available():
        print("aiocop is not installed: pip install 'pool-monitor[bench]'", file=sys.stderr)
