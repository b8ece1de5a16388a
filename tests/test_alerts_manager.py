"""The alerts of a monitor as its owner uses them: rules, evaluation, what is stored, shown and told, reload."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pool_monitor import Monitor, PoolError, telemetry
from pool_monitor.alerts import part as part_module
from pool_monitor.clock import ManualClock
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.config.alerts import AlertsConfig, StateConfig
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.events import ALERT_TRANSITION
from pool_monitor.snapshot import AlertTransition, AlertView
from tests.helpers.support import eventually
from tests.test_monitor import Gauges

pytestmark = pytest.mark.usefixtures("no_leaks")
NEVER = 3600.0
WAITING = """
rules:
  - alert: Waiting
    threshold: {metric: pool.waiting, above: 3}
    for: 10m
    annotations: {summary: "{value} wait in {pool}", runbook: "https://runbooks.example/waiting"}
"""
EXTRA = "  - {{alert: Extra{n}, threshold: {{metric: pool.waiting, above: 3}}}}\n"
BUSY: dict[str, Any] = {"alert": "Busy", "threshold": {"metric": "pool.busy", "above": 0}}


class Rig:
    """A monitor of a pool whose gauges the test sets, with a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.pool = folder, ManualClock(), Gauges("text")
        self.rules = folder / "rules.yaml"
        self.rules.write_text(WAITING)
        self.alerts: dict[str, Any] = {"rules": (str(self.rules),), "interval": NEVER, "default_rules": False}
        self.state: str | None = None

    def config(self) -> MonitorConfig:
        return MonitorConfig(
            service=ServiceConfig(socket=False),
            resources=ResourcesConfig(enabled=False),
            state=StateConfig(path=self.state),
            alerts=AlertsConfig(**self.alerts),
        )

    def monitor(self) -> Monitor:
        return Monitor(self.pool, config=self.config(), clock=self.clock)

    def waiting(self, calls: int) -> None:
        self.pool.of_pool["waiting"] = calls

    async def evaluate(self, monitor: Monitor, seconds: float = 0.0) -> tuple[AlertView, ...]:
        self.clock.advance(seconds)
        await monitor.alerts.evaluate()
        return monitor.alerts.active()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def told() -> Iterator[list[telemetry.CapturedEvent]]:
    with telemetry.capture(("alert",)) as events:
        yield events
    for event in events:
        assert ALERT_TRANSITION.problems(event.measurements, event.metadata) == []


def states(monitor: Monitor) -> dict[str, str]:
    return {one.alertname: one.state for one in monitor.alerts.active()}


def walks(monitor: Monitor) -> list[tuple[str, str, str]]:
    """The changes, the oldest first."""
    return [(one.alert, one.from_state, one.to_state) for one in reversed(monitor.alerts.history())]


# -- evaluation -------------------------------------------------------------------------------------------------------


async def test_an_alert_goes_through_its_life_and_is_shown_told_and_kept(rig: Rig, told: list[Any]):
    rig.alerts["file"] = str(rig.folder / "alerts.jsonl")
    async with rig.monitor() as monitor:
        assert await rig.evaluate(monitor) == ()
        rig.waiting(6)
        [found] = await rig.evaluate(monitor, 5)
        assert (found.alertname, found.state, found.labels) == (
            "Waiting",
            "pending",
            {"pool": "text", "severity": "warning"},
        )
        assert (await rig.evaluate(monitor, 599))[0].state == "pending"
        [found] = await rig.evaluate(monitor, 1)
        assert (found.state, found.summary, found.value_text) == ("firing", "6 wait in text", "6")
        assert found.runbook == "https://runbooks.example/waiting"
        assert monitor.snapshot().alerts == (found,)
        rig.waiting(0)
        assert await rig.evaluate(monitor, 5) == ()
        assert [one.state for one in monitor.snapshot().alerts] == ["resolved"]
        assert walks(monitor) == [
            ("Waiting", "inactive", "pending"), ("Waiting", "pending", "firing"), ("Waiting", "firing", "resolved"),
        ]  # fmt: skip
        assert [one.seq for one in monitor.alerts.history(2)] == [3, 2]
        assert monitor.alerts.history(0) == ()
        view = monitor.snapshot().monitor.alerts
        assert view is not None
        assert (view.rules, view.evaluations, view.transitions, view.states) == (1, 5, 3, {"resolved": 1})
        assert None not in (view.evaluation_seconds, view.longest_hold)
    assert [(one.metadata["from"], one.metadata["to"]) for one in told] == [
        ("inactive", "pending"), ("pending", "firing"), ("firing", "resolved"),
    ]  # fmt: skip
    assert told[1].metadata["summary"] == "6 wait in text"
    lines = [json.loads(line) for line in (rig.folder / "alerts.jsonl").read_text().splitlines()]
    assert [(line["seq"], line["to"]) for line in lines] == [(1, "pending"), (2, "firing"), (3, "resolved")]


