"""Histograms in the HdrHistogram encoding, and interval logs of them (``.hlog``), for the tools that read these.

The conversion is lossy: HdrHistogram has other bucket bounds, so the whole count of one of our buckets goes to the
HdrHistogram bucket of its estimate. Values are nanoseconds with `DIGITS` significant digits. Tools read back the
highest value of an HdrHistogram bucket, which exceeds the estimate by at most `ADDED_ERROR` of it. Together with the
error of the estimate itself, that is at most 1.2 % from the true value. Below 1 µs and above 71 minutes the limits of
our own histogram apply (`pool_monitor.metrics.histogram`).

A log has one line per interval and (pool, operation, distribution), with all workers added up. These three names are
the tag of the line, percent-encoded because a tag may not contain commas or spaces: ``text/summary/latency``. The
maximum in a line is in milliseconds, as the tools expect for values in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import Any
from urllib.parse import quote

import numpy as np

from pool_monitor.metrics.call_stats import GROUPS_AT_ONCE, summed_by_group
from pool_monitor.metrics.columns import DISTRIBUTIONS
from pool_monitor.metrics.histogram import ESTIMATES, HIGHEST_NS, Ints
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.totals import Totals

DIGITS = 3
"""Significant digits. A fourth would take 3.6 MB and ten times as long, and add less than our own buckets lose."""
ADDED_ERROR = 2**-10
"""Width of an HdrHistogram bucket with `DIGITS` digits, relative to its values."""

_VALUES_NS: list[int] = np.rint(ESTIMATES * 1e9).astype(np.int64).tolist()
_NS_PER_MS = 1e6


def encode(counts: Ints, first: int = 0) -> str:
    """One histogram in the compressed V2 encoding, as base64. *counts* begin at bucket *first*."""
    return str(_histogram(counts, first).encode(), "ascii")


def log(source: Recording | Totals) -> Iterator[bytes]:
    """The lines of an interval log, ordered by time. Each piece has many lines, or all lines of one interval.

    An operation without counts in an interval has no line for it.
    """
    intervals = _intervals(source) if isinstance(source, Recording) else _since_entered(source)
    started = False
    yield b"#[Histogram log of pool_monitor: values in ns, maxima in ms]\n#[Histogram log format version 1.3]\n"
    for start, length, keys, counts, first in intervals:
        if not started:
            when = datetime.fromtimestamp(start, UTC).isoformat(" ", "milliseconds")
            yield f"#[StartTime: {start:.3f} (seconds since epoch), {when}]\n".encode()
            yield b'"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
            started = True
        yield "".join(
            _line(start, length, tag(*key, distribution), counts[row, column], first)
            for row, key in enumerate(keys)
            for column, distribution in enumerate(DISTRIBUTIONS)
            if counts[row, column].any()
        ).encode()


def tag(pool: str, operation: str, distribution: str) -> str:
    """The tag of the lines of a series. `urllib.parse.unquote` returns the names in it."""
    return "/".join(quote(name, safe="", errors="backslashreplace") for name in (pool, operation, distribution))


_Interval = tuple[float, float, list[tuple[str, str]], Ints, int]
"""Start, length, keys, counts of shape (operations, distributions, buckets), and the first of these buckets."""


def _intervals(recording: Recording) -> Iterator[_Interval]:
    keys = sorted({(pool, operation) for pool, operation, _worker in recording.names.rows})
    place = {key: number for number, key in enumerate(keys)}
    group = np.array([place[pool, operation] for pool, operation, _worker in recording.names.rows], np.intp)

    def when(timed: TimedBlock) -> tuple[int, int]:
        return timed.start, timed.length

    for (start, length), timed_blocks in groupby(sorted(recording.blocks, key=when), key=when):
        blocks = [timed.block for timed in timed_blocks]
        for first in range(0, len(keys), GROUPS_AT_ONCE):
            some = keys[first : first + GROUPS_AT_ONCE]
            inside = np.where((group >= first) & (group < first + len(some)), group - first, -1)
            found = summed_by_group([(block, inside) for block in blocks], len(some))
            yield start, length, some, found.counts, found.first


def _since_entered(totals: Totals) -> Iterator[_Interval]:
    together = totals.by_operation()
    keys = [(pool, operation) for pool, operation, _worker in together.names.rows]
    yield totals.since, max(totals.at - totals.since, 0.0), keys, together.counts, together.first


def _line(start: float, length: float, name: str, counts: Ints, first: int) -> str:
    histogram = _histogram(counts, first)
    longest_ms = histogram.get_max_value() / _NS_PER_MS
    return f"Tag={name},{start:.3f},{length:.3f},{longest_ms:.3f},{histogram.encode().decode()}\n"


def _histogram(counts: Ints, first: int) -> Any:
    from hdrh.histogram import HdrHistogram

    histogram = HdrHistogram(1, HIGHEST_NS, DIGITS)
    for bucket in np.flatnonzero(counts).tolist():
        histogram.record_value(_VALUES_NS[first + bucket], int(counts[bucket]))
    return histogram
