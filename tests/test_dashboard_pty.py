"""The dashboard in a real terminal: signals, colours, locale, resizing, and the state of the terminal afterwards.

Nothing here sleeps to synchronise: each step waits for what the screen shows, with a deadline.
"""

from __future__ import annotations

import re
import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.programs import Terminal

SCRIPT = Path(__file__).parent / "helpers" / "dashboard_script.py"
COLOUR = re.compile(rb"\x1b\[(?:[\d;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[\d;]*)?m")


class Screen(Terminal):
    """The dashboard on sample snapshots, in a terminal."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        super().__init__(str(SCRIPT), *arguments, columns=80, rows=24, environ=environ)

    def shows(self, words: str) -> re.Match[str]:
        return super().shows(re.escape(words))

    def assert_restored(self) -> None:
        """Assert that the normal screen, the cursor and the line settings are restored."""
        for left, entered in ((b"\x1b[?1049l", b"\x1b[?1049h"), (b"\x1b[?25h", b"\x1b[?25l"), (b"\x1b[<u", b"\x1b[>")):
            assert self.output.rfind(entered) < self.output.rfind(left), (entered, left)
        assert termios.tcgetattr(self.slave) == self.before


Open = Callable[..., Screen]


@pytest.fixture
def terminal() -> Iterator[Open]:
    opened: list[Screen] = []

    def open_one(*arguments: str, **options: str) -> Screen:
        opened.append(Screen(*arguments, **options))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


NOTHING_LEFT = "left behind: 0 tasks, 0 threads, signals restored: True"


@pytest.mark.parametrize("key", [b"q", b"\x03"], ids=["q", "ctrl-c"])
def test_a_key_quits_and_the_terminal_is_as_it_was(terminal: Open, key: bytes) -> None:
    one = terminal()
    one.shows("● LIVE")
    one.press(key)
    assert one.ended() == 0
    one.assert_restored()
    assert NOTHING_LEFT in one.text


@pytest.mark.parametrize(
    "typed",
    [b"\xff", b"\xe4", b"\x1b[999999999999999999;5~", b"\x1b[<999999999999999999999;1;1M", b"\x1b[200~\xff\x1b[201~"],
    ids=["no UTF-8", "Latin-1", "a number too large", "a mouse far away", "a paste"],
)
def test_invalid_input_is_ignored_and_the_next_key_works(terminal: Open, typed: bytes) -> None:
    one = terminal()
    one.shows("● LIVE")
    one.press(typed + b"?")
    one.shows("pause the display")
    one.press(b"q")
    assert one.ended() == 0
    one.assert_restored()
    assert b"Traceback" not in one.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_leaves_the_terminal_as_it_was(terminal: Open, number: signal.Signals) -> None:
    one = terminal()
    one.shows("● LIVE")
    one.process.send_signal(number)
    assert one.ended() == 0
    one.assert_restored()
    assert NOTHING_LEFT in one.text


def test_an_interrupt_of_the_caller_leaves_the_terminal_as_it_was(terminal: Open) -> None:
    one = terminal()
    one.shows("● LIVE")
    one.process.send_signal(signal.SIGINT)
    assert one.ended() != 0
    one.assert_restored()
    assert "KeyboardInterrupt" in one.text


def test_a_feed_that_fails_leaves_the_terminal_as_it_was_and_its_error_on_it(terminal: Open) -> None:
    one = terminal("3", "raise")
    assert one.ended() == 1
    one.assert_restored()
    assert "ValueError: the feed broke" in one.text
    assert "╭" not in one.output.decode().split("\x1b[?1049l")[-1]  # without a frame by Textual


def test_live_numbers_move_on_the_screen(terminal: Open) -> None:
    one = terminal()
    for uptime in ("up 12m05s", "up 12m09s"):
        one.shows(uptime)
    one.shows("1.1s")  # the age of a state: body lines are painted too, not only the header
    first = one.lines[5:11]
    one.until(lambda: one.lines[5:11] != first)


def test_a_silent_feed_is_shown_as_stale(terminal: Open) -> None:
    one = terminal("3")
    one.shows("▲ STALE")
    one.shows("these numbers are old")


def test_pause_holds_the_screen_and_help_covers_it(terminal: Open) -> None:
    one = terminal()
    one.shows("● LIVE")
    one.press(b" ")
    one.shows("‖ PAUSED 3 behind")
    held = one.lines[1:]
    one.shows("‖ PAUSED 6 behind")
    assert one.lines[1:] == held
    one.press(b"?")
    one.shows("pause the display")
    one.press(b"?")
    one.shows("WORKER")
    one.press(b" ")
    one.shows("● LIVE")


def test_a_resized_terminal_is_filled_again(terminal: Open) -> None:
    one = terminal()
    one.shows("● LIVE")
    one.resize(120, 40)
    one.until(lambda: "─ latency" in one.text and one.lines[-1].startswith(" q quit"))
    one.resize(36, 7)
    one.shows("needs 40x8, has 36x7")
    one.resize(80, 24)
    one.until(lambda: one.lines[0].endswith("● LIVE") and one.lines[-1].startswith(" q quit"))


def test_colours_are_the_terminals_own_sixteen(terminal: Open) -> None:
    one = terminal(NO_COLOR="")  # set, but empty: no effect
    one.shows(" q quit")
    assert COLOUR.search(one.output)
    assert b"38;" not in one.output
    assert b"48;" not in one.output


def test_no_color_leaves_text_readable_and_colourless(terminal: Open) -> None:
    one = terminal("3", NO_COLOR="1", COLORTERM="truecolor")
    one.shows("▲ STALE")
    assert "text-0" in one.text
    assert not COLOUR.search(one.output)
    assert b"\x1b[1" in one.output  # bold is no colour


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LANG": "C"}], ids=["LC_ALL", "LANG"])
def test_a_locale_without_utf8_gets_ascii(terminal: Open, locale: dict[str, str]) -> None:
    one = terminal("3", **locale)
    one.shows("! STALE")
    assert "+- throughput" in one.text
    assert one.output.isascii()


def test_a_dumb_terminal_gets_no_dashboard(terminal: Open) -> None:
    one = terminal(TERM="dumb")
    assert one.ended() == 1
    assert one.text.strip() == "this is no terminal for a dashboard"
    assert b"\x1b" not in one.output
