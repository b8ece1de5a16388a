"""Two ways to draw: Unicode, and ASCII for terminals and locales that support nothing else.

Pages are always laid out in Unicode. The last step translates them to ASCII and keeps every width, so layout code does
not depend on the character set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pool_monitor.view.text import Line, Segment, width


class Glyphs(NamedTuple):
    """A way to draw. ``table`` maps each character to its replacement. None: characters are drawn as they are."""

    name: str
    table: Mapping[str, str] | None = None

    def draw(self, line: Line) -> Line:
        """Return *line* in these glyphs, cell for cell."""
        table = self.table
        if table is None:
            return line
        return [
            segment if segment.text.isascii() else Segment(_translate(segment.text, table), segment.meaning)
            for segment in line
        ]


def _translate(text: str, table: Mapping[str, str]) -> str:
    return "".join(char if char.isascii() else table.get(char) or "?" * width(char) for char in text)


def _braille() -> dict[str, str]:
    """Return an ASCII character per braille cell of 2 by 4 dots. The highest and the lowest dot decide: ``'`` high,
    ``-`` middle, ``.`` low, ``|`` tall.
    """
    rows = (0x09, 0x12, 0x24, 0xC0)  # the bits of each row of dots, from the top
    cells = {"\u2800": " "}
    for dots in range(1, 256):
        lit = [row for row, bits in enumerate(rows) if dots & bits]
        middle = (lit[0] + lit[-1]) / 2
        tall = lit[-1] - lit[0] >= 2
        cells[chr(0x2800 + dots)] = "|" if tall else "'" if middle < 1 else "." if middle > 2 else "-"
    return cells


UNICODE = Glyphs("unicode")
ASCII = Glyphs(
    "ascii",
    _braille()
    | dict(zip("╭╮╰╯─│┤├┴", "++++-|+++", strict=True))
    | dict(zip("▁▂▃▄▅▆▇█", "..:-=+*#", strict=True))
    | dict(zip("▏▎▍▌▋▊▉", "---===#", strict=True))
    | dict(zip("●○◐◌▲✖‖", "*o+-!x|", strict=True))
    | dict(zip("…·\N{EN DASH}µ≤↑↓", ".--u<^v", strict=True)),
)
