"""The dashboard's behaviour: what keys and frames do. The state alone, then the app with Textual's pilot."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import get_args

import pytest

from pool_monitor.dashboard import Frame, LocalFeed, Lost
from pool_monitor.dashboard.app import Dashboard, run
from pool_monitor.dashboard.frame_times import FrameTimes
from pool_monitor.dashboard.style import STYLES
from pool_monitor.dashboard.terminal import can_run, glyphs_for, restoring_process
from pool_monitor.dashboard.viewer import Viewer
from pool_monitor.errors import PoolError
from pool_monitor.service.stacks import StackReading
from pool_monitor.view import ASCII, UNICODE, Freshness, Meaning, plain
from tests.helpers import samples
from tests.helpers.gates import in_gates

SIZE = (80, 24)
pytestmark = pytest.mark.usefixtures("utf8")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# the state behind the screen


def viewer(*frames: Frame, now: float = 100.0) -> Viewer:
    made = Viewer(now, source="articles", interval=1.0, window="5m")
    for frame in frames:
        made.receive(frame, now)
    return made


def screen(made: Viewer, now: float = 100.0, size: tuple[int, int] = SIZE) -> str:
    return plain(made.page(size, now))


def test_before_the_first_frame_it_says_what_it_waits_for() -> None:
    assert "connecting to articles" in screen(viewer())
    assert "no snapshot yet from articles" in screen(viewer(), now=104.0)
    refused = screen(viewer(Lost("connection refused", 4.0)))
    assert "articles: connection refused" in refused
    assert "LOST retry 4s" in refused


def test_frames_are_live_until_two_and_a_half_are_missing() -> None:
    made = viewer(samples.snapshot())
    assert made.freshness(102.5) == Freshness("LIVE")
    assert made.freshness(102.6) == Freshness("STALE", seconds=2)
    assert "STALE 9s" in screen(made, now=109.2)
    made.receive(samples.snapshot(9), 110.0)
    assert made.freshness(110.0) == Freshness("LIVE")


def test_a_lost_source_counts_down_to_the_next_try_and_comes_back() -> None:
    made = viewer(samples.snapshot(), Lost("gone", 4.0))
    assert made.freshness(100.0) == Freshness("LOST", seconds=4, reason="gone")
    assert made.freshness(103.0) == Freshness("LOST", seconds=1, reason="gone")
    assert made.freshness(109.0) == Freshness("LOST", seconds=0, reason="gone")
    made.receive(samples.snapshot(9), 110.0)
    assert made.freshness(110.0) == Freshness("LIVE")


def test_a_pause_holds_the_display_and_counts_what_it_misses() -> None:
    made = viewer(samples.snapshot())
    made.toggle_pause()
    before = screen(made)
    for tick in (1, 2, 3):
        made.receive(samples.snapshot(tick), 100.0 + tick)
    after = screen(made, now=103.0)
    assert "‖ PAUSED 3 behind" in after
    assert before.splitlines()[1:] == after.splitlines()[1:]
    assert "STALE" not in screen(made, now=200.0)
    made.toggle_pause()
    assert "up 12m07s  ● LIVE" in screen(made, now=103.0)


def test_a_pause_still_shows_that_the_source_is_gone() -> None:
    made = viewer(samples.snapshot())
    made.toggle_pause()
    made.receive(Lost("gone", 4.0), 101.0)
    assert "PAUSED" in screen(made)
    assert "connection lost: gone" in screen(made)


def test_there_is_nothing_to_pause_before_the_first_snapshot() -> None:
    made = viewer()
    made.toggle_pause()
    made.receive(samples.snapshot(), 101.0)
    assert "LIVE" in screen(made, now=101.0)


def test_choosing_a_window_goes_back_to_live() -> None:
    made = viewer(samples.snapshot())
    made.toggle_pause()
    made.receive(samples.snapshot(1), 101.0)
    assert made.choose_window("1m")
    assert not made.choose_window("1m")
    assert made.freshness(101.0) == Freshness("LIVE")


def test_windows_get_longer_and_shorter_up_to_the_ends() -> None:
    made = viewer()
    assert [made.neighbour_window(step) for step in (-9, -1, 0, 1, 9)] == ["1m", "1m", "5m", "15m", "1h"]
    made.choose_window("15m")
    assert made.neighbour_window(1) == "1h"
    made.choose_window("1h")
    assert made.neighbour_window(1) == "1h"


def test_pools_take_turns() -> None:
    made = viewer(samples.snapshot(pools=("text", "vision", "audio")))
    seen = []
    for _ in range(4):
        seen.append(screen(made).splitlines()[0].split("pool ")[1].split()[1])
        made.next_pool()
    assert seen == ["text", "vision", "audio", "text"]


def test_the_selection_moves_by_worker_and_the_rows_follow() -> None:
    made = viewer(samples.snapshot(workers=64))
    made.select(1)
    assert made.selected == "text-0"
    for _ in range(20):
        made.select(1)
    assert made.selected == "text-20"
    page = screen(made)
    assert " text-20 " in page
    assert " text-0 " not in page
    made.select(-99)
    assert made.selected == "text-0"
    assert " text-0 " in screen(made)


def test_a_page_down_moves_by_the_rows_that_are_shown() -> None:
    made = viewer(samples.snapshot(workers=64))
    made.select(1)
    rows = [line for line in screen(made).splitlines()[:-2] if line.startswith(" text-")]
    shown = [line.split()[0] for line in rows]
    made.select_page(1, SIZE)
    assert made.selected == f"text-{len(shown)}"
    made.select_page(99, SIZE)
    assert made.selected == "text-63"
    assert " text-63 " in screen(made)


def test_the_selection_follows_the_worker_and_survives_its_end() -> None:
    made = viewer(samples.snapshot(workers=64))
    made.select(1)
    made.select(40)
    screen(made)
    made.receive(samples.snapshot(workers=2), 101.0)
    assert "text-1" in screen(made)
    made.select(1)
    assert made.selected == "text-0"


def test_escape_leaves_the_help_first_and_the_selection_next() -> None:
    made = viewer(samples.snapshot())
    made.select(1)
    made.helping = True
    assert "KEYS" in screen(made)
    made.go_back()
    assert made.selected == "text-0"
    made.go_back()
    assert made.selected is None


def test_without_a_snapshot_keys_do_no_harm() -> None:
    made = viewer()
    made.next_pool()
    made.select(1)
    made.select_page(1, SIZE)
    made.go_back()
    assert made.selected is None


# the terminal


@pytest.mark.parametrize(
    ("environ", "encoding", "glyphs"),
    [
        ({}, "utf-8", UNICODE),
        ({"LANG": "en_US.UTF-8"}, "utf-8", UNICODE),
        ({"LANG": "de_DE.utf8"}, "utf-8", UNICODE),
        ({"LANG": "C"}, "utf-8", ASCII),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, "utf-8", ASCII),
        ({"LC_CTYPE": "C.UTF-8"}, "utf-8", UNICODE),
        ({"LANG": "en_US.UTF-8", "LC_ALL": "C"}, "utf-8", ASCII),
        ({"LANG": "C", "LC_ALL": "C.UTF-8"}, "utf-8", UNICODE),
        ({"LANG": "en_US.ISO-8859-1"}, "utf-8", ASCII),
        ({"LANG": "en_US.UTF-8"}, "ascii", ASCII),
    ],
)
def test_glyphs_follow_the_locale(environ: dict[str, str], encoding: str, glyphs: object) -> None:
    assert glyphs_for(environ, encoding) is glyphs


def test_levels_differ_in_colour_and_in_nothing_else() -> None:
    coloured = {meaning: style.color.name for meaning, style in STYLES.items() if style.color}
    assert coloured == {
        "data": "cyan",
        "key": "cyan",
        "warn": "yellow",
        "bar-warn": "yellow",
        "bad": "red",
        "bar-bad": "red",
    }
    assert all(style.bgcolor is None for style in STYLES.values())
    assert STYLES.keys() == set(get_args(Meaning))


def test_a_pipe_is_no_place_for_a_dashboard() -> None:
    assert not can_run()


async def test_signals_and_task_factory_are_restored() -> None:
    quits: list[int] = []
    loop = asyncio.get_running_loop()
    before = [signal.getsignal(number) for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGTSTP)]
    with restoring_process(lambda: quits.append(1)):
        signal.signal(signal.SIGWINCH, signal.SIG_IGN)
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        loop.set_task_factory(lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options))
        os.kill(os.getpid(), signal.SIGTERM)
        while not quits:
            await asyncio.sleep(0)
    assert before == [signal.getsignal(number) for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGTSTP)]
    assert loop.get_task_factory() is None


async def test_a_host_that_handles_sigterm_keeps_its_handler() -> None:
    called: list[str] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, lambda: called.append("host"))
    try:
        with restoring_process(lambda: called.append("dashboard")):
            os.kill(os.getpid(), signal.SIGTERM)
            while not called:
                await asyncio.sleep(0)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    assert called == ["host"]


# feeds


class FeedClock:
    """Replaces asyncio in the feed: time passes only when the feed sleeps or the test advances it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def get_running_loop(self) -> FeedClock:
        return self

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


