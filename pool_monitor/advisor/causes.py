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
    "bad_timeout": frozenset({"overloaded"}),
    "cold_start": frozenset({"overloaded"}),
}
"""Cause -> the patterns that follow from it in the same pool. No two explain each other."""


def cause_of(pattern: Pattern, subject: str, found: Iterable[tuple[Pattern, str]]) -> Pattern | None:
    """Which of the patterns *found* in the same pool explains *pattern*; None: none does. Each has its subject.

    A cause in one operation explains nothing of another operation, and one in a worker nothing of another worker.
    """
    for cause, where in found:
        if pattern in EXPLAINS.get(cause, ()) and (where == subject or _kind(where) != _kind(subject)):
            return cause
    return None


def _kind(subject: str) -> str:
    return subject.partition(" ")[0]
