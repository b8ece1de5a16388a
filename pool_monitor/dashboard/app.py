"""The dashboard in a terminal: a thin Textual app that paints what `Viewer` decides.

Theory of operation: one task iterates the feed and passes each frame to the viewer. Keys change the viewer. After a
frame or a key, the whole page is computed again (a millisecond or two), and only the lines that changed are painted. A
timer repaints when the freshness changes: so STALE appears when no frame comes.

Textual does what is hard: terminal modes, key parsing, writing without tearing. Nothing else depends on it: there is
one widget, almost no style sheet, and no mouse (so that text can be selected as in any terminal).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeVar

from anyio import CancelScope
from rich.segment import Segment as RichSegment
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Resize
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from pool_monitor.dashboard.alert_actions import ALERT_KEYS
from pool_monitor.dashboard.asking import outcome_of, stack_of
from pool_monitor.dashboard.driver import Driver
from pool_monitor.dashboard.frame_times import FrameTimes
from pool_monitor.dashboard.style import STYLES
from pool_monitor.dashboard.terminal import glyphs_for, restoring_process
from pool_monitor.dashboard.tuning_actions import KEYS
from pool_monitor.dashboard.viewer import Viewer
from pool_monitor.errors import PoolError
from pool_monitor.snapshot import WINDOW_NAMES
from pool_monitor.view import PAGES
from pool_monitor.view.text import PageSize, Segment, clean, fit_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from textual.driver import Driver as TextualDriver

    from pool_monitor.dashboard.feed import Feed
    from pool_monitor.view import Line, PageName


Answer = TypeVar("Answer")


class PageWidget(Widget):
    """The whole screen. Only lines that changed are painted again."""

    DEFAULT_CSS = "PageWidget { width: 100%; height: 100%; }"

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Line] = []

    def show(self, lines: list[Line]) -> None:
        before, self._lines = self._lines, lines
        if len(before) != len(lines):
            self.refresh()
            return
        changed = [y for y, (old, new) in enumerate(zip(before, lines, strict=True)) if old != new]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        if y >= len(self._lines):
            return Strip.blank(self.size.width)
        return Strip(RichSegment(text, STYLES[meaning]) for text, meaning in self._lines[y])


class TimedScreen(Screen[None]):
    """Textual's screen. The time in which it paints counts as time of the frame."""

    def __init__(self, frame_times: FrameTimes) -> None:
        super().__init__()
        self._frame_times = frame_times

    def _compositor_refresh(self) -> None:
        with self._frame_times.measured():
            super()._compositor_refresh()


def _key(keys: str, action: str) -> Binding:
    # With priority: Textual has its own bindings for Tab and Ctrl-C.
    return Binding(keys, action, show=False, priority=True)


