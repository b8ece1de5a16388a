"""``python -m benchmarks [name ...]``: all of them, or those named."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from benchmarks import bench_pool, bench_telemetry

BENCHMARKS: dict[str, Callable[[float], None]] = {"telemetry": bench_telemetry.main, "pool": bench_pool.main}

parser = argparse.ArgumentParser(prog="python -m benchmarks")
parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
parser.add_argument("--seconds", type=float, default=1.5, help="per slice of a pool benchmark")
options = parser.parse_args()
unknown = [name for name in options.names if name not in BENCHMARKS]
if unknown:
    parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
for name in options.names or BENCHMARKS:
    BENCHMARKS[name](options.seconds)