async def test_a_local_feed_keeps_its_beat_and_skips_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FeedClock()
    monkeypatch.setattr("pool_monitor.dashboard.feed.asyncio", clock)
    frames = LocalFeed(lambda window: samples.snapshot(), interval=1.0).frames("5m")
    taken = []
    for busy_for in (0.3, 0.3, 3.5, 0.0, 0.0):
        await anext(frames)
        taken.append(clock.now - 1000)
        clock.now += busy_for
    assert taken == pytest.approx([0.0, 1.0, 2.0, 5.5, 6.5])


async def test_a_local_feed_takes_at_once_and_then_every_interval() -> None:
    windows = []

    def take(window: str) -> samples.Snapshot:
        windows.append(window)
        return samples.snapshot(len(windows))

    seen = []
    async for frame in LocalFeed(take, interval=0.001).frames("1m"):
        assert not isinstance(frame, Lost)
        seen.append(frame.seq)
        if len(seen) == 3:
            break
    assert seen == [725, 726, 727]
    assert windows == ["1m"] * 3


class HandFeed:
    """A feed whose frames come from the test, in one queue for all windows. It records the requested windows."""

    def __init__(self, *frames: Frame | Exception) -> None:
        self.windows: list[str] = []
        self.closed: list[str] = []
        self.queue: asyncio.Queue[Frame | Exception] = asyncio.Queue()
        for frame in frames:
            self.queue.put_nowait(frame)

    async def frames(self, window: str) -> AsyncIterator[Frame]:
        self.windows.append(window)
        try:
            while True:
                frame = await self.queue.get()
                if isinstance(frame, Exception):
                    raise frame
                yield frame
        finally:
            self.closed.append(window)


