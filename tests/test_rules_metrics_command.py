"""``pool-monitor rules metrics``: what rules can measure, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pool_monitor.alerts.catalogue import METRICS
from tests.helpers.programs import Done, command, runtime_dir

__all__ = ["command", "runtime_dir"]
Command = Callable[..., Done]


def test_every_metric_is_a_line_with_its_unit_and_meaning(command: Command) -> None:
    done = command("rules", "metrics")
    assert done.code == 0
    head, *lines = done.out.splitlines()
    assert head.split() == ["metric", "unit", "covers", "labels", "past", "meaning"]
    assert [line.split()[0] for line in lines] == [*METRICS]
    [rss] = [line for line in lines if line.startswith("worker.rss ")]
    assert rss.split()[1:6] == ["bytes", "now", "pool", "worker", "yes"]
    assert "Its limit is worker.rss_limit." in rss


@pytest.mark.parametrize(
    ("pattern", "name", "other"), [("host.*", "host.cpus", "pool.rate"), ("rss", "worker.rss", "host.fds")]
)
def test_a_pattern_or_a_part_of_a_name_chooses_some(command: Command, pattern: str, name: str, other: str) -> None:
    names = [line.split()[0] for line in command("rules", "metrics", pattern).out.splitlines()]
    assert name in names
    assert other not in names


def test_a_pattern_that_chooses_none_is_said(command: Command) -> None:
    done = command("rules", "metrics", "nope")
    assert (done.code, done.out) == (1, "")
    assert "no metric matches 'nope'" in done.err
    done = command("rules", "metrics", "nope", "--json")
    assert (done.code, json.loads(done.out)) == (1, [])


def test_programs_get_them_as_json(command: Command) -> None:
    found = {one["metric"]: one for one in json.loads(command("rules", "metrics", "--json").out)}
    assert [*found] == [*METRICS]
    assert found["operation.latency.p95"] == {
        "metric": "operation.latency.p95",
        "scope": "operation",
        "unit": "s",
        "windowed": True,
        "labels": ["operation", "pool"],
        "past": True,
        "limit": None,
        "meaning": METRICS["operation.latency.p95"].meaning,
    }
