"""Stacks and tracebacks on a page: complete, indented, and safe for a terminal."""

from __future__ import annotations

from pool_monitor.view import format as fmt
from pool_monitor.view.text import Line, Meaning, Segment, clean, wrap_code

LINES_MAX = 400
"""The most lines of one stack that a page shows. The innermost frames, which stand last, are kept."""


def stack_lines(text: str, cells: int, *, indent: int = 2, last: int = LINES_MAX) -> list[Line]:
    """Return the last *last* lines of a stack, with a line that counts those before. Long lines are wrapped. The frame
    that stands last is the innermost one: its line is strong.
    """
    written = [clean(line.expandtabs(4)).rstrip() for line in text.splitlines() if line.strip()]
    kept = written[-max(last, 1) :]
    lines: list[Line] = []
    if len(kept) < len(written):
        before = fmt.plural(len(written) - len(kept), "line")
        lines.append([Segment(f"{'':{indent}}… {before} before", "dim")])
    guilty = _innermost(kept)
    for place, line in enumerate(kept):
        meaning: Meaning = "strong" if place == guilty else "plain"
        lines += [[Segment(f"{'':{indent}}{part}", meaning)] for part in wrap_code(line, max(cells - indent - 1, 2))]
    return lines


def _innermost(lines: list[str]) -> int | None:
    """Return the place of the last line that names a file and a line in it."""
    named = (place for place in range(len(lines) - 1, -1, -1) if 'File "' in lines[place])
    return next(named, None)