# the app


def dashboard(feed: HandFeed, interval: float = 60.0) -> Dashboard:
    return Dashboard(feed, title="articles", interval=interval, window="5m")


def shown(app: Dashboard) -> str:
    """Return what Textual would paint now, line by line from the widget, through public parts of the app."""
    return "\n".join(app.page.render_line(y).text.rstrip() for y in range(app.size.height))


async def until(condition: Callable[[], bool], app: Dashboard) -> None:
    """Let the loop turn until *condition* holds."""
    end = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < end, f"not true within 20 s; on the screen:\n{shown(app)}"
        await asyncio.sleep(0.001)
        assert app.is_running, app.failure


async def test_a_frame_is_shown_and_the_next_one_replaces_it() -> None:
    feed = HandFeed(samples.snapshot())
    app = dashboard(feed)
    async with app.run_test(size=SIZE):
        await until(lambda: "up 12m04s  ● LIVE" in shown(app), app)
        feed.queue.put_nowait(samples.snapshot(30))
        await until(lambda: "up 12m34s  ● LIVE" in shown(app), app)
    assert feed.closed == ["5m"]


async def test_a_status_stands_below_the_page_and_is_asked_for_with_every_frame() -> None:
    feed = HandFeed(samples.snapshot())
    texts = iter(["1 of 3 lines \x1b[2J", "2 of 3 lines", *["3 of 3 lines"] * 9])
    app = Dashboard(feed, title="text", interval=60.0, window="5m", status=lambda: next(texts))
    async with app.run_test(size=SIZE):
        for _ in range(3):
            feed.queue.put_nowait(samples.snapshot())
        await until(lambda: "3 of 3 lines" in shown(app), app)
        *page, status = shown(app).splitlines()
        assert status == " 3 of 3 lines"
        assert plain(app.viewer.page((80, 23), 0.0)) == "\n".join([*page, ""])


