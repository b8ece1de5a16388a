"""What went wrong on a slot, in as few words as tell it: what `snapshot.WorkerView.last_error` holds.

Reasons are written for logs, where they may take a line or several. Here the cause has to stand at the front: there
is room for little more. A reason that is worded otherwise than those known here is taken as it is.
"""

from __future__ import annotations

import re

from pool_monitor.snapshot import START_FAILED
from pool_monitor.telemetry import Metadata

_STDERR = "; its last lines on stderr:\n"
_KNOWN = re.compile(r"""cannot (?:pre)?load (['"]).*?\1: |worker \S+ (?=had |is |broke )""")
"""How reasons begin that say what everybody knows: which target it is, or which worker."""
_ENDED = re.compile(r"the worker.*? ended before it was ready \((.*?)\)(?:; .*)?")


def crash(metadata: Metadata) -> str:
    """What a ``pool.worker.crash`` was, in words. Raises when it is not one."""
    exit_code = metadata.get("exit_code")
    if not isinstance(exit_code, int):
        return str(metadata["reason"])
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def last_words(metadata: Metadata) -> str:
    """A ``pool.worker.crash`` with the last line that the process wrote. Raises when it is not one."""
    written = str(metadata.get("stderr", "")).strip().splitlines()
    return f"{crash(metadata)}: {written[-1].strip()}" if written else crash(metadata)


def trouble(metadata: Metadata) -> str:
    """A ``pool.error`` in words. Raises when it is not one."""
    text = _shortened(metadata["reason"])
    return f"{START_FAILED}{text}" if metadata["category"] == "initialization" else text


def _shortened(reason: str) -> str:
    what, _, output = reason.partition(_STDERR)
    first = (what.strip().splitlines() or ["unknown"])[0]
    known = _KNOWN.match(first)
    text = first[known.end() :] if known else first
    ended = _ENDED.fullmatch(text)
    text = ended[1] if ended else text
    said = output.strip().splitlines()
    return f"{text}: {said[-1].strip()}" if said else text