async def test_outside_an_entered_monitor_and_without_alerts_an_evaluation_is_refused_in_words(rig: Rig):
    monitor = rig.monitor()
    with pytest.raises(PoolError, match="while the monitor is entered"):
        await monitor.alerts.evaluate()
    async with monitor:
        await monitor.alerts.evaluate()
    with pytest.raises(PoolError, match="while the monitor is entered"):
        await monitor.alerts.evaluate()
    rig.alerts["enabled"] = False
    async with rig.monitor() as monitor:
        assert monitor.snapshot().monitor.alerts is None
        with pytest.raises(PoolError, match="enabled = false"):
            await monitor.alerts.evaluate()


async def test_rules_are_evaluated_at_their_interval_without_being_asked(rig: Rig):
    rig.alerts["interval"] = 0.1
    async with rig.monitor() as monitor:
        await eventually(lambda: (monitor.snapshot().monitor.alerts or msgspec.UNSET).evaluations > 2)
        [rule] = monitor.alerts.rules()
        assert (rule.state, rule.kind, rule.origin) == ("inactive", "threshold", f"{rig.rules}:3")
        assert rule.next_in is not None
        assert rule.next_in <= 0.1


async def test_a_gap_of_the_clock_fires_nothing_and_a_step_of_the_wall_clock_changes_only_what_is_shown(rig: Rig):
    rig.alerts["interval"] = 0.1
    async with rig.monitor() as monitor:
        alerts = monitor.alerts

        def evaluations() -> int:
            return alerts.view().evaluations

        async def some() -> None:
            before = evaluations()
            await eventually(lambda: evaluations() > before + 1)

        rig.waiting(6)
        await some()
        assert states(monitor) == {"Waiting": "pending"}
        for step in (86_400 * 365, -86_400 * 730):
            rig.clock.step_wall(step)
            await some()
        rig.clock.advance(3600)  # a suspended machine
        await eventually(lambda: alerts.view().paused == 60)
        before = evaluations()
        for _ in range(59):
            rig.clock.advance(1)
            await alerts.evaluate_at_its_time()
        assert (alerts.view().paused, evaluations()) == (1, before)
        rig.clock.advance(1)
        await some()
        assert alerts.view().missed > 0
        assert states(monitor) == {"Waiting": "pending"}
        assert (await rig.evaluate(monitor, 601))[0].state == "firing", "all the time counts for who asks"


