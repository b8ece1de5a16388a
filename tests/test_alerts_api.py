"""Alerts as somebody uses them who has only read what the package promises: public names, a monitor, the clock for
tests, and the command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from pool_monitor import ConfigError, Monitor, OperationError, Rule, telemetry
from pool_monitor.cli import cli as command_line
from pool_monitor.testing import InlinePool, ManualClock

pytestmark = pytest.mark.usefixtures("no_leaks")


class Target:
    def __init__(self) -> None:
        self.gate = asyncio.Event()

    def summarize(self, *, ok: bool = True) -> None:
        if not ok:
            raise ValueError("bad")

    async def wait(self) -> None:
        await self.gate.wait()


class Service:
    """A pool of one worker in this process, its monitor, and a clock that moves only when the test says so."""

    def __init__(self, pool: InlinePool, monitor: Monitor, clock: ManualClock) -> None:
        self.pool, self.monitor, self.alerts, self.clock = pool, monitor, monitor.alerts, clock
        self.waiting: list[asyncio.Task[object]] = []

    async def after(self, seconds: float, *, good: int = 0, bad: int = 0, operation: str = "summarize") -> None:
        """Let *seconds* pass, with calls in the middle of them, and evaluate."""
        self.clock.advance(seconds / 2)
        if good or bad:
            self.calls(good, bad, operation)
        self.clock.advance(seconds / 2)
        await self.alerts.evaluate()

    def calls(self, good: int, bad: int, operation: str, seconds: float = 0.25) -> None:
        about = {**self.stop.metadata, "operation": operation}
        lasted = {"duration": int(seconds * 1e9), "execution_duration": int(seconds * 1e9), "queue_duration": 0}
        for _ in range(good):
            telemetry.execute(("pool", "operation", "stop"), {"attempts": 1, **lasted}, about)
        about = {**self.failed.metadata, "operation": operation}
        for _ in range(bad):
            telemetry.execute(("pool", "operation", "exception"), {**self.failed.measurements}, about)

    async def learn(self) -> None:
        """Make a call of each outcome, whose events `calls` repeats."""
        with telemetry.capture(("pool", "operation")) as events:
            await self.pool.run("summarize")
            with suppress(OperationError):
                await self.pool.run("summarize", ok=False)
        self.stop, self.failed = (next(one for one in events if one.name[2] == name) for name in ("stop", "exception"))

    async def hold(self, calls: int) -> None:
        """Occupy the worker, and let *calls* wait."""
        self.waiting = [asyncio.create_task(self.pool.run("wait")) for _ in range(calls + 1)]
        while self.pool.status().waiting < calls:
            await asyncio.sleep(0.001)

    async def release(self) -> None:
        for task in self.waiting:
            task.cancel()
        await asyncio.gather(*self.waiting, return_exceptions=True)
        while self.pool.status().busy:
            await asyncio.sleep(0.001)

    def states(self) -> dict[str, tuple[str, str]]:
        return {one.alertname: (one.state, one.severity) for one in self.alerts.active()}

    def changes(self, alert: str) -> list[tuple[str, str, str]]:
        return [
            (one.to_state, one.severity, one.reason) for one in reversed(self.alerts.history()) if one.alert == alert
        ]


def write(folder: Path, *rules: str, more: str = "", alerts: str = "default_rules = false") -> Path:
    (folder / "rules.yaml").write_text("version: 1\nrules: [" + ",\n  ".join(rules) + "]\n")
    config = folder / "pool-monitor.toml"
    config.write_text(
        f'[service]\nsocket = false\n[resources]\nenabled = false\n[alerts]\nrules = ["rules.yaml"]\n'
        f"log = false\ninterval = 5.0\n{alerts}\n{more}"
    )
    return config


@asynccontextmanager
async def service(config: Path, clock: ManualClock | None = None) -> AsyncIterator[Service]:
    clock = clock or ManualClock()
    async with InlinePool(Target, name="text", size=1) as pool, Monitor(pool, config=config, clock=clock) as monitor:
        made = Service(pool, monitor, clock)
        await made.learn()
        clock.advance(3600)  # what was learnt is in no window any more
        try:
            yield made
        finally:
            await made.release()


FAILING = """{alert: FailingCalls, for: 10s, keep_firing_for: 30s, min_samples: 20, labels: {team: search},
  threshold: {metric: operation.error_ratio, window: 1m, levels: {warning: 5%, critical: 20%}, clear_below: 2%},
  match: {pool: text, operation: "summar*"},
  annotations: {summary: "{value} of {operation} fail", runbook: "https://runbooks.example/failing-calls"}}"""


async def test_the_life_of_an_alert_with_two_levels(tmp_path: Path) -> None:
    async with service(write(tmp_path, FAILING)) as one:
        await one.after(2, good=0, bad=19)
        assert one.states() == {}, "fewer than min_samples are unknown"
        await one.after(61, good=19, bad=1, operation="other")
        await one.after(61, good=19, bad=1)
        assert one.states() == {}, "a bound is strict"
        await one.after(61, good=90, bad=10)
        assert one.states() == {"FailingCalls": ("pending", "warning")}
        await one.after(9.5)
        assert one.states() == {"FailingCalls": ("pending", "warning")}
        await one.after(0.5)
        (alert,) = one.alerts.active()
        assert (alert.state, alert.severity, alert.value) == ("firing", "warning", 0.1)
        assert alert.labels == {"pool": "text", "operation": "summarize", "team": "search", "severity": "warning"}
        assert (alert.summary, alert.runbook) == (
            "10% of summarize fail",
            "https://runbooks.example/failing-calls",
        )
        assert one.monitor.snapshot().alerts == (alert,)
        await one.after(61, bad=100)
        await one.after(10)
        (worse,) = one.alerts.active()
        assert (worse.severity, worse.fingerprint, worse.since) == ("critical", alert.fingerprint, alert.since)
        await one.after(61, good=97, bad=3)
        assert one.states() == {"FailingCalls": ("firing", "warning")}, "it is not below the clear bound"
        await one.after(61, good=100)
        assert one.states() == {"FailingCalls": ("recovering", "warning")}
        await one.after(29, good=100)
        assert one.states() == {"FailingCalls": ("recovering", "warning")}
        await one.after(1, good=100)
        assert one.states() == {}
        assert [(to, severity) for to, severity, _ in one.changes("FailingCalls")] == [
            ("pending", "warning"),
            ("firing", "warning"),
            ("firing", "critical"),
            ("firing", "warning"),
            ("recovering", "warning"),
            ("resolved", "warning"),
        ]


@pytest.mark.parametrize(
    ("on_no_data", "firing", "pending"),
    [("resolve", [], []), ("keep", ["firing"], ["pending"]), ("fire", ["firing"], ["firing"])],
)
async def test_what_an_unknown_value_does(
    tmp_path: Path, on_no_data: str, firing: list[str], pending: list[str]
) -> None:
    rule = "{{alert: {}, on_no_data: {}, threshold: {{metric: pool.error_ratio, window: 1m, above: 5%}}, for: {}}}"
    rules = [rule.format(f"A{wait}", on_no_data, wait) for wait in ("0s", "60s")]
    async with service(write(tmp_path, *rules)) as one:
        await one.after(60, bad=1)
        await one.after(60)
        assert {name: state for name, (state, _) in one.states().items()} == {"A0s": "firing", "A60s": "pending"}
        await one.after(14)
        assert {name: state for name, (state, _) in one.states().items()} == {"A0s": "firing", "A60s": "pending"}
        await one.after(1)
        await one.after(60)
        found = {
            name: [state for other, (state, _) in one.states().items() if other == name] for name in ("A0s", "A60s")
        }
        assert found == {"A0s": firing, "A60s": pending}
        if on_no_data == "resolve":
            assert one.changes("A0s")[-1] == ("resolved", "warning", "no_data")
            assert one.changes("A60s")[-1][0] == "inactive"


async def test_values_in_words_strictness_and_composites(tmp_path: Path) -> None:
    async with service(
        write(
            tmp_path,
            "{alert: Six, threshold: {metric: pool.waiting, above: 5},"
            ' annotations: {summary: "{value} {severity} {alertname} {pool}"}}',
            "{alert: NotAboveSix, threshold: {metric: pool.waiting, above: 6}}",
            "{alert: NotBelowSix, threshold: {metric: pool.waiting, below: 6}}",
            "{alert: Page, threshold: {metric: pool.utilisation, above: 95%}, labels: {severity: critical}}",
            "{alert: Slow, threshold: {metric: operation.latency.max, window: 1m, above: 200ms},"
            ' annotations: {summary: "{value}"}}',
            "{alert: Share, threshold: {metric: pool.error_ratio, window: 1m, above: 1%},"
            ' annotations: {summary: "{value}"}}',
            "{alert: Nested, any: [{metric: pool.waiting, above: 100},"
            " {all: [{alert: Six}, {not: {alert: NotAboveSix}}, {metric: pool.busy, above: 0}]}]}",
            "{alert: NotNested, all: [{alert: Six}, {alert: NotAboveSix}]}",
        )
    ) as one:
        await one.hold(6)
        await one.after(10, good=95, bad=5)
        await one.after(5)
        said = {alert.alertname: alert.summary for alert in one.alerts.active()}
        assert said == {
            "Six": "6 warning Six text", "Page": "", "Slow": "250ms", "Share": "5%", "Nested": "",
        }  # fmt: skip
        assert one.alerts.active()[0].alertname == "Page", "the worst first"


async def test_steps_of_minutes_are_time_that_was_measured(tmp_path: Path) -> None:
    async with service(
        write(
            tmp_path,
            "{alert: Fell, rate_of_change: {metric: pool.rate, window: 1m, against: 5m, falls_by: 50%}, for: 2m}",
            "{alert: Rose, rate_of_change: {metric: pool.rate, window: 1m, against: 5m, rises_by: 50%}, for: 5m}",
            "{alert: Gone, absence: {metric: pool.rate, window: 5m}, for: 5m, match: {pool: text}}",
        )
    ) as one:
        for _ in range(12):
            await one.after(60, good=60)
        assert one.states() == {}
        for _ in range(3):
            await one.after(60, good=6)
        assert one.states() == {"Fell": ("firing", "warning")}
        for _ in range(10):
            await one.after(60, good=60)
        assert one.states() == {}
        for _ in range(2):
            await one.after(600)
        assert one.states() == {"Gone": ("firing", "warning")}


async def test_a_bound_relative_to_what_is_usual(tmp_path: Path) -> None:
    rule = "{alert: Twice, threshold: {metric: pool.calls, window: 1m, above: {times: 2, of: own 24h median}}}"
    steps: list[tuple[int, int, list[str]]] = [(10, 30, []), (20, 2, []), (21, 2, ["Twice"]), (10, 1, [])]
    async with service(write(tmp_path, rule)) as one:
        for calls, times, expected in steps:
            for _ in range(times):
                one.clock.advance(540)
                await one.after(60, good=calls)
            assert list(one.states()) == expected


async def test_calls_between_two_steps_of_the_clock_count_at_their_time(tmp_path: Path) -> None:
    async with service(write(tmp_path)) as one:
        one.calls(5, 0, "summarize")
        one.clock.advance(90)
        one.calls(3, 0, "summarize")
        one.clock.advance(30)
        pool = one.monitor.snapshot("1m").pools["text"], one.monitor.snapshot("5m").pools["text"]
        assert [view.total.calls for view in pool] == [3, 8]


async def test_an_objective_with_a_tenth_of_failures_in_steps_of_minutes(tmp_path: Path) -> None:
    burn = "{alert: Burns, slo_burn: {pool: text, objective: 99.9%, period: 1d}}"
    with pytest.raises(ConfigError, match="history"):
        async with service(write(tmp_path, burn, burn.replace("1d", "30d").replace("Burns", "Long"))):
            pass
    async with service(write(tmp_path, burn, more=f'[history]\npath = "{tmp_path}/history.db"\n')) as one:
        for _ in range(3):
            await one.after(600, good=500)
        assert one.states() == {}
        for _ in range(3):
            await one.after(60, good=450, bad=50)
        assert one.states() == {"Burns": ("firing", "critical")}


async def test_silences_match_to_the_letter_or_by_a_pattern(tmp_path: Path) -> None:
    async with service(write(tmp_path, "{alert: Busy, threshold: {metric: pool.busy, above: 0}}")) as one:
        await one.hold(1)
        await one.after(5)

        def quiet() -> bool:
            return one.alerts.active()[0].silenced

        for matchers, matches in (
            ({"alertname": "Busy"}, True), ({"alertname": "Bus"}, False), ({"pool": "te*"}, False),
            ({"pool": "te?t"}, False), ({"pool": {"glob": "te*"}}, True), ({"pool": "text", "severity": "x"}, False),
            ({"pool": "text", "severity": "warning"}, True),
        ):  # fmt: skip
            made = one.alerts.silence(matchers, duration="2h", comment="deploy", author="me")
            assert quiet() is matches, matchers
            one.alerts.unsilence(made)
            assert not quiet()
        for wrong in ({}, {"pool": ""}, {"pool": {"glob": ""}}, {"pool": {"regex": "x"}}):
            with pytest.raises(ConfigError):
                one.alerts.silence(wrong, duration="2h", comment="", author="")
        for duration in ("2", "0s", "-1h", "", None):
            with pytest.raises(ConfigError, match=r"duration|end after"):
                one.alerts.silence({"pool": "text"}, duration=duration, comment="", author="")  # type: ignore[arg-type]
        one.alerts.silence({"pool": "text"}, duration="1m", comment="", author="")
        assert quiet()
        await one.after(61)
        assert not quiet()
        one.alerts.ack(one.alerts.active()[0].fingerprint, author="me", comment="I look")
        assert one.alerts.active()[0].acknowledged
        await one.release()
        await one.after(5)
        assert one.states() == {}
        await one.hold(1)
        await one.after(5)
        assert not one.alerts.active()[0].acknowledged, "a new life needs a new acknowledgement"


async def test_states_silences_and_acknowledgements_survive_a_restart(tmp_path: Path) -> None:
    rules = (
        "{alert: Now, threshold: {metric: pool.busy, above: 0}}",
        "{alert: Later, for: 10m, threshold: {metric: pool.busy, above: 0}}",
    )
    config = write(tmp_path, *rules, more=f'[state]\npath = "{tmp_path}/state.db"\n')
    clock = ManualClock()
    async with service(config, clock) as one:
        await one.hold(1)
        await one.after(5)
        one.alerts.ack(next(each.fingerprint for each in one.alerts.active() if each.alertname == "Now"), author="me")
        one.alerts.silence({"alertname": "Later"}, duration="2h", comment="c", author="me")
        with pytest.raises(ConfigError, match=r"state\.db"):
            async with service(config):
                pass
        await one.after(500)
        before = {each.alertname: (each.state, each.since) for each in one.alerts.active()}
    async with service(config, clock) as one:
        await one.hold(1)
        await one.after(1)
        assert {each.alertname: (each.state, each.since) for each in one.alerts.active()} == before
        assert {each.alertname: (each.acknowledged, each.silenced) for each in one.alerts.active()} == {
            "Now": (True, False),
            "Later": (False, True),
        }
        await one.after(100)
        assert one.states()["Later"][0] == "firing", "the time before the restart counts"


async def test_rules_of_a_program(tmp_path: Path) -> None:
    async with service(write(tmp_path, "{alert: Busy, threshold: {metric: pool.busy, above: 0}}")) as one:
        one.alerts.add(Rule(alert="Mine", threshold={"metric": "pool.busy", "above": 0}, labels={"severity": "page"}))
        for wrong in (
            {"alert": "Busy", "threshold": {"metric": "pool.busy", "above": 0}},
            {"alert": "X", "threshold": {"metric": "pool.busy", "above": "5%"}},
            {"alert": "X", "threshold": {"metric": "pool.nothing", "above": 1}},
            {"alert": "X"},
            {"alert": "X", "slo_burn": {"pool": "text", "objective": "99%", "period": "30d"}},
        ):
            with pytest.raises(ConfigError):
                one.alerts.add(wrong)
        await one.hold(1)
        await one.after(5)
        assert one.states() == {"Busy": ("firing", "warning"), "Mine": ("firing", "page")}
        one.alerts.remove("Mine")
        await one.after(5)
        assert one.states() == {"Busy": ("firing", "warning")}
        assert one.changes("Mine")[-1] == ("resolved", "page", "rule_removed")


async def test_default_rules_are_switched_off_one_by_one_and_replaced_by_name(tmp_path: Path) -> None:
    own = "{alert: FailingCalls, threshold: {metric: pool.busy, above: 0}}"
    async with service(write(tmp_path, own, alerts='disable = ["WorkerLeak"]')) as one:
        rules = {rule.alertname: rule for rule in one.alerts.rules()}
        assert len(rules) > 20
        assert "WorkerLeak" not in rules
        assert not rules["FailingCalls"].default
        await one.after(60, good=10)
        assert one.states() == {}
    with pytest.raises(ConfigError, match="disable"):
        async with service(write(tmp_path, own, alerts='disable = ["NoSuchRule"]')):
            pass


WRONG = """version: 1
rules:
  - {alert: A, threshold: {metric: operation.latency.p95, above: 5%}}
  - {alert: B, threshold: {metric: pool.waiting, above: 3}, for: 10}
  - {alert: B, threshold: {metric: pool.waiting, above: 3}}
  - {alert: C, threshold: {metric: pool.rate, window: 2m, above: 3}}
  - {alert: D, threshold: {metric: pool.waiting, above: 3}, annotations: {summary: "{worker}"}}
  - {alert: E, threshold: {metric: pool.waiting, above: 3}, absence: {metric: pool.rate}}
  - {alert: F, any: [{alert: Nowhere}]}
