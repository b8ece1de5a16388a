"""Reads settings from a TOML file or from keywords. An unknown name is refused with a hint."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Struct

from pool_monitor.config.monitor import MonitorConfig
from pool_monitor.config.pool import PoolConfig
from pool_monitor.config.validation import TOML, hints, problem_with
from pool_monitor.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=Struct)
_OF_POOL = ("target", "name", "size", "min_size", "max_size")  # arguments of Pool that are not fields


class Settings(MonitorConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole configuration file: the sections of the monitor and of the pool."""

    pool: PoolConfig = PoolConfig()

    @property
    def monitor(self) -> MonitorConfig:
        """Only the sections of the monitor."""
        return MonitorConfig(**{name: getattr(self, name) for name in MonitorConfig.__struct_fields__})


def build(kind: type[ConfigT], base: ConfigT | None, fields: Mapping[str, Any]) -> ConfigT:
    """Return a *kind* made from *base* (None: from the defaults) with *fields* replaced.

    Raises ConfigError for an unknown field, naming the nearest field; for an invalid value; and for a *base* of another
    type.
    """
    if base is not None and not isinstance(base, kind):
        raise ConfigError(
            f"config={base!r:.80}: needs a {kind.__name__}, or None; you can also give its fields as keywords, or "
            "read a TOML file with pool_monitor.config.load"
        )
    names = kind.__struct_fields__
    for name in fields:
        if name not in names:
            hint = _nearest(name, names, _OF_POOL if kind is PoolConfig else ())
            raise ConfigError(f"{kind.__name__} has no field {name!r}; {hint}")
    return kind(**fields) if base is None else msgspec.structs.replace(base, **fields)


def load(path: str | Path) -> Settings:
    """Read a TOML file and return its settings. Blocks on the disk.

    Relative paths of ``[alerts] rules`` start at the folder of the file. A ``~`` at the beginning of *path* is replaced
    by a home directory. Raises ConfigError, which names the file and what is wrong in it.
    """
    try:
        file = Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises for an unknown user
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    kinds = {"pool": PoolConfig, **hints(MonitorConfig)}
    for name, table in tables.items():
        if name not in kinds or not isinstance(table, dict):
            homes = [home for home, kind in kinds.items() if name in kind.__struct_fields__]
            hint = f"it belongs in the table [{homes[0]}]" if homes else _nearest(name, kinds)
            hint = f"it is a table: [{name}]" if name in kinds else hint
            raise ConfigError(f"{path}: there is no {'table' if isinstance(table, dict) else 'key'} {name!r}; {hint}")
    settings = Settings(**{name: _from_table(path, name, kinds[name], table) for name, table in tables.items()})
    folder = file.parent.absolute()
    rules = tuple(str(folder / os.path.expanduser(rule)) for rule in settings.alerts.rules)  # noqa: PTH111 - as above
    return msgspec.structs.replace(settings, alerts=msgspec.structs.replace(settings.alerts, rules=rules))


def _from_table(path: str | Path, where: str, kind: type[ConfigT], table: dict[str, Any]) -> ConfigT:
    place = f"{path}: [{where}]"
    fields = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))  # a file says "from"
    for name in table:
        if name not in fields:
            hint = _nearest(name, fields)
            if kind is PoolConfig and name in _OF_POOL:
                hint = f"it is an argument of Pool: Pool(target, {name}=..., config=settings.pool)"
            raise ConfigError(f"{place} has no field {name!r}; {hint}")
    for one in msgspec.structs.fields(kind):
        if one.required and one.encode_name not in table:
            raise ConfigError(f"{place} lacks {one.encode_name!r}, which it needs")
    known = hints(kind)
    values = {
        fields[name]: _inner(path, f"{where}.{name}", known[fields[name]], value) for name, value in table.items()
    }
    problem = problem_with(kind, values, TOML)
    if problem:
        names = {field: name for name, field in fields.items()}
        field, equals, rest = problem.partition("=")
        raise ConfigError(f"{path}: {where}.{names.get(field, field)}{equals}{rest}")
    try:
        return kind(**values)
    except ConfigError as error:  # values that do not fit together
        raise ConfigError(f"{place} {str(error).removeprefix(f'{kind.__name__}: ')}") from None


def _inner(path: str | Path, where: str, hint: Any, value: Any) -> Any:
    """Return a table within a table, or an array of tables, as what they are of; any other *value* as it is."""
    kind = _struct_in(hint)
    if kind is None:
        return value
    if isinstance(value, dict) and get_origin(hint) is not tuple:
        return _from_table(path, where, kind, value)
    if isinstance(value, list):
        return [
            _from_table(path, f"{where}[{index}]", kind, item) if isinstance(item, dict) else item
            for index, item in enumerate(value)
        ]
    return value


def _struct_in(hint: Any) -> type[Struct] | None:
    """Return the struct that *hint* is, allows or is a sequence of; None: there is none."""
    return next((one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, Struct)), None)


def _nearest(name: str, names: Iterable[str], others: Iterable[str] = ()) -> str:
    near = difflib.get_close_matches(name, [*names, *others], n=1)
    return f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(names)}"
