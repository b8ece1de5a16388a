"""Flushing of what the target prints."""

from __future__ import annotations

import contextlib
import io
import sys


def print_by_lines() -> None:
    """Flush stdout and stderr at each line, and escape what their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True, errors="backslashreplace")


def flush_output() -> None:
    """Flush stdout and stderr. The target may have replaced, closed or deleted either."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        for name in ("stdout", "stderr"):
            with contextlib.suppress(BaseException):
                getattr(sys, name).flush()
