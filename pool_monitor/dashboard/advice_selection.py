"""Which change or recommendation is selected on the page of advice, and its explanation. No I/O."""

from __future__ import annotations

from pool_monitor.dashboard.prompt import user
from pool_monitor.dashboard.tuning_actions import TuningActionName, TuningRequest, fits
from pool_monitor.snapshot import Snapshot
from pool_monitor.view import advice_rows, selected_advice


class AdviceSelection:
    """The selected row. It stays selected while others come and go."""

    def __init__(self) -> None:
        self.id: str | None = None
        """The id of the trial or recommendation. None: the first row."""
        self._explained = ("", "")  # an id, and its explanation

    @property
    def explanation(self) -> str:
        """Why it is tried or recommended, in lines. Empty: that was not asked for."""
        return self._explained[1] if self._explained[0] == self.id else ""

    def move(self, step: int, snapshot: Snapshot | None) -> None:
        """Move the selection by *step* rows of *snapshot*."""
        rows = advice_rows(snapshot) if snapshot else []
        chosen = selected_advice(rows, self.id)
        if chosen is not None:
            self.id = rows[min(max(rows.index(chosen) + step, 0), len(rows) - 1)].id

    def request(self, action: TuningActionName, snapshot: Snapshot | None) -> TuningRequest | None:
        """Return what it is to do *action* to the selected row. None: there is none, or it does not fit."""
        chosen = selected_advice(advice_rows(snapshot) if snapshot else [], self.id)
        if chosen is None or not fits(action, chosen):
            return None
        self.id = chosen.id
        return TuningRequest(action, chosen, user())

    def explain(self, request: TuningRequest, text: str) -> None:
        """Take the answer to a *request* to explain."""
        self._explained = (request.about, text)