async def test_ctrl_c_is_passed_on_before_the_dashboard_quits() -> None:
    pressed: list[str] = []
    app = Dashboard(
        HandFeed(samples.snapshot()), title="text", interval=1.0, window="5m", interrupt=lambda: pressed.append("^C")
    )
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("ctrl+c")
    assert pressed == ["^C"]
    assert not app.is_running


async def test_an_input_thread_that_fails_is_an_error_and_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    app = dashboard(HandFeed(samples.snapshot()))
    async with app.run_test(size=SIZE):
        app.panic("a traceback")
        while app.is_running:
            await asyncio.sleep(0.001)
    assert isinstance(app.failure, PoolError)
    assert "a traceback" not in capfd.readouterr().err


async def test_only_changed_lines_are_painted() -> None:
    feed = HandFeed(samples.snapshot())
    app = dashboard(feed)
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.pause()
        painted: list[int] = []
        refresh = app.page.refresh

        def counting(*regions: object, **options: bool) -> object:
            painted.extend(region.y for region in regions)
            return refresh(*regions, **options)

        app.page.refresh = counting
        feed.queue.put_nowait(samples.snapshot())
        await until(feed.queue.empty, app)
        await pilot.pause()
        assert painted == []
        await pilot.press("space")
        assert painted == [0]


async def test_keys_pause_and_go_on() -> None:
    feed = HandFeed(samples.snapshot())
    app = dashboard(feed)
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("space")
        feed.queue.put_nowait(samples.snapshot(30))
        await until(lambda: "PAUSED 1 behind" in shown(app), app)
        assert "up 12m04s" in shown(app)
        await pilot.press("space")
        assert "up 12m34s  ● LIVE" in shown(app)


@pytest.mark.parametrize(
    ("key", "window"), [("1", "1m"), ("3", "15m"), ("4", "1h"), ("+", "15m"), ("-", "1m"), ("=", "15m")]
)
async def test_a_window_key_asks_the_feed_again(key: str, window: str) -> None:
    feed = HandFeed(samples.snapshot())
    app = dashboard(feed)
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "last 5m" in shown(app), app)
        await pilot.press("2")
        await pilot.press(key)
        await until(lambda: feed.windows == ["5m", window], app)
        assert feed.closed == ["5m"]
        feed.queue.put_nowait(samples.snapshot(window=window))
        await until(lambda: f"last {window}" in shown(app), app)


async def test_keys_move_the_selection() -> None:
    app = dashboard(HandFeed(samples.snapshot(workers=64)))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("j", "down", "down", "k", "up", "j")
        assert app.viewer.selected == "text-1"
        await pilot.press("pagedown", "pagedown")
        assert " text-1 " not in shown(app)
        await pilot.press("pageup", "pageup")
        assert app.viewer.selected == "text-1"
        await pilot.press("escape")
        assert app.viewer.selected is None


async def test_a_key_shows_the_next_pool() -> None:
    app = dashboard(HandFeed(samples.snapshot(pools=("text", "vision"))))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "pool 1/2 text" in shown(app), app)
        await pilot.press("tab")
        assert "pool 2/2 vision" in shown(app)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("n", "DESERVES A LOOK"),
        ("e", " ERRORS"),
        ("r", " RESOURCES "),
        ("o", " OPERATION "),
        ("p", " POOL "),
    ],
)
@pytest.mark.parametrize("back", ["escape", in_gates("enter"), in_gates(None)])
async def test_keys_open_pages_and_lead_back(key: str, words: str, back: str | None) -> None:
    app = dashboard(HandFeed(samples.snapshot(pools=("text", "vision"))))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press(key)
        assert words in shown(app)
        assert "WORKER" not in shown(app)
        await pilot.press("down", back or key)
        assert "WORKER" in shown(app)
        await pilot.press("down", "enter")
        assert app.viewer.selected is not None


