"""The life of a recommendation, as a table."""

from __future__ import annotations

from enum import StrEnum

from pool_monitor.state_machine import StateMachine


class AdviceStage(StrEnum):
    NEW = "new"
    OPEN = "open"
    APPLIED = "applied"
    DISMISSED = "dismissed"
    EXPIRED = "expired"


SHOWN = frozenset({AdviceStage.NEW, AdviceStage.OPEN})
"""The stages in which it is recommended."""

LIFE = StateMachine(
    "recommendation",
    AdviceStage.NEW,
    {
        AdviceStage.NEW: {
            "settled": AdviceStage.OPEN,
            "applied": AdviceStage.APPLIED,
            "dismissed": AdviceStage.DISMISSED,
            "gone": AdviceStage.EXPIRED,
        },
        AdviceStage.OPEN: {
            "applied": AdviceStage.APPLIED,
            "dismissed": AdviceStage.DISMISSED,
            "gone": AdviceStage.EXPIRED,
        },
        AdviceStage.APPLIED: {
            "found": AdviceStage.NEW,
            "dismissed": AdviceStage.DISMISSED,
            "gone": AdviceStage.EXPIRED,
        },
        AdviceStage.DISMISSED: {"worse": AdviceStage.NEW, "over": AdviceStage.EXPIRED},
        AdviceStage.EXPIRED: {"found": AdviceStage.NEW},
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