class Dashboard(App[None]):
    """The Textual app. Use it through `run`; tests drive it with Textual's pilot."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        _key("q", "quit"),
        _key("ctrl+c", "interrupt"),
        _key("space", "pause"),
        *(_key(str(number), f"window('{name}')") for number, name in enumerate(WINDOW_NAMES, 1)),
        _key("plus,equals_sign", "longer(1)"),
        _key("minus", "longer(-1)"),
        _key("tab", "pool"),
        *(_key(page.key, f"open('{page.name}')") for page in PAGES.values() if page.key and page.name != "stack"),
        _key(PAGES["stack"].key, "stack"),
        _key("down,j", "select(1)"),
        _key("up,k", "select(-1)"),
        _key("pagedown", "select_page(1)"),
        _key("pageup", "select_page(-1)"),
        _key("question_mark", "help"),
        _key("escape", "go_back"),
        *(_key(key, f"ask_by_key('{key}')") for key in sorted({*ALERT_KEYS, *KEYS})),
        _key("y", "confirm"),
        _key("enter", "leave_page"),
    ]

    def __init__(
        self,
        feed: Feed,
        *,
        title: str,
        interval: float,
        window: str,
        status: Callable[[], str] | None = None,
        interrupt: Callable[[], None] | None = None,
    ) -> None:
        if os.environ.get("NO_COLOR") == "":
            del os.environ["NO_COLOR"]  # empty counts as unset by its specification, but not for Textual
        self.frame_times = FrameTimes()
        # Without ansi_color, Textual replaces the 16 colours by RGB colours: under NO_COLOR, by greys.
        super().__init__(ansi_color=True)
        self.theme = "ansi-dark"
        self.animation_level = "none"
        self.title = title
        self.feed = feed
        self.status, self.interrupt = status, interrupt
        self.failure: BaseException | None = None
        self.viewer = Viewer(
            asyncio.get_running_loop().time(),
            source=title,
            interval=interval,
            window=window,
            glyphs=glyphs_for(os.environ, getattr(sys.__stderr__, "encoding", None) or "ascii"),
        )
        self.page = PageWidget()
        self._following: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._one_window = CancelScope()
        self._room = self._page_size(self.size)
        self._painted_freshness = self.viewer.freshness(self._now())

    def compose(self) -> ComposeResult:
        yield self.page

    def get_default_screen(self) -> TimedScreen:
        return TimedScreen(self.frame_times)

    def on_mount(self) -> None:
        self.set_interval(min(0.25, self.viewer.interval / 2), self._repaint_if_freshness_changed)
        self._following = asyncio.create_task(self._follow(), name="pool-monitor dashboard feed")
        self._following.add_done_callback(self._feed_ended)

    async def on_unmount(self) -> None:
        tasks = {task for task in (self._following, *self._asking) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def on_resize(self, event: Resize) -> None:
        self._room = self._page_size(event.size)  # self.size is still the old one here
        self.repaint()

    def repaint(self) -> None:
        now = self._now()
        self.viewer.frame_seconds = self.frame_times.begin()
        with self.frame_times.measured():
            self._painted_freshness = self.viewer.freshness(now)
            lines = self.viewer.page(self._room, now)
            if self.status is not None and self._room.height:
                lines = [*lines, fit_line([Segment(f" {clean(self.status())}", "strong")], self._room.width)]
            self.page.show(lines)

    def _page_size(self, size: tuple[int, int]) -> PageSize:
        """Return the part of *size* that is left for the page: without the line of the status."""
        width, height = size
        return PageSize(width, max(height - 1, 0) if self.status is not None else height)

    def action_pause(self) -> None:
        self.viewer.toggle_pause()
        self.repaint()

    def action_interrupt(self) -> None:
        if self.interrupt is not None:
            self.interrupt()
        self.exit()

    def action_window(self, window: str) -> None:
        if self.viewer.choose_window(window):
            self._one_window.cancel()
        self.repaint()

    def action_longer(self, step: int) -> None:
        self.action_window(self.viewer.neighbour_window(step))

    def action_pool(self) -> None:
        self.viewer.next_pool()
        self.repaint()

    def action_open(self, name: PageName) -> None:
        self.viewer.open(name)
        self.repaint()

    def action_stack(self) -> None:
        question = self.viewer.ask_for_stack()
        if question is not None:
            self._ask(
                partial(stack_of, self.feed, *question), lambda answer: self.viewer.receive_stack(answer, self._now())
            )
        self.repaint()

    def _ask(self, asked: Callable[[], Awaitable[Answer]], take: Callable[[Answer], object]) -> None:
        """Wait for an answer in a task of its own, give it to *take*, and show it."""

        async def answered() -> None:
            take(await asked())
            self.repaint()

        task = asyncio.create_task(answered(), name="pool-monitor dashboard question")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def action_ask_by_key(self, key: str) -> None:
        self.viewer.ask_by_key(key)
        self.repaint()

    def action_confirm(self) -> None:
        request = self.viewer.prompt.confirm()
        if request is not None:
            self._ask(partial(outcome_of, self.feed, request), partial(self.viewer.prompt.answer, request))
        self.repaint()

    def action_select(self, step: int) -> None:
        self.viewer.move(step, self._room, self._now())
        self.repaint()

    def action_select_page(self, step: int) -> None:
        self.viewer.move_page(step, self._room, self._now())
        self.repaint()

    def action_help(self) -> None:
        self.viewer.helping = not self.viewer.helping
        self.repaint()

    def action_leave_page(self) -> None:
        request = self.viewer.ask_for_explanation()
        if request is not None:
            self._ask(partial(outcome_of, self.feed, request), partial(self.viewer.advice.explain, request))
        elif self.viewer.opened != "overview":
            self.action_go_back()

    def action_go_back(self) -> None:
        self.viewer.go_back()
        self.repaint()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _repaint_if_freshness_changed(self) -> None:
        if self.viewer.freshness(self._now()) != self._painted_freshness:
            self.repaint()

    async def _follow(self) -> None:
        """Show the frames of the feed. When the window changes, cancel the scope and call `frames` again."""
        while True:
            with CancelScope() as self._one_window:
                frames = self.feed.frames(self.viewer.window)
                try:
                    async for frame in frames:
                        self.viewer.receive(frame, self._now())
                        self.repaint()
                finally:
                    if isinstance(frames, AsyncGenerator):
                        await frames.aclose()
                await asyncio.Event().wait()  # the feed has ended: the page becomes STALE

    def _feed_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self.failure = task.exception()
            self.exit()

    def get_driver_class(self) -> type[TextualDriver]:
        found = super().get_driver_class()
        return Driver if found is LinuxDriver else found

    def panic(self, *_renderables: RenderableType) -> None:
        """Textual calls this when its input thread fails. Its own method prints a traceback and exits with code 0."""
        if self.failure is None and self._exception is None:
            self.failure = PoolError("the dashboard has ended: the terminal can no longer be read")
        self._close_messages_no_wait()

    def _fatal_error(self) -> None:
        """Textual calls this after an unexpected exception. Its own method prints it; `run` raises it instead."""
        self._close_messages_no_wait()


async def run(
    feed: Feed,
    *,
    title: str = "this process",
    interval: float = 1.0,
    window: str = "5m",
    status: Callable[[], str] | None = None,
    interrupt: Callable[[], None] | None = None,
) -> None:
    """Show the dashboard until its user quits (q, Ctrl-C), SIGTERM or SIGHUP arrives, or the caller is cancelled.

    It runs in the caller's loop. However it ends, it leaves no task and no signal handler, and restores the terminal.
    *title* is the name of the source, shown until the first frame arrives. *interval* is how many seconds apart frames
    should arrive; after 2.5 intervals without a frame, the page shows STALE.

    *status* returns a line of text that is shown below the page; it is called at every repaint. *interrupt* is called
    when the user presses Ctrl-C, before the dashboard quits.

    Raises what the feed raised, and PoolError if the terminal can no longer be read. Call `can_run` first.
    """
    app = Dashboard(feed, title=title, interval=interval, window=window, status=status, interrupt=interrupt)
    with restoring_process(app.exit):
        # Textual swallows a cancellation of the task it runs in. So the app runs in its own task. When the caller is
        # cancelled, the app exits, and the cancellation is raised again.
        task = asyncio.create_task(app.run_async(mouse=False), name="pool-monitor dashboard")
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            app.exit()
            with CancelScope(shield=True):
                while not task.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait({task})
            raise
    await task
    if failure := app.failure or app._exception:
        raise failure
