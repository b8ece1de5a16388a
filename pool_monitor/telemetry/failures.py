"""How to catch and describe exceptions of code that is not ours and runs inside ours."""

from __future__ import annotations

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
