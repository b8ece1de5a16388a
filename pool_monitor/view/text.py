"""Lines of text with meanings, and how many terminal cells they take.

A page is a list of lines, a line is a list of segments, a segment is text with a *meaning*. The meaning does not say
how the text looks: the dashboard maps it to terminal colours, a report drops it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Literal, NamedTuple

Meaning = Literal[
    "plain",
    "dim",  # labels, idle things, and every number once it is old
    "strong",  # the few values to read first
    "head",  # column heads
    "frame",  # borders and axes
    "data",  # chart ink
    "warn",  # ▲: look soon
    "bad",  # ✖: look now
    "key",  # a key to press
    "bar",  # the header bar, and the freshness on it:
    "bar-strong",
    "bar-warn",
    "bar-bad",
    "selected",  # the worker row the cursor is on
]
Align = Literal["left", "right"]


class PageSize(NamedTuple):
    """Columns and rows."""

    width: int
    height: int


class Segment(NamedTuple):
    text: str
    meaning: Meaning = "plain"


Line = list[Segment]

# Hexagrams and similar: narrow up to Unicode 15, wide from 16 on. Old and new terminals disagree.
_WIDTH_CHANGED = (range(0x2630, 0x2638), range(0x268A, 0x2690), range(0x4DC0, 0x4E00), range(0x1D300, 0x1D377))
# Fillers and conjoining Jamo: narrow in the Unicode tables, zero cells in most terminals.
_JOINING = (range(0x1160, 0x1200), range(0x3164, 0x3165), range(0xD7B0, 0xD800), range(0xFFA0, 0xFFA1))
_SKIN_TONES = range(0x1F3FB, 0x1F400)


def clean(text: str) -> str:
    """Return foreign text (operation names, error types, host names) in a form that is safe on a terminal.

    Control characters, invisible characters and characters whose width differs between terminals become ``?``. Line
    ends and tabs become blanks. The result takes exactly `width` cells on every terminal.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_harmless, unicodedata.normalize("NFC", text)))


def one_line(text: str) -> str:
    """Return foreign text as `clean` does, in one line: each run of blanks becomes one blank."""
    return " ".join(clean(text).split())


def _harmless(char: str) -> str:
    if char.isspace():
        return " "
    code = ord(char)
    disputed = code in _SKIN_TONES or any(code in codes for codes in (*_WIDTH_CHANGED, *_JOINING))
    return "?" if disputed or unicodedata.category(char)[0] in "CMZ" else char


def width(text: str) -> int:
    """Return how many cells `clean` text takes: two per East Asian wide character, one per other character."""
    if text.isascii():
        return len(text)
    return sum(map(_char_width, text))


def _char_width(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def truncate(text: str, cells: int) -> str:
    """Return the beginning of *text* in at most *cells* cells. It ends in ``…`` if text was cut."""
    if width(text) <= cells:
        return text
    return _beginning(text, cells - 1) + "…" if cells > 0 else ""


def truncate_words(text: str, cells: int) -> str:
    """Like `truncate`, but cut between two words if more than one word fits."""
    if width(text) <= cells:
        return text
    head = _beginning(text, cells - 1)
    whole = head if text[len(head) :].startswith(" ") else head.rpartition(" ")[0]
    return f"{whole.rstrip(' :,;')}…" if whole.strip(" ✖▲") else truncate(text, cells)


def truncate_front(text: str, cells: int) -> str:
    """Return the end of *text* in at most *cells* cells: for slot ids, which differ at their end."""
    if width(text) <= cells:
        return text
    return "…" + _beginning(text[::-1], cells - 1)[::-1] if cells > 0 else ""


def truncate_middle(text: str, cells: int) -> str:
    """Return both ends of *text* in at most *cells* cells: for pool names, which may differ at either end."""
    if width(text) <= cells:
        return text
    end = max(cells // 2, 0)
    return truncate(text, cells - end) + _beginning(text[::-1], end)[::-1]


def _beginning(text: str, cells: int) -> str:
    taken = 0
    for index, char in enumerate(text):
        taken += _char_width(char)
        if taken > cells:
            return text[:index]
    return text


def fit(text: str, cells: int, align: Align = "left") -> str:
    """Return *text* in exactly *cells* cells: cut, or padded with blanks."""
    text = truncate(text, cells)
    blanks = " " * (cells - width(text))
    return blanks + text if align == "right" else text + blanks


def wrap(text: str, cells: int) -> list[str]:
    """Return *text* in lines of at most *cells* cells, broken at blanks. Lines after the first are indented by two."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and width(lines[-1]) + 1 + width(word) > cells:
            lines.append(f"  {truncate(word, cells - 2)}")
        else:
            lines[-1] += f" {word}" if lines[-1] else truncate(word, cells)
    return lines


def paragraph(text: str, cells: int, meaning: Meaning = "plain", *, indent: int = 1) -> list[Line]:
    """Return *text* as lines of less than *cells* cells, as `wrap` breaks it, behind *indent* blanks."""
    return [[Segment(f"{'':{indent}}{part}", meaning)] for part in wrap(text, max(cells - indent - 1, 1))]


def wrap_code(text: str, cells: int) -> list[str]:
    """Return one line of code or of a stack in lines of at most *cells* cells. Nothing of it is left out, and its
    indentation is kept: lines after the first are indented by four more.
    """
    text = text.rstrip()
    indent = " " * min(len(text) - len(text.lstrip()) + 4, max(cells // 2, 0))
    lines: list[str] = []
    rest, room = text, max(cells, 2)
    while width(rest) > room:
        part = _beginning(rest, room)
        lines.append((indent if lines else "") + part)
        rest, room = rest[len(part) :], max(cells - len(indent), 2)
    return [*lines, (indent if lines else "") + rest]


def line_width(line: Iterable[Segment]) -> int:
    return sum(width(segment.text) for segment in line)


def truncate_line(line: Line, cells: int) -> Line:
    """Return *line* in at most *cells* cells. A cut is not marked: use it where the layout has made room."""
    kept: Line = []
    for text, meaning in line:
        taken = width(text)
        if taken > cells:
            kept.append(Segment(_beginning(text, cells), meaning))
            break
        kept.append(Segment(text, meaning))
        cells -= taken
    return kept


def fit_line(line: Line, cells: int, meaning: Meaning = "plain") -> Line:
    """Return *line* in exactly *cells* cells, padded with blanks of *meaning*."""
    line = truncate_line(line, cells)
    missing = cells - line_width(line)
    return [*line, Segment(" " * missing, meaning)] if missing > 0 else line


def justify(left: Line, right: Line, cells: int, meaning: Meaning = "plain") -> Line:
    """Return *left* and *right* at the two ends of exactly *cells* cells. If they collide, *left* is cut."""
    right = truncate_line(right, cells)
    return fit_line(left, cells - line_width(right), meaning) + right


def plain(lines: Iterable[Line]) -> str:
    """Return *lines* as text without meanings. Trailing blanks are trimmed; each line has one line end."""
    return "".join("".join(segment.text for segment in line).rstrip() + "\n" for line in lines)
