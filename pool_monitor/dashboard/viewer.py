"""The state of a dashboard: what its user has chosen, and the page that results. No terminal, no task, no clock."""

from __future__ import annotations

from typing import NamedTuple

from pool_monitor.dashboard.advice_selection import AdviceSelection
from pool_monitor.dashboard.alert_actions import ALERT_KEYS, AlertActionName, AlertRequest
from pool_monitor.dashboard.feed import Frame, Lost
from pool_monitor.dashboard.prompt import Prompt, user
from pool_monitor.dashboard.tuning_actions import KEYS, TuningRequest
from pool_monitor.service.stacks import StackReading
from pool_monitor.snapshot import WINDOW_NAMES, Snapshot
from pool_monitor.view import (
    NO_LEVELS,
    PAGES,
    UNICODE,
    Freshness,
    Glyphs,
    Levels,
    Line,
    PageName,
    PageState,
    WorkerStack,
    alert_rows,
    draw,
    error_rows,
    help_page,
    levels,
    max_offset,
    pool_shown,
    selected_alert,
    selected_row,
    sorted_workers,
    visible_workers,
    waiting_page,
)
from pool_monitor.view.pages import Arrows

STALE_AFTER_TICKS = 2.5


class StackQuestion(NamedTuple):
    """Which worker is asked for its stack."""

    pool: str
    slot: str


