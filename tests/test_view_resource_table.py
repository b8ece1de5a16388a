"""The figures of resources over a period: means, highest readings, when, and a bounded number of rows."""

from __future__ import annotations

import re
from datetime import UTC

import pytest
from msgspec.structs import replace

from pool_monitor.cli import report_sources
from pool_monitor.errors import ConfigError
from pool_monitor.metrics.timespan import time_span
from pool_monitor.snapshot import GaugeSeries, ResourceRange
from pool_monitor.view.period_report import markdown, text
from pool_monitor.view.resource_table import WORKERS_MAX, figure_rows
from tests.test_view_period_report import report

START = 1_750_000_200.0
DASH = "\N{EN DASH}"


def series(subject: str, figure: str, *values: float | None) -> GaugeSeries:
    high = tuple(None if value is None else value * 2 for value in values)
    return GaugeSeries(subject=subject, figure=figure, mean=values, high=high)


def figures(*some: GaugeSeries) -> ResourceRange:
    return ResourceRange(start=START, end=START + 30, step=10.0, subject=None, series=some)


def test_a_row_has_the_mean_the_highest_reading_and_its_time() -> None:
    [row] = figure_rows(figures(series("host", "cpu_ratio", 0.1, 0.4, None)), UTC)
    assert row == ("host", "cpu", "25%", "80%", "15:10:10")


def test_a_figure_without_a_reading_is_unknown() -> None:
    [row] = figure_rows(figures(series("loop", "lag", None, None, None)), UTC)
    assert row == ("loop", "lag", DASH, DASH, DASH)


def test_subjects_come_in_the_order_of_the_page_of_resources_and_unknown_ones_are_left_out() -> None:
    some = [
        series("worker text-0", "rss", 2.0**20, 2.0**20, 2.0**20),
        series("gpu 0", "utilisation", 0.5, 0.5, 0.5),
        series("loop", "lag", 0.001, 0.001, 0.001),
        series("moon", "rss", 1.0, 1.0, 1.0),
        series("process", "rss", 2.0**27, 2.0**27, 2.0**27),
        series("host", "of a later version", 1.0, 1.0, 1.0),
        series("host", "load1", 2.0, 2.0, 2.0),
    ]
    rows = figure_rows(figures(*some), UTC)
    assert [row.subject for row in rows] == ["host", "process", "loop", "gpu 0", "worker text-0"]
    assert [row.high for row in rows] == ["4.00", "256M", "2.0ms", "100%", "2.0M"]


def test_of_many_workers_the_largest_are_shown() -> None:
    some = [series(f"worker text-{number}", "rss", number * 2.0**20, None, None) for number in range(40)]
    rows = figure_rows(figures(*some), UTC)
    assert len(rows) == WORKERS_MAX
    assert rows[0].subject == "worker text-39"


def test_a_report_has_the_figures_as_a_table() -> None:
    found = replace(report(), figures=figures(series("process", "fds", 11.0, 12.0, 13.0)))
    assert re.search(r"^ process +fds +12 +26 +15:10:20$", text(found, width=100, zone=UTC), re.MULTILINE)
    assert "| process | fds | 12 | 26 | 15:10:20 |" in markdown(found, zone=UTC)
    assert "RESOURCE" not in text(replace(found, figures=figures()), width=100, zone=UTC)


def test_figures_that_are_too_many_to_read_cost_the_report_nothing_else() -> None:
    class Full:
        def gauges(self, start: int, end: int, step: int) -> list[object]:
            raise ConfigError("there are 3,000,000 blocks of gauges")

    doubts: list[str] = []
    assert report_sources._stored_figures(Full(), time_span(0, 60, 10), doubts) is None
    assert doubts == ["resources are left out: there are 3,000,000 blocks of gauges"]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_any_width(width: int) -> None:
    found = replace(report(), figures=figures(series("worker a-very-long-name-of-a-slot-12", "rss", 1e9, 1e9, 1e9)))
    assert max(map(len, text(found, width=width, zone=UTC).splitlines())) <= width
