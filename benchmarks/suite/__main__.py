"""``python -m benchmarks.suite [run | compare | baseline] [pytest's arguments]``; see benchmarks/README.md."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from benchmarks import tables
from benchmarks.suite.baseline import BASELINE, LAST, ROOT, compare, read, reduced, write


def run(arguments: Sequence[str]) -> int:
    """Run the suite, and write what pytest-benchmark reports to `LAST`."""
    LAST.parent.mkdir(exist_ok=True)
    LAST.unlink(missing_ok=True)
    options = ["-p", "benchmark", "-n", "0", "-q", "--timeout", "120", f"--benchmark-json={LAST}", "--benchmark-quiet"]
    command = [sys.executable, "-m", "pytest", *options, "benchmarks/suite", *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # of another run
    return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode


def report() -> int:
    """Print the comparison with the baseline. Return 1 if something is much slower or larger."""
    for path, remedy in ((LAST, "make bench-suite"), (BASELINE, "make bench-baseline")):
        if not path.exists():
            print(f"{path.relative_to(ROOT)} does not exist; {remedy} writes it", file=sys.stderr)
            return 2
    table, failures = compare(reduced(LAST), read())
    print(f"\n{tables.text(table)}\n")
    print("\n".join(failures) or "nothing is much slower or larger than in the baseline")
    return 1 if failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite")
    parser.add_argument(
        "what",
        nargs="?",
        default="run",
        choices=["run", "compare", "baseline"],
        help="run the suite and compare it; compare the last run again; run it and keep it as the baseline",
    )
    options, arguments = parser.parse_known_args()
    if options.what != "compare" and (code := run(arguments)):
        return code
    if options.what == "baseline":
        write(reduced(LAST))
        print(f"{BASELINE.relative_to(ROOT)} is written")
        return 0
    return report()


if __name__ == "__main__":
    sys.exit(main())
