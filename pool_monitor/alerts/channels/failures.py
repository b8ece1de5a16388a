"""What the system says of a connection that failed, in words without addresses. Without I/O."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator


def system_error(error: BaseException) -> OSError | None:
    """Return what the system said that led to *error*; None: it said nothing."""
    return next((one for one in _causes(error) if isinstance(one, OSError) and one.strerror), None)


def system_words(error: OSError | None) -> str:
    """Return what *error* says. The texts of asyncio's errors have addresses."""
    if error is None:
        return "the connection failed"
    # The number in an error of TLS is none of the system's.
    known = error.errno is not None and error.errno > 0 and not isinstance(error, ssl.SSLError)
    return os.strerror(error.errno or 0) if known else error.strerror or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        for one in error.args[:1]:
            if isinstance(one, Exception):
                yield from _causes(one)
        if isinstance(error, ExceptionGroup):
            yield from _causes(error.exceptions[0])
        error = error.__cause__ or error.__context__