async def test_a_rule_that_fails_is_shown_and_costs_no_other(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    from pool_monitor.alerts import ruling

    real = ruling.evaluate

    def evaluate(rule: Any, *others: Any) -> Any:
        if rule.alert == "Busy":
            raise RuntimeError("what is this")
        return real(rule, *others)

    monkeypatch.setattr(ruling, "evaluate", evaluate)
    async with rig.monitor() as monitor:
        monitor.alerts.add(BUSY)
        rig.waiting(6)
        assert states(monitor) == {}
        await rig.evaluate(monitor)
        assert states(monitor) == {"Waiting": "pending"}
        assert "what is this" in monitor.alerts.view().failing["Busy"]
        assert {rule.alertname: rule.failing is None for rule in monitor.alerts.rules()} == {
            "Waiting": True,
            "Busy": False,
        }


async def test_a_handler_that_raises_costs_no_evaluation(rig: Rig):
    def broken(*_: Any) -> None:
        raise RuntimeError("mine")

    telemetry.attach("broken", ALERT_TRANSITION.name, broken)
    async with rig.monitor() as monitor:
        rig.waiting(6)
        await rig.evaluate(monitor)
        assert states(monitor) == {"Waiting": "pending"}
    assert not telemetry.list_handlers(ALERT_TRANSITION.name)


# -- the part ---------------------------------------------------------------------------------------------------------


async def test_a_part_that_failed_goes_on_with_what_it_had(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    rig.state = str(rig.folder / "state.db")
    async with rig.monitor() as monitor:
        monitor.alerts.add(BUSY)
        rig.waiting(6)
        await rig.evaluate(monitor)
        await rig.evaluate(monitor, 300)
        runner = next(one for one in monitor._parts.values() if one.name == "alerts")
        runner._pause = 0.01
        rig.rules.write_text("rules: [")
        part: Any = runner.part
        part._evaluating.cancel()
        await asyncio.sleep(0)
        runner.tick()
        assert "alerts" in monitor.snapshot().monitor.degraded
        assert states(monitor) == {"Waiting": "pending"}, "it is still shown"
        await eventually(lambda: runner.part is not None)
        await rig.evaluate(monitor)
        assert (await rig.evaluate(monitor, 300))[0].state == "firing"
        assert "rules.yaml:1" in (monitor.alerts.view().reload_error or "")
        assert [rule.alertname for rule in monitor.alerts.rules()] == ["Waiting", "Busy"]
    with pytest.raises(ConfigError, match=r"rules\.yaml:1"):
        await rig.monitor().__aenter__()


async def test_an_evaluation_that_hangs_is_reported_and_pool_and_monitor_go_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    rig.alerts["interval"] = 0.1
    monkeypatch.setattr(part_module, "HANG_TICKS", 3)
    monkeypatch.setattr(part_module, "LEAVE_S", 0.1)
    monitor = rig.monitor()
    monkeypatch.setattr(monitor._collector, "until_tick", lambda: 0.01)
    monkeypatch.setattr(monitor.alerts._evaluator, "walk", lambda _elapsed: asyncio.Event().wait())
    async with monitor:
        await eventually(lambda: "not ended" in monitor.snapshot().monitor.degraded.get("alerts", ""))
        assert monitor.snapshot().pools["text"].size == 1


async def test_a_part_that_raises_is_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    rig.alerts["interval"] = 0.1

    async def broken(_elapsed: float) -> None:
        raise RuntimeError("a defect")

    monitor = rig.monitor()
    monkeypatch.setattr(monitor._collector, "until_tick", lambda: 0.01)
    async with monitor:
        runner = next(one for one in monitor._parts.values() if one.name == "alerts")
        runner._pause = 0.01
        with monkeypatch.context() as patch:
            patch.setattr(monitor.alerts._evaluator, "walk", broken)
            await eventually(lambda: "a defect" in monitor.snapshot().monitor.degraded.get("alerts", ""))
        await eventually(lambda: runner.part is not None and monitor.alerts.view().evaluations > 0)


# -- rules ------------------------------------------------------------------------------------------------------------


async def test_rules_from_code_may_come_before_the_monitor_and_stay_when_files_are_read_again(rig: Rig):
    monitor = rig.monitor()
    monitor.alerts.add(BUSY)
    with pytest.raises(ConfigError, match="'Busy' already"):
        monitor.alerts.add(BUSY)
    async with monitor:
        assert [rule.alertname for rule in monitor.alerts.rules()] == ["Waiting", "Busy"]
        with pytest.raises(ConfigError, match=r"'Waiting' already, at .*rules\.yaml:3"):
            monitor.alerts.add({**BUSY, "alert": "Waiting"})
        await monitor.alerts.reload()
        assert [rule.alertname for rule in monitor.alerts.rules()] == ["Waiting", "Busy"]
        with pytest.raises(ConfigError, match=r"pool\.nonsense"):
            monitor.alerts.add({"alert": "X", "threshold": {"metric": "pool.nonsense", "above": 1}})
        with pytest.raises(ConfigError, match=r"add \[history\]"):
            monitor.alerts.add({"alert": "X", "slo_burn": {"pool": "text", "objective": "99.9%", "period": "30d"}})


async def test_a_removed_rule_resolves_its_alerts_and_stays_away(rig: Rig, told: list[Any]):
    async with rig.monitor() as monitor:
        rig.waiting(6)
        await rig.evaluate(monitor)
        await rig.evaluate(monitor, 600)
        assert states(monitor) == {"Waiting": "firing"}
        monitor.alerts.remove("Waiting")
        await monitor.alerts.settled()
        assert states(monitor) == {}
        assert (told[-1].metadata["to"], told[-1].metadata["reason"]) == ("resolved", "rule_removed")
        assert told[-1].metadata["summary"] == "6 wait in text"
        await monitor.alerts.reload()
        assert monitor.alerts.rules() == ()
        with pytest.raises(UnknownName, match="there is no rule 'Waiting'"):
            monitor.alerts.remove("Waiting")
        monitor.alerts.add({**BUSY, "alert": "Waiting"})
        monitor.alerts.add({"alert": "Both", "all": [{"alert": "Waiting"}, {"metric": "pool.busy", "above": 0}]})
        with pytest.raises(ConfigError, match="Waiting"):
            monitor.alerts.remove("Waiting")


async def test_files_with_problems_refuse_to_enter_with_all_of_them_at_once(rig: Rig):
    other = rig.folder / "other.yaml"
    other.write_text("rules: [{alert: A, threshold: {metric: pool.waitin, above: 1}}]\n")
    rig.rules.write_text("rules: [{alert: B, threshold: {metric: pool.waiting, above: 5%}}, {alert: C}]\n")
    rig.alerts |= {"rules": (str(rig.rules), str(other)), "default_rules": True, "disable": ("WorkerLeek",)}
    with pytest.raises(ConfigError) as caught:
        await rig.monitor().__aenter__()
    lines = str(caught.value).splitlines()
    assert any(line.startswith("[alerts] disable") and "WorkerLeek" in line for line in lines)
    for place in (f"{rig.rules}:1:", f"{other}:1:"):
        assert any(line.startswith(place) for line in lines), lines


async def test_a_reload_keeps_alerts_and_timers_of_rules_that_have_not_changed(rig: Rig):
    async with rig.monitor() as monitor:
        rig.waiting(6)
        await rig.evaluate(monitor)
        await rig.evaluate(monitor, 599)
        before = monitor.alerts.history()
        rig.rules.write_text(WAITING + "  - {alert: More, threshold: {metric: pool.waiting, above: 4}}\n")
        await monitor.alerts.reload()
        assert monitor.alerts.history() == before
        await rig.evaluate(monitor, 1)
        assert states(monitor) == {"Waiting": "firing", "More": "firing"}


async def test_a_reload_that_fails_leaves_the_rules_and_says_why_until_it_is_mended(
    rig: Rig, caplog: pytest.LogCaptureFixture
):
    async with rig.monitor() as monitor:
        rig.rules.write_text("rules:\n  - {alert: Waiting, threshold: {metric: pool.waiting, abov: 1}}\n")
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"rules\.yaml:2:"):
                await monitor.alerts.reload()
        assert [rule.alertname for rule in monitor.alerts.rules()] == ["Waiting"]
        assert "rules.yaml:2:" in (monitor.alerts.view().reload_error or "")
        assert sum("could not be read" in record.message for record in caplog.records) == 1
        rig.rules.write_text(WAITING)
        await monitor.alerts.reload()
        assert monitor.alerts.view().reload_error is None


async def test_a_file_that_changes_is_read_again_by_itself(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(part_module, "POLL_S", 0.02)
    async with rig.monitor() as monitor:
        new = rig.folder / "new"
        new.write_text(WAITING.replace("Waiting", "Queueing"))
        new.replace(rig.rules)
        await eventually(lambda: [rule.alertname for rule in monitor.alerts.rules()] == ["Queueing"])
        rig.rules.write_text("rules: [")
        await eventually(lambda: monitor.alerts.view().reload_error is not None)
        assert [rule.alertname for rule in monitor.alerts.rules()] == ["Queueing"]
        rig.rules.write_text("rules: []")
        await eventually(lambda: monitor.alerts.rules() == ())
        assert monitor.alerts.view().reload_error is None


async def test_sighup_has_the_rules_read_again_beside_the_handler_of_the_service(rig: Rig):
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _frame: heard.append(number))
    try:
        async with rig.monitor() as monitor:
            rig.rules.write_text(WAITING.replace("Waiting", "Queueing"))
            os.kill(os.getpid(), signal.SIGHUP)
            await eventually(lambda: [rule.alertname for rule in monitor.alerts.rules()] == ["Queueing"])
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: len(heard) == 2)
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_receiver_is_told_that_an_alert_fires(rig: Rig, caplog: pytest.LogCaptureFixture):
    rig.rules.write_text(
        WAITING.replace("10m", "0s") + "receivers: [{name: ops, log: true}]\nroute: {receiver: ops, group_wait: 0s}\n"
    )
    async with rig.monitor() as monitor:
        rig.waiting(6)
        await rig.evaluate(monitor, 5)
        await eventually(lambda: "first notification" in caplog.text)


