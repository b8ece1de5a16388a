"""``pool-monitor rules test``: what receivers are told, when, and what comes of faults."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pool_monitor.alerts.rule_tests.words import time_text
from tests.helpers.programs import Done, command, runtime_dir

__all__ = ["command", "runtime_dir"]
Command = Callable[..., Done]

RULES = """
rules:
  - alert: Big
    threshold: {metric: pool.size, levels: {warning: 3, critical: 8}}
    annotations: {summary: "{value} workers in {pool}"}
  - {alert: Busy, threshold: {metric: pool.busy, above: 3}}
  - {alert: Loop, finding: crash_loop}
route:
  receiver: ops
  group_by: [alertname]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 1h
  routes:
    - match: {alertname: Busy}
      receiver: chat
      group_by: [alertname, pool]
      group_wait: 0s
      escalate_after: 10m
      escalate_to: boss
    - {match: {severity: critical}, receiver: pager, group_wait: 0s}
inhibit: [{source: {alertname: Loop}, target: {alertname: Big}, equal: [pool]}]
receivers:
  - {name: ops, webhook: {url_env: NOT_SET, format: slack}, fallback: [mail]}
  - {name: chat, webhook: {url_env: NOT_SET_EITHER}}
  - {name: pager, webhook: {url: "https://pager.example/x"}, page: true}
  - {name: mail, email: {to: [a@example.org], smtp: "smtp.example.org:25"}}
  - {name: boss, file: boss.jsonl}
