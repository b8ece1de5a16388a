"""Round trips of our pool beside those of ProcessPoolExecutor, and very many calls at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.load import Load
from benchmarks.peers import BASE, FLOODED, VARIANTS, Aiomisc, Ours, parted
from benchmarks.runner import Runner, Trouble, show
from benchmarks.speed import ROUNDS, SECONDS, Speed, about, kept, middle, speed_tables, speeds
from benchmarks.tables import Table

FLOOD, FLOOD_ROUNDS = 100_000, 3
LABELS = (BASE, Aiomisc.label, Ours.label, *VARIANTS)


def flood_table(runner: Runner, calls: int, rounds: int) -> Table:
    load = Load("small", calls, 0.0, beats=True)  # each caller makes one call, however short the slice
    made = speeds(runner, [(label, load) for label in FLOODED], rounds, f"{calls:,} at once")
    results = {label: made[label, load] for label in FLOODED}
    return Table(
        f"{calls:,} calls at once",
        f"{about(results)} The longest turn of the event loop: for that long nothing else ran."
        " The first row is without a pool: what asyncio itself takes for that many tasks.",
        ["", "longest turn ms", "calls/s", "parent CPU µs/call"],
        [[label, *_row(speed)] for label, speed in results.items()],
    )


def _row(speed: Speed) -> list[str]:
    if isinstance(speed, Trouble):
        return [str(speed), "-", "-"]
    slices = kept(speed)
    return [
        middle((one.held_ms for one in slices), 0),
        middle((one.per_second for one in slices), 0),
        middle((one.parent_us for one in slices), 1),
    ]


def all_tables(seconds: float, rounds: int, flood: int, runner: Runner) -> Iterator[Table]:
    yield from speed_tables(runner, *parted(LABELS), seconds, rounds)
    yield flood_table(runner, flood, min(rounds, FLOOD_ROUNDS))


def main(seconds: float = SECONDS, *, as_markdown: bool = False, rounds: int = ROUNDS, flood: int = FLOOD) -> None:
    show(partial(all_tables, seconds, rounds, flood), as_markdown=as_markdown)
