"""What a thread runs now, as text, bounded in size and safe to show."""

from __future__ import annotations

import asyncio
import asyncio.base_events
import itertools
import selectors
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

from pool_monitor.log import plain
from pool_monitor.resources.garbage import GarbagePauses

FRAMES_OUTER, FRAMES_INNER = 8, 32
"""Frames that are shown of a deeper stack: these many outermost and innermost ones."""
WALKED_MAX = 10_000
"""Frames that are looked at. An endless recursion has more."""
LINE_MAX = 120
"""Characters of a path, of a name, and of a line of source."""
STACK_MAX = (FRAMES_OUTER + FRAMES_INNER) * (3 * LINE_MAX + 50) + 100
"""No stack has more characters than this."""
SOURCE_BYTES_MAX = 2 * 1024 * 1024
"""Lines of larger files are not read."""

_LOOPS_OWN: frozenset[CodeType] = frozenset(
    function.__code__
    for function in (
        asyncio.Handle._run,
        asyncio.BaseEventLoop.run_forever,
        asyncio.BaseEventLoop.run_until_complete,
        asyncio.BaseEventLoop._run_once,  # type: ignore[attr-defined]
        asyncio.Runner.run,
        asyncio.run,
    )
)

_MEASURING = GarbagePauses.measuring.__code__
"""Called by the garbage collector within whatever the loop runs."""


def stack_of_thread(ident: int) -> str:
    """The stack of the thread *ident*: a line for each frame and one with its source, the innermost frame last.

    Frames of the event loop itself, those outside it, and our measuring of the garbage collector are left out. Empty
    if the thread has ended, or if its event loop runs no callback but waits for the next. Reads the source files: may
    block as long as their disk does. Never raises for them.
    """
    frame = sys._current_frames().get(ident)
    if frame is None:
        return ""
    # Positions are read before any file is: the thread goes on as soon as this one waits.
    found = [(frame.f_code, frame.f_lineno) for frame in itertools.islice(_outwards(frame), WALKED_MAX)][::-1]
    del frame  # it would keep alive what the thread's functions hold
    outside = max((index for index, (code, _line) in enumerate(found) if code in _LOOPS_OWN), default=-1) + 1
    inside = [position for position in found[outside:] if position[0] is not _MEASURING]
    waits = len(inside) == 1 and inside[0][0].co_filename == selectors.__file__
    return "" if waits else _text(inside)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _text(found: list[tuple[CodeType, int | None]]) -> str:
    left_out = len(found) - FRAMES_OUTER - FRAMES_INNER
    if left_out <= 1:
        return "\n".join(itertools.chain.from_iterable(map(_lines, found)))
    shown = [*map(_lines, found[:FRAMES_OUTER]), [f"  ... {left_out} more frames ..."]]
    return "\n".join(itertools.chain.from_iterable([*shown, *map(_lines, found[-FRAMES_INNER:])]))


def _lines(position: tuple[CodeType, int | None]) -> list[str]:
    code, line = position
    path, name = _shown(code.co_filename, from_end=True), _shown(code.co_qualname.rpartition("<locals>.")[2])
    lines = [f'  File "{path}", line {line or "?"}, in {name}']
    source = _shown(_source_line(code.co_filename, line).strip())
    return [*lines, f"    {source}"] if source else lines


def _shown(text: str, *, from_end: bool = False) -> str:
    """At most `LINE_MAX` characters of *text* on one line, without what controls a terminal."""
    if len(text) > LINE_MAX:
        text = f"...{text[3 - LINE_MAX :]}" if from_end else f"{text[: LINE_MAX - 3]}..."
    return plain(text).expandtabs(1)[:LINE_MAX]


def _source_line(path: str, line: int | None) -> str:
    """One line of a source file; empty if there is no such regular file of a usual size."""
    file_path = Path(path)
    if line is None or not file_path.is_absolute():
        return ""
    try:
        about = file_path.stat()  # first: opening a pipe would wait for its writer
        if not stat.S_ISREG(about.st_mode) or about.st_size > SOURCE_BYTES_MAX:
            return ""
        with file_path.open("rb") as file:
            text = next(itertools.islice(file, line - 1, None), b"")
    except (OSError, ValueError):
        return ""
    return text.decode(errors="replace")
