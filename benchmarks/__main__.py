"""``python -m benchmarks [name ...]``: run all benchmarks, or the named ones."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from benchmarks import (
    bench_alerts,
    bench_anomaly,
    bench_cost,
    bench_loop,
    bench_metrics,
    bench_peers,
    bench_pool,
    bench_resources,
    bench_telemetry,
    speed,
)


def pool(options: argparse.Namespace) -> None:
    bench_pool.main(_seconds(options, speed.SECONDS), as_markdown=options.markdown)


def peers(options: argparse.Namespace) -> None:
    bench_peers.main(_seconds(options, speed.SECONDS), options.only, as_markdown=options.markdown)


def cost(options: argparse.Namespace) -> None:
    bench_cost.main(_seconds(options, bench_cost.SECONDS), as_markdown=options.markdown)


def metrics(options: argparse.Namespace) -> None:
    bench_metrics.main(options.only, as_markdown=options.markdown)


def loop(options: argparse.Namespace) -> None:
    bench_loop.main(_seconds(options, bench_loop.SLICE_S), as_markdown=options.markdown)


def resources(options: argparse.Namespace) -> None:
    bench_resources.main(as_markdown=options.markdown)


def alerts(options: argparse.Namespace) -> None:
    bench_alerts.main(as_markdown=options.markdown)


def telemetry(_options: argparse.Namespace) -> None:
    bench_telemetry.main()


def anomaly(options: argparse.Namespace) -> None:
    bench_anomaly.main(options.data, options.json, as_markdown=options.markdown)


def lab(arguments: Sequence[str]) -> int:
    from benchmarks.lab.command import main as lab_main

    return lab_main(arguments)


def _seconds(options: argparse.Namespace, otherwise: float) -> float:
    seconds: float | None = options.seconds
    return otherwise if seconds is None else seconds


BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "telemetry": telemetry,
    "pool": pool,
    "cost": cost,
    "peers": peers,
    "metrics": metrics,
    "loop": loop,
    "resources": resources,
    "alerts": alerts,
    "anomaly": anomaly,
}
LAB = "lab"
"""Has options of its own, and takes minutes: it runs only when it is named."""
NEEDS_DATA = "anomaly"
"""Left out if no benchmark is named and no data are given."""
CHOOSERS: dict[str, Callable[[Sequence[str] | None], Sequence[str]]] = {
    "peers": bench_peers.chosen,
    "metrics": bench_metrics.chosen,
}


def main() -> None:
    if sys.argv[1:2] == [LAB]:
        sys.exit(lab(sys.argv[2:]))
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}, {LAB} (see {LAB} --help)")
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"length of a slice in pool benchmarks (pool, peers: {speed.SECONDS:g}, cost: {bench_cost.SECONDS:g})",
    )
    parser.add_argument("--only", nargs="+", metavar="BEGINNING", help="only these pools (peers) or tables (metrics)")
    parser.add_argument("--data", metavar="DIR", help="the data of the Numenta Anomaly Benchmark (anomaly)")
    parser.add_argument("--json", metavar="OUT", help="also write the figures to this file (anomaly)")
    parser.add_argument("--markdown", action="store_true", help="print tables in the form of README.md")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    names = options.names or [name for name in BENCHMARKS if options.data or name != NEEDS_DATA]
    if NEEDS_DATA in names:
        bench_anomaly.check(options.data)
    elif options.data or options.json:
        parser.error(f"--data and --json need {NEEDS_DATA} before them")
    if options.only and not (len(names) == 1 and names[0] in CHOOSERS):
        parser.error(f"--only needs one of {', '.join(CHOOSERS)} before it")
    try:
        for name in CHOOSERS.keys() & set(names):
            CHOOSERS[name](options.only)
    except ValueError as error:
        parser.error(str(error))
    for name in names:
        BENCHMARKS[name](options)


if __name__ == "__main__":
    main()
