"""Short texts of errors, for fields such as `snapshot.WorkerView.last_error`.

Reasons are written for logs and may take several lines. A screen has room for little more than the cause, so the cause
comes first. A reason in an unknown form is shown unchanged.
"""

from __future__ import annotations

import re

from pool_monitor.snapshot import START_FAILED
from pool_monitor.telemetry import Metadata

_STDERR = "; its last lines on stderr:\n"
_REPEATED = re.compile(r"""cannot (?:pre)?load (['"]).*?\1: |worker \S+ (?=had |is |broke )""")
"""Beginnings of reasons that only repeat the name of the target or the worker."""
_ENDED = re.compile(r"the worker.*? ended before it was ready \((.*?)\)(?:; .*)?")


def crash_text(metadata: Metadata) -> str:
    """How the worker of a ``pool.worker.crash`` event ended. Raises for invalid metadata."""
    exit_code = metadata.get("exit_code")
    if not isinstance(exit_code, int):
        return str(metadata["reason"])
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def crash_text_with_output(metadata: Metadata) -> str:
    """`crash_text`, and the last line that the process wrote. Raises for invalid metadata."""
    written = str(metadata.get("stderr", "")).strip().splitlines()
    return f"{crash_text(metadata)}: {written[-1].strip()}" if written else crash_text(metadata)


def pool_error_text(metadata: Metadata) -> str:
    """The cause in a ``pool.error`` event. Raises for invalid metadata."""
    text = _shortened(metadata["reason"])
    return f"{START_FAILED}{text}" if metadata["category"] == "initialization" else text


def _shortened(reason: str) -> str:
    what, _, output = reason.partition(_STDERR)
    first = (what.strip().splitlines() or ["unknown"])[0]
    repeated = _REPEATED.match(first)
    text = first[repeated.end() :] if repeated else first
    ended = _ENDED.fullmatch(text)
    text = ended[1] if ended else text
    written = output.strip().splitlines()
    return f"{text}: {written[-1].strip()}" if written else text
