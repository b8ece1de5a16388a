"""How code of others is guarded where it runs in the middle of ours, and how what it raises is described."""

from __future__ import annotations

FAILURES = BaseException
"""What to catch around code of others that runs in the middle of ours; `pass_on` decides. A handler is synchronous,
so even a CancelledError or a GeneratorExit out of it is a defect of the handler and no request to the caller's task.
Only KeyboardInterrupt and SystemExit are meant for the whole program: `pass_on` raises them again."""


def pass_on(error: BaseException) -> None:
    """Raise *error* again if it is meant for the whole program: KeyboardInterrupt and SystemExit."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error


def describe(error: BaseException) -> str:
    """One line that says what *error* is: its type and its text. Never raises, whatever the error does."""
    try:
        text = str(error)
    except FAILURES as failure:
        pass_on(failure)
        text = "(its __str__ failed)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