class Viewer:
    """The state of one dashboard. ``now`` is monotonic seconds, from the same clock in every call.

    *source* is the name of what the frames come from. *interval* is how many seconds apart they should arrive.
    """

    def __init__(self, now: float, *, source: str, interval: float, window: str, glyphs: Glyphs = UNICODE) -> None:
        self.source, self.interval, self.window, self.glyphs = source, interval, window, glyphs
        self.paused = False
        self.helping = False
        self.opened: PageName = "overview"
        """The page that is open. While the help is open, it covers this page."""
        self.selected: str | None = None
        self._arrived = now
        self._lost: Lost | None = None
        self._newest: Snapshot | None = None
        self._shown: Snapshot | None = None
        self._levels: Levels = NO_LEVELS
        """The levels of the newest Snapshot: the next levels depend on them."""
        self._levels_shown: Levels = NO_LEVELS
        self._behind = 0
        self._pool: str | None = None
        self._offset = 0
        self._scrolled = 0
        self._error: str | None = None
        """The key of the selected row on the page of errors. None: the first row."""
        self._alert: str | None = None
        """The fingerprint of the selected alert. None: the first row."""
        self.advice = AdviceSelection()
        """What is selected on the page of advice."""
        self.prompt = Prompt[AlertRequest | TuningRequest]()
        """What is done to the selected alert, trial or recommendation."""
        self._asked: StackQuestion | None = None
        self._answer: StackReading | None = None
        self._answered = now
        self._asking = False
        self.frame_seconds: float | None = None
        """How long drawing a frame takes on this screen; None: not measured."""

    def receive(self, frame: Frame, now: float) -> None:
        """Take a frame. While paused, the frame is kept but not shown."""
        self._arrived = now
        if isinstance(frame, Lost):
            self._lost = frame
            return
        self._lost, self._newest = None, frame
        self._levels = levels(frame, self._levels)
        if self.paused:
            self._behind += 1
        else:
            self._shown, self._levels_shown = frame, self._levels

    def freshness(self, now: float) -> Freshness:
        """Return how fresh the page is, in whole seconds: if two values are equal, no repaint is needed."""
        age, lost = now - self._arrived, self._lost
        reason = lost.reason if lost else ""
        if self.paused:
            return Freshness("PAUSED", behind=self._behind, reason=reason)
        if lost:
            return Freshness("LOST", seconds=round(max(lost.retry_in - age, 0.0)), reason=reason)
        return Freshness("STALE", seconds=int(age)) if age > STALE_AFTER_TICKS * self.interval else Freshness("LIVE")

    def page(self, size: tuple[int, int], now: float) -> list[Line]:
        """Return what the screen shows now, in exactly *size* columns and rows."""
        if self.helping:
            return help_page(size, glyphs=self.glyphs)
        freshness, snapshot = self.freshness(now), self._shown
        if snapshot is None:
            return waiting_page(
                size, self._waiting(freshness), freshness=freshness if freshness.outdated else None, glyphs=self.glyphs
            )
        if self._arrows == "worker":
            self._scroll(snapshot, size)
        elif self._arrows == "alert":
            self._select_alert(0)
        elif self._arrows == "advice":
            self.advice.move(0, self._shown)
        elif self._arrows == "error":
            self._select_error(0)  # so that the text stays while counts change the order
        return draw(self.opened, snapshot, size, self._pool, self._state(now), self.glyphs)

    def toggle_pause(self) -> None:
        """Pause the display, or return to the newest Snapshot. Before the first Snapshot, do nothing."""
        self.paused = not self.paused and self._shown is not None
        if not self.paused:
            self._shown, self._levels_shown, self._behind = self._newest, self._levels, 0

    def choose_window(self, window: str) -> bool:
        """Switch to *window*, and end a pause. Return whether the window changed: only then a new feed is needed."""
        if self.paused:
            self.toggle_pause()
        changed, self.window = window != self.window, window
        return changed

    def neighbour_window(self, step: int) -> str:
        """Return the window *step* places longer (shorter if negative), within the windows there are."""
        place = WINDOW_NAMES.index(self.window) if self.window in WINDOW_NAMES else 1
        return WINDOW_NAMES[min(max(place + step, 0), len(WINDOW_NAMES) - 1)]

    def next_pool(self, step: int = 1) -> None:
        """Show the pool *step* places after this one. The first pool follows the last."""
        names = list(self._shown.pools) if self._shown else []
        if len(names) > 1:
            place = names.index(self._pool) if self._pool in names else 0
            self._pool, self.selected, self._offset = names[(place + step) % len(names)], None, 0
            self._error, self._scrolled = None, 0

    def open(self, name: PageName) -> None:
        """Open the page *name*. If it is open already, return to the overview."""
        self.prompt.cancel()
        self.opened = "overview" if self.opened == name and not self.helping else name
        self.helping, self._scrolled = False, 0

    def move(self, step: int, size: tuple[int, int], now: float) -> None:
        """Move by *step* what the arrow keys of the open page move: the selected worker, the pool, or the lines."""
        match self._arrows:
            case "worker":
                self.select(step)
            case "pool":
                self.next_pool(step)
            case "error":
                self._select_error(step)
            case "alert":
                self._select_alert(step)
            case "advice":
                self.advice.move(step, self._shown)
                self._scrolled = 0
            case "line":
                self._scroll_lines(step, size, now)

    def move_page(self, step: int, size: tuple[int, int], now: float) -> None:
        """Like `move`, by *step* screens. Where a list has a text below it, scroll the text."""
        match self._arrows:
            case "worker":
                self.select_page(step, size)
            case "pool":
                self.next_pool(step)
            case "error" | "alert" | "advice":
                self._scroll_lines(step * max(size[1] // 2, 1), size, now)
            case "line":
                self._scroll_lines(step * max(size[1] - 4, 1), size, now)

    def ask_for_stack(self) -> StackQuestion | None:
        """Open the page of the stack, and return whom to ask for it now. None: there is no worker, or an answer is
        awaited already.

        On that page, the worker is the one that is shown, else the selected one, else the first of the table.
        """
        if self._asking:
            self._open_stack()
            return None
        pool = pool_shown(self._shown, self._pool) if self._shown else None
        slots = self._slots()
        again = self._asked if self.opened == "stack" and not self.helping else None
        slot = self.selected if self.selected in slots else next(iter(slots), None)
        question = again or (StackQuestion(pool.name, slot) if pool is not None and slot is not None else None)
        if question != self._asked:
            self._asked, self._answer = question, None
        self._asking = question is not None
        self._open_stack()
        return question

    def receive_stack(self, answer: StackReading, now: float) -> None:
        """Take the answer to the question that `ask_for_stack` returned last."""
        self._answer, self._answered, self._asking = answer, now, False

    def _open_stack(self) -> None:
        if self.opened != "stack":
            self._scrolled = 0
        self.opened, self.helping = "stack", False

    def select(self, step: int) -> None:
        """Move the selection by *step* workers. Without a selection, select the topmost visible worker."""
        slots = self._slots()
        if not slots:
            return
        place = slots.index(self.selected) + step if self.selected in slots else self._offset
        self.selected = slots[min(max(place, 0), len(slots) - 1)]

    def select_page(self, step: int, size: tuple[int, int]) -> None:
        """Move the selection by *step* screens of workers."""
        if self._shown is not None:
            self.select(step * max(visible_workers(self._shown, size, self._pool, self.selected), 1))

    def go_back(self) -> None:
        """Close the help, else take back a question, else close the open page, else clear the selection."""
        if self.helping:
            self.helping = False
        elif self.prompt.cancel():
            pass
        elif self.opened != "overview":
            self.opened = "overview"
        else:
            self.selected, self._offset = None, 0

    def _state(self, now: float) -> PageState:
        return PageState(
            self.freshness(now),
            self._offset if self._arrows == "worker" else self._scrolled,
            self.selected,
            self._levels_shown,
            self._error,
            self._stack(now),
            self.frame_seconds,
            self._alert,
            self.prompt.text(self.advice.id if self._arrows == "advice" else self._alert),
            self.advice.id,
            self.advice.explanation,
        )

    def _stack(self, now: float) -> WorkerStack | None:
        if self._asked is None:
            return None
        answer = self._answer
        if answer is None:
            return WorkerStack(self._asked.slot, asking=self._asking)
        return WorkerStack(
            self._asked.slot, answer.stack, answer.reason or "", self._asking, max(now - self._answered, 0.0)
        )

    def _scroll_lines(self, step: int, size: tuple[int, int], now: float) -> None:
        if self._shown is not None:
            most = max_offset(self.opened, self._shown, size, pool=self._pool, state=self._state(now))
            self._scrolled = min(max(min(self._scrolled, most) + step, 0), most)

    def _select_error(self, step: int) -> None:
        snapshot = self._shown
        rows = error_rows(pool_shown(snapshot, self._pool), snapshot.taken_at) if snapshot else []
        chosen = selected_row(rows, self._error)
        if chosen is not None:
            self._error = rows[min(max(rows.index(chosen) + step, 0), len(rows) - 1)].key
            self._scrolled = 0 if step else self._scrolled

    def ask_to(self, action: AlertActionName) -> None:
        """On the page of alerts, ask whether to do *action* to the selected alert."""
        chosen = selected_alert(alert_rows(self._shown) if self._shown else [], self._alert)
        if chosen is not None and self.opened == "alerts" and not self.helping:
            self._alert = chosen.fingerprint
            self.prompt.ask(AlertRequest(action, chosen, user()))

    def ask_by_key(self, key: str) -> None:
        """On the page of alerts or of advice, ask what *key* asks there of the selected row."""
        if key in ALERT_KEYS and self.opened == "alerts":
            self.ask_to(ALERT_KEYS[key])
        elif key in KEYS and self.opened == "advice" and not self.helping:
            request = self.advice.request(KEYS[key], self._shown)
            if request is not None:
                self.prompt.ask(request)

    def ask_for_explanation(self) -> TuningRequest | None:
        """On the page of advice, return whose explanation to ask for; None: there is none, or it is another page."""
        if self.opened != "advice" or self.helping:
            return None
        return self.advice.request("explain", self._shown)

    def _select_alert(self, step: int) -> None:
        rows = alert_rows(self._shown) if self._shown else []
        chosen = selected_alert(rows, self._alert)
        if chosen is not None:
            self._alert = rows[min(max(rows.index(chosen) + step, 0), len(rows) - 1)].fingerprint
            self._scrolled = 0 if step else self._scrolled

    @property
    def _arrows(self) -> Arrows:
        return PAGES[self.opened].arrows

    def _slots(self) -> list[str]:
        pool = pool_shown(self._shown, self._pool) if self._shown else None
        return [worker.id for worker in sorted_workers(pool)] if pool else []

    def _scroll(self, snapshot: Snapshot, size: tuple[int, int]) -> None:
        """Scroll the rows just far enough to show the selected worker, which may have moved in the table."""
        slots = self._slots()
        rows = max(visible_workers(snapshot, size, self._pool, self.selected), 1)
        if self.selected in slots:
            place = slots.index(self.selected)
            self._offset = min(max(self._offset, place - rows + 1), place)
        self._offset = max(0, min(self._offset, len(slots) - rows))

    def _waiting(self, freshness: Freshness) -> str:
        if freshness.reason:
            return f"{self.source}: {freshness.reason}"
        if freshness.outdated:
            return f"no snapshot yet from {self.source}"
        return f"connecting to {self.source}"
