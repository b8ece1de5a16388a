"""``python -m benchmarks lab advice``: the recommendations of the advisor, beside the labels of scenarios."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import get_args

from benchmarks import tables
from benchmarks.lab.advised import Subject, Verdict, advised
from benchmarks.lab.options import check_output, seeds_of
from benchmarks.lab.processes import executor
from benchmarks.lab.scenario import ADVICE, Scenario, ScenarioError, load
from benchmarks.tables import Table
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot.advice import Pattern

_LISTED = 40
"""Most lines about single errors of the advisor."""


def main(arguments: Sequence[str]) -> int:
    """Do what *arguments* say. Returns the exit code: 2 for arguments and scenarios that cannot be played."""
    options = _parser().parse_args(arguments)
    try:
        scenarios = _chosen(load(Path(options.scenarios)), options.only)
        seeds = seeds_of(options.seeds)
        check_output(options.json)
    except (ConfigError, ScenarioError) as error:
        print(f"lab advice: {error}", file=sys.stderr)
        return 2
    verdicts = list(_shown(each(scenarios, seeds), len(scenarios) * len(seeds)))
    order = {one.name: number for number, one in enumerate(scenarios)}
    verdicts.sort(key=lambda one: (order[one.scenario], one.seed))
    tables.show(iter([by_pattern(verdicts)]), as_markdown=options.markdown)
    for line in _mistakes(verdicts):
        print(line)
    if options.json:
        Path(options.json).write_text(json.dumps([row(one) for one in verdicts], indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks lab advice", description=__doc__)
    parser.add_argument("--seeds", default="1-20", metavar="SEEDS", help="such as 1-5 or 1,7 (default: 1-20)")
    parser.add_argument("--scenarios", default=str(ADVICE), metavar="FILE.json", help="labelled scenarios")
    parser.add_argument("--only", metavar="TEXT", help="only the scenarios with this in their names")
    parser.add_argument("--json", metavar="OUT", help="also write each run to this file")
    parser.add_argument("--markdown", action="store_true", help="print tables in the form of README.md")
    return parser


def _chosen(scenarios: list[Scenario], only: str | None) -> list[Scenario]:
    chosen = [one for one in scenarios if only is None or only in one.name]
    if not chosen:
        raise ScenarioError(f"--only {only!r}: no scenario has it in its name; leave it out to play all")
    return chosen


def each(scenarios: Sequence[Scenario], seeds: Iterable[int], processes: int | None = None) -> Iterator[Verdict]:
    """Play all, the longest first, and yield each verdict as it comes. In this process if *processes* is 0."""
    jobs = [(scenario, seed) for scenario in sorted(scenarios, key=_length, reverse=True) for seed in seeds]
    if processes == 0:
        yield from (advised(*job) for job in jobs)
        return
    with executor(processes) as pool:
        for future in as_completed([pool.submit(advised, *job) for job in jobs]):
            yield future.result()


def _length(scenario: Scenario) -> float:
    return scenario.duration_s


def row(verdict: Verdict) -> dict[str, object]:
    """Return the JSON form of a verdict."""
    lists = {
        name: [one._asdict() for one in getattr(verdict, name)] for name in ("expected", "found", "missed", "false")
    }
    return {"scenario": verdict.scenario, "seed": verdict.seed, **lists}


def scores(verdicts: Sequence[Verdict], pattern: str | None = None) -> tuple[int, int, int, float, float]:
    """Return the labels, those that were missed, the false findings, precision and recall. 1 where there is nothing."""

    def count(field: str) -> int:
        return sum(pattern in (None, one.pattern) for verdict in verdicts for one in getattr(verdict, field))

    expected, missed, false = count("expected"), count("missed"), count("false")
    hits = expected - missed
    return expected, missed, false, hits / (hits + false) if hits + false else 1.0, hits / expected if expected else 1.0


def by_pattern(verdicts: Sequence[Verdict]) -> Table:
    """Return precision and recall, by pattern and in total."""
    rows = []
    for pattern in (*get_args(Pattern), None):
        expected, missed, false, precision, recall = scores(verdicts, pattern)
        shares = f"{precision:.3f}" if expected - missed + false else "-", f"{recall:.3f}" if expected else "-"
        rows.append([pattern or "total", str(expected), str(missed), str(false), *shares])
    healthy = [one for one in verdicts if not one.expected]
    silent = sum(not one.found for one in healthy)
    about = f"{len(verdicts)} runs. Nothing was found in {silent} of the {len(healthy)} runs without a label."
    return Table("recommendations", about, ["", "labels", "missed", "false", "precision", "recall"], rows)


def _mistakes(verdicts: Sequence[Verdict]) -> Iterator[str]:
    found: dict[tuple[str, str, Subject], list[int]] = {}
    for verdict in verdicts:
        for word in ("missed", "false"):
            for one in getattr(verdict, word):
                found.setdefault((verdict.scenario, word, one), []).append(verdict.seed)
    for (scenario, word, one), seeds in list(found.items())[:_LISTED]:
        yield f"{word:6} {scenario}: {one.pattern} {one.subject} (seeds {','.join(map(str, seeds))})"
    if len(found) > _LISTED:
        yield f"and {len(found) - _LISTED} more"


def _shown(verdicts: Iterable[Verdict], count: int) -> Iterator[Verdict]:
    """Yield *verdicts*, with a line on a terminal that says how many there are."""
    on_terminal = sys.stderr.isatty()
    for number, verdict in enumerate(verdicts, 1):
        if on_terminal:
            print(f"\r{number} of {count} runs", end="\n" if number == count else "", file=sys.stderr, flush=True)
        yield verdict
