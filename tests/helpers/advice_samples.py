"""Advice and tuning for tests of what people see: deterministic, one of each kind that a page shows differently."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from pool_monitor.snapshot import Change, Effect, Recommendation, SizingView, Snapshot, TrialView, TuningView
from tests.helpers import samples

NOW = samples.START + samples.UPTIME
WAIT = Effect(metric="pool.queue.p95", now=0.48, expected=0.06, low=0.04, high=0.09, cost=2 * 48 * 1024.0**2)
GROW = Change(knob="size", current=4, proposed=6)


def recommendation(number: int = 1, **changes: Any) -> Recommendation:
    """Return a recommendation to grow the pool ``text``, with *changes*."""
    usual: dict[str, Any] = {
        "id": f"{number:08x}",
        "pattern": "overloaded",
        "subject": "pool text",
        "pool": "text",
        "summary": "95% of the calls waited for up to 480ms, more than 100ms, in 9 of the last 10 minutes",
        "action": "let the pool have 6 workers",
        "check_first": "whether the calls have become slower: then more workers hide it",
        "score": 71.0,
        "confidence": 0.93,
        "samples": 1840,
        "evidence": {"utilisation_ratio": 0.97, "wait_p95_seconds": 0.48, "size": 4.0},
        "change": GROW,
        "effect": WAIT,
        "opened_at": NOW - 900.0,
        "updated_at": NOW - 12.0,
        "playbook": "docs/OPERATIONS_PLAYBOOK.md#advice-overloaded",
    }
    return Recommendation(**{**usual, **changes})


def recommendations() -> tuple[Recommendation, ...]:
    """Return several, in no order."""
    return (
        recommendation(
            2, pattern="error_hotspot", subject="operation chat", score=38.0, change=None, effect=None,
            summary="31% of chat fail with ValueError, others hardly ever", action="look at the error group",
            check_first="", evidence={"failed_ratio": 0.31},
            playbook="docs/OPERATIONS_PLAYBOOK.md#advice-error-hotspot",
        ),
        recommendation(1),
        recommendation(
            3, pattern="noisy_neighbour", subject="host", pool=None, score=12.0, change=None, effect=None, state="new",
            summary="other programs use 3.1 of 4 processors", action="move them, or this service", evidence={},
            playbook="docs/OPERATIONS_PLAYBOOK.md#advice-noisy-neighbour",
        ),
    )  # fmt: skip


def trial(number: int = 1, **changes: Any) -> TrialView:
    """Return a trial of the pool ``text`` that waits for approval, with *changes*."""
    usual: dict[str, Any] = {
        "id": f"a{number:07x}",
        "pool": "text",
        "knob": "size",
        "unit": "count",
        "before": 4.0,
        "after": 6.0,
        "state": "awaiting_approval",
        "origin": "advice",
        "reason": "the advisor recommends it: overloaded",
        "why": "the advisor recommends it: overloaded",
        "effect": WAIT,
        "started_at": NOW - 300.0,
        "changed_at": NOW - 300.0,
    }
    return TrialView(**{**usual, **changes})


def trials() -> tuple[TrialView, ...]:
    """Return a running one and some that are over, the newest first."""
    return (
        trial(2, knob="timeout", unit="s", before=30.0, after=12.0, state="validating", effect=None,
              reason="validated until 10:14", changed_at=NOW - 60.0, due_at=NOW + 240.0, actor="anna"),
        trial(3, state="rolled_back", before=6.0, after=4.0, measured=0.31, reason="p95 wait rose to 310ms",
              changed_at=NOW - 400.0, started_at=NOW - 900.0, origin="policy"),
        trial(4, state="kept", knob="prefetch", before=0.0, after=2.0, effect=None, reason="no harm was found",
              changed_at=NOW - 4000.0, started_at=NOW - 5000.0),
    )  # fmt: skip


def tuning(**changes: Any) -> TuningView:
    """Return a tuner with one change that waits and several that are over, with *changes*."""
    usual: dict[str, Any] = {
        "mode": "recommend",
        "policy": "balanced",
        "pending": (trial(),),
        "trials": trials(),
        "sizing": (SizingView(pool="text", size=4, wanted=6, low=2, high=16, floor=3, why="12.1 calls/s need it"),),
    }
    return TuningView(**{**usual, **changes})


def snapshot(*found: Recommendation, **changes: Any) -> Snapshot:
    """Return a Snapshot with the recommendations *found*, and the tuner with *changes*."""
    return replace(samples.snapshot(), recommendations=found, tuning=tuning(**changes))
