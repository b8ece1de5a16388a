"""From what a worker says about its stacks to text, folded lines and a page: nothing that it says can do harm."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor.pool.transport import stack_text
from pool_monitor.pool.transport.child.framing import FrameError
from pool_monitor.pool.transport.stack_text import Frame, Trace
from pool_monitor.pool.transport.stacks import StackOffer, parse_offer
from pool_monitor.service.stacks import STACKS_MAX, StackReading, fold, sample
from pool_monitor.view import flame_graph

CHILD = str(Path(stack_text.__file__).with_name("child"))
MAIN = Frame(f"{CHILD}/__main__.py", 34, "<module>")
SERVE = Frame(f"{CHILD}/messenger.py", 120, "serve")
SPIN = Frame("/srv/tasks.py", 12, "spin")
LOOP = [Frame("/usr/lib/python3.11/asyncio/base_events.py", 600, "run_forever")]
SELECT = [*LOOP, Frame("/usr/lib/python3.11/selectors.py", 468, "select")]


def dump_of(*frames: Frame) -> bytes:
    """Return what faulthandler writes for these frames, outermost first."""
    lines = [f'  File "{frame.file}", line {frame.line} in {frame.function}\n' for frame in reversed(frames)]
    return "".join(["Stack (most recent call first):\n", *lines]).encode()


def test_a_dump_is_turned_around() -> None:
    assert stack_text.parse_dump(dump_of(MAIN, SERVE, SPIN)) == [MAIN, SERVE, SPIN]


def test_a_dump_is_complete_only_with_its_outermost_frame() -> None:
    whole = dump_of(MAIN, SERVE, SPIN)
    assert [end for end in range(len(whole) + 1) if stack_text.is_complete(whole[:end])] == [len(whole)]


def test_a_dump_of_a_hundred_frames_ends_in_dots() -> None:
    assert stack_text.is_complete(dump_of(*[SPIN] * 100) + b"  ...\n")
    assert len(stack_text.parse_dump(dump_of(*[SPIN] * 100) + b"  ...\n")) == 100


def test_the_handler_that_reads_a_message_is_no_part_of_the_stack() -> None:
    """SIGURG interrupts the target's code anywhere, and a signal can come while its handler runs."""
    handler = [Frame(f"{CHILD}/messenger.py", 193, "on_urgent"), Frame(f"{CHILD}/link.py", 42, "write")]
    assert stack_text.target_frames([MAIN, SERVE, SPIN, *handler]) == [SPIN]
    assert not stack_text.target_frames([MAIN, SERVE, *handler])
    own = Frame("/srv/tasks.py", 3, "on_urgent")
    assert stack_text.target_frames([MAIN, SERVE, SPIN, own]) == [SPIN, own]


@given(st.binary(max_size=400))
def test_any_bytes_are_read_without_an_error(dump: bytes) -> None:
    stack_text.is_complete(dump)
    for frame in stack_text.parse_dump(b'  File "' + dump + b'", line 3 in f\n' + dump):
        assert frame.file.isprintable()
        assert frame.function.isprintable()


@pytest.mark.parametrize(
    ("frames", "left"),
    [
        ([MAIN, SERVE, SPIN], [SPIN]),
        ([MAIN, SERVE, *LOOP, SERVE, SPIN], [SPIN]),
        ([MAIN, SERVE, SPIN, *SELECT], [SPIN, *SELECT]),
        ([MAIN, SERVE, SPIN, SERVE], [SPIN, SERVE]),
        ([MAIN, SERVE, *SELECT], []),
        ([MAIN, SERVE], []),
        ([], []),
        ([Frame("/usr/lib/threading.py", 9, "_bootstrap"), Frame("/usr/lib/threading.py", 9, "run"), SPIN], [SPIN]),
    ],
)
def test_outer_frames_that_are_not_of_the_target_are_left_out(frames: list[Frame], left: list[Frame]) -> None:
    assert list(stack_text.target_frames(frames)) == left


def test_what_matters_most_is_last() -> None:
    text = stack_text.as_text(
        [
            Trace("main", "", [MAIN, SERVE, SPIN]),
            Trace("call", "spin", [SERVE]),
            Trace("call", "wait", [SERVE, Frame("a.py", 1, "wait")]),
            Trace("thread", "helper", [Frame("b.py", 0, "work")]),
            Trace("task", "Task-1", [Frame("c.py", 3, "beat")]),
        ]
    )
    assert text.splitlines() == [
        "Thread helper:",
        '  File "b.py", line ?, in work',
        "Main thread, call of spin:",
        '  File "/srv/tasks.py", line 12, in spin',
        "Task Task-1:",
        '  File "c.py", line 3, in beat',
        "Call of wait:",
        '  File "a.py", line 1, in wait',
    ]


def test_a_long_text_loses_its_outermost_lines() -> None:
    text = stack_text.as_text([Trace("main", "", [Frame("a.py", 1, "outer")] * 500 + [SPIN])], 1000)
    assert len(text) <= 1000
    assert text.startswith(stack_text.LEFT_OUT)
    assert text.endswith("in spin")
    assert all(line.startswith("  File") for line in text.splitlines()[1:])


