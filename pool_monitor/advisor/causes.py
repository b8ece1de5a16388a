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


def cause_of(pattern: Pattern, subject: str, found: Iterable[tuple[Pattern, str]]) -> Pattern | None:
    """Which of the patterns *found* in the same pool explains *pattern*; None: none does. Each has its subject.

    A cause in one operation explains nothing of another operation, and one in a worker nothing of another worker.
    """
    place = _ORDER.get(pattern, len(_ORDER))
    for cause, where in sorted(found, key=lambda one: _ORDER.get(one[0], len(_ORDER))):
        mutual = cause in EXPLAINS.get(pattern, ()) and place < _ORDER.get(cause, len(_ORDER))
        concerns = where == subject or _kind(where) != _kind(subject)
        if pattern in EXPLAINS.get(cause, ()) and concerns and not mutual:
            return cause
    return None


def _kind(subject: str) -> str:
    return subject.partition(" ")[0]
