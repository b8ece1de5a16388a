"""Checks the path of a file that a setting names."""

from __future__ import annotations

import os
import re

import msgspec

from pool_monitor.config.fields import Validated
from pool_monitor.errors import ConfigError


class NamesFile(Validated, frozen=True, kw_only=True):
    """A section of which one field names a file. It may be given as a `Path`, and may begin with ``~``."""

    _FILE = "path"

    def __post_init__(self) -> None:
        given = getattr(self, self._FILE)
        if isinstance(given, os.PathLike):
            msgspec.structs.force_setattr(self, self._FILE, os.fspath(given))
        super().__post_init__()
        if given is not None:
            path = _path_of_file(type(self).__name__, getattr(self, self._FILE), self._FILE)
            msgspec.structs.force_setattr(self, self._FILE, path)


def _path_of_file(owner: str, path: str, field: str) -> str:
    """Return *path*, the *field* of *owner*, with ``~`` replaced by a home directory.

    Raises ConfigError for a path that means something else to SQLite or a shell, and would be an odd file name here.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - Path would normalise the rest
    url = re.match(r"(file):|([a-z][a-z0-9+.-]*)://", path)
    remedy = None
    if path == ":memory:":
        remedy = "needs the path of a file; for none, leave it out"
    elif url:
        remedy = (
            f"needs the path of a file, without '{url[1] or url[2]}:'; if its name begins like this, put ./ in front"
        )
    elif "\0" in path:
        remedy = "needs to be without NUL"
    elif path.startswith("~") and found == path:
        remedy = "no such user on this machine; write the whole path, or put ./ in front if the name begins with '~'"
    if remedy:
        raise ConfigError(f"{owner}: {field}={path!r}: {remedy}")
    return found
