"""Checks of the arguments of a Pool. Each function raises ConfigError that names the bad argument."""

from __future__ import annotations

import re
import sys

from pool_monitor.errors import ConfigError

SIZE = 4
"""The number of workers of a pool when no size is given."""
_TARGET = re.compile(r"(?s:.+:.+|.+\.py|\w+(\.\w+)*)")  # child/target.py loads it, and reports what does not exist


def check_target(target: object, *, is_python: bool) -> None:
    """Check that *target* has the form of a target. *is_python*: this package's worker program loads it, not a foreign
    one.
    """
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        raise ConfigError(
            f"Pool(target={target!r}): needs 'module:attribute' or 'path/to/file.py:attribute', such as "
            "'my_service.workers:Summarizer', or for the functions of a module 'module' or 'path/to/file.py'"
        )
    if is_python and re.match(r"__main__\b", target):
        file = getattr(sys.modules["__main__"], "__file__", None) or "path/to/file.py"
        raise ConfigError(
            f"Pool(target={target!r}): a worker runs another main program, which does not have this target: name the "
            f"file, {file + target.removeprefix('__main__')!r}"
        )


def checked_size(size: int, min_size: int, max_size: int) -> int:
    """Return *size* if it is a number of workers within these bounds."""
    bounds = f"from min_size={min_size} to max_size={max_size}"
    if not isinstance(size, int) or isinstance(size, bool):
        raise ConfigError(f"Pool(size={size!r}): needs a whole number {bounds}")
    if not min_size <= size <= max_size:
        hint = f"; {SIZE} is the size when none is given" if size == SIZE else ""
        raise ConfigError(f"Pool(size={size}): must lie {bounds}{hint}")
    return size


def checked_count(name: str, value: object, minimum: int) -> int:
    """Return *value*, of the argument *name*, if it is a whole number of at least *minimum*."""
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"Pool({name}={value!r}): needs a whole number of at least {minimum}")
    return value
