"""Where running services can be found on this machine: one Unix socket each, in one private directory.

The directory is ``$POOL_MONITOR_RUNTIME_DIR``, else ``$XDG_RUNTIME_DIR/pool-monitor``, else
``pool-monitor-<uid>`` in the directory for temporary files. It must belong to us and be closed to others (0700):
whoever can write there could pose as a service.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path
from typing import NamedTuple

from pool_monitor.errors import ConfigError

_NAME = re.compile(r"(?P<name>.+)-(?P<pid>\d+)(?:\.\d+)?\.sock")
_PATH_LIMIT = 103  # bytes a Unix socket's address can hold everywhere, its final zero left out


class Service(NamedTuple):
    """A socket that a living process has bound."""

    name: str
    pid: int
    path: Path


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
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be used for sockets: {error.strerror}; {_REMEDY}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError(f"{directory}: must be a directory of user {os.geteuid()} with mode 0700; {_REMEDY}")
    return directory


def socket_path(service: str) -> Path:
    """A free path for a service of this process. Raises ConfigError when it would be too long for a socket."""
    directory, pid = private_dir(), os.getpid()
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", service)[:40]
    path = directory / f"{name}-{pid}.sock"
    copies = 1
    while path.exists():
        copies += 1
        path = directory / f"{name}-{pid}.{copies}.sock"
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise ConfigError(f"{path}: longer than the {_PATH_LIMIT} bytes a Unix socket's address can have; {_REMEDY}")
    return path


_REMEDY = "set POOL_MONITOR_RUNTIME_DIR to a short private directory, or [service] socket = false"


def services() -> list[Service]:
    """The services running now, by name and pid. Sockets that dead processes left behind are removed."""
    found = []
    directory = runtime_dir()
    for path in sorted(directory.glob("*.sock")) if directory.is_dir() else []:
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        if _alive(int(match["pid"])):
            found.append(Service(match["name"], int(match["pid"]), path))
        else:
            path.unlink(missing_ok=True)
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
