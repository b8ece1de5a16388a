"""How to catch and describe exceptions of code that is not ours and runs inside ours."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

TEXT_MAX = 64 * 1024
"""Most characters of the text of an exception."""
FRAMES_MAX = 50
"""Most frames of a traceback: the innermost ones."""

FAILURES = BaseException
"""What to catch around a call of code that is not ours, such as a handler. A handler is synchronous, so even a
CancelledError or GeneratorExit that it raises is its defect, not a request to the task of the emitter. Only
KeyboardInterrupt and SystemExit are meant for the whole program: `pass_on` raises them again."""


def pass_on(error: BaseException) -> None:
    """Raise *error* again if it is meant for the whole program: a KeyboardInterrupt or SystemExit."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error


def describe(error: BaseException) -> str:
    """Return the type and the text of *error*. Does not fail if ``__str__`` of *error* does."""
    try:
        text = str(error)
    except FAILURES as failure:
        pass_on(failure)
        text = "(its __str__ failed)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def traceback_of(error: BaseException, text: str) -> str | None:
    """Return the traceback of *error* as Python prints it, without source lines; None if it has no traceback. *text* is
    what `describe` returned for *error*.

    The source is left out because reading it from its file could block the event loop. Only the innermost `FRAMES_MAX`
    frames are named. For an exception that a process of `concurrent.futures` raised, it is the traceback in that
    process.
    """
    cause = error.__cause__
    if cause is not None and type(cause).__name__ == "_RemoteTraceback":
        return describe(cause).partition(": ")[2].strip('"\n')[-TEXT_MAX:] or None
    innermost: deque[TracebackType] = deque(maxlen=FRAMES_MAX)
    entry = error.__traceback__
    while entry is not None:
        innermost.append(entry)
        entry = entry.tb_next
    if not innermost:
        return None
    frames = [
        f'  File "{entry.tb_frame.f_code.co_filename}", line {entry.tb_lineno}, in {entry.tb_frame.f_code.co_name}'
        for entry in innermost
    ]
    return "\n".join(["Traceback (most recent call last):", *frames, text[:TEXT_MAX], ""])
