"""Tests of rules, in the notation of promtool: a file says what a service measures and which alerts follow.

A test runs the engine of the service on written series, so it decides as a service does. It begins with nothing: no
alert, no baseline. Time is written too, so a day in steps of 15 s takes a few seconds.

What `written` makes of a series: its value is that of the metric, also of one that covers a window. It holds until the
next point, for five minutes at most. NaN is an unknown value; a series that is ``stale``, or over, is an instance that
is gone.
"""

from pool_monitor.alerts.rule_tests.coverage import Coverage, ReceiverCoverage, RouteCoverage, RuleCoverage
from pool_monitor.alerts.rule_tests.grammar import ReadSuite, read_suite
from pool_monitor.alerts.rule_tests.runner import CaseResult, run_suite, unknown_names
from pool_monitor.alerts.rule_tests.suite import Suite

__all__ = [
    "CaseResult",
    "Coverage",
    "ReadSuite",
    "ReceiverCoverage",
    "RouteCoverage",
    "RuleCoverage",
    "Suite",
    "read_suite",
    "run_suite",
    "unknown_names",
]
