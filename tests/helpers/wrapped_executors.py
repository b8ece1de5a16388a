"""Runs unittest modules with the executors of `concurrent.futures`, either wrapped in `MonitoredExecutor` or plain.

    python tests/helpers/wrapped_executors.py wrapped|plain MODULE[,MODULE ...] SHARD SHARDS

It runs the test classes of the shard, and prints the outcome of every test as JSON in its last line. It is a separate
program because it replaces the executors for all importers. The replacements take the arguments of the originals. The
tests of CPython read private attributes, so the replacements forward these to the inner executor.
"""

from __future__ import annotations

import concurrent.futures
import json
import sys
import unittest
from concurrent.futures import process, thread
from typing import Any

ORIGINALS: dict[str, Any] = {
    "ThreadPoolExecutor": thread.ThreadPoolExecutor,
    "ProcessPoolExecutor": process.ProcessPoolExecutor,
}


def stand_in(original: Any) -> Any:
    from pool_monitor.adapters import MonitoredExecutor

    class StandIn(MonitoredExecutor):
        __doc__ = original.__doc__

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(original(*args, **kwargs), name="wrapped")

        def __getattr__(self, name: str) -> Any:
            if name == "executor":  # not made yet, or never, if the original refused its arguments
                raise AttributeError(name)
            return getattr(self.executor, name)

    StandIn.__name__ = StandIn.__qualname__ = original.__name__
    return StandIn


class Outcomes(unittest.TextTestResult):
    """Records how every test ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.outcomes: dict[str, str] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        print(test.id(), file=sys.stderr, flush=True)  # if the run hangs, the last name is the test that hangs
        self.outcomes.setdefault(test.id(), "ok")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        self.outcomes[test.id()] = "skipped"

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self.outcomes[test.id()] = "failed"

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self.outcomes[test.id()] = "failed"


def classes_of(suite: unittest.TestSuite) -> dict[type, list[unittest.TestCase]]:
    """Return the tests by class, because the fixtures of a class are made once."""
    found: dict[type, list[unittest.TestCase]] = {}
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            for kind, tests in classes_of(each).items():
                found.setdefault(kind, []).extend(tests)
        else:
            found.setdefault(type(each), []).append(each)
    return found


def main(how: str, modules: str, shard: str, shards: str) -> None:
    if how == "wrapped":
        for name, original in ORIGINALS.items():
            wrapped = stand_in(original)
            setattr(concurrent.futures, name, wrapped)
            setattr(sys.modules[original.__module__], name, wrapped)
    classes = classes_of(unittest.defaultTestLoader.loadTestsFromNames(modules.split(",")))
    ordered = sorted(classes.items(), key=lambda item: item[0].__qualname__)
    suite = unittest.TestSuite(test for _kind, tests in ordered[int(shard) :: int(shards)] for test in tests)
    runner: Any = unittest.TextTestRunner(stream=sys.stderr, resultclass=Outcomes, verbosity=0)
    outcomes = runner.run(suite).outcomes
    print(f"\n{json.dumps(outcomes)}", flush=True)  # on a new line: the tests print too


if __name__ == "__main__":
    main(*sys.argv[1:])
