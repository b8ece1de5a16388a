"""The life of an alert, as a table."""

from __future__ import annotations

from enum import StrEnum

from pool_monitor.state_machine import StateMachine


class Phase(StrEnum):
    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"
    RECOVERING = "recovering"
    RESOLVED = "resolved"


FIRING_PHASES = frozenset({Phase.FIRING, Phase.RECOVERING})
"""The phases that are firing for receivers."""
ACTIVE_PHASES = FIRING_PHASES | {Phase.PENDING}

LIFE = StateMachine(
    "alert",
    Phase.INACTIVE,
    {
        Phase.INACTIVE: {"early": Phase.PENDING, "held": Phase.FIRING, "over": Phase.INACTIVE},
        Phase.PENDING: {"early": Phase.PENDING, "held": Phase.FIRING, "over": Phase.INACTIVE},
        Phase.FIRING: {
            "early": Phase.PENDING,
            "held": Phase.FIRING,
            "good": Phase.RECOVERING,
            "over": Phase.RESOLVED,
        },
        Phase.RECOVERING: {
            "early": Phase.PENDING,
            "held": Phase.FIRING,
            "good": Phase.RECOVERING,
            "over": Phase.RESOLVED,
        },
        Phase.RESOLVED: {
            "early": Phase.PENDING,
            "held": Phase.FIRING,
            "over": Phase.RESOLVED,
            "forgotten": Phase.INACTIVE,
        },
    },
)
"""What one evaluation finds, and the phase that follows:

- ``early``: bad, for less than ``for``. A firing alert meets it only after ``for`` was raised.
- ``held``: bad, for at least ``for``.
- ``good``: not bad, and ``keep_firing_for`` has not passed yet.
- ``over``: not bad, and nothing keeps it.
- ``forgotten``: it was shown as resolved for long enough.
"""