receivers:
  - {name: ops, webhook: {url: "ftp://user:SECRET@hooks.example/SECRET"}}
"""


def test_all_errors_of_a_file_in_one_run_without_the_secret(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(WRONG)
    result = CliRunner().invoke(command_line, ["rules", "check", str(rules)])
    assert result.exit_code == 1
    found = [line.removeprefix(f"{rules}:").split(":")[:2] for line in result.stdout.splitlines()]
    lines = WRONG.splitlines()
    wrong = {3: "5%", 4: "10}", 5: "B,", 6: "2m", 7: '"{', 8: "absence", 9: "Nowhere", 11: '"ftp'}
    assert found == [[str(line), str(lines[line - 1].index(text) + 1)] for line, text in wrong.items()]
    assert "SECRET" not in result.output


ALIAS = """rules:
  - {alert: A, threshold: {metric: pool.waiting, above: 3}, match: &match {pool: t}}
  - {alert: B, threshold: {metric: pool.waiting, above: 3}, match: *match}
"""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("rules: []\n", 0),
        ("version: 1\nrules: []\n", 0),
        (ALIAS, 0),
        ("rules: []\n---\nrules: []\n", 1),
        ("rules: [{alert: A, threshold: {metric: pool.waiting, above: 3}, min_samples: 5}]\n", 0),
        ("rules: [{alert: A, slo_burn: {pool: p, objective: 99.9%, period: 30d}}]\n", 0),
    ],
)  # fmt: skip
def test_files_that_are_complete(tmp_path: Path, text: str, code: int) -> None:
    (tmp_path / "rules.yaml").write_text(text)
    result = CliRunner().invoke(command_line, ["rules", "check", str(tmp_path / "rules.yaml")])
    assert result.exit_code == code, result.output


TESTED = """rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series: [{series: 'pool.size{pool="p"}', values: "4x5 1x10"}]
    alert_rule_test:
      - {eval_time: 7m, alertname: Small, exp_alerts: []}
      - {eval_time: 8m, alertname: Small, exp_alerts: [{exp_labels: {pool: p, severity: SEVERITY}}]}
"""


@pytest.mark.parametrize(("severity", "code"), [("warning", 0), ("critical", 1)])
def test_tests_of_rules_take_the_keys_of_promtool(tmp_path: Path, severity: str, code: int) -> None:
    (tmp_path / "rules.yaml").write_text("rules: [{alert: Small, threshold: {metric: pool.size, below: 2}, for: 2m}]\n")
    (tmp_path / "test.yaml").write_text(TESTED.replace("SEVERITY", severity))
    result = CliRunner().invoke(command_line, ["rules", "test", str(tmp_path / "test.yaml")])
    assert result.exit_code == code, result.output
