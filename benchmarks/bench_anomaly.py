"""How good the detector of anomalies is: on the Numenta data, on healthy series, and what a value costs."""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import healthy, nab, tables
from benchmarks.tables import Table
from pool_monitor.alerts import DETECTORS, THRESHOLD, Detector

DAYS, SEEDS, ROUNDS = 7, 3, 5
HOW_TO_GET = """\
python -m benchmarks anomaly needs the data of the Numenta Anomaly Benchmark: --data DIR. They are not part of this
repository. To get them (MIT licence, 10 MB of data in a repository of 300 MB):

    git clone --depth 1 https://github.com/numenta/NAB
    python -m benchmarks anomaly --data NAB
"""


class PlainZ:
    """The peer: the plain z-score against the last values, all of which it learns."""

    def __init__(self, size: int = 240) -> None:
        self.values: deque[float] = deque()
        self.size = size
        self.sum = self.squares = 0.0

    def handle(self, _timestamp: object, value: float) -> float:
        count = len(self.values)
        deviation = 0.0
        if count >= 60:
            mean = self.sum / count
            deviation = abs(value - mean) / (math.sqrt(max(self.squares / count - mean * mean, 0.0)) or 1e-9)
        if count == self.size:
            oldest = self.values.popleft()
            self.sum -= oldest
            self.squares -= oldest * oldest
        self.values.append(value)
        self.sum += value
        self.squares += value * value
        return deviation / (1 + deviation)


OURS, PLAIN = "pool_monitor.alerts:Detector", "plain z-score, 240 values"
PLAIN_THRESHOLD = 3.5 / 4.5
SCORED: dict[str, tuple[Callable[[], Any], float]] = {
    OURS: (Detector, THRESHOLD),
    PLAIN: (PlainZ, PLAIN_THRESHOLD),
}


def nab_table(series: Sequence[nab.Series]) -> tuple[Table, dict[str, float]]:
    """Return the table of scores, and the figures of our detector by the standard profile."""
    rows = []
    figures: dict[str, float] = {}
    for name, (make, threshold) in SCORED.items():
        judge = nab.Judge(series, nab.scores_of(make, series))
        for profile, weights in nab.PROFILES.items():
            best, fixed = judge.best(weights), judge.at(threshold, weights)
            if name == OURS and profile == "standard":
                figures = {"best": best.score, "fixed": fixed.score, "threshold": threshold}
            rows.append([f"{name}, {profile}", *_cells(best, judge), *_cells(fixed, judge)])
    about = (
        f"{len(series)} files, {sum(len(one.windows) for one in series)} labelled windows. Best: at the threshold that "
        "is best for these files, which is what NAB publishes (in-sample). Fixed: at the detector's own threshold. "
        "Differences of less than a point mean nothing."
    )
    head = ["", "best", "at", "windows", "false per 1,000", "fixed", "at", "windows", "false per 1,000"]
    return Table("Numenta Anomaly Benchmark", about, head, rows), figures


def _cells(result: nab.Result, judge: nab.Judge) -> list[str]:
    at = "-" if result.threshold == nab.NOTHING else f"{result.threshold:.4f}"
    false = 1000 * result.false / (len(judge.rows) or 1)
    return [f"{result.score:.2f}", at, f"{result.found}/{judge.windows}", f"{false:.2f}"]


def healthy_table(days: float, seeds: int) -> Table:
    rows = []
    for shape in healthy.SHAPES:
        found: Counter[str] = Counter()
        for values in (healthy.made(shape, days, seed) for seed in range(seeds)):
            for name, make in DETECTORS.items():
                seen = healthy.watch(make(), values)
                found[name] += seen.anomalies
                found["news"] += seen.news if make is Detector else 0
            peer = PlainZ()
            found[PLAIN] += sum(peer.handle(at, value) >= PLAIN_THRESHOLD for at, value in healthy.timed(values))
        rows.append([shape, *(f"{found[name] / (days * seeds):.2f}" for name in (*DETECTORS, "news", PLAIN))])
    about = (
        f"Anomalies a day that begin in series without one, with a value each {healthy.STEP_S:g} s; {seeds} seeds, "
        f"{days:g} days of each. News: scores of the "
        "default from its threshold on. Rules use the anomalies, not the news."
    )
    return Table("false alarms a day", about, ["", *DETECTORS, "news", "plain z-score over 3.5"], rows)


def cost_table(days: float, rounds: int) -> Table:
    """Each round begins with another detector, so that other load on the machine affects all alike."""
    values = list(healthy.timed(healthy.made("log-normal", days, 0)))
    makers: dict[str, Callable[[], Any]] = {PLAIN: PlainZ, **DETECTORS}
    spent: dict[str, list[float]] = {name: [] for name in makers}
    names = list(makers)
    for turn in range(rounds):
        for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
            handle = makers[name]().handle
            began = time.thread_time()
            for at, value in values:
                handle(at, value)
            spent[name].append((time.thread_time() - began) / len(values))
    base = spent[names[0]]
    rows = [
        [
            name,
            f"{statistics.median(took) * 1e6:.2f}",
            f"{statistics.median(one / other for one, other in zip(took, base, strict=True)):.1f} x",
        ]
        for name, took in spent.items()
    ]
    about = (
        f"Processor time of a value, log-normal; median of {rounds} rounds in turns. Ratio: to the same round's peer."
    )
    return Table("cost of a value", about, ["", "µs a value", "ratio"], rows)


def check(data: str | None) -> None:
    """Exit with status 2, and say how to get the data, if there is no folder *data*."""
    if data is None:
        print(HOW_TO_GET, end="", file=sys.stderr)
        raise SystemExit(2)


def main(data: str, out: str | None, *, as_markdown: bool) -> None:
    try:
        series = nab.load(Path(data))
    except ValueError as error:
        print(f"{error}\n\n{HOW_TO_GET}", end="", file=sys.stderr)
        raise SystemExit(2) from None
    scores, figures = nab_table(series)

    def made() -> Iterator[Table]:
        yield scores
        yield healthy_table(DAYS, SEEDS)
        yield cost_table(DAYS, ROUNDS)

    if out is not None:
        try:
            Path(out).write_text(json.dumps(figures) + "\n", encoding="utf-8")
        except OSError as error:
            print(f"{out} cannot be written: {error}", file=sys.stderr)
            raise SystemExit(1) from None
    tables.show(made(), as_markdown=as_markdown)
