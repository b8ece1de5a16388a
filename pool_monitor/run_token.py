"""The run token: names the service that started a process, in the process's environment.

A pool puts the token into the environment of every process that it starts, and what these start inherits it. A process
with the token of a service that no longer exists is an orphan (resources/orphans.py). A pid alone would not do: it is
used again. So the token has the start time of the service too, and the namespaces in which both numbers are valid.
"""

from __future__ import annotations

import os
import secrets
from typing import NamedTuple

VARIABLE = "POOL_MONITOR_RUN"
"""The environment variable that has the token."""
_LONGEST = 100


class ServiceRun(NamedTuple):
    """What a token says: the service that started a process."""

    pid: int
    start: int
    """When the service was started: clock ticks since the machine's start, as in ``/proc/PID/stat``."""
    namespaces: str
    """The namespaces of pids and time in which `pid` and `start` are valid."""
    secret: str
    """Random, so that no two runs have the same token."""

    @property
    def token(self) -> str:
        """The text of the variable."""
        return f"{self.pid}.{self.start}.{self.namespaces}.{self.secret}"


_own: ServiceRun | None = None


def own_run() -> ServiceRun | None:
    """The run of this process; another one in a process that it forks. None: the system has no /proc."""
    global _own
    if _own is None or _own.pid != os.getpid():
        try:
            start = start_of(_read("/proc/self/stat"))
            _own = ServiceRun(os.getpid(), start, namespaces_of("self"), secrets.token_hex(6))
        except (OSError, ValueError):
            return None
    return _own


def environment() -> dict[str, str]:
    """The variable for a process that is started now; empty where there is no token."""
    run = own_run()
    return {} if run is None else {VARIABLE: run.token}


def parse(token: str) -> ServiceRun | None:
    """Return what *token* says. None: it is not a token."""
    parts = token.split(".")
    if len(token) > _LONGEST or len(parts) != 4:
        return None
    pid, start, namespaces, secret = parts
    digits = pid.isascii() and pid.isdigit() and start.isascii() and start.isdigit()
    return ServiceRun(int(pid), int(start), namespaces, secret) if digits and int(pid) > 0 else None


def start_of(stat: bytes) -> int:
    """Return the start time in the text of ``/proc/PID/stat``: clock ticks since the machine's start.

    Raises ValueError for another text.
    """
    # The name of the program, in parentheses, may contain anything. The start is the 22nd field, the 20th after it.
    fields = stat[stat.rindex(b")") + 2 :].split(None, 20)
    if len(fields) < 20:
        raise ValueError("the text of /proc/PID/stat is too short")
    return int(fields[19])


def namespaces_of(pid: int | str) -> str:
    """Return the ids of the namespaces of pids and of time of a process. Raises OSError."""
    return "-".join(_namespace(pid, name) for name in ("pid", "time"))


def _namespace(pid: int | str, name: str) -> str:
    try:
        link = os.readlink(f"/proc/{pid}/ns/{name}")  # noqa: PTH115 - a scan reads hundreds
    except FileNotFoundError:  # older kernels have no namespace of time
        if name == "pid":
            raise
        return "0"
    return "".join(filter(str.isdigit, link))


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - the shortest way to a file in /proc
        return file.read(4096)
