"""HdrHistogram: what its own decoder and log reader find in what we write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from hypothesis import given, settings

from pool_monitor.export import hdr
from pool_monitor.metrics.histogram import BUCKETS, HIGHEST_NS, RELATIVE_ERROR, SMALLEST_NS, quantiles
from pool_monitor.metrics.recording import Recording
from pool_monitor.metrics.totals import Totals
from tests.helpers import samples
from tests.helpers.recordings import SHARES, SUMMARY, counts_of, nearest_rank, rank_of, recording, streams, tiny, totals


def read_back(histogram: Any, shares: Sequence[float]) -> list[int]:
    """The values of those ranks as tools give them; hdrh itself rounds a rank that lies between two, others do not."""
    running = np.cumsum(np.frombuffer(histogram.counts, np.uint64))
    ranks = [rank_of(share, histogram.get_total_count()) for share in shares]
    values = [histogram.get_value_from_index(index) for index in np.searchsorted(running, ranks).tolist()]
    return [histogram.get_highest_equivalent_value(value) for value in values]


def log_of(source: Recording | Totals, path: Path) -> list[Any]:
    """The intervals that hdrh reads in a log."""
    path.write_bytes(b"".join(hdr.log(source)))
    reader = HistogramLogReader(str(path), HdrHistogram(1, HIGHEST_NS, hdr.DIGITS))
    try:
        return list(iter(reader.get_next_interval_histogram, None))
    finally:
        reader.close()


@given(streams)
@settings(max_examples=100)
def test_percentiles_read_back_are_within_the_stated_error(values: list[int]) -> None:
    decoded = HdrHistogram.decode(hdr.encode(counts_of(values)))
    assert decoded.get_total_count() == len(values)
    estimates_ns = quantiles(counts_of(values), SHARES) * 1e9
    for share, estimate, found in zip(SHARES, estimates_ns, read_back(decoded, SHARES), strict=True):
        exact = nearest_rank(values, share)
        assert -0.5 <= found - estimate <= estimate * hdr.ADDED_ERROR + 0.5
        assert -RELATIVE_ERROR * 1.001 <= found / exact - 1 <= 0.012


@given(tiny)
@settings(max_examples=50)
def test_durations_below_a_microsecond_are_off_by_at_most_the_first_bucket(values: list[int]) -> None:
    decoded = HdrHistogram.decode(hdr.encode(counts_of(values)))
    for share, found in zip(SHARES, read_back(decoded, SHARES), strict=True):
        exact = nearest_rank(values, share)
        assert abs(found - exact) <= max(SMALLEST_NS, exact * 0.012)


def test_a_slice_of_the_buckets_is_encoded_as_the_whole() -> None:
    counts = counts_of([1_000_000, 5_000_000])
    assert hdr.encode(counts) == hdr.encode(counts[200:700], 200)


def test_an_empty_histogram_can_be_read() -> None:
    assert HdrHistogram.decode(hdr.encode(np.zeros(BUCKETS, np.int64))).get_total_count() == 0


@pytest.mark.parametrize("bucket", [0, BUCKETS - 1])
def test_the_outermost_buckets_and_large_counts_come_through(bucket: int) -> None:
    counts = np.zeros(BUCKETS, np.int64)
    counts[bucket] = 2**50
    assert HdrHistogram.decode(hdr.encode(counts)).get_total_count() == 2**50


def test_a_log_has_an_interval_per_slot_and_series_in_the_order_of_time(tmp_path: Path) -> None:
    later, sooner = [3_000_000] * 4, [1_000_000, 2_000_000]
    history = recording(
        [
            (1010, {SUMMARY: (later, [1_000] * 4, later)}),
            (1000, {SUMMARY: (sooner, [1_000] * 2, []), ("text", "chat", "text-1"): ([9_000_000], [2_000], [])}),
        ]
    )
    found = [
        (each.get_start_time_stamp(), each.get_end_time_stamp(), each.get_tag(), each.get_total_count())
        for each in log_of(history, tmp_path / "history.hlog")
    ]
    assert found == [
        (1_000_000.0, 1_010_000.0, "text/chat/latency", 1),
        (1_000_000.0, 1_010_000.0, "text/chat/queue", 1),
        (1_000_000.0, 1_010_000.0, "text/summary/latency", 2),
        (1_000_000.0, 1_010_000.0, "text/summary/queue", 2),
        (1_010_000.0, 1_020_000.0, "text/summary/latency", 4),
        (1_010_000.0, 1_020_000.0, "text/summary/queue", 4),
        (1_010_000.0, 1_020_000.0, "text/summary/execution", 4),
    ]


def test_workers_and_parts_of_one_slot_are_one_interval(tmp_path: Path) -> None:
    one, other = ("text", "chat", "text-0"), ("text", "chat", "text-1")
    history = recording(
        [(50, {one: ([1_000_000], [], [])}), (50, {other: ([5_000_000], [], []), one: ([7_000], [], [])})]
    )
    [interval] = log_of(history, tmp_path / "history.hlog")
    assert interval.get_total_count() == 3


def test_the_maximum_of_an_interval_is_in_milliseconds() -> None:
    [line] = [
        line
        for line in b"".join(hdr.log(recording([(50, {SUMMARY: ([7_000_000], [], [])})]))).splitlines()
        if line[:1] == b"T"
    ]
    assert float(line.split(b",")[3]) == pytest.approx(7.0, rel=0.012)


def test_totals_are_a_log_of_one_interval(tmp_path: Path) -> None:
    counted = totals({SUMMARY: ([10**6] * 3, [10**4] * 3, []), ("text", "summary", "text-1"): ([10**6], [10**4], [])})
    latency, queue = log_of(counted, tmp_path / "totals.hlog")
    assert [latency.get_tag(), queue.get_tag()] == ["text/summary/latency", "text/summary/queue"]
    assert latency.get_total_count() == 4
    assert latency.get_start_time_stamp() == samples.START * 1000
    assert latency.get_end_time_stamp() == (samples.START + samples.UPTIME) * 1000


@pytest.mark.parametrize("name", ["a,b c", "line\nbreak", "a/b", "Größe", "Tag=x", "#", "%41", "\t"])
def test_any_name_makes_a_tag_that_comes_back(name: str, tmp_path: Path) -> None:
    [interval] = log_of(recording([(50, {(name, name, None): ([5], [], [])})]), tmp_path / "names.hlog")
    assert [unquote(part) for part in interval.get_tag().split("/")] == [name, name, "latency"]


def test_half_a_surrogate_pair_does_not_stop_a_log() -> None:
    assert b"Tag=text/%5Cud800/latency," in b"".join(
        hdr.log(recording([(50, {("text", "\ud800", None): ([5], [], [])})]))
    )


def test_a_history_of_nothing_is_a_log_of_nothing(tmp_path: Path) -> None:
    assert log_of(recording([]), tmp_path / "empty.hlog") == []


def test_a_long_log_comes_slot_by_slot() -> None:
    slots = [(start, {SUMMARY: ([1_000_000], [], [])}) for start in range(0, 1000, 10)]
    sizes = [len(piece) for piece in hdr.log(recording(slots))]
    assert len(sizes) > 100
    assert max(sizes) < 300
