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


LIFE = StateMachine(
    "alert",
    Phase.INACTIVE,
    {
        Phase.INACTIVE: {"bad": Phase.PENDING, "held": Phase.FIRING},
        Phase.PENDING: {"good": Phase.INACTIVE, "held": Phase.FIRING},
        Phase.FIRING: {"good": Phase.RECOVERING, "over": Phase.RESOLVED, "shortened": Phase.PENDING},
        Phase.RECOVERING: {"bad": Phase.FIRING, "over": Phase.RESOLVED, "shortened": Phase.PENDING},
        Phase.RESOLVED: {"bad": Phase.PENDING, "held": Phase.FIRING, "forgotten": Phase.INACTIVE},
    },
)
"""``held``: bad for as long as ``for`` asks. ``over``: good, and ``keep_firing_for`` has passed. ``shortened``: ``for``
was raised beyond the time for which it has been bad."""
