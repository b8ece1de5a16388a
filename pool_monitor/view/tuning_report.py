"""What the tuner did over a time: one line for each change of a setting."""

from __future__ import annotations

from collections.abc import Callable

from pool_monitor.snapshot import TrialView
from pool_monitor.view import advice_words as words
from pool_monitor.view.table import Column
from pool_monitor.view.text import Segment, one_line


def trial_columns(when: Callable[[float], str]) -> tuple[Column[TrialView], ...]:
    """Return the columns of changes. *when* words a wall-clock time."""
    return (
        Column("AT", lambda row: when(row.started_at), 14, "left", grow=11),
        Column("ID", lambda row: "" if words.is_decision(row) else one_line(row.id), 8, "left"),
        Column("POOL", lambda row: one_line(row.pool), 8, "left", grow=12, keep_end=True),
        Column("CHANGE", _change, 16, "left", grow=10),
        Column("STATE", _state, 11, "left"),
        Column("BY", lambda row: one_line(row.actor or row.origin), 8, "left", grow=8),
        Column("REASON", lambda row: one_line(row.reason), 7, "left", grow=1000),
    )


def _change(row: TrialView) -> str:
    return words.change_words(row.knob, row.before, row.after, row.unit)


def _state(row: TrialView) -> Segment:
    return Segment(words.STATE_WORDS[row.state], "warn" if row.state == "rolled_back" else "plain")
