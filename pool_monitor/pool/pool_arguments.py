"""The arguments of a Pool, checked: each function raises ConfigError naming what is wrong."""

from __future__ import annotations

import re
import sys

from pool_monitor.errors import ConfigError

SIZE = 4
"""Workers of a pool where no size is given."""
_TARGET = re.compile(r"(?s:.+:.+|.+\.py|\w+(\.\w+)*)")  # loaded by child/target.py, which says what is not there


def check_target(target: object, *, is_python: bool) -> None:
    """*target* names what workers load. *is_python*: by workers of this package, and not by a foreign program."""
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        raise ConfigError(
            f"Pool(target={target!r}): needs 'module:attribute' or 'path/to/file.py:attribute', such as "
            "'my_service.workers:Summarizer', or for the functions of a module 'module' or 'path/to/file.py'"
        )
    if is_python and re.match(r"__main__\b", target):
        file = getattr(sys.modules["__main__"], "__file__", None) or "path/to/file.py"
        raise ConfigError(
            f"Pool(target={target!r}): a worker has a main program of its own, where this is not: name the file, "
            f"{file + target.removeprefix('__main__')!r}"
        )


def checked_size(size: int, min_size: int, max_size: int) -> int:
    """*size*, a number of workers within these bounds."""
    bounds = f"from min_size={min_size} to max_size={max_size}"
    if not isinstance(size, int) or isinstance(size, bool):
        raise ConfigError(f"Pool(size={size!r}): needs a whole number {bounds}")
    if not min_size <= size <= max_size:
        hint = f"; where no size is given it is {SIZE}" if size == SIZE else ""
        raise ConfigError(f"Pool(size={size}): must lie {bounds}{hint}")
    return size


def checked_count(name: str, value: object, minimum: int) -> int:
    """*value*, a whole number of at least *minimum*, for the argument *name*."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"Pool({name}={value!r}): needs a whole number of at least {minimum}")
    return value
