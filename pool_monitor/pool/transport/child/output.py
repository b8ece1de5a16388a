"""What the target prints."""

from __future__ import annotations

import contextlib
import io
import sys


def print_by_lines() -> None:
    """Have what the target prints leave line by line, whatever it is."""
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True, errors="backslashreplace")


def flush_output() -> None:
    """Have what was printed leave. The target may have replaced, closed or deleted either stream."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        for name in ("stdout", "stderr"):
            with contextlib.suppress(BaseException):
                getattr(sys, name).flush()
