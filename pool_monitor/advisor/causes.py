"""Which pattern explains which: a cause is told, and its consequences are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pool_monitor.snapshot.advice import Pattern

HOST_SUBJECTS = ("host", "loop", "process")
"""Subjects of no pool: what is found there concerns all pools."""

EXPLAINS: Mapping[Pattern, frozenset[Pattern]] = {
    "throttled": frozenset({"overloaded", "oversubscription", "slow_operation", "bad_timeout"}),
    "noisy_neighbour": frozenset({"overloaded", "oversubscription", "slow_operation", "bad_timeout"}),
    "loop_lag": frozenset({"overloaded", "slow_operation", "bad_timeout"}),
    "oversubscription": frozenset({"overloaded", "slow_operation", "bad_timeout", "underused"}),
    "imbalance": frozenset({"overloaded", "slow_operation", "bad_timeout"}),
    "slow_operation": frozenset({"overloaded", "bad_timeout"}),
    "cold_start": frozenset({"overloaded"}),
    "bad_timeout": frozenset({"overloaded", "slow_operation"}),
}
"""Cause -> the patterns that follow from it in the same pool. Where two explain each other, the first in this order
is the cause. What makes all workers slower explains no imbalance, which compares them with each other; and nothing
explains a hotspot of errors, which compares shares of calls.
"""
_ORDER = {pattern: place for place, pattern in enumerate(EXPLAINS)}


def cause_of(pattern: Pattern, found: Iterable[Pattern]) -> Pattern | None:
    """The first of the patterns *found* in the same pool that explains *pattern*; None: none does."""
    place = _ORDER.get(pattern, len(_ORDER))
    for cause in sorted(set(found) & EXPLAINS.keys(), key=lambda one: _ORDER[one]):
        mutual = cause in EXPLAINS.get(pattern, ())
        if pattern in EXPLAINS[cause] and not (mutual and place < _ORDER[cause]):
            return cause
    return None
