"""Ends a copy of a worker that the target has forked off. It is no worker and must not answer calls."""

from __future__ import annotations

import os
import sys

from .channel import ParentGone
from .output import flush_output

TYPE_CHECKING = False  # as in typing, without its import
if TYPE_CHECKING:
    from typing import Any, Optional


def exit_copy(error: Optional[BaseException] = None) -> None:
    """End this process, a copy of a worker, the way Python ends a program, after *error* or without."""
    status: Any = 0
    if isinstance(error, SystemExit):
        status = error.code
        if status is not None and not isinstance(status, int):
            sys.stderr.write("%s\n" % (status,))
            status = 1
    elif error is not None and not isinstance(error, ParentGone):
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
        status = 1
    flush_output()
    os._exit((status or 0) & 0xFF)
