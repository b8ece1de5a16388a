"""What a person does to the selected change or recommendation. No I/O."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pool_monitor.snapshot import TRIAL_RUNNING
from pool_monitor.view import advice_words
from pool_monitor.view.advice_page import AdviceRow
from pool_monitor.view.text import one_line

TuningActionName = Literal["approve", "reject", "rollback", "dismiss", "explain"]
KEYS: dict[str, TuningActionName] = {"A": "approve", "R": "reject", "B": "rollback", "D": "dismiss"}
"""Key -> what it asks. ``explain`` needs no question."""
_VERBS: dict[TuningActionName, str] = {
    "approve": "approve",
    "reject": "reject",
    "rollback": "roll back",
    "dismiss": "dismiss",
    "explain": "explain",
}


class TuningRequest(NamedTuple):
    """One thing to do to one trial or recommendation."""

    action: TuningActionName
    row: AdviceRow
    author: str

    @property
    def about(self) -> str:
        """The id of the trial or recommendation."""
        return self.row.id

    @property
    def words(self) -> str:
        """What is to be done, in words."""
        if self.row.trial is not None:
            name = advice_words.trial_name(self.row.trial)
        else:
            found = self.row.found
            name = "" if found is None else advice_words.recommendation_name(found)
        who = f" as {one_line(self.author)}" if self.author else ""
        return f"{_VERBS[self.action]} {name}{who}"


def fits(action: TuningActionName, row: AdviceRow) -> bool:
    """Whether *action* can be done to *row* now."""
    if action == "explain":
        return True
    if action == "dismiss":
        return row.found is not None and advice_words.is_open(row.found)
    if row.trial is None:
        return False
    if action == "rollback":
        return row.trial.state == "kept" or row.trial.state in TRIAL_RUNNING
    return row.waits
