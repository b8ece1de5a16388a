"""``python -m benchmarks [name ...]``: all of them, or those named."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import bench_peers, bench_pool, bench_telemetry


def pool(options: argparse.Namespace) -> None:
    bench_pool.main(1.5 if options.seconds is None else options.seconds)


def peers(options: argparse.Namespace) -> None:
    seconds = bench_peers.SECONDS if options.seconds is None else options.seconds
    bench_peers.main(seconds, options.only, as_markdown=options.markdown)


def telemetry(_options: argparse.Namespace) -> None:
    bench_telemetry.main()


BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {"telemetry": telemetry, "pool": pool, "peers": peers}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument(
        "--seconds", type=float, help=f"per slice of a pool benchmark (pool: 1.5, peers: {bench_peers.SECONDS:g})"
    )
    parser.add_argument("--only", nargs="+", metavar="PEER", help="peers: those whose names begin like this")
    parser.add_argument("--markdown", action="store_true", help="peers: the tables as they stand in README.md")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    try:
        bench_peers.chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    for name in options.names or BENCHMARKS:
        BENCHMARKS[name](options)


if __name__ == "__main__":
    main()