"""


class Suite:
    """Tests of `RULES` in a folder. What is given is YAML of flow style."""

    def __init__(self, folder: Path, command: Command) -> None:
        self._folder, self._command, self.rules = folder, command, folder / "rules.yaml"
        self.rules.write_text(RULES)

    def run(self, series: str, *keys: str, every: str = "15s", options: tuple[str, ...] = ()) -> Done:
        lines = "".join(f"    {key}\n" for key in keys)
        text = (
            f"rule_files: [rules.yaml]\nevaluation_interval: {every}\ntests:\n  - name: one\n"
            f"    input_series: [{series}]\n{lines}"
        )
        self.path = self._folder / "suite.yaml"
        self.path.write_text(text)
        return self._command("rules", "test", str(self.path), *options)

    def passes(self, series: str, *keys: str, every: str = "15s") -> None:
        done = self.run(series, *keys, every=every)
        assert (done.code, done.err) == (0, ""), done.out

    def told(self, series: str, receiver: str, until: str, *keys: str) -> list[tuple[str, str, str]]:
        """Return what *receiver* was told: when, the status, and the reason with the alerts."""
        done = self.run(series, f"exp_notifications: [{{at: {until}, receiver: {receiver}, firing: 77}}]", *keys)
        assert done.code == 1, done.out
        lines = re.findall(r"^ +([0-9hms.]+)  (firing|resolved), (.*)", done.out, re.MULTILINE)
        return [(at, status, what) for at, status, what in lines]


@pytest.fixture
def suite(tmp_path: Path, command: Command) -> Suite:
    return Suite(tmp_path, command)


SIZE = '{series: \'pool.size{pool="p"}\', values: "%s"}'
BUSY = '{series: \'pool.busy{pool="p"}\', values: "%s"}'


# -- what is told -----------------------------------------------------------------------------------------------------


def test_a_receiver_is_told_the_beginning_the_level_and_the_end_at_the_times_of_its_group(suite: Suite) -> None:
    told = """exp_notifications:
      - at: 1m30s
        receiver: ops
        status: firing
        reason: first notification
        firing: 1
        resolved: 0
        exp_alerts:
          - alertname: Big
            exp_labels: {pool: p, severity: warning}
            exp_annotations: {summary: "5 workers in p"}
            status: firing
            delayed: false
            flapping: false
      - at: 6m30s
        receiver: ops
        reason: level changed
        exp_alerts: [{alertname: Big, exp_labels: {pool: p, severity: critical}}]
      - {eval_time: 11m30s, receiver: ops, status: resolved, reason: all alerts resolved, firing: 0, resolved: 1}
      - {at: 4m, receiver: pager, status: firing, exp_alerts: [{alertname: Big, exp_labels: {pool: p}}]}
      - {at: 9m, receiver: pager, status: resolved}"""
    quiet = "{receiver: ops, from: 1m31s, to: 6m30s}, {receiver: boss}, {receiver: pager, from: 0, to: 4m}"
    suite.passes(
        SIZE % "0 5x2 9x3 0x30",
        told,
        f"exp_no_notifications: [{quiet}, {{receiver: mail, to: 20m}}]",
    )


def test_who_still_fires_is_told_again(suite: Suite) -> None:
    told = suite.told(SIZE % "5x200", "ops", "3h")
    assert [(at, what.partition(":")[0]) for at, _status, what in told] == [
        ("30s", "first notification"),
        ("1h30s", "repeat interval elapsed"),
        ("2h30s", "repeat interval elapsed"),
    ]


def test_what_is_silenced_or_inhibited_is_not_told_and_its_end_is(suite: Suite) -> None:
    silence = "silences: [{matchers: {pool: p}, starts_at: 0, ends_at: 10m}]"
    assert suite.told(SIZE % "5x5 0x20", "ops", "20m", silence) == []
    [(at, _, _)] = suite.told(SIZE % "5x20", "ops", "15m", silence)
    assert at == "10m30s"
    later = silence.replace("starts_at: 0", "starts_at: 1m")
    assert [status for _, status, _ in suite.told(SIZE % "5x5 0x20", "ops", "20m", later)] == ["firing", "resolved"]
    loop = '{series: \'finding.crash_loop{pool="p"}\', values: "1x20"}'
    told = suite.told(f"{SIZE % '5x20'}, {loop}", "ops", "15m")
    assert [what.partition("{")[0] for _at, _status, what in told] == ["first notification: Loop"]


def test_nobody_acknowledges_so_another_receiver_is_told(suite: Suite) -> None:
    told = suite.told(BUSY % "0 5x20 0x20", "boss", "40m")
    assert [(at, status, what.partition(":")[0]) for at, status, what in told] == [
        ("11m", "firing", "escalated"),
        ("26m", "resolved", "all alerts resolved"),
    ]
    taken = "acknowledgements: [{at: 5m, alertname: Busy}]"
    assert suite.told(BUSY % "0 5x20 0x20", "boss", "40m", taken) == []


def test_a_storm_is_told_in_digests_and_pages_one_by_one(suite: Suite) -> None:
    many = ", ".join(f"{{series: 'pool.busy{{pool=\"p{n}\"}}', values: '5x20'}}" for n in range(40))
    [(at, status, what)] = suite.told(many, "chat", "9m")
    assert (at, status) == ("0s", "firing")
    assert re.match(r"digest: Busy.*, \.\.\. and 35 more$", what)
    page = "{match: {alertname: Busy}, receiver: pager, group_by: [pool], group_wait: 0s, continue: true}"
    suite.rules.write_text(RULES.replace("  routes:\n", f"  routes:\n    - {page}\n"))
    assert [at for at, _status, _what in suite.told(many, "pager", "9m")] == ["0s"] * 12 + [
        time_text(5.0 * n) for n in range(1, 29)
    ]


# -- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "at"),
    [
        ("at: 0, respond: 503", "31s"),
        ("at: 0, for: 35s, respond: 503", "37s"),  # 30, 31, 33, 37
        ("at: 0, respond: 429, retry_after: 20s", "51s"),  # at most 5% more than asked for
        ("at: 0, for: 32s, respond: reset", "33s"),
        ("at: 0, respond: timeout", "41s"),
        ("at: 0, respond: unreachable", "34s"),
        ("at: 0, respond: 404", "5m30s"),
        ("at: 1m, respond: 404", "30s"),
        ("at: 0, respond: 200", "30s"),
    ],
)
def test_a_notification_arrives_when_the_pause_after_a_fault_is_over(suite: Suite, fault: str, at: str) -> None:
    suite.passes(
        SIZE % "5x20",
        f"exp_notifications: [{{at: {at}, receiver: ops, reason: first notification}}]",
        f"faults: [{{receiver: ops, {fault}}}]",
    )


def test_a_fallback_is_told_what_is_refused_and_its_end(suite: Suite) -> None:
    told = suite.told(SIZE % "5x10 0x20", "mail", "20m", "faults: [{receiver: ops, at: 0, for: 20m, respond: 401}]")
    assert [(at, status, what.partition(":")[0]) for at, status, what in told] == [
        ("30s", "firing", "fallback"),
        ("15m30s", "resolved", "all alerts resolved"),
    ]


def test_what_began_and_ended_undelivered_is_told_in_one_message(suite: Suite) -> None:
    [(_at, status, what)] = suite.told(
        SIZE % "5x2 0x30", "ops", "30m", "faults: [{receiver: ops, at: 0, for: 10m, respond: 503}]"
    )[-1:]
    assert status == "resolved"
    assert "delayed" in what


# -- what is reported -------------------------------------------------------------------------------------------------


def test_a_failure_has_its_place_what_came_instead_and_all_that_the_receiver_was_told(suite: Suite) -> None:
    done = suite.run(
        SIZE % "5x2 9x5",
        "exp_notifications:\n"
        "      - {at: 1m, receiver: ops, status: firing, exp_alerts: [{alertname: Big, exp_labels: {pool: q}}]}",
        "exp_no_notifications: [{receiver: pager, from: 1m, to: 9m}]",
        "faults: [{receiver: ops, at: 0, respond: 503}]",
    )
    assert done.code == 1
    assert done.out.splitlines()[:-1] == [
        "FAILED one",
        f"  {suite.path}:7:9: ops at 1m:",
        '      expected: firing: Big{pool="q"}',
        '      got:      firing, first notification: Big{pool="p", severity="warning"} firing',
        "        at: expected 1m, got 31s",
        '        Big: label pool: expected "q", got "p"',
        f"  {suite.path}:7:9: ops at 5m30s:",
        "      expected: nothing",
        '      got:      firing, level changed: Big{pool="p", severity="critical"} firing',
        "      ops was told:",
        '             30s  firing, first notification: Big{pool="p", severity="warning"} firing - answered 503',
        '             31s  firing, first notification: Big{pool="p", severity="warning"} firing',
        '           5m30s  firing, level changed: Big{pool="p", severity="critical"} firing',
        f"  {suite.path}:8:28: pager from 1m to 9m:",
        "      expected: nothing",
        '      got:      at 3m: firing, first notification: Big{pool="p", severity="critical"} firing',
        "      pager was told:",
        '              3m  firing, first notification: Big{pool="p", severity="critical"} firing',
    ]


def test_a_notification_that_nobody_expects_fails_and_one_that_does_not_come(suite: Suite) -> None:
    done = suite.run(
        SIZE % "5 0x30",
        "exp_notifications: [{at: 9m, receiver: mail}, {at: 9m, receiver: chat}]",
    )
    assert done.out.count("got:      nothing") == 2
    assert "mail was told nothing" in done.out
    done = suite.run(
        SIZE % "5x3 0x30",
        "exp_notifications: [{at: 30s, receiver: ops}]",
        "alert_rule_test: [{eval_time: 10m, alertname: Big}]",
    )
    assert re.search(r":6:25: ops at 5m30s:\n +expected: nothing\n +got: +resolved, all alerts resolved: Big", done.out)


def test_all_errors_are_said_with_their_places(suite: Suite) -> None:
    done = suite.run(
        "",
        "exp_notifications: [{receiver: ops}, {at: 1m, eval_time: 1m, receiver: ops},"
        " {at: 1m, receiver: ops, reason: x}, {at: 1m, receiver: ops, exp_alerts: [{alertname: Big, stat: firing}]}]",
        "exp_no_notifications: [{receiver: ops, from: 2m, to: 1m}]",
        "faults: [{receiver: ops, at: 0, respond: 99}, {receiver: ops, at: 0, respond: reset, retry_after: 3s}]",
    )
    assert done.code == 1
    assert [int(line.split(":")[1]) for line in done.out.splitlines()] == [6, 6, 6, 6, 7, 8, 8]
    for words in ("exactly one", "needs one of first notification", "did you mean status?", "not after", "timeout"):
        assert words in done.out, done.out


def test_a_receiver_or_rule_that_does_not_exist_is_an_error(suite: Suite) -> None:
    done = suite.run(
        "",
        "exp_notifications: [{at: 1m, receiver: oops, exp_alerts: [{alertname: Bigg}]}]",
        "exp_no_notifications: [{receiver: pages}]",
        "faults: [{receiver: nobody, at: 0, respond: 503}]",
    )
    assert done.code == 1
    assert done.out.count("there is no receiver") == 3
    assert "did you mean 'ops'?" in done.out
    assert "did you mean 'Big'?" in done.out


def test_coverage_says_which_receivers_and_routes_no_test_told(suite: Suite) -> None:
    series, expected = SIZE % "5x9", "exp_notifications: [{at: 30s, receiver: ops, exp_alerts: [{alertname: Big}]}]"
    done = suite.run(series, expected, options=("--coverage",))
    assert done.code == 0, done.out
    assert "coverage: 1 of 5 receivers, 1 of 3 routes are told something" in done.out
    assert "  boss: no test tells it anything" in done.out
    assert '  route {}/{severity="critical"} to pager: no test takes it' in done.out
    assert not re.search("Big: .*no test expects", done.out)
    found = json.loads(suite.run(series, expected, options=("--json",)).out)
    assert found["receivers"][0] == {"receiver": "ops", "told": True}
    assert found["routes"][0] == {"route": "{}", "receiver": "ops", "told": True}


def test_without_a_route_nobody_is_told(suite: Suite) -> None:
    suite.rules.write_text(RULES.split("route:", maxsplit=1)[0])
    done = suite.run(SIZE % "5x9", "exp_notifications: [{at: 30s, receiver: log}]")
    assert done.code == 1
    assert "log was told nothing" in done.out


def test_the_example_of_the_guide_passes(tmp_path: Path, command: Command) -> None:
    guide = (Path(__file__).parent.parent / "docs" / "RULE_TESTS.md").read_text()
    for block in guide.split("```yaml\n# ")[1:]:
        name, _, text = block.split("```")[0].partition("\n")
        (tmp_path / name).write_text(text)
    done = command("rules", "test", str(tmp_path / "tests.yaml"))
    assert (done.code, done.out.rpartition(": ")[2]) == (0, "2 tests, all passed\n"), done.out
