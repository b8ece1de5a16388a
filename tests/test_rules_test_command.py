"""``pool-monitor rules test``: the notation, what is compared, what is reported, and the same file in promtool."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from pool_monitor.alerts.rule_file import load
from pool_monitor.alerts.rule_tests import Coverage, read_suite, run_suite
from pool_monitor.alerts.rule_tests.series import RUNS_MAX, course_of, name_of_series
from tests.helpers.programs import Done, command, runtime_dir

__all__ = ["command", "runtime_dir"]
Command = Callable[..., Done]

RULES = """
rules:
  - alert: Failing
    threshold: {metric: operation.error_ratio, window: 1m, levels: {warning: 5%, critical: 20%}, clear_below: 2%}
    for: 2m
    keep_firing_for: 2m
    min_samples: 20
    labels: {team: search}
    annotations: {summary: "{value} of {operation} fail"}
  - {alert: Big, threshold: {metric: pool.size, above: 3}}
  - {alert: Loop, finding: crash_loop}
  - {alert: Burns, slo_burn: {pool: text, objective: 99.9%}}
  - {alert: Runs, forecast: {metric: worker.rss, reaches: 1GiB, within: 6h}}
  - {alert: Fell, rate_of_change: {metric: pool.rate, window: 5m, against: 10m, falls_by: 50%}}
inhibit: [{source: {alertname: Loop}, target: {alertname: Big}, equal: [pool]}]
"""


class Tests:
    """Tests of `RULES` in a folder. *series* and *checks* are YAML of flow style."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "rules.yaml").write_text(RULES)

    def file(self, series: str, checks: str, more: str = "", *, every: str = "1m", name: str = "suite.yaml") -> str:
        text = (
            f"rule_files: [rules.yaml]\nevaluation_interval: {every}\ntests:\n  - name: one\n    {more}\n"
            f"    input_series: [{series}]\n    alert_rule_test: [{checks}]\n"
        )
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def failures(self, series: str, checks: str, more: str = "", *, every: str = "1m") -> list[str]:
        path = Path(self.file(series, checks, more, every=every))
        suite, problems = read_suite(path.read_bytes(), path.name)
        assert suite is not None, problems
        rules = load([self.folder / "rules.yaml"])
        [result] = run_suite(suite, rules.rules, rules.inhibit, self.coverage(rules.rules))
        return list(result.failures)

    def coverage(self, rules: Any) -> Coverage:
        found = Coverage()
        found.begin(rules)
        return found


@pytest.fixture
def tests(tmp_path: Path) -> Tests:
    return Tests(tmp_path)


# -- the notation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1 2", [1, 2]),
        ("0+10x3", [0, 10, 20, 30]),
        ("5-2x2 1x1", [5, 3, 1, 1, 1]),
        ("-1e1+.5x2", [-10, -9.5, -9]),
        ("1 _x2 3", [1, 1, 1, 3]),
        ("1 stale _ 3", [1, None, None, 3]),
        ("_ 2", [None, 2]),
        ("2x0 _x0 3", [2, 3]),
        ("5% 50%", [0.05, 0.5]),
    ],
)
def test_values_are_those_of_promtool(text: str, values: list[float | None]) -> None:
    course = course_of(text, 60.0, "ratio" if "%" in text else "")
    assert [course.at(60.0 * n) for n in range(len(values))] == pytest.approx(values)
    assert [course.at(60.0 * n + 59) for n in range(len(values))] == pytest.approx(values)