class AskedFeed(HandFeed):
    """A `HandFeed` that can be asked for stacks. Each answer comes from the test."""

    def __init__(self, *frames: Frame | Exception) -> None:
        super().__init__(*frames)
        self.asked: list[tuple[str, str]] = []
        self.answers: asyncio.Queue[StackReading | Exception] = asyncio.Queue()

    async def stack(self, pool: str, slot: str) -> StackReading:
        self.asked.append((pool, slot))
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_key_asks_for_the_stack_of_the_selected_worker_and_asks_again() -> None:
    feed = AskedFeed(samples.snapshot())
    app = dashboard(feed)
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("down", "down", "s")
        await until(lambda: "STACK of text-1" in shown(app) and "asking" in shown(app), app)
        feed.queue.put_nowait(samples.snapshot(30))
        await until(lambda: "up 12m34s" in shown(app) or "LIVE" not in shown(app), app)
        await pilot.press("s")
        assert feed.asked == [("text", "text-1")], "one question at a time"
        feed.answers.put_nowait(StackReading(stack=samples.STACK))
        await until(lambda: "in clean" in shown(app), app)
        assert "taken 0s ago" in shown(app)
        await pilot.press("s")
        await until(lambda: len(feed.asked) == 2, app)
        assert "in clean" in shown(app), "the previous answer stays while another one is awaited"
        feed.answers.put_nowait(StackReading(stack=None, reason="the worker has ended"))
        await until(lambda: "not available: the worker has ended" in shown(app), app)
        await pilot.press("escape")
        assert "WORKER" in shown(app)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (StackReading(stack=None), "not available: no reason is known"),
        (ValueError("broken\x1b[2J"), "not available: broken?[2J"),
        (ValueError(), "not available: ValueError"),
    ],
)
async def test_a_stack_that_cannot_be_had_is_a_reason_and_no_failure(
    answer: StackReading | Exception, words: str
) -> None:
    feed = AskedFeed(samples.snapshot())
    app = dashboard(feed)
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("s")
        feed.answers.put_nowait(answer)
        await until(lambda: words in shown(app), app)
    assert app.failure is None


async def test_a_stack_that_never_comes_is_given_up_and_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pool_monitor.dashboard.asking.TIMEOUT_S", 0.01)
    app = dashboard(AskedFeed(samples.snapshot()))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("s")
        await until(lambda: "not available: no answer in 0.01 s" in shown(app), app)
        monkeypatch.setattr("pool_monitor.dashboard.asking.TIMEOUT_S", 60.0)
        await pilot.press("s")
    assert not [task for task in asyncio.all_tasks() if "question" in task.get_name()]


async def test_a_feed_without_stacks_says_so() -> None:
    app = dashboard(HandFeed(samples.snapshot()))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("s")
        await until(lambda: "the source of these numbers cannot ask workers" in shown(app), app)


async def test_a_local_feed_asks_its_monitor() -> None:
    async def stack(pool: str, slot: str) -> StackReading:
        return StackReading(stack=f"{pool} {slot}")

    feed = LocalFeed(lambda window: samples.snapshot(), stack=stack)
    assert (await feed.stack("text", "text-0")).stack == "text text-0"
    assert (await LocalFeed(lambda window: samples.snapshot()).stack("text", "text-0")).stack is None


def test_the_page_of_the_stack_opens_without_a_worker_to_ask() -> None:
    made = viewer()
    assert made.ask_for_stack() is None
    made.receive(samples.snapshot(workers=0), 100.0)
    assert made.ask_for_stack() is None
    assert "no worker to ask" in screen(made)


def test_the_stack_that_is_shown_belongs_to_its_worker() -> None:
    made = viewer(samples.snapshot())
    assert made.ask_for_stack() == ("text", "text-0")
    made.receive_stack(StackReading(stack="of the first"), 100.0)
    assert "taken 7s ago" in screen(made, now=107.0)
    made.go_back()
    made.select(1)
    made.select(2)
    assert made.ask_for_stack() == ("text", "text-2")
    assert "STACK of text-2" in screen(made)
    assert "of the first" not in screen(made)


async def test_the_page_of_resources_says_what_a_frame_costs_with_its_painting() -> None:
    feed = HandFeed(samples.snapshot())
    app = dashboard(feed)
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.pause()
        drawn = app.frame_times.pieces
        await pilot.press("r", "pagedown")
        await pilot.pause()
        assert app.frame_times.pieces >= drawn + 2, "the lines, and their painting"
        await until(lambda: "this screen" in shown(app), app)
        assert app.viewer.frame_seconds is not None


