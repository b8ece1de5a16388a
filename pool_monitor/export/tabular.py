"""CSV for spreadsheets and data frames, JSON for programs. Both can hold the history, everything counted since the
monitor was entered, and values of the types in `pool_monitor.snapshot`.

Both are made piece by piece, in UTF-8, so that a long history is never in memory as text.

CSV follows RFC 4180, with one row per value. The fields of a nested struct become columns (``latency.p99`` becomes
``latency_p99_s``), other compound values are JSON in their cell, and unknown values are empty cells. Spreadsheets take
text for a formula when it begins with ``=``, ``+``, ``-`` or ``@``, also after white space. Any emitter of events can
choose names, so such text gets a leading apostrophe. JSON has all names unchanged.
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
"""Version of the JSON form. It increases when a field changes its meaning or is removed."""
_AT_ONCE = 200
"""Rows per piece."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_encode = msgspec.json.Encoder().encode

StructT = TypeVar("StructT", bound=Struct)


class Row(CallStats, frozen=True, kw_only=True):
    """The calls of one operation on one worker, in one stretch of time."""

    start: float
    """Seconds since the epoch."""
    pool: str
    operation: str
    worker: str | None
    """None: the calls never reached a worker."""
    covered_seconds: float
    """Seconds measured from ``start`` on. ``rate`` is calls per measured second."""


# -- rows -----------------------------------------------------------------------------------------------------------


def rows(source: Totals | Recording) -> Iterator[Row]:
    """Every row with counts. The rows of a history come step by step, ordered by time.

    For `Totals`, the ``max`` of distributions is unknown.
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
    """A header, and a row for each of *values*, which are all of type *kind*.

    *more* are additional first columns with the same value in every row, such as the pool that *values* belong to.
    """
    ours, same = _columns(kind), dict(more or {})
    yield _lines([[*same, *(column.header for column in ours)]])
    for piece in _pieces(values):
        yield _lines([*same.values(), *(column.of(value) for column in ours)] for value in piece)


def to_json(values: Iterable[Struct], more: Mapping[str, str | None] | None = None) -> Iterator[bytes]:
    """A JSON object with ``schema``, the fields of *more*, and the *values* in ``rows``."""
    yield _encode({"schema": SCHEMA, **(more or {})})[:-1] + b',"rows":['
    yield from json_elements(values)
    yield b"]}\n"


def json_elements(values: Iterable[Struct]) -> Iterator[bytes]:
    """The elements of a JSON array, separated by commas, without the brackets."""
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
    """The columns of a struct type: first those of its own fields, then those of inherited fields."""
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
    """The struct type in the type of a field, if there is one."""
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
