"""``python -m benchmarks lab``: the controllers of the pool's size, on scenarios in virtual time."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import tables
from benchmarks.lab import advice
from benchmarks.lab.options import check_output, seeds_of
from benchmarks.lab.runs import NAMES, Score, checked_controllers, counted, each
from benchmarks.lab.scenario import POOL_SIZE, Scenario, ScenarioError, load
from benchmarks.lab.simulator import PolicyFailed
from benchmarks.lab.table import judged
from benchmarks.lab.table import tables as lab_tables
from pool_monitor.errors import ConfigError


def main(arguments: Sequence[str]) -> int:
    """Do what *arguments* say. Returns the exit code: 2 for arguments and scenarios that cannot be played, 1 for a
    policy of the user's that has failed.
    """
    if arguments[:1] == ["advice"]:
        return advice.main(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        scenarios = load(Path(options.scenarios))
        controllers = checked_controllers(options.controllers.split(","))
        seeds = seeds_of(options.seeds)
        check_output(options.json)
    except (ConfigError, ScenarioError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    count = counted(scenarios, controllers, seeds)
    try:
        scores = sorted(_shown(each(scenarios, controllers, seeds), count), key=lambda one: _order(one, scenarios))
    except PolicyFailed as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    hours = {one.name: one.duration_s / 3600.0 for one in scenarios}
    tables.show(lab_tables(scores, hours), as_markdown=options.markdown)
    if Path(options.scenarios) == POOL_SIZE:
        for reached, words in judged(scores, hours):
            print(f"{'ok  ' if reached else 'MISS'}  {words}")
    if options.json:
        Path(options.json).write_text(json.dumps([one._asdict() for one in scores], indent=1) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks lab", description=__doc__)
    parser.add_argument(
        "--scenarios", default=str(POOL_SIZE), metavar="FILE.json", help="the scenarios (default: the open)"
    )
    parser.add_argument(
        "--controllers",
        default=",".join(NAMES),
        metavar="NAME,...",
        help=f"{', '.join(NAMES)}, or the module:Policy of your own (default: all that have a name)",
    )
    parser.add_argument("--seeds", default="1-5", metavar="SEEDS", help="such as 1-5 or 1,7 (default: 1-5)")
    parser.add_argument("--json", metavar="OUT", help="also write the figures to this file")
    parser.add_argument("--markdown", action="store_true", help="print tables in the form of README.md")
    return parser


def _order(score: Score, scenarios: Sequence[Scenario]) -> tuple[int, str, int]:
    return [one.name for one in scenarios].index(score.scenario), score.controller, score.seed


def _shown(scores: Iterable[Score], count: int) -> Iterator[Score]:
    """Yield *scores*, with a line on a terminal that says how many there are."""
    on_terminal = sys.stderr.isatty()
    for number, score in enumerate(scores, 1):
        if on_terminal:
            print(f"\r{number} of {count} runs", end="\n" if number == count else "", file=sys.stderr, flush=True)
        yield score
