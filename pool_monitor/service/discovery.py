"""Find the services that run on this machine: each has a Unix socket in one private directory.

The directory is ``$POOL_MONITOR_RUNTIME_DIR``, else ``$XDG_RUNTIME_DIR/pool-monitor``, else
``pool-monitor-<uid>`` in the directory for temporary files. It must belong to us and be closed to others (0700): a user
who can write there could imitate a service.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, NamedTuple

from pool_monitor.errors import ConfigError

NAME = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)-(?P<pid>[0-9]{1,9})(?:\.[0-9]+)?\.sock")
_MARK = ".dead"
MARK_S = 600.0
"""For how long it can be seen that a process has left its socket behind, in seconds."""
_PATH_LIMIT = 103  # bytes that the address of a Unix socket can hold on all systems, without its final zero
_REMEDY = "set POOL_MONITOR_RUNTIME_DIR to a short private directory, or [service] socket = false"


class Service(NamedTuple):
    """A socket on which a process listens."""

    name: str
    pid: int
    path: Path

    @property
    def id(self) -> str:
        """The name and pid of the service, which identify it."""
        return self.path.stem


def runtime_dir() -> Path:
    """The directory of the sockets. It may not exist."""
    own = os.environ.get("POOL_MONITOR_RUNTIME_DIR")
    if own:
        return Path(own)
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session:
        return Path(session) / "pool-monitor"
    return Path(tempfile.gettempdir()) / f"pool-monitor-{os.getuid()}"


def private_dir() -> Path:
    """The directory of the sockets; a missing one is made. Raises ConfigError when other users can access it."""
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
    """Make *directory* and its missing parents, closed to others for any umask."""
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
    """The name of a service as it occurs in the name of its socket."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", service)[:40]


def socket_path(service: str) -> Path:
    """A free path for a service of this process. Raises ConfigError when it would be too long for a socket."""
    directory, pid = private_dir(), os.getpid()
    services()  # removes sockets of earlier processes with our pid: in containers, every service has pid 1
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
    """The services running now, sorted by file name. Sockets that dead processes left behind are moved out of the way:
    for `MARK_S`, they show that a process has ended without taking its leave.

    Other files in the directory are left alone. Raises ConfigError when other users can access the directory.
    """
    paths, found = _paths(), []
    for path in paths:
        if path.suffix == _MARK and NAME.fullmatch(path.with_suffix(".sock").name) and _is_socket(path):
            _remove_old(path)
    for one in _sockets_among(paths):
        if door(one.path) in ("open", "full"):  # the pid is no proof: it may belong to another program or container
            found.append(one)
        elif one.pid == os.getpid() or not _alive(one.pid):  # else the process may be about to listen
            with suppress(OSError):
                one.path.rename(one.path.with_suffix(_MARK))
    return found


def sockets() -> list[Service]:
    """The sockets of services, whether anybody listens on them or not, sorted by file name. Changes nothing.

    Raises ConfigError when other users can access the directory.
    """
    return _sockets_among(_paths())


def was_left_behind(path: Path) -> bool:
    """Whether the process of the socket *path*, which is gone, has ended without removing it."""
    return os.path.lexists(path.with_suffix(_MARK))


def door(path: Path) -> Literal["open", "closed", "full", "missing", "locked"]:
    """Try to connect to the socket *path*, without waiting. ``full``: a process listens, and has no room for another
    connection. ``locked``: this user may not connect.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return "full"
        except FileNotFoundError:
            return "missing"
        except PermissionError:
            return "locked"
        except OSError:
            return "closed"
    return "open"


def _paths() -> list[Path]:
    """What is in the directory of the sockets, sorted. Raises ConfigError when other users can access it."""
    directory = runtime_dir()
    with _translated_errors(directory):
        try:
            _check_private(directory)
        except FileNotFoundError:
            return []
        return sorted(directory.iterdir())


def _sockets_among(paths: list[Path]) -> list[Service]:
    matches = ((path, NAME.fullmatch(path.name)) for path in paths)
    return [Service(match["name"], int(match["pid"]), path) for path, match in matches if match and _is_socket(path)]


def _remove_old(mark: Path) -> None:
    with suppress(OSError):
        if time.time() - mark.lstat().st_ctime > MARK_S:  # it was renamed then
            mark.unlink()


def _is_socket(path: Path) -> bool:
    """Whether *path* is a socket, and not a link to one."""
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:  # removed in the meantime
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # the process belongs to another user
    return True