def test_the_time_of_a_frame_is_the_median_of_the_sums_of_its_pieces() -> None:
    ticks = iter([0.0, 1.0, 5.0, 7.0, 10.0, 10.5, 20.0, 29.0])
    times = FrameTimes(lambda: next(ticks))
    assert times.begin() is None
    for _ in range(2):
        with times.measured():
            pass
    assert times.begin() == 3.0
    with times.measured():
        pass
    assert times.begin() == 1.75
    with times.measured():
        pass
    assert times.begin() == 3.0
    assert times.begin() == 3.0, "a frame in which nothing was drawn counts as none"


async def test_keys_show_help_and_lead_back() -> None:
    app = dashboard(HandFeed(samples.snapshot()))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("question_mark")
        assert "KEYS" in shown(app)
        await pilot.press("escape")
        assert "KEYS" not in shown(app)
        await pilot.press("?", "?")
        assert "KEYS" not in shown(app)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_keys_quit(key: str) -> None:
    app = dashboard(HandFeed(samples.snapshot()))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(key)
        assert not app.is_running
    assert app.failure is None


async def test_the_page_follows_the_size_of_the_screen() -> None:
    app = dashboard(HandFeed(samples.snapshot()))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        for width, height, word in ((30, 5, "needs 40x8"), (120, 40, "─ latency"), (80, 10, "WORKER")):
            await pilot.resize_terminal(width, height)
            await until(lambda word=word: word in shown(app), app)
            assert app.size == (width, height)


async def test_the_page_turns_stale_when_no_frame_arrives() -> None:
    app = dashboard(HandFeed(samples.snapshot()), interval=0.02)
    async with app.run_test(size=SIZE):
        await until(lambda: "▲ STALE" in shown(app), app)


async def test_a_lost_feed_is_shown_and_so_is_its_return() -> None:
    feed = HandFeed(Lost("connection refused", 5.0))
    app = dashboard(feed)
    async with app.run_test(size=SIZE):
        await until(lambda: "articles: connection refused" in shown(app), app)
        feed.queue.put_nowait(samples.snapshot())
        await until(lambda: "LIVE" in shown(app), app)
        feed.queue.put_nowait(Lost("connection reset", 5.0))
        await until(lambda: "connection lost: connection reset" in shown(app), app)


async def test_what_the_feed_raises_ends_the_dashboard() -> None:
    app = dashboard(HandFeed(samples.snapshot(), ValueError("broken feed")))
    async with app.run_test(size=SIZE):
        while app.is_running:
            await asyncio.sleep(0.001)
    assert str(app.failure) == "broken feed"


@pytest.fixture
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` without a terminal: Textual's own headless driver in place of the real one."""
    from textual.drivers.headless_driver import HeadlessDriver

    monkeypatch.setattr(Dashboard, "get_driver_class", lambda self: HeadlessDriver)


def leftovers() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.usefixtures("headless")
async def test_run_raises_what_the_feed_raised_and_leaves_no_task() -> None:
    before = leftovers()
    with pytest.raises(ValueError, match="broken feed"):
        await run(HandFeed(samples.snapshot(), ValueError("broken feed")))
    assert leftovers() == before


@pytest.mark.usefixtures("headless")
@pytest.mark.parametrize("method", ["page", "receive"])
async def test_run_raises_what_went_wrong_inside_and_prints_nothing(
    method: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("drawing broke")

    monkeypatch.setattr(Viewer, method, broken)
    before = leftovers()
    feed = HandFeed(samples.snapshot())
    with pytest.raises(RuntimeError, match="drawing broke"):
        await run(feed)
    assert capfd.readouterr() == ("", "")
    assert leftovers() == before
    assert feed.windows == feed.closed


@pytest.mark.usefixtures("headless")
@pytest.mark.parametrize("turns", [0, 1, 5, 50])
async def test_run_can_be_cancelled_at_any_time_and_leaves_no_task(turns: int) -> None:
    before = leftovers()
    feed = HandFeed(samples.snapshot())
    task = asyncio.create_task(run(feed))
    for _ in range(turns):
        await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leftovers() == before
    assert feed.windows == feed.closed


@pytest.mark.usefixtures("headless")
async def test_run_obeys_a_deadline_of_its_caller() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await run(HandFeed(samples.snapshot()))