async def test_an_alert_has_the_course_of_its_value(rig: Rig):
    rig.alerts["interval"] = 5.0
    async with rig.monitor() as monitor:
        for calls in (2, 4, 5, 9):
            rig.waiting(calls)
            await rig.evaluate(monitor, 5.0)
        [alert] = monitor.snapshot().alerts
        assert (alert.values, alert.values_s) == ((4.0, 5.0, 9.0), 15.0)  # from the moment when it became pending


async def test_rules_may_be_read_again_while_they_are_evaluated(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pool_monitor.alerts.slices.SLICE_S", 0.0)  # others work after every piece
    async with rig.monitor() as monitor:
        rig.waiting(6)
        for turn in range(10):
            rig.rules.write_text("".join([WAITING, *(EXTRA.format(n=n) for n in range(turn % 3 * 5))]))
            await asyncio.gather(monitor.alerts.evaluate(), monitor.alerts.reload(), monitor.alerts.evaluate())
            rig.clock.advance(1)
        await rig.evaluate(monitor)
        assert [one.seq for one in monitor.alerts.history(1000)][::-1] == list(
            range(1, len(monitor.alerts.history(1000)) + 1)
        )
        assert states(monitor) == {"Waiting": "pending"}
        assert [(one.from_state, one.to_state) for one in monitor.alerts.history(1000) if one.alert == "Waiting"] == [
            ("inactive", "pending")
        ]


# -- silences and acknowledgements ------------------------------------------------------------------------------------


async def firing(rig: Rig, monitor: Monitor) -> AlertView:
    rig.waiting(6)
    await rig.evaluate(monitor)
    return (await rig.evaluate(monitor, 600))[0]


async def test_silences_and_acknowledgements_are_shown_at_once_and_change_no_state(rig: Rig):
    async with rig.monitor() as monitor:
        alert, alerts = await firing(rig, monitor), monitor.alerts
        made = alerts.silence(
            {"alertname": "Waiting", "pool": {"glob": "te*"}}, duration="2h", comment="deploy", author="me"
        )
        [found] = alerts.active()
        assert (found.state, found.silenced, found.silences) == ("firing", True, (made,))
        [silence] = alerts.silences()
        assert (silence.author, silence.comment, silence.ends_at - silence.starts_at) == ("me", "deploy", 7200)
        alerts.ack(alert.fingerprint, author="you", comment="on it")
        assert alerts.active()[0].acknowledgement is not None
        alerts.unsilence(made)
        alerts.unack(alert.fingerprint)
        [found] = alerts.active()
        assert (found.silenced, found.acknowledged, alerts.silences()) == (False, False, ())
        later = alerts.silence({"pool": "text"}, duration=60.0, starts_in="1h")
        assert not alerts.active()[0].silenced
        await rig.evaluate(monitor, 3601)
        assert alerts.active()[0].silences == (later,)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda alerts: alerts.silence({}, duration="1h"), "at least one matcher"),
        (lambda alerts: alerts.silence({"pool": ""}, duration="1h"), "empty"),
        (lambda alerts: alerts.silence({"pool": "x"}, duration="5%"), "duration='5%'"),
        (lambda alerts: alerts.silence({"pool": "x"}, duration="60"), "duration='60'"),
        (lambda alerts: alerts.silence({"pool": "x"}, duration=float("nan")), "duration=nan"),
        (lambda alerts: alerts.silence({"pool": "x"}, duration=None), "duration=None"),
        (lambda alerts: alerts.silence({"pool": "x"}, duration="1h", starts_in="soon"), "starts_in='soon'"),
        (lambda alerts: alerts.unsilence("nope"), "nope"),
        (lambda alerts: alerts.ack("f" * 16), "f" * 16),
        (lambda alerts: alerts.unack("f" * 16), "f" * 16),
    ],
)
async def test_a_wrong_action_is_refused_in_words(rig: Rig, call: Any, problem: str):
    monitor = rig.monitor()
    with pytest.raises((ConfigError, UnknownName), match=problem):
        call(monitor.alerts)


