"""The row that a call is counted in, and the limit on the number of rows.

A row is one (pool, operation, worker) and holds three series: latency, queue and execution. Names come from outside, so
their number is unlimited. When no row is left, rows in which nothing was counted for longer than the longest window are
freed. If there is none, a new name shares the row of operation `OTHER` on its worker; when those rows run out too, it
shares the row of `OTHER` without a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pool_monitor.errors import ConfigError
from pool_monitor.metrics.columns import DISTRIBUTIONS
from pool_monitor.metrics.fold import code_of

RowKey: TypeAlias = tuple[str, str, str | None]
"""Pool, operation, worker; worker is None for calls that never reached one."""


class Names(NamedTuple):
    """The names behind the numbers in a block: its row *r* is ``rows[r]``, its pool *p* is ``pools[p]``."""

    rows: tuple[RowKey, ...]
    pools: tuple[str, ...]


OTHER = "other"
NAME_LIMIT = 200
"""Longest name that gets a row. A longer name, or a name without a UTF-8 form, counts as `OTHER`."""
ROW_BYTES = 1536
"""Upper estimate of the memory for one row in the registry: the key, its names, and its place in `PoolRows`."""


class Grouping(NamedTuple):
    """Rows grouped by name. The row at ``PoolRows.rows[place]`` belongs to ``names[groups[place]]``; -1: no group."""

    names: list[str]
    groups: list[int]


class PoolRows(NamedTuple):
    """The rows of one pool, by operation and by worker. Rows without a worker belong to no group in `workers`."""

    rows: NDArray[np.intp]
    operations: Grouping
    workers: Grouping


def is_valid_name(name: str) -> bool:
    """Whether a name from outside is short enough and has a UTF-8 form."""
    return len(name) <= NAME_LIMIT and (name.isascii() or name.encode("utf-8", "ignore").decode() == name)


class RowRegistry:
    """Rows by key. From the start, each pool has a row for operation `OTHER` without a worker.

    Raises ConfigError when *series_limit* leaves no room for these rows.
    """

    def __init__(self, pools: Iterable[str], series_limit: int, instances: Mapping[str, str] | None = None) -> None:
        self.pools = tuple(dict.fromkeys(pools))
        self._instances = instances or {}
        self.row_limit = series_limit // len(DISTRIBUTIONS)
        if self.row_limit < len(self.pools):
            raise ConfigError(
                f"series_limit={series_limit} is too low for {len(self.pools)} pools; "
                f"allow at least {len(self.pools) * len(DISTRIBUTIONS)}"
            )
        # An eighth of the rows is reserved for `OTHER`, so that its calls are kept apart by worker.
        self._named_limit = self.row_limit - self.row_limit // 8
        self.codes: dict[RowKey, int] = {}
        """The code (`fold.code_of`) of calls that end well, by key. Only `register` and `free_rows` change it."""
        self._keys: list[RowKey | None] = []
        self._pool_of_rows: list[int] = []
        self.born_ns: list[int] = []
        """When each row was given to its key; 0: at the start."""
        self._free: list[int] = []
        self._pool_rows: dict[str, PoolRows] = {}
        self._names: Names | None = None
        self._pools_by_row: NDArray[np.intp] | None = None
        for pool in self.pools:
            self._add((pool, OTHER, None))

    def __len__(self) -> int:
        """Rows in use."""
        return len(self._keys) - len(self._free)

    def is_collected(self, pool: Any, instance: object) -> bool:
        """Whether an event that names *pool* and *instance* is of one of the pools. The name decides alone where either
        instance is unknown. Raises TypeError for a *pool* that cannot be a name.
        """
        expected = self._instances.get(pool)
        return pool in self.pools and (expected is None or not instance or instance == expected)

    @property
    def size(self) -> int:
        """Length of an array over all rows: one more than the highest row that was ever in use."""
        return len(self._keys)

    def register(self, key: RowKey, now_ns: int = 0) -> int | None:
        """The code of *key*, which gets a row if one is left for it; None if none is left."""
        code = self.codes.get(key)
        if code is None:
            if not (is_valid_name(key[1]) and is_valid_name(key[2] or "")):
                return None
            limit = self.row_limit if key[1] == OTHER else self._named_limit
            code = self._add(key, now_ns) if len(self) < limit else None
        return code

    def other(self, key: RowKey, now_ns: int = 0) -> int:
        """The code of `OTHER` in place of *key*: on its worker if possible."""
        pool, _operation, worker = key
        code = self.register((pool, OTHER, worker), now_ns)
        return self.codes[pool, OTHER, None] if code is None else code

    def free_rows(self, unused: NDArray[np.bool_]) -> list[int]:
        """Free the *unused* rows for new keys. Returns the freed rows.

        An operation's rows are only freed together, so that its totals over all workers never decrease.
        """
        alive = {key[:2] for row, key in enumerate(self._keys) if key is not None and not unused[row]}
        alive |= {(pool, OTHER) for pool in self.pools}
        found = [
            row
            for row, key in enumerate(self._keys)
            if row >= len(self.pools) and key is not None and key[:2] not in alive
        ]
        for row in found:
            key = self._keys[row]
            assert key is not None
            del self.codes[key]
            self._keys[row] = None
        self._free += found
        self._changed()
        return found

    def pool_of_rows(self) -> NDArray[np.intp]:
        """The index in ``pools`` of every row's pool. A free row keeps its last pool."""
        if self._pools_by_row is None:
            self._pools_by_row = np.array(self._pool_of_rows, np.intp)
        return self._pools_by_row

    def pool_rows(self, pool: str) -> PoolRows:
        """The rows of *pool* by operation and by worker."""
        pool_rows = self._pool_rows.get(pool)
        if pool_rows is None:
            keys = [(key, row) for row, key in enumerate(self._keys) if key is not None and key[0] == pool]
            pool_rows = PoolRows(
                rows=np.array([row for _key, row in keys], np.intp),
                operations=_grouped([operation for (_pool, operation, _worker), _row in keys]),
                workers=_grouped([worker for (_pool, _operation, worker), _row in keys]),
            )
            self._pool_rows[pool] = pool_rows
        return pool_rows

    def rows(self) -> list[int]:
        """The rows in use."""
        return [row for row, key in enumerate(self._keys) if key is not None]

    def names(self) -> Names:
        """The names of every row. The pool of a free row is the empty string."""
        if self._names is None:
            self._names = Names(tuple(key or ("", OTHER, None) for key in self._keys), self.pools)
        return self._names

    def _add(self, key: RowKey, now_ns: int = 0) -> int:
        pool = self.pools.index(key[0])
        if self._free:
            row = self._free.pop()
            self._keys[row], self._pool_of_rows[row], self.born_ns[row] = key, pool, now_ns
        else:
            row = len(self._keys)
            self._keys.append(key)
            self._pool_of_rows.append(pool)
            self.born_ns.append(now_ns)
        self._changed()
        self.codes[key] = code_of(row)
        return self.codes[key]

    def _changed(self) -> None:
        self._pool_rows.clear()
        self._names = self._pools_by_row = None


def _grouped(names: list[str | None]) -> Grouping:
    every = sorted({name for name in names if name is not None})
    number: dict[str | None, int] = {name: group for group, name in enumerate(every)}
    return Grouping(every, [number.get(name, -1) for name in names])