@pytest.mark.parametrize(
    "found",
    [
        None, {}, "x" * 1_000_000, [1], [["main", ""]], [["other", "", []]], [["main", 1, []]],
        [["main", "", [["f", -1, "f"]]]], [["main", "", [["f", True, "f"]]]], [["main", "", [["f", 1]]]],
        [["main", "", [["f", 2**31, "f"]]]], [["main", "", [["f", 1, "f"]] * 257]], [["main", "", []]] * 257,
    ],
)  # fmt: skip
def test_an_invalid_answer_is_refused_in_few_words(found: Any) -> None:
    with pytest.raises(FrameError) as caught:
        stack_text.parse_traces(found)
    assert len(str(caught.value)) < 300


def test_names_are_shown_as_one_printable_line() -> None:
    [trace] = stack_text.parse_traces([["thread", "a\n\x1b[31m\u202eb", [["/x\r\n.py", 1, "\x00f" * 1000]]]])
    assert trace.name == "a\\n\\x1b[31m\\u202eb"
    assert trace.frames[0].file == "/x\\r\\n.py"
    assert len(trace.frames[0].function) <= 4 * 256


@pytest.mark.parametrize(
    ("found", "offer"),
    [
        ({}, None), ({"other": 1}, None), ({"stack": {}}, StackOffer()),
        ({"stack": {"signal": 47, "file": 3, "inode": 9}}, StackOffer(47, 3, 9)),
    ],
)  # fmt: skip
def test_an_offer_is_read(found: Any, offer: Any) -> None:
    assert parse_offer(found) == offer


@pytest.mark.parametrize(
    "found",
    [
        1, [], None, {"stack": 1}, {"stack": "yes"}, {"stack": []}, {"stack": {"signal": 47}},
        {"stack": {"signal": 9, "file": 3, "inode": 1}}, {"stack": {"signal": "47", "file": 3, "inode": 1}},
        {"stack": {"signal": 47, "file": -1, "inode": 1}}, {"stack": {"signal": 47, "file": 3, "inode": 2**70}},
        {"stack": {"signal": True, "file": 3, "inode": 1}},
    ],
)  # fmt: skip
def test_an_invalid_offer_is_refused(found: Any) -> None:
    with pytest.raises(FrameError, match="invalid"):
        parse_offer(found)


# -- folded -------------------------------------------------------------------------------------------------------


def test_each_thread_task_and_call_is_folded_into_one_line() -> None:
    frames = ['  File "a.py", line 1, in x', '  File "a.py", line 2, in y']
    text = "\n".join(["Task Task-12:", '  File "/a/c;d.py", line 3, in beat', "Call of wait:", *frames])
    assert fold(text) == ["Task;beat (c,d.py:3)", "Call of wait;x (a.py:1);y (a.py:2)"]


async def test_different_stacks_are_kept_only_up_to_a_bound() -> None:
    lines = [f'Main thread:\n  File "a.py", line {number}, in f' for number in range(STACKS_MAX + 50)]
    told = StackReading(stack="\n".join(lines))

    async def take() -> StackReading:
        return told

    found = await sample(take, 1e-9)
    assert len(found.folded) == STACKS_MAX + 1
    assert sum(found.folded.values()) == len(lines)


async def test_sampling_ends_when_there_is_nothing_to_sample() -> None:
    async def take() -> StackReading:
        return StackReading(stack=None, reason="the worker has ended")

    found = await sample(take, 3600.0)
    assert (found.samples, found.missed, found.reason) == (0, 10, "the worker has ended")


# -- the page -----------------------------------------------------------------------------------------------------


class _Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.widths: list[float] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        about = dict(attrs)
        assert not {"src", "href", "onload", "onerror"} & about.keys()
        if tag == "div" and "data-w" in about:
            self.titles.append(about["title"] or "")
            self.widths.append(float(about["data-w"] or 0))


def test_the_page_shows_every_stack_with_its_share() -> None:
    page = _Page(flame_graph.html({"main;a (x.py:1);b (x.py:2)": 3, "main;c (x.py:9)": 1}, "p-0", "4 samples."))
    shares = dict(zip([title.split(":")[0] for title in page.titles], page.widths, strict=True))
    assert shares["all"] == shares["main"] == 1.0
    assert shares["b (x.py"] == 0.75
    assert shares["c (x.py"] == 0.25


def test_the_page_runs_nothing_that_a_worker_says() -> None:
    evil = "</div><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{0}{x}%s"
    page = _Page(flame_graph.html({f"{evil};{evil}": 1}, evil, evil))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags


def test_the_page_needs_no_network() -> None:
    assert not re.search(r"https?://|@import|url\(", flame_graph.html({"a;b": 1}, "p", "1 sample."))


def test_the_page_is_bounded() -> None:
    text = flame_graph.html({f"a;f{number}": 1 for number in range(20_000)}, "p", "many")
    assert text.count("<div class") == flame_graph.BOXES_MAX
    assert "narrow boxes are left out" in text
    assert flame_graph.html({}, "p", "none")


def test_folded_text_has_the_most_frequent_stack_first() -> None:
    assert flame_graph.text({"a;b": 1, "a;c": 5}) == "a;c 5\na;b 1\n"
