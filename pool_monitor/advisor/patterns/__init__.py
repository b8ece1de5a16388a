"""The table of patterns. A new one needs a file here, a row in the table, and a labelled scenario."""

from __future__ import annotations

from pool_monitor.advisor.detection import PatternCheck
from pool_monitor.advisor.patterns.bad_timeout import bad_timeout
from pool_monitor.advisor.patterns.cold_start import cold_start
from pool_monitor.advisor.patterns.error_hotspot import error_hotspot
from pool_monitor.advisor.patterns.imbalance import imbalance
from pool_monitor.advisor.patterns.leak import leak
from pool_monitor.advisor.patterns.loop_lag import loop_lag
from pool_monitor.advisor.patterns.noisy_neighbour import noisy_neighbour
from pool_monitor.advisor.patterns.overloaded import overloaded
from pool_monitor.advisor.patterns.oversubscription import oversubscription
from pool_monitor.advisor.patterns.slow_operation import slow_operation
from pool_monitor.advisor.patterns.throttled import throttled
from pool_monitor.advisor.patterns.underused import underused
from pool_monitor.snapshot.advice import Pattern

PATTERNS: dict[Pattern, PatternCheck] = {
    "noisy_neighbour": noisy_neighbour,
    "throttled": throttled,
    "loop_lag": loop_lag,
    "oversubscription": oversubscription,
    "leak": leak,
    "imbalance": imbalance,
    "slow_operation": slow_operation,
    "error_hotspot": error_hotspot,
    "bad_timeout": bad_timeout,
    "cold_start": cold_start,
    "overloaded": overloaded,
    "underused": underused,
}
"""Every pattern, in the order in which causes come before their consequences."""