def test_a_value_holds_for_five_minutes() -> None:
    course = course_of("1 _x100", 60.0, "")
    assert (course.at(299), course.at(300)) == (1, None)
    assert math.isnan(course_of("NaN", 60.0, "").at(0) or 0.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("1 2y", "item 2"),
        ("1+1", "write 1[+]1x5"),
        ("{{schema:1}}", "item 1"),
        ("3s", "is a duration"),
        ("1x99999999999", "the most that are read"),
        ("1 " * (RUNS_MAX + 1), "the most that are read"),
    ],
)
def test_values_that_cannot_be_read_are_said(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        course_of(text, 60.0, "ratio")


def test_a_series_is_named_as_in_prometheus() -> None:
    assert name_of_series("host.cpus") == ("host.cpus", {})
    assert name_of_series(""" a.b { x = "1,}\\"", y='z', } """) == ("a.b", {"x": '1,}"', "y": "z"})
    for text in ("", "a.b{", "a.b{x}", 'a.b{x="1" y="2"}', 'a.b{x="1",x="2"}', "a.b{x=1}"):
        with pytest.raises(ValueError, match=r"\w"):
            name_of_series(text)


# -- what rules are given ---------------------------------------------------------------------------------------------

RATIO = '{series: \'operation.error_ratio{pool="p", operation="o"}\', values: "%s"}'
BAD = "{eval_time: %s, alertname: Failing, exp_alerts: [{exp_labels: {pool: p, operation: o, team: search}%s}]}"
GOOD = "{eval_time: %s, alertname: Failing}"


def test_an_alert_goes_through_its_states(tests: Tests) -> None:
    checks = [
        GOOD % "1m", BAD % ("2m", ", state: pending"), GOOD % "3m", BAD % ("4m", ", state: firing"),
        BAD % ("7m", ', exp_annotations: {summary: "30% of o fail"}'), BAD % ("9m", ", state: recovering"),
        GOOD % "11m",
    ]  # fmt: skip
    assert tests.failures(RATIO % "0x1 7%x3 30%x2 0x20", ", ".join(checks)) == []


def test_calls_are_unlimited_unless_a_series_counts_them(tests: Tests) -> None:
    few = ', {series: \'operation.calls{pool="p", operation="o"}\', values: "19x20"}'
    assert tests.failures(RATIO % "10%x20", BAD % ("5m", "")) == []
    assert tests.failures(RATIO % "10%x20" + few, GOOD % "5m") == []
    assert tests.failures(RATIO % "10%x20" + few.replace("19", "20"), BAD % ("5m", "")) == []


def test_an_unknown_value_and_a_stale_series_resolve_after_three_intervals(tests: Tests) -> None:
    for gone in ("NaN", "stale"):
        checks = ", ".join([BAD % ("8m", ", unknown: true"), GOOD % "9m"])
        assert tests.failures(RATIO % f"10%x5 {gone} _x20".replace("NaN _x20", "NaNx20"), checks) == []


def test_every_kind_of_input_is_read_from_series(tests: Tests) -> None:
    series = ", ".join(  # noqa: FLY002 - one a line
        [
            '{series: \'finding.crash_loop{pool="p"}\', values: "0x9 1x4 2x5 0x99"}',
            '{series: \'pool.error_ratio{pool="text"}\', values: "0x100 10%x100"}',
            '{series: \'worker.rss{pool="p", worker="p-0"}\', values: "100MiB+4MiBx1000"}',
            '{series: \'pool.rate{pool="p", window="5m"}\', values: "9x20 4x20"}',
            '{series: \'pool.rate{pool="p"}\', values: "9x90"}',
        ]
    )
    expected = "{eval_time: %s, alertname: %s, exp_alerts: [{exp_labels: {%s}}]}"
    checks = ", ".join(
        [
            expected % ("12m", "Loop", "pool: p, severity: warning"),
            expected % ("15m", "Loop", "pool: p, severity: critical"),
            "{eval_time: 22m, alertname: Loop}",
            "{eval_time: 100m, alertname: Burns}",
            expected % ("125m", "Burns", "pool: text, severity: critical"),
            "{eval_time: 20m, alertname: Runs}",
            expected % ("100m", "Runs", "pool: p, worker: p-0"),
            expected % ("25m", "Fell", "pool: p"),
            "{eval_time: 35m, alertname: Fell}",
        ]
    )
    assert tests.failures(series, checks) == []


def test_silences_acknowledgements_and_inhibitions_lie_over_alerts(tests: Tests) -> None:
    loop = '{series: \'finding.crash_loop{pool="p"}\', values: "0x4 2x9"}'
    series = f'{{series: \'pool.size{{pool="p"}}\', values: "9x20"}}, {loop}'
    more = (
        "silences: [{matchers: {pool: {glob: 'p*'}}, starts_at: 2m, ends_at: 4m}]\n"
        "    acknowledgements: [{at: 1m, alertname: Big, labels: {pool: p}}]"
    )
    expected = "{eval_time: %s, alertname: Big, exp_alerts: [{exp_labels: {pool: p}, %s}]}"
    checks = [
        expected % ("0", "silenced: false, inhibited: false, acknowledged: false"),
        expected % ("1m", "silenced: false, inhibited: false, acknowledged: true"),
        expected % ("3m", "silenced: true, inhibited: false"),
        expected % ("5m", "silenced: false, inhibited: true"),
    ]
    assert tests.failures(series, ", ".join(checks), more) == []
    [failure] = tests.failures("", "{eval_time: 1m, alertname: Big}", more)
    assert "no alert of Big to acknowledge" in failure


def test_a_check_between_two_evaluations_is_of_the_one_before(tests: Tests) -> None:
    checks = ", ".join([GOOD % "5m59s", BAD % ("6m", "")])
    assert tests.failures(RATIO % "0x1 7%x30", checks, every="90s") == []


# -- what is reported -------------------------------------------------------------------------------------------------


def test_a_difference_is_shown_with_its_place(tests: Tests, command: Command) -> None:
    checks = "{eval_time: 1m, alertname: Big, exp_alerts: [{exp_labels: {pool: q}, exp_annotations: {a: x}}]}"
    path = tests.file('{series: \'pool.size{pool="p"}\', values: "9x9"}', checks)
    done = command("rules", "test", path)
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines() == [
        "FAILED one",
        f"  {path}:7:23: Big after 1m:",
        '      expected: Big{pool="q"} firing',
        '      got:      Big{pool="p", severity="warning"} firing, value 9',
        '        label pool: expected "q", got "p"',
        '        annotation a: expected "x", got none',
        f"{path}: 1 of 1 test failed",
    ]


def test_all_errors_of_a_file_are_said_with_their_places(tests: Tests, command: Command) -> None:
    series = (
        '{series: \'pool.sise{pool="p"}\', values: "1"}, {series: pool.size, values: "1"}, '
        '{series: \'finding.crash{pool="p"}\', values: "1"}, {series: \'pool.size{pool="p", a="b"}\', values: "1y"}'
    )
    path = tests.file(series, "{eval_time: 5, alertname: Big}, {eval_time: 5m, alertnam: Big}", "promql_expr_test: []")
    done = command("rules", "test", path)
    places = [re.match(rf"{re.escape(path)}:(\d+):(\d+): ", line) for line in done.out.splitlines()]
    assert done.code == 1
    assert [match and int(match[1]) for match in places] == [5, 6, 6, 6, 6, 6, 7, 7]
    assert "did you mean pool.size?" in done.out
    assert "there is no PromQL here" in done.out


def test_a_check_of_a_rule_that_does_not_exist_is_an_error(tests: Tests, command: Command) -> None:
    done = command("rules", "test", tests.file("", "{eval_time: 1m, alertname: Bigg}"))
    assert done.code == 1
    assert "did you mean 'Big'?" in done.out


def test_a_rule_of_the_package_is_evaluated_where_a_rule_names_it(tests: Tests, command: Command) -> None:
    busy = """{series: 'pool.busy_ratio{pool="p"}', values: '%s'}"""
    fires = "{eval_time: 20m, alertname: %s, exp_alerts: [{exp_labels: {pool: p}}]}"
    path = tests.file(busy % "97%x30", f"{fires % 'Both'}, {fires % 'PoolBusy'}")
    (tests.folder / "rules.yaml").write_text("rules: [{alert: Both, any: [{alert: PoolBusy}]}]")
    done = command("rules", "test", path, "--coverage")
    assert (done.code, done.err) == (0, ""), done.out
    assert "coverage: 1 of 1 rule fire" in done.out
    done = command("rules", "test", tests.file(busy % "7%x30", fires % "Both"))
    assert done.code == 1


def test_errors_of_the_rule_files_are_said_and_files_that_are_not_there(tests: Tests, command: Command) -> None:
    path = tests.file("", "{eval_time: 1m, alertname: Big}")
    (tests.folder / "rules.yaml").write_text("rules: [{alert: Big, threshold: {metric: pool.size, above: 5%}}]")
    done = command("rules", "test", path)
    assert done.code == 1
    assert "rules.yaml:1:" in done.out
    (tests.folder / "rules.yaml").unlink()
    assert command("rules", "test", path).code == 2
    assert command("rules", "test", str(tests.folder / "nope.yaml")).code == 2
    assert command("rules", "test").code == 2


def test_coverage_says_what_no_test_reached(tests: Tests, command: Command) -> None:
    path = tests.file(RATIO % "7%x9", BAD % ("5m", ""))
    done = command("rules", "test", path, "--coverage")
    assert done.code == 0
    assert "coverage: 1 of 6 rules fire, 1 of 9 levels, 2 of 14 states" in done.out
    assert "Failing: never at the level critical, never recovering, never resolved" in done.out
    assert "Big: never fires; no test expects an alert of it" in done.out
    found = json.loads(command("rules", "test", path, "--json").out)
    assert found["files"][0]["tests"] == [{"name": "one", "failures": [], "seconds": pytest.approx(5, abs=5)}]
    assert found["coverage"][0]["missed_levels"] == ["critical"]


def test_junit_gets_valid_xml_whatever_the_texts_are(tests: Tests, command: Command) -> None:
    path = tests.file('{series: \'pool.size{pool="<&>"}\', values: "9x9"}', "{eval_time: 1m, alertname: Big}")
    Path(path).write_text(Path(path).read_text().replace("name: one", 'name: "a <b> & \\u0001"'))
    report = tests.folder / "report.xml"
    assert command("rules", "test", path, str(tests.folder / "nope.yaml"), "--junit", str(report)).code == 2
    root = Xml.parse(report).getroot()
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("2", "1", "1")
    [case] = root.iterfind(".//testcase[failure]")
    assert case.get("name") == "a <b> & \ufffd"
    assert '{pool="<&>", severity="warning"}' in (case.findtext("failure") or "")


def test_a_long_test_is_refused_before_it_runs(tests: Tests, command: Command) -> None:
    done = command("rules", "test", tests.file("", "{eval_time: 52w, alertname: Big}", every="1s"))
    assert done.code == 1
    assert "1,000,000 are the most" in done.out


def test_the_example_of_the_guide_passes(tmp_path: Path, command: Command) -> None:
    guide = (Path(__file__).parent.parent / "docs" / "RULE_TESTS.md").read_text()
    (tmp_path / "suite.yaml").write_text(guide.split("```text\n")[1].split("```")[0])
    (tmp_path / "rules.yaml").write_text(RULES.replace("alert: Failing", "alert: FailingCalls"))
    done = command("rules", "test", str(tmp_path / "suite.yaml"))
    assert (done.code, done.out.rpartition(": ")[2]) == (0, "1 test, all passed\n")


# -- beside promtool --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("stale", [True, False])  # what is gone is not kept firing here, and is there
def test_promtool_says_the_same_of_the_same_file(tmp_path: Path, command: Command, stale: bool) -> None:
    chance = random.Random(14)
    ours, theirs, series = [], [], []
    for number in range(12):
        bound, hold = chance.randrange(20, 80), chance.choice(("0s", "30s", "1m", "150s", "5m"))
        keep = "0s" if stale else chance.choice(("0s", "1m", "150s"))
        ours.append(
            f"  - {{alert: R{number}, threshold: {{metric: pool.waiting, above: {bound}}}, for: {hold}, "
            f"keep_firing_for: {keep}, no_data_for: 1us}}"
        )
        theirs.append(
            f"      - {{alert: R{number}, expr: pool.waiting > {bound}, for: {hold}, keep_firing_for: {keep}, "
            "labels: {severity: warning}}"
        )
    for pool in "abc":
        items: list[str] = []
        while len(items) < 25:
            start, step, count = chance.randrange(100), chance.randrange(-9, 10), chance.randrange(6)
            items.append(
                chance.choice(
                    (
                        f"{start}{step:+}x{count}",
                        f"{start}x{count}",
                        str(start),
                        f"_x3 {start}",
                        "stale" if stale else "7",
                        f"{start}",
                    )
                )
            )
        series.append(f"      - {{series: 'pool.waiting{{pool=\"{pool}\"}}', values: '{' '.join(items)} 0x200'}}")
    head = "rule_files: [%s]\nevaluation_interval: 15s\ntests:\n  - interval: 1m\n    input_series:\n"
    (tmp_path / "ours.yaml").write_text("\n".join(["rules:", *ours]))
    theirs_text = "\n".join(["groups:", "  - name: g", "    rules:", *theirs])
    (tmp_path / "theirs.yaml").write_text(theirs_text.replace("pool.waiting", "pool_waiting"))
    source = "\n".join([head % "ours.yaml" + "\n".join(series), "    alert_rule_test:"])
    times = sorted(chance.sample(range(0, 3600, 5), 60))
    checks = [[seconds, f"R{number}", ""] for seconds in times for number in range(12)]

    def written() -> str:
        lines = [
            f"      - {{eval_time: {at}s, alertname: {name}, exp_alerts: [{expected}]}}"
            for at, name, expected in checks
        ]
        return "\n".join([source, *lines])

    path = tmp_path / "suite.yaml"
    path.write_text(written())
    for failure in json.loads(command("rules", "test", str(path), "--json").out)["files"][0]["tests"][0]["failures"]:
        line = int(failure.split(":")[1]) - source.count("\n") - 2
        pools = re.findall(r'got: +R\d+\{pool="(.)"', failure)
        checks[line][2] = ", ".join(f"{{exp_labels: {{pool: {pool}, severity: warning}}}}" for pool in pools)
    assert sum(bool(expected) for _at, _name, expected in checks) > 100
    path.write_text(written())
    assert command("rules", "test", str(path)).code == 0
    (tmp_path / "prom.yaml").write_text(
        written().replace("ours.yaml", "theirs.yaml").replace("pool.waiting", "pool_waiting")
    )
    done = subprocess.run(
        ["promtool", "test", "rules", "prom.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
