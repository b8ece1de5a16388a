"""CSV for spreadsheets and data frames, JSON for programs: of the history, of what was counted since the monitor was
entered, and of any values of the kinds in `pool_monitor.snapshot`.

Both come piece by piece, in UTF-8, so that a long history need not be in memory as text.

CSV is as in RFC 4180, with one row per value. A struct inside another gives its fields to the row (``latency.p99``
becomes the column ``latency_p99_s``), anything larger is JSON in its cell, and what is unknown is an empty cell. Text
that a spreadsheet would take for a formula, because it begins with ``=``, ``+``, ``-``, ``@`` or white space that hides
one, gets an apostrophe put before it: names come from whoever emits events. JSON has names as they are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby, islice
from types import UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec
import numpy as np
from msgspec import Struct

from pool_monitor.config.validation import hints
from pool_monitor.metrics.call_stats import GroupSums, call_fields, summed_by_group
from pool_monitor.metrics.columns import DISTRIBUTIONS, MEASURED_NS, OUTCOMES, SUMS, TALLIES
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.series import RowKey
from pool_monitor.metrics.totals import Totals
from pool_monitor.snapshot import CallStats, Distribution

SCHEMA = 1
"""Version of the JSON form. Grows when a field changes its meaning or goes away."""
_AT_ONCE = 200
"""Rows per piece."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_encode = msgspec.json.Encoder().encode

StructT = TypeVar("StructT", bound=Struct)


class Row(CallStats, frozen=True, kw_only=True):
    """How the calls of one operation on one worker went, in one stretch of time."""

    start: float
    """Seconds since the epoch."""
    pool: str
    operation: str
    worker: str | None
    """None: they never reached one."""
    covered_seconds: float
    """How much of the time from ``start`` on was measured; ``rate`` is calls per second of that."""


# -- rows -----------------------------------------------------------------------------------------------------------


def rows(source: Totals | Recording) -> Iterator[Row]:
    """Every series that anything was counted in; of a history slot by slot, in the order of time.

    Of `Totals`, ``max`` of the distributions is unknown.
    """
    return _rows_of_totals(source) if isinstance(source, Totals) else _rows_of_history(source)


def _rows_of_totals(totals: Totals) -> Iterator[Row]:
    tallies = np.zeros((len(totals.names.rows), TALLIES), np.int64)
    tallies[:, : len(OUTCOMES)], tallies[:, SUMS] = totals.outcomes, totals.sums
    called = np.flatnonzero(tallies.any(axis=1))
    unknown = np.full((len(called), len(DISTRIBUTIONS)), np.iinfo(np.int64).max)
    groups = GroupSums(totals.counts[called], tallies[called], unknown, totals.first)
    covered_s = max(totals.at - totals.since, 0.0)
    keys = [totals.names.rows[row] for row in called.tolist()]
    for row in _rows(groups, keys, totals.since, [covered_s] * len(keys)):
        without_max = {name: msgspec.structs.replace(getattr(row, name), max=None) for name in DISTRIBUTIONS}
        yield msgspec.structs.replace(row, **without_max)


def _rows_of_history(recording: Recording) -> Iterator[Row]:
    for (start, _length), timed_blocks in groupby(sorted(recording.blocks, key=_when), key=_when):
        blocks = [timed.block for timed in timed_blocks]
        called = np.unique(np.concatenate([block.rows for block in blocks]))
        group = np.full(len(recording.names.rows), -1)
        group[called] = np.arange(len(called))
        measured = np.zeros(len(recording.names.pools), np.int64)
        for block in blocks:
            measured[block.pools] += block.pool_sums[:, MEASURED_NS]
        seconds = dict(zip(recording.names.pools, (measured / 1e9).tolist(), strict=True))
        keys = [recording.names.rows[row] for row in called.tolist()]
        groups = summed_by_group([(block, group) for block in blocks], len(called))
        yield from _rows(groups, keys, start, [seconds[pool] for pool, _operation, _worker in keys])


def _when(timed: TimedBlock) -> tuple[int, int]:
    return timed.start, timed.length


def _rows(groups: GroupSums, keys: list[RowKey], start: float, covered_s: Sequence[float]) -> Iterator[Row]:
    for key, fields, seconds in zip(keys, call_fields(groups, covered_s), covered_s, strict=True):
        pool, operation, worker = key
        yield Row(start=start, pool=pool, operation=operation, worker=worker, covered_seconds=seconds, **fields)


# -- text -----------------------------------------------------------------------------------------------------------


def to_csv(
    kind: type[StructT], values: Iterable[StructT], more: Mapping[str, str | None] | None = None
) -> Iterator[bytes]:
    """A header, and a row for each of *values*, which are all of one *kind*.

    *more* are columns that are put first and are the same in every row: whose values they are.
    """
    ours, same = _columns(kind), dict(more or {})
    yield _lines([[*same, *(column.header for column in ours)]])
    for piece in _pieces(values):
        yield _lines([*same.values(), *(column.of(value) for column in ours)] for value in piece)


def to_json(values: Iterable[Struct], more: Mapping[str, str | None] | None = None) -> Iterator[bytes]:
    """An object with ``schema``, the fields of *more*, and in ``rows`` the *values* as they stand."""
    yield _encode({"schema": SCHEMA, **(more or {})})[:-1] + b',"rows":['
    yield from json_elements(values)
    yield b"]}\n"


def json_elements(values: Iterable[Struct]) -> Iterator[bytes]:
    """The elements of a JSON array, with what stands between them."""
    comma = b""
    for piece in _pieces(values):
        yield comma + b",".join(map(_encode, piece))
        comma = b","


class _Column(NamedTuple):
    header: str
    path: tuple[str, ...]

    def of(self, value: Any) -> Any:
        for name in self.path:
            value = None if value is None else getattr(value, name)
        return value


@cache
def _columns(kind: type[Struct]) -> list[_Column]:
    """A kind's own fields stand before those it inherits."""
    inherited = getattr(kind.__base__, "__struct_fields__", ())
    own = [name for name in kind.__struct_fields__ if name not in inherited]
    found: list[_Column] = []
    for name in (*own, *inherited):
        inner = _struct_in(hints(kind)[name])
        if inner is not None:
            found += [_Column(f"{name}_{header}", (name, *path)) for header, path in _columns(inner)]
        else:
            found.append(_Column(f"{name}_s" if kind is Distribution and name != "count" else name, (name,)))
    return found


def _struct_in(hint: Any) -> type[Struct] | None:
    """The struct that a field holds, or may hold."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return next((each for each in choices if isinstance(each, type) and issubclass(each, Struct)), None)


def _pieces(values: Iterable[StructT]) -> Iterator[list[StructT]]:
    remaining = iter(values)
    while piece := list(islice(remaining, _AT_ONCE)):
        yield piece


def _lines(table: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(map(_cell, row) for row in table)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> str | int | float | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return _encode(value).decode()
