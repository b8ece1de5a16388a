"""The page of advice and tuning: the tuner, the size of each pool, one line for each change and recommendation, and
the selected one in full.

What waits for a person comes first, then what is on trial, then the recommendations by their score, then what is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pool_monitor.snapshot import TRIAL_RUNNING, TRIAL_WAITING, PoolDetail, Recommendation, Snapshot, TrialView
from pool_monitor.view import advice_words as words
from pool_monitor.view.page_frame import Content, PageState, page_content
from pool_monitor.view.table import Column, number, rows_shown, table
from pool_monitor.view.text import Line, Meaning, PageSize, Segment, clean, one_line, paragraph

_LIST_SHARE = 2
"""The list gets one line of this many, and the selected row the others."""
_LIST_LEAST = 4
_SIZING_MOST = 3
"""The most pools whose size is told above the list. Those left out are told below it."""


class AdviceRow(NamedTuple):
    """One line of the list: a trial or a recommendation."""

    trial: TrialView | None = None
    found: Recommendation | None = None

    @property
    def id(self) -> str:
        """The id of the trial or of the recommendation."""
        return self.trial.id if self.trial is not None else self.found.id if self.found is not None else ""

    @property
    def waits(self) -> bool:
        """Whether it waits for approval."""
        return self.trial is not None and self.trial.state in TRIAL_WAITING


def advice_rows(snapshot: Snapshot) -> list[AdviceRow]:
    """Return the trials and recommendations in the order of the list."""
    tuning = snapshot.tuning
    trials = () if tuning is None else tuning.trials
    pending = () if tuning is None else tuning.pending
    running = [one for one in trials if one.state in TRIAL_RUNNING]
    over = [one for one in trials if one.state not in TRIAL_RUNNING]
    return [
        *(AdviceRow(trial=one) for one in (*pending, *running)),
        *(AdviceRow(found=one) for one in sorted(snapshot.recommendations, key=lambda one: -one.score)),
        *(AdviceRow(trial=one) for one in over),
    ]


def selected_advice(rows: Sequence[AdviceRow], name: str | None) -> AdviceRow | None:
    """Return the row with the id *name*, else the first one. None: there is no row."""
    return next((row for row in rows if row.id == name), rows[0] if rows else None)


# -- the list ---------------------------------------------------------------------------------------------------------


def _state(row: AdviceRow) -> Segment:
    if row.trial is not None:
        meaning: Meaning = "strong" if row.waits else "warn" if row.trial.state == "rolled_back" else "plain"
        return Segment(words.STATE_WORDS[row.trial.state], meaning)
    found = row.found
    return Segment("" if found is None else found.state, "plain" if found is None or words.is_open(found) else "dim")


def _subject(row: AdviceRow) -> str:
    if row.trial is not None:
        return f"pool {one_line(row.trial.pool)}"
    return "" if row.found is None else one_line(row.found.subject)


def _what(row: AdviceRow) -> str:
    if row.trial is not None:
        trial = row.trial
        return words.change_words(trial.knob, trial.before, trial.after, trial.unit)
    found = row.found
    if found is None:
        return ""
    change = found.change
    return clean(found.pattern) if change is None else words.change_words(change.knob, change.current, change.proposed)


def _summary(row: AdviceRow) -> str:
    if row.trial is not None:
        return words.trial_reason(row.trial)
    if row.found is None:
        return ""
    effect = words.effect_words(row.found.effect, row.found.change)
    return f"{one_line(row.found.summary)}{f'; {effect}' if effect else ''}"


ADVICE_COLUMNS: tuple[Column[AdviceRow], ...] = (
    Column("SCORE", lambda row: number("" if row.found is None else f"{row.found.score:.0f}"), 5),
    Column("STATE", _state, 11, "left"),
    Column("SUBJECT", _subject, 14, "left", grow=14, keep_end=True),
    Column("CHANGE", _what, 16, "left", grow=10),
    Column("WHY", _summary, 20, "left", grow=1000),
)
"""The columns of a list of trials and recommendations."""


# -- the page ---------------------------------------------------------------------------------------------------------


def advice_page(snapshot: Snapshot, _pool: PoolDetail | None, size: PageSize, state: PageState) -> Content:
    """Return the tuner, the list of trials and recommendations and, below it, the selected one in full. The arrows
    select; what is below the list scrolls.
    """
    rows = advice_rows(snapshot)
    chosen = selected_advice(rows, state.advice)
    sizing = () if snapshot.tuning is None else snapshot.tuning.sizing
    head = paragraph(words.tuner_words(snapshot.tuning, snapshot.taken_at), size.width, _mood(snapshot))
    told = [line for one in sizing for line in paragraph(words.sizing_words(one), size.width)]
    head += told[:_SIZING_MOST]
    below: list[Line] = []
    if chosen is None:
        head += paragraph(nothing_words(snapshot), size.width, "dim")
    else:
        height = min(len(rows) + 1, max((size.height - len(head)) // _LIST_SHARE, _LIST_LEAST))
        offset = max(0, rows.index(chosen) - rows_shown(len(rows), height) // 2)
        head += table(ADVICE_COLUMNS, rows, size.width, height, offset=offset, selected=chosen)
        head.append([Segment("─" * size.width, "frame")])
        head += paragraph(state.prompt, size.width, "key") if state.prompt else []
        below = row_lines(chosen, snapshot.taken_at, size.width)
        below += [line for part in state.explanation.splitlines() for line in paragraph(clean(part), size.width)]
    return page_content(head, [*below, *told[_SIZING_MOST:]], state)


def _mood(snapshot: Snapshot) -> Meaning:
    return "warn" if snapshot.tuning is not None and snapshot.tuning.frozen is not None else "plain"


def nothing_words(snapshot: Snapshot) -> str:
    """Return why there is nothing to list."""
    if (reason := snapshot.monitor.degraded.get("advisor")) is not None:
        return f"no advice: the part is degraded: {one_line(reason)}"
    return "nothing to recommend: nothing was found, or there is too little data yet"


def row_lines(row: AdviceRow, now: float, cells: int) -> list[Line]:
    """Return everything about one trial or recommendation."""
    texts: list[str] = []
    if row.trial is not None:
        texts = list(words.trial_lines(row.trial, now))
    elif row.found is not None:
        texts = list(words.recommendation_lines(row.found, now))
    lines: list[Line] = []
    for place, text in enumerate(texts):
        lines += paragraph(text, cells, "plain" if place else "strong")
    return lines