# -- what survives ----------------------------------------------------------------------------------------------------


async def test_a_restart_continues_timers_silences_acknowledgements_and_numbers(rig: Rig):
    rig.state = str(rig.folder / "state.db")
    async with rig.monitor() as monitor:
        rig.waiting(6)
        [pending] = await rig.evaluate(monitor)
        await rig.evaluate(monitor, 300)
        monitor.alerts.ack(pending.fingerprint, author="me")
        monitor.alerts.silence({"pool": "text"}, duration="2h")
    async with rig.monitor() as monitor:
        [found] = monitor.alerts.active()
        assert (found.state, found.since, found.acknowledged, found.silenced) == ("pending", pending.since, True, True)
        await rig.evaluate(monitor)
        await rig.evaluate(monitor, 299)
        assert states(monitor) == {"Waiting": "pending"}
        [found] = await rig.evaluate(monitor, 1)
        assert (found.state, found.acknowledged) == ("firing", True)
        assert [one.seq for one in monitor.alerts.history()] == [2, 1]


async def test_without_a_state_a_restart_begins_anew(rig: Rig):
    async with rig.monitor() as monitor:
        await firing(rig, monitor)
        assert monitor.alerts.view().state_path is None
    async with rig.monitor() as monitor:
        assert monitor.alerts.active() == ()


