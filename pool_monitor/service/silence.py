"""Why a service on this machine does not answer, as far as its process tells from outside."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

_STATES = {
    "T": "its process {pid} is stopped, by a signal or a terminal: `kill -CONT {pid}` lets it go on",
    "t": "its process {pid} is stopped by a debugger",
    "D": "its process {pid} waits in the kernel, for a disk perhaps",
    "Z": "its process {pid} has ended",
}
_HANGS = "its event loop is blocked, or the machine is overloaded; its log names the line after 5 s"
_CREDENTIALS = struct.Struct("3i")


def why_silent(path: Path | None) -> str:
    """Return in words why the service that listens on *path* does not answer. None: it is not a local socket.

    Does not wait. What the system does not tell is left out.
    """
    if path is None:
        return "the service hangs or is stopped"
    pid = _listener(path)
    letter = None if pid is None else _state(pid)
    return _STATES.get(letter or "", _HANGS).format(pid=pid)


def _listener(path: Path) -> int | None:
    """The process that listens on a socket: in our own namespace, unlike the pid in the name of its file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
            known = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except (OSError, AttributeError):  # its queue is full, or the system is not Linux
            return None
    pid: int = _CREDENTIALS.unpack(known)[0]
    return pid or None


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0].decode()
    except (OSError, IndexError, ValueError):
        return None
