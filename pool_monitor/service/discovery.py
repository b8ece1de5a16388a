"""Where running services can be found on this machine: one Unix socket each, in one private directory.

The directory is ``$POOL_MONITOR_RUNTIME_DIR``, else ``$XDG_RUNTIME_DIR/pool-monitor``, else
``pool-monitor-<uid>`` in the directory for temporary files. It must belong to us and be closed to others (0700):
whoever can write there could pose as a service.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from pool_monitor.errors import ConfigError

_NAME = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)-(?P<pid>[0-9]{1,9})(?:\.[0-9]+)?\.sock")
_PATH_LIMIT = 103  # bytes a Unix socket's address can hold everywhere, its final zero left out
_REMEDY = "set POOL_MONITOR_RUNTIME_DIR to a short private directory, or [service] socket = false"


class Service(NamedTuple):
    """A socket that somebody listens on."""

    name: str
    pid: int
    path: Path

    @property
    def id(self) -> str:
        """Its name and pid: what tells it from all others."""
        return self.path.stem


def runtime_dir() -> Path:
    """The directory, whether it exists or not."""
    own = os.environ.get("POOL_MONITOR_RUNTIME_DIR")
    if own:
        return Path(own)
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session:
        return Path(session) / "pool-monitor"
    return Path(tempfile.gettempdir()) / f"pool-monitor-{os.getuid()}"


def private_dir() -> Path:
    """The directory, made if need be. Raises ConfigError when it is not ours alone."""
    directory = runtime_dir()
    with _translated_errors(directory):
        _make(directory)
        _check_private(directory)
    return directory


@contextmanager
def _translated_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be used for sockets: {error.strerror}; {_REMEDY}") from error


def _make(directory: Path) -> None:
    """Make it, and the directories above it that are missing, closed to others whatever the umask says."""
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        if directory.parent == directory:
            raise
        _make(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _check_private(directory: Path) -> None:
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(f"{directory}: must be a directory of user {os.geteuid()} with mode 0700; {_REMEDY}")


def file_name(service: str) -> str:
    """A service's name as it stands in the name of its socket."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", service)[:40]


def socket_path(service: str) -> Path:
    """A free path for a service of this process. Raises ConfigError when it would be too long for a socket."""
    directory, pid = private_dir(), os.getpid()
    services()  # clears away what an earlier process of our number left, as happens in containers, where all are 1
    name = file_name(service)
    path = directory / f"{name}-{pid}.sock"
    copies = 1
    while path.exists():
        copies += 1
        path = directory / f"{name}-{pid}.{copies}.sock"
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise ConfigError(f"{path}: longer than the {_PATH_LIMIT} bytes a Unix socket's address can have; {_REMEDY}")
    return path


def services() -> list[Service]:
    """The services running now, by name and pid. Sockets that dead processes left behind are removed.

    Whatever else lies in the directory is left alone. Raises ConfigError when the directory is not ours alone.
    """
    directory = runtime_dir()
    with _translated_errors(directory):
        try:
            _check_private(directory)
        except FileNotFoundError:
            return []
        paths = sorted(directory.iterdir())
    found = []
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None or not _is_socket(path):
            continue
        pid = int(match["pid"])
        if _listening(path):
            found.append(Service(match["name"], pid, path))
        elif pid == os.getpid() or not _alive(pid):  # else it may be just about to listen
            with suppress(OSError):
                path.unlink()
    return found


def _is_socket(path: Path) -> bool:
    """Whether it is a socket itself, and no link to one."""
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:  # gone by now
        return False


def _listening(path: Path) -> bool:
    """Whether a process is behind the socket. A pid cannot tell: it may be another's, or of another container."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            pass  # so many wait already that it is not even queued
        except OSError:
            return False
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
