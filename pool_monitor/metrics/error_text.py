"""Short texts of errors, for fields such as `snapshot.WorkerView.last_error`.

Reasons are written for logs and may take several lines. A screen has room for little more than the cause.
"""

from __future__ import annotations

from pool_monitor.errors import first_line
from pool_monitor.snapshot import START_FAILED
from pool_monitor.telemetry import Metadata

_OUT_OF_MEMORY = {"yes": ", out of memory", "probably": ", probably out of memory"}


def crash_text(metadata: Metadata) -> str:
    """How the worker of a ``pool.worker.crash`` event ended. Raises for invalid metadata."""
    exit_code = metadata.get("exit_code")
    if not isinstance(exit_code, int):
        return str(metadata["reason"])
    why = _OUT_OF_MEMORY.get(str(metadata.get("out_of_memory")), "")
    return f"signal {-exit_code}{why}" if exit_code < 0 else f"exit code {exit_code}"


def crash_text_with_output(metadata: Metadata) -> str:
    """`crash_text`, and the last line that the process wrote. Raises for invalid metadata."""
    written = str(metadata.get("stderr", "")).strip().splitlines()
    return f"{crash_text(metadata)}: {written[-1].strip()}" if written else crash_text(metadata)


def pool_error_text(metadata: Metadata) -> str:
    """The cause in a ``pool.error`` event, or the first line of its reason if it has no cause.

    Raises for invalid metadata.
    """
    cause = metadata.get("cause")
    text = first_line(cause if isinstance(cause, str) else metadata["reason"])
    return f"{START_FAILED}{text}" if metadata["category"] == "initialization" else text
