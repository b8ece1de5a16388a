"""Turns what a worker says about its stacks into text. Pure functions; all that came from the worker is checked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pool_monitor.pool.transport.child.framing import FrameError
from pool_monitor.pool.transport.messages import encodable, short_repr

LEFT_OUT = "(the beginning is left out)\n"
TEXT_MAX = 64 * 1024
"""Characters of a text; of a longer one the outermost lines are left out."""
DUMP_MAX = 256 * 1024
"""Bytes read of what a worker's ``faulthandler`` wrote: it writes at most 100 frames of about 1 KiB."""
_TRACES_MAX = 256  # threads, tasks and calls in one answer
_FRAMES_MAX = 256  # of one of them
_NAME_MAX = 256
_KINDS = ("thread", "main", "task", "call")
_FRAME = re.compile(rb'  File (?:"(.*)"|\?\?\?), line (\d{1,9}|\?\?\?) in (.*)')
_CUT = b"  ..."  # in place of the frames beyond the hundredth
_OUTERMOST = b" in <module>"
_OUTERMOST_OF_THREAD = re.compile(rb'[/\\]threading\.py", line \d+ in _bootstrap\n$')
_CHILD = str(Path(__file__).with_name("child")) + os.sep
_CHILD_ASCII = _CHILD.encode("ascii", "backslashreplace")  # as faulthandler writes it
_EVENT_LOOP = re.compile(r"[/\\](asyncio|uvloop|selectors\.py)(?:[/\\]|$)")
_HANDLER = "on_urgent"  # of the worker's program, for SIGURG: it runs in the middle of the target's code
_THREAD_STARTS = ("_bootstrap", "_bootstrap_inner", "run")


class Frame(NamedTuple):
    """One frame. ``line`` is 0 if it is not known."""

    file: str
    line: int
    function: str

    @property
    def is_ours(self) -> bool:
        """Whether it belongs to the program of the worker and not to the target."""
        return self.file.startswith((_CHILD, _CHILD_ASCII.decode()))


class Trace(NamedTuple):
    """What one thread, task or call does. ``kind`` is ``thread``, ``main``, ``task`` or ``call``."""

    kind: str
    name: str
    frames: Sequence[Frame]
    """The outermost first."""


def parse_dump(dump: bytes) -> list[Frame]:
    """Return the frames that ``faulthandler`` wrote, outermost first. Lines that are no frames are left out."""
    found = (_FRAME.fullmatch(line) for line in dump[:DUMP_MAX].splitlines())
    frames = [
        Frame(
            _clean((match[1] or b"?").decode()), 0 if match[2] == b"???" else int(match[2]), _clean(match[3].decode())
        )
        for match in found
        if match is not None and match[0].isascii()
    ]
    return frames[::-1]


def is_complete(dump: bytes) -> bool:
    """Whether *dump* has the stack up to its outermost frame, or up to the hundredth. It is written line by line."""
    if not dump.endswith(b"\n"):
        return False
    last = dump[:-1].rpartition(b"\n")[2]
    return last == _CUT or (last.endswith(_OUTERMOST) and _CHILD_ASCII in last)


def is_of_another_thread(dump: bytes) -> bool:
    """Whether *dump* is the stack of a thread that is not the main one."""
    return _OUTERMOST_OF_THREAD.search(dump) is not None


def parse_traces(found: Any) -> list[Trace]:
    """Return what a worker answered to the message ``stack``. Raises FrameError if it is invalid."""
    if type(found) is list and len(found) <= _TRACES_MAX:
        return [_parse_trace(entry) for entry in found]
    raise FrameError(f"invalid stacks: {short_repr(found)}")


def _parse_trace(entry: Any) -> Trace:
    match entry:
        case [str(kind), str(name), list(frames)] if kind in _KINDS and len(frames) <= _FRAMES_MAX:
            return Trace(kind, _clean(name), [_parse_frame(frame) for frame in frames])
    raise FrameError(f"invalid stack: {short_repr(entry)}")


def _parse_frame(frame: Any) -> Frame:
    match frame:
        case [str(file), int(line), str(function)] if type(line) is int and 0 <= line < 2**31:
            return Frame(_clean(file), line, _clean(function))
    raise FrameError(f"invalid frame of a stack: {short_repr(frame)}")


def is_waiting(frames: Sequence[Frame]) -> bool:
    """Whether these frames of a main thread say nothing about the target: it waits in an event loop, or for a call."""
    innermost = frames[-1] if frames else None
    if innermost is not None and innermost.function == "select" and innermost.file.endswith("selectors.py"):
        return True
    return not target_frames(frames)


def target_frames(frames: Sequence[Frame]) -> Sequence[Frame]:
    """Return *frames* without the outer ones of the worker's own program, of the event loop that it runs, and of the
    start of a thread; and without the inner ones of a handler that reads a message. Nothing is left of a thread that
    only waits in the event loop.
    """
    start = 0
    for at, frame in enumerate(frames):
        if frame.is_ours and frame.function == _HANDLER:
            frames = frames[:at]
            break
    for at, frame in enumerate(frames):
        if frame.is_ours or (frame.function in _THREAD_STARTS and frame.file.endswith("threading.py")):
            start = at + 1
        elif not _EVENT_LOOP.search(frame.file):
            return frames[start:]
    return ()


def as_text(traces: Sequence[Trace], limit: int = TEXT_MAX) -> str:
    """Return the text of *traces*: a heading for each, then its frames, innermost last. Threads come first, then the
    main thread, tasks and calls, so that what most likely matters is last. At most *limit* characters.
    """
    shown = [(trace, target_frames(trace.frames)) for trace in traces]
    in_main = [trace.name for trace, frames in shown if trace.kind == "call" and trace.name and not frames]
    # A call without frames of its own is the one whose code the main thread runs.
    shown = [(trace, frames) for trace, frames in shown if frames] or [(Trace("main", "", ()), ())]
    lines: list[str] = []
    for trace, frames in sorted(shown, key=lambda entry: _KINDS.index(entry[0].kind)):
        lines.append(_heading(trace, in_main))
        lines += [f'  File "{frame.file}", line {frame.line or "?"}, in {frame.function}' for frame in frames]
        if not frames:
            lines.append("  (not in code of the target)")
    return cut("\n".join(lines), limit)


def cut(text: str, limit: int) -> str:
    """Return at most *limit* characters of *text*: whole lines, from its end."""
    if len(text) <= limit:
        return text
    return LEFT_OUT + text[len(LEFT_OUT) - limit :].partition("\n")[2]


def _heading(trace: Trace, in_main: Sequence[str]) -> str:
    match trace.kind:
        case "thread":
            return f"Thread {trace.name}:"
        case "task":
            return f"Task {trace.name}:"
        case "call":
            return f"Call of {trace.name}:" if trace.name else "Task of the call:"
    return f"Main thread, call of {in_main[0]}:" if len(in_main) == 1 else "Main thread:"


def _clean(text: str) -> str:
    """Return *text* as one line that can be shown."""
    text = encodable(text, 1024 if "/" in text else _NAME_MAX)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
