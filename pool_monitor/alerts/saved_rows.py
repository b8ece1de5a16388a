"""The values of one table of the state file, and which of them the file does not have yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

RowT = TypeVar("RowT", bound=Struct)


def any_row(_key: str, _row: object) -> None:
    """Accept a row."""


def left_out(noun: str, keys: Iterable[str], why: str = "it is damaged") -> list[str]:
    """Say of each of the saved rows with these *keys* that it is not taken over. *noun*: what it is a row of."""
    return [f"the saved {noun} {key!r:.100} is left out: {why}" for key in keys]


class SavedRows(Generic[RowT]):
    """Values by key, in the order in which they were added. What is set and deleted is noted for the state file.

    To change a value, set it again: one that is changed in place is not noted. Its owner states the bound.
    """

    def __init__(self, kind: type[RowT]) -> None:
        self._kind = kind
        self._rows: OrderedDict[str, RowT] = OrderedDict()  # of a dict, the first one is slow to find
        self._encoded: dict[str, bytes] = {}
        self._changed: dict[str, bytes | None] = {}

    def __setitem__(self, key: str, row: RowT) -> None:
        self._rows[key] = row
        self._changed[key] = self._encoded[key] = msgspec.json.encode(row)

    def __delitem__(self, key: str) -> None:
        del self._rows[key], self._encoded[key]
        self._changed[key] = None

    def pop(self, key: str) -> RowT | None:
        """Delete a row and return it; None: there is none."""
        row = self._rows.get(key)
        if row is not None:
            del self[key]
        return row

    # No Mapping of collections.abc: it looks for a row by way of an exception, and evaluations look each alert up.

    def get(self, key: str) -> RowT | None:
        """Return a row; None: there is none."""
        return self._rows.get(key)

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def values(self) -> ValuesView[RowT]:
        """The rows."""
        return self._rows.values()

    def items(self) -> ItemsView[str, RowT]:
        """The rows with their keys."""
        return self._rows.items()

    def encoded(self) -> dict[str, bytes]:
        """Return all rows as the state file has them. Quick also for thousands."""
        return dict(self._encoded)

    def take_changes(self) -> dict[str, bytes | None]:
        """Return what has changed since the last call; None: the row is gone."""
        changed, self._changed = self._changed, {}
        return changed

    def restore(self, rows: Mapping[str, bytes], check: Callable[[str, RowT], None] = any_row) -> list[str]:
        """Take over *rows* of the state file. *check* raises ValueError for a row that cannot be one.

        Returns the keys of those that cannot be used, which are left out.
        """
        unusable = []
        for key, value in rows.items():
            try:
                row = msgspec.json.decode(value, type=self._kind)
                check(key, row)
            except (ValueError, RecursionError):  # msgspec's errors are of ValueError
                unusable.append(key)
            else:
                self._rows[key], self._encoded[key] = row, value
        return unusable

    def forget(self, key: str) -> None:
        """Note that a row of the state file is gone that was not taken over."""
        self._changed[key] = None

    def sort(self, by: Callable[[RowT], float]) -> None:
        """Put the rows into the order of *by*."""
        self._rows = OrderedDict(sorted(self._rows.items(), key=lambda pair: by(pair[1])))
