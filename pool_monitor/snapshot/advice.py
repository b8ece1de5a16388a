"""What the advisor recommends: each recommendation with its evidence, the change, and what the change would do."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Pattern = Literal[
    "underused",
    "overloaded",
    "imbalance",
    "leak",
    "slow_operation",
    "error_hotspot",
    "bad_timeout",
    "cold_start",
    "oversubscription",
    "throttled",
    "loop_lag",
    "noisy_neighbour",
]
"""What the advisor looks for."""
RecommendationState = Literal["new", "open", "applied", "dismissed", "expired"]


class Change(Struct, frozen=True, kw_only=True):
    """A change of the configuration."""

    knob: str
    """The name of the tunable of the pool, or of the field of ``[pool]``."""
    current: float
    proposed: float


class Effect(Struct, frozen=True, kw_only=True):
    """What a change is expected to do to one metric, in the base unit of that metric."""

    metric: str
    now: float
    expected: float
    low: float
    high: float
    """The interval in which the value is expected, with 95 % confidence."""
    cost: float | None = None
    """Bytes of memory that it takes (below 0: that it frees); None: not known."""


class Recommendation(Struct, frozen=True, kw_only=True):
    """One thing that the advisor found, and what to do about it."""

    id: str
    """The same as long as it is open, and for the same pattern and subject."""
    pattern: Pattern
    subject: str
    """``pool NAME``, ``worker SLOT``, ``operation NAME``, ``host``, ``process`` or ``loop``."""
    pool: str | None = None
    """The pool; None: it is about none."""
    summary: str
    """One sentence with figures."""
    action: str
    """What to do, in words."""
    check_first: str = ""
    """What a person should look at before."""
    score: float
    """The priority, from 0 to 100: see `pool_monitor.advisor.priority`."""
    confidence: float
    """From 0 to 1."""
    samples: int
    """How many observations it stands on."""
    evidence: dict[str, float]
    """The figures, by name, in base units."""
    change: Change | None = None
    effect: Effect | None = None
    risk: int = 1
    """From 0, which cannot do harm, to 4."""
    state: RecommendationState = "open"
    opened_at: float = 0.0
    """Wall-clock time, seconds since the epoch."""
    updated_at: float = 0.0
    """When it was last found."""
    playbook: str = ""
    """The section of docs/OPERATIONS_PLAYBOOK.md about it."""


class AdviceReport(Struct, frozen=True, kw_only=True):
    """What the advisor of a service recommends."""

    recommendations: tuple[Recommendation, ...]
    """The most urgent first."""


class Explanation(Struct, frozen=True, kw_only=True):
    """Why something is recommended, tried, kept or rolled back."""

    text: str
    """Several lines."""
