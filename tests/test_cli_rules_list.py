"""``pool-monitor rules list``: of a service, and of files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import Monitor
from pool_monitor.config import MonitorConfig, ResourcesConfig
from pool_monitor.config.alerts import AlertsConfig
from tests.helpers.programs import command, runtime_dir
from tests.test_monitor import Gauges

__all__ = ["command", "runtime_dir"]
pytestmark = pytest.mark.usefixtures("utf8")
RULES = """
rules:
  - {alert: Waiting, threshold: {metric: pool.waiting, levels: {warning: 3, critical: 10}}}
  - {alert: "Odd", anomaly: {metric: operation.latency.p50, window: 1m}}
receivers: [{name: ops, log: true}]
route: {receiver: ops}
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def of_service(rules: Path, command: Any, *arguments: object, evaluated: bool = True) -> Any:
    """Run the command while a service runs, in another thread than its loop."""
    config = MonitorConfig(
        resources=ResourcesConfig(enabled=False),
        alerts=AlertsConfig(rules=(str(rules),), default_rules=False, interval=3600),
    )

    async def run() -> Any:
        pool = Gauges("text")
        pool.of_pool["waiting"] = 6
        async with Monitor(pool, config=config) as monitor:
            monitor.alerts.add({"alert": "Mine", "threshold": {"metric": "pool.busy", "above": 0}})
            if evaluated:
                await monitor.alerts.evaluate()
            return await asyncio.to_thread(command, "rules", "list", *arguments)

    return asyncio.run(run())


def test_the_rules_of_a_service_have_the_state_of_their_worst_alert(
    rules: Path, command: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "120")
    done = of_service(rules, command)
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0][:4] == ["RULE", "STATE", "ALERTS", "KIND"]
    assert lines[1][:4] == ["Waiting", "firing", "1", "threshold"]
    assert lines[2][:4] == ["Odd", "inactive", "0", "anomaly"]
    assert lines[3][:4] == ["Mine", "inactive", "0", "threshold"]
    assert done.out.splitlines()[3].rstrip().endswith("the program")


def test_before_the_first_evaluation_no_state_is_made_up(rules: Path, command: Any):
    found = json.loads(of_service(rules, command, "--json", evaluated=False).out)
    assert [(one["alertname"], one["state"]) for one in found] == [("Waiting", None), ("Odd", None), ("Mine", None)]
    assert found[0]["severities"] == ["warning", "critical"]
    assert found[0]["origin"] == f"{rules}:3"


def test_the_rules_of_a_file_are_listed_without_a_service(rules: Path, command: Any):
    done = command("rules", "list", "--file", rules)
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [["Waiting", "-"], ["Odd", "-"]]


def test_a_file_may_name_a_default_rule(tmp_path: Path, command: Any):
    path = tmp_path / "mine.yaml"
    path.write_text("rules: [{alert: Mine, any: [{alert: CrashLoop}]}]")
    done = command("rules", "list", "--file", path)
    assert (done.code, [line.split()[0] for line in done.out.splitlines()[1:]]) == (0, ["Mine"])


def test_a_wrong_file_no_service_and_both_at_once_are_explained(tmp_path: Path, rules: Path, command: Any):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("rules: [{alert: A}]")
    done = command("rules", "list", "--file", wrong)
    assert (done.code, "wrong.yaml:1:" in done.err) == (2, True)
    done = command("rules", "list")
    assert (done.code, "no running service" in done.err) == (3, True)
    done = command("rules", "list", "text", "--file", rules)
    assert (done.code, "not both" in done.err) == (2, True)


def test_a_service_without_rules_says_how_to_have_some(tmp_path: Path, command: Any):
    empty = tmp_path / "empty.yaml"
    empty.write_text("rules: []")
    assert "[alerts] rules" in command("rules", "list", "--file", empty).out
