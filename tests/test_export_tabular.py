"""CSV and JSON: read back by other people's readers, every number is the one we counted."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from pool_monitor.events import SESSION_KINDS
from pool_monitor.export import tabular, totals_json
from pool_monitor.export.tabular import Row, rows, to_csv, to_json
from pool_monitor.metrics.columns import CATEGORIES, DISTRIBUTIONS, OUTCOMES
from pool_monitor.metrics.event_counters import COLUMNS
from pool_monitor.metrics.failure_histograms import FailureDurations
from pool_monitor.metrics.histogram import BUCKETS, FIRST_INDEX, RELATIVE_ERROR, SMALLEST_NS, bucket_of
from pool_monitor.metrics.totals import Totals
from pool_monitor.snapshot import Bar, CallStats, Distribution, PoolView, Trend, WorkerView
from tests.helpers import samples
from tests.helpers.recordings import SUMMARY, nearest_rank, recording, streams, tiny, totals

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
MS = 1_000_000


def table(pieces: Iterable[bytes]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(pieces).decode(), newline="")))


class Named(msgspec.Struct, frozen=True):
    name: str
    other: Any = None


def cell(value: Any) -> str:
    """What a CSV reader finds where *value* was put."""
    return table(to_csv(Named, [Named("x", value)]))[0]["other"]


# -- rows -----------------------------------------------------------------------------------------------------------


@given(streams)
@settings(max_examples=60)
def test_percentiles_in_csv_are_within_the_stated_error_of_the_exact_ones(values: list[int]) -> None:
    durations = {SUMMARY: (values, values, [])}
    for source in (totals(durations), recording([(1000, durations)])):
        [row] = table(to_csv(Row, rows(source)))
        for name, share in PERCENTILES.items():
            exact = nearest_rank(values, share) / 1e9
            for distribution in ("latency", "queue"):
                assert abs(float(row[f"{distribution}_{name}_s"]) - exact) <= exact * RELATIVE_ERROR * (1 + 1e-9)
        assert int(row["latency_count"]) == len(values)
        assert float(row["latency_mean_s"]) == pytest.approx(sum(values) / len(values) / 1e9)


@given(tiny)
@settings(max_examples=30)
def test_percentiles_of_tiny_durations_are_off_by_at_most_the_first_bucket(values: list[int]) -> None:
    [row] = table(to_csv(Row, rows(totals({SUMMARY: (values, [], [])}))))
    for name, share in PERCENTILES.items():
        exact = nearest_rank(values, share)
        assert abs(float(row[f"latency_{name}_s"]) * 1e9 - exact) <= max(SMALLEST_NS, exact * RELATIVE_ERROR * 1.001)


def test_a_history_has_a_row_per_slot_and_series_in_the_order_of_time() -> None:
    without_worker = ("text", "chat", None)
    history = recording(
        [
            (1010, {SUMMARY: ([3 * MS], [], [])}),
            (1000, {SUMMARY: ([1 * MS, 2 * MS], [], []), without_worker: ([9 * MS], [], [])}),
        ]
    )
    found = [(row.start, row.pool, row.operation, row.worker, row.calls, row.rate) for row in rows(history)]
    assert found == [
        (1000, "text", "summary", "text-0", 2, 0.2),
        (1000, "text", "chat", None, 1, 0.1),
        (1010, "text", "summary", "text-0", 1, 0.1),
    ]


def test_parts_of_one_slot_add_up() -> None:
    parts = [(50, {SUMMARY: ([1 * MS], [], [])}), (50, {SUMMARY: ([5 * MS, 7 * MS], [], [])})]
    [row] = rows(recording(parts, measured=5))
    assert (row.calls, row.covered_seconds, row.rate) == (3, 10, 0.3)
    assert row.latency.max == 0.007


def test_of_totals_the_longest_is_unknown_and_all_outcomes_are_there() -> None:
    counted = totals({SUMMARY: ([1 * MS] * 3, [MS] * 3, []), ("text", "chat", None): ([], [], [])})
    summary, chat = rows(counted)
    assert (summary.start, summary.covered_seconds) == (samples.START, samples.UPTIME)
    assert (summary.latency.max, summary.queue.max, summary.execution) == (None, None, Distribution())
    assert (summary.ok, summary.errors, summary.timeouts, summary.workers_lost) == (3, 2 + 3 + 4, 3, 4)
    assert (summary.cancelled, summary.rejected) == (5, 6)
    assert (chat.ok, chat.errors, chat.latency.count, chat.latency.p50) == (0, 8 + 9 + 10, 0, None)


def test_series_that_nothing_was_counted_in_are_left_out() -> None:
    counted = totals({SUMMARY: ([MS], [], []), ("text", "chat", None): ([], [], [])})
    counted.outcomes[1] = 0
    assert [row.operation for row in rows(counted)] == ["summary"]


def test_a_history_of_nothing_is_a_header_alone() -> None:
    assert list(rows(recording([]))) == []
    [header] = b"".join(to_csv(Row, [])).decode().splitlines()
    assert header.startswith("start,pool,operation,worker,covered_seconds,calls,ok,")


# -- CSV --------------------------------------------------------------------------------------------------------------


def test_columns_say_their_unit_and_have_the_struct_inside() -> None:
    stats = CallStats(calls=2, latency=Distribution(count=2, p99=0.5))
    [row] = table(to_csv(CallStats, [stats]))
    assert (row["latency_p99_s"], row["latency_count"], row["latency_mean_s"], row["rate"]) == ("0.5", "2", "", "")


def test_columns_put_first_are_the_same_in_every_row() -> None:
    found = table(to_csv(Bar, [Bar(0.1, 1), Bar(None, 2)], {"pool": "text", "worker": None}))
    assert found == [
        {"pool": "text", "worker": "", "upper": "0.1", "count": "1"},
        {"pool": "text", "worker": "", "upper": "", "count": "2"},
    ]


def test_what_may_be_a_struct_has_its_columns_where_it_is_none() -> None:
    class Maybe(msgspec.Struct):
        bar: Bar | None = None

    assert table(to_csv(Maybe, [Maybe(Bar(1.0, 2)), Maybe()])) == [
        {"bar_upper": "1.0", "bar_count": "2"},
        {"bar_upper": "", "bar_count": ""},
    ]


def test_what_is_no_single_value_is_json_in_its_cell() -> None:
    assert json.loads(cell((Bar(0.5, 1),))) == [{"upper": 0.5, "count": 1}]
    assert json.loads(cell({"saturated": 2})) == {"saturated": 2}


@pytest.mark.parametrize("kind", [PoolView, WorkerView, Trend, Row])
def test_every_field_has_one_column(kind: type[msgspec.Struct]) -> None:
    header = b"".join(to_csv(kind, [])).decode().strip().split(",")
    assert len(header) == len(set(header))
    assert all(any(name.startswith(field) for name in header) for field in kind.__struct_fields__)


@pytest.mark.parametrize("text", ['a "quoted" one', "a,b", "two\nlines", "two\r\nlines", " space ", "Größe", "", "'"])
def test_any_text_comes_back(text: str) -> None:
    assert cell(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_text_is_never_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(("value", "text"), [(-1.5, "-1.5"), (None, ""), (True, "true"), (0, "0"), (1e-06, "1e-06")])
def test_numbers_are_as_they_are_and_unknown_is_empty(value: Any, text: str) -> None:
    assert cell(value) == text


def test_half_a_surrogate_pair_does_not_stop_a_table() -> None:
    assert cell("\ud800") == "\\ud800"


def test_lines_end_as_in_the_standard() -> None:
    assert b"".join(to_csv(Bar, [Bar(1.0, 2)])) == b"upper,count\r\n1.0,2\r\n"


def test_a_long_table_is_made_while_it_is_read() -> None:
    taken = []
    pieces = to_csv(Bar, (taken.append(number) or Bar(1.0, number) for number in range(100_000)))
    next(pieces), next(pieces)
    assert len(taken) == tabular._AT_ONCE


# -- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, tabular._AT_ONCE, tabular._AT_ONCE + 1])
def test_values_as_json_are_one_object(count: int) -> None:
    bars = [Bar(None, number) for number in range(count)]
    found = json.loads(b"".join(to_json(bars, {"pool": "text"})))
    assert found == {"schema": 1, "pool": "text", "rows": [{"upper": None, "count": bar.count} for bar in bars]}


def test_rows_as_json_can_be_decoded_as_rows() -> None:
    expected = list(rows(recording([(1000, {SUMMARY: ([1 * MS, 2 * MS], [MS, MS], [])})])))
    form = json.loads(b"".join(to_json(expected)))
    assert msgspec.convert(form["rows"], list[Row]) == expected


def test_a_long_list_is_made_while_it_is_read() -> None:
    taken = []
    pieces = to_json(taken.append(number) or Bar(1.0, number) for number in range(100_000))
    next(pieces), next(pieces)
    assert len(taken) == tabular._AT_ONCE


# -- totals, without loss -------------------------------------------------------------------------------------------


def read_back(counted: Totals) -> Totals:
    return totals_json.decode(b"".join(totals_json.encode(counted)))


def whole(counted: Totals) -> np.ndarray:
    """Counts over all buckets."""
    after = BUCKETS - counted.first - counted.counts.shape[-1]
    return np.pad(counted.counts, ((0, 0), (0, 0), (counted.first, after)))


@given(streams, tiny)
@settings(max_examples=40)
def test_totals_come_back_without_loss(values: list[int], others: list[int]) -> None:
    counted = totals({SUMMARY: (values, others, []), ("images", "scale", None): ([], [], [])}, ("text", "images"))
    found = read_back(counted)
    assert (found.since, found.at, found.names) == (counted.since, counted.at, counted.names)
    np.testing.assert_array_equal(found.outcomes, counted.outcomes)
    np.testing.assert_array_equal(found.sums, counted.sums)
    np.testing.assert_array_equal(whole(found), whole(counted))
    np.testing.assert_array_equal(found.pool_sums, counted.pool_sums)
    assert (found.busy, found.born, found.occurrences, found.failures.keys) == (None, None, None, ())


def test_what_is_counted_beside_calls_that_ended_well_comes_back_too() -> None:
    counted = replace(
        totals({SUMMARY: ([MS], [], []), ("images", "scale", None): ([], [], [])}, ("text", "images")),
        busy=np.array([3, 4]),
        born=np.array([1.5, 2.25]),
        failures=FailureDurations(
            (("text", "summary", "timeout"),),
            np.bincount(bucket_of(np.array([MS, 2 * MS])), minlength=BUCKETS)[None],
            np.array([3 * MS]),
            np.array([7.5]),
        ),
        occurrences=np.arange(2 * COLUMNS).reshape(2, COLUMNS),
    )
    found = read_back(counted)
    for name in ("busy", "born", "occurrences"):
        np.testing.assert_array_equal(getattr(found, name), getattr(counted, name))
    assert found.failures.keys == counted.failures.keys
    for one, other in zip(found.failures[1:], counted.failures[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_totals_of_an_older_version_are_read() -> None:
    form = json.loads(b"".join(totals_json.encode(totals({SUMMARY: ([MS], [], [])}))))
    del form["failures"], form["pools"][0]["occurrences"], form["rows"][0]["busy_ns"], form["rows"][0]["since"]
    found = totals_json.decode(json.dumps(form).encode())
    assert (found.busy, found.born, found.occurrences, found.failures.keys) == (None, None, None, ())


def test_a_slice_of_the_buckets_has_the_index_of_the_whole() -> None:
    durations = {SUMMARY: ([1 * MS, 3 * MS], [MS], [])}
    sliced = totals(durations, first=128, last=640)
    np.testing.assert_array_equal(whole(read_back(sliced)), whole(totals(durations)))


def test_totals_of_nothing_come_back() -> None:
    found = read_back(totals({}))
    assert (found.names.rows, found.counts.shape) == ((), (0, len(DISTRIBUTIONS), BUCKETS))
    np.testing.assert_array_equal(found.pool_sums, totals({}).pool_sums)


def test_the_object_is_told_by_name_and_buckets_by_their_index() -> None:
    form = json.loads(b"".join(totals_json.encode(totals({SUMMARY: ([1_000_000_000] * 2, [MS], [])}))))
    [row], [pool] = form["rows"], form["pools"]
    # A second is the upper end of the bucket with index -1.
    assert row["latency"] == {"sum_ns": 2_000_000_000, "offset": -1, "counts": [2]}
    assert row["execution"]["counts"] == []
    assert list(row["outcomes"]) == list(OUTCOMES)
    assert (row["pool"], row["operation"], row["worker"]) == SUMMARY
    assert (list(pool["calls"]), list(pool["errors"])) == (list(SESSION_KINDS), list(CATEGORIES))
    assert (form["schema"], form["scale"]) == (1, 5)


def test_histograms_of_two_files_add_up_to_that_of_both() -> None:
    one, other = [1 * MS, 2 * MS, 90 * MS], [2 * MS, 7_000]
    merged: dict[int, int] = {}
    for values in (one, other):
        form = json.loads(b"".join(totals_json.encode(totals({SUMMARY: (values, [], [])}))))
        histogram = form["rows"][0]["latency"]
        for place, count in enumerate(histogram["counts"]):
            merged[histogram["offset"] + place] = merged.get(histogram["offset"] + place, 0) + count
    both = whole(totals({SUMMARY: (one + other, [], [])}))[0, 0]
    assert {index: count for index, count in merged.items() if count} == {
        FIRST_INDEX + int(bucket): int(both[bucket]) for bucket in np.flatnonzero(both)
    }


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (b'"schema":1', b'"schema":2', "schema 2"),
        (b'"scale":5', b'"scale":4', "scale 4"),
        (b'"offset":-1', b'"offset":-9999', "are outside the known buckets"),
        (b'"offset":-1', b'"offset":386', "are outside the known buckets"),
        (b'"sum_ns"', b'"sum_s"', "sum_ns"),
        (b"{", b"", "not valid totals"),
        (b"summary", b"\xff", "not valid totals"),
    ],
)
def test_what_is_no_totals_is_refused_with_words(before: bytes, after: bytes, words: str) -> None:
    body = b"".join(totals_json.encode(totals({SUMMARY: ([1_000_000_000], [], [])})))
    with pytest.raises(ValueError, match=words):
        totals_json.decode(body.replace(before, after, 1))