async def test_a_second_process_with_the_same_state_is_refused_by_the_name_of_the_file(rig: Rig):
    rig.state = str(rig.folder / "state.db")
    async with rig.monitor():
        with pytest.raises(ConfigError, match=r"state\.db"):
            await rig.monitor().__aenter__()


async def test_what_was_stored_but_not_written_before_a_kill_is_appended_at_the_next_start(rig: Rig):
    rig.state, file = str(rig.folder / "state.db"), rig.folder / "alerts.jsonl"
    rig.alerts["file"] = str(file)
    async with rig.monitor() as monitor:
        await firing(rig, monitor)
        await eventually(lambda: file.exists() and len(file.read_text().splitlines()) == 2)
    first, second = file.read_text().splitlines(keepends=True)
    file.write_text(first + second[:30])
    async with rig.monitor() as monitor:
        rig.waiting(0)
        await rig.evaluate(monitor, 5)
        await eventually(lambda: len(file.read_text().splitlines()) == 3)
    assert [json.loads(line)["seq"] for line in file.read_text().splitlines()] == [1, 2, 3]


async def test_a_file_of_changes_that_cannot_be_written_is_reported_and_caught_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pool_monitor.alerts.announcer.RETRY_S", (0.01, 0.01))
    file = rig.folder / "absent" / "alerts.jsonl"
    rig.alerts["file"] = str(file)
    async with rig.monitor() as monitor:
        await firing(rig, monitor)
        await eventually(lambda: "alerts" in monitor.snapshot().monitor.degraded)
        assert str(file) in (monitor.alerts.view().file_degraded or "")
        file.parent.mkdir()
        await eventually(lambda: "alerts" not in monitor.snapshot().monitor.degraded)
        assert len(file.read_text().splitlines()) == 2


