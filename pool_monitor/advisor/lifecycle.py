"""The life of a recommendation, as a table."""

from __future__ import annotations

from enum import StrEnum

from pool_monitor.state_machine import StateMachine


class Stage(StrEnum):
    NEW = "new"
    OPEN = "open"
    APPLIED = "applied"
    DISMISSED = "dismissed"
    EXPIRED = "expired"


SHOWN = frozenset({Stage.NEW, Stage.OPEN})
"""The stages in which it is recommended."""

LIFE = StateMachine(
    "recommendation",
    Stage.NEW,
    {
        Stage.NEW: {
            "settled": Stage.OPEN,
            "applied": Stage.APPLIED,
            "dismissed": Stage.DISMISSED,
            "gone": Stage.EXPIRED,
        },
        Stage.OPEN: {"applied": Stage.APPLIED, "dismissed": Stage.DISMISSED, "gone": Stage.EXPIRED},
        Stage.APPLIED: {"found": Stage.NEW, "dismissed": Stage.DISMISSED, "gone": Stage.EXPIRED},
        Stage.DISMISSED: {"worse": Stage.NEW, "over": Stage.EXPIRED},
        Stage.EXPIRED: {"found": Stage.NEW},
    },
)
"""What a pass or a person says, and the stage that follows:

- ``settled``: it was new for an hour.
- ``applied``: the setting has the proposed value.
- ``dismissed``: a person does not want to see it.
- ``gone``: five passes in a row have not found it.
- ``found``: it is found again, in three of the passes since.
- ``worse``: it is found, and matters at least twice as much as when it was dismissed.
- ``over``: a week has passed since it was dismissed.
"""