async def test_a_full_disk_under_the_state_costs_no_alert(rig: Rig, monkeypatch: pytest.MonkeyPatch, told: list[Any]):
    from pool_monitor.storage.state_store import StateStore

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    rig.state = str(rig.folder / "state.db")
    async with rig.monitor() as monitor:
        with monkeypatch.context() as patch:
            patch.setattr(StateStore, "write", full)
            await firing(rig, monitor)
            assert "No space" in monitor.snapshot().monitor.degraded["alerts"]
            assert "No space" in (monitor.alerts.view().state_degraded or "")
            assert len(told) == 2
        await rig.evaluate(monitor, 60)
        assert "alerts" not in monitor.snapshot().monitor.degraded
    async with rig.monitor() as monitor:
        assert states(monitor) == {"Waiting": "firing"}


# -- told -------------------------------------------------------------------------------------------------------------


async def test_what_those_who_are_told_hear_is_a_warning_and_may_be_switched_off(
    rig: Rig, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "pool_monitor.alerts")
    async with rig.monitor() as monitor:
        await firing(rig, monitor)
        rig.waiting(0)
        await rig.evaluate(monitor, 5)
    lines = [(record.levelname, record.message.split(" alert=")[0]) for record in caplog.records]
    assert lines == [("INFO", "alert pending"), ("WARNING", "alert firing"), ("WARNING", "alert resolved")]
    assert "6 wait in text" in caplog.records[1].message
    caplog.clear()
    rig.alerts["log"] = False
    async with rig.monitor() as monitor:
        await firing(rig, monitor)
    assert not caplog.records


async def test_of_a_storm_only_the_beginning_is_logged_and_nothing_is_lost(
    rig: Rig, caplog: pytest.LogCaptureFixture, told: list[Any]
):
    caplog.set_level(logging.INFO, "pool_monitor.alerts")
    rig.rules.write_text(
        "rules:\n"
        + "".join(f"  - {{alert: A{n}, threshold: {{metric: pool.waiting, above: 3}}}}\n" for n in range(200))
    )
    async with rig.monitor() as monitor:
        rig.waiting(6)
        await rig.evaluate(monitor)
        assert len(monitor.alerts.active()) == len(told) == 200
        assert monitor.alerts._evaluator.held_bytes > 200 * 500
    assert len(caplog.records) == 51
    assert "150" in caplog.records[-1].message


def test_a_transition_is_one_flat_object():
    text = msgspec.json.encode(
        AlertTransition(
            seq=1, at=2.0, alert="A", labels={}, fingerprint="0" * 16, from_state="pending", to_state="firing",
            severity="warning",
        )
    )  # fmt: skip
    assert {"seq", "at", "alert", "labels", "fingerprint", "from", "to", "severity", "value", "reason"} <= set(
        json.loads(text)
    )


async def test_what_changes_while_changes_are_settled_is_settled_after_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig.monitor() as monitor:
        evaluator, gate = monitor.alerts._evaluator, asyncio.Event()
        begun: list[int] = []
        await evaluator.settled()

        async def settle(_slices: object) -> None:
            begun.append(len(begun))
            await gate.wait()

        monkeypatch.setattr(evaluator, "_settle", settle)
        evaluator.settle_soon()
        await eventually(lambda: len(begun) == 1)
        evaluator.settle_soon()
        evaluator.settle_soon()
        gate.set()
        await eventually(lambda: len(begun) == 2)
