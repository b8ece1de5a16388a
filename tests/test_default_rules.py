"""The default rules: each of them fires when its fault is there and ends with it, and none fires in healthy hours."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from pool_monitor import Pool, telemetry
from pool_monitor.alerts import ruling
from pool_monitor.alerts.defaults import MEASURED, UNALERTED, default_rules, findings_of
from pool_monitor.alerts.rule import CheckedRule, Threshold
from pool_monitor.config import HistoryConfig, MetricsConfig
from pool_monitor.config.alerts import StateConfig
from pool_monitor.errors import ConfigError, OperationError
from pool_monitor.findings import CONDITIONS
from pool_monitor.resources.orphans import Orphan
from pool_monitor.resources.proc import Identity
from pool_monitor.run_token import ServiceRun
from pool_monitor.snapshot import HistoryView
from pool_monitor.storage.state_store import StateStore
from pool_monitor.storage.store import Store
from pool_monitor.view.freshness import LIVE
from pool_monitor.view.notices import notices
from tests.helpers.default_faults import FIRED
from tests.helpers.fault_server import FaultServer, ok, status
from tests.helpers.programs import ROOT
from tests.helpers.simulated import GIB, Load, Service, SimulatedPool, service
from tests.helpers.support import eventually, pid_of
from tests.test_degradation import ROWS
from tests.test_degradation import Load as Overload
from tests.test_docs import generate

__all__ = ["generate"]
pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]
RULES = {rule.alert: rule for rule in default_rules()}


def test_the_table_has_every_default_rule_with_the_worst_of_its_severities_or_the_one_that_it_can_reach():
    assert FIRED.keys() == RULES.keys()
    assert all(severity in RULES[alert].severities for alert, (severity, _) in FIRED.items())


def test_every_finding_has_a_default_rule_or_a_reason_why_not():
    read = Counter(kind for rule in RULES.values() for kind in findings_of(rule))
    assert read.keys() | UNALERTED.keys() == CONDITIONS.keys()
    assert not read.keys() & UNALERTED.keys()
    assert MEASURED.keys() <= RULES.keys()
    # The memory of a worker and that of the host are one kind of finding.
    assert {kind for kind, count in read.items() if count > 1} == {"memory"}


def test_every_default_rule_has_a_summary_and_a_section_of_the_playbook(generate: ModuleType):
    headings = generate.headings
    anchors = {anchor for _, _, anchor in headings((ROOT / "docs" / "OPERATIONS_PLAYBOOK.md").read_text())}
    for rule in RULES.values():
        annotations = dict(rule.annotations)
        assert annotations["summary"]
        assert re.fullmatch(r"docs/OPERATIONS_PLAYBOOK\.md#([a-z0-9-]+)", annotations["runbook"])
        assert annotations["runbook"].partition("#")[2] in anchors, rule.alert
        assert rule.default


# -- healthy hours ----------------------------------------------------------------------------------------------------


async def healthy(seed: int, seconds: int) -> None:
    async with service() as made:
        await made.go_on(seconds, Load(made, seed).second)
        assert made.fired() == {}
        assert made.monitor.alerts.view().failing == {}
        # Nothing has come near to firing either.
        assert {name: pended for name, pended in made.pended.items() if pended > RULES[name].for_ / 2} == {}
        assert made.pool.completed > 20 * seconds


async def test_minutes_of_healthy_load_fire_nothing():
    await healthy(1, 200)


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_an_hour_of_healthy_load_fires_nothing(seed: int):
    await healthy(seed, 3600)


# -- each rule is fired and resolved ----------------------------------------------------------------------------------


def check(made: Service, *others: str) -> set[str]:
    """Check the severities of what has fired, and that all of it is over. Return the rules; *others* may fire too."""
    fired = made.fired()
    assert {alert: fired[alert] for alert in fired if alert not in others} == {
        alert: FIRED[alert][0] for alert in fired if alert not in others
    }
    assert made.active() == {}
    return fired.keys() - {*others}


SIMULATED = {
    "FailingCalls", "FailingRareCalls", "QueueWait", "QueueFull", "Refusals", "PoolBusy", "NoWorker", "WorkersMissing",
    "CrashLoop", "WorkerStuck", "AllWorkersHeld", "BreakerOpen", "PoolPaused", "Sessions",
    "WorkerMemory", "WorkerLeak", "DescriptorLeak", "WorkerHotIdle", "WorkerStopped", "Zombies", "Orphan", "HostMemory",
    "HostCpu", "Throttled", "OutOfMemory", "Disk", "SharedMemory", "Descriptors", "Processes", "Threads", "LoopLag",
    "LoopBlocked", "TelemetryDropped", "HandlerDetached", "SeriesOverflow", "SeriesNear", "MonitorDegraded",
}  # fmt: skip


class Faults:
    """Everything that can be wrong with pools and resources, at once."""

    def __init__(self) -> None:
        sizes = {"text": 4, "dead": 3, "held": 1, "gone": 1, "paused": 1}
        self.pools = [SimulatedPool(size, name) for name, size in sizes.items()]
        self.text, self.dead, self.held, self.gone, self.paused = self.pools

    def begin(self, made: Service) -> None:
        self.text.of_pool = {"waiting": 950, "sessions": 100, "breaker": "open"}
        self.text.of_workers["text-2"] = {"health": "stuck"}
        self.dead.of_workers = {"dead-0": {"state": "terminated"}, "dead-1": {"crash_loop": True}}
        self.gone.of_pool = {"idle": 0, "starting": 1}
        self.gone.of_workers = {slot: {"state": "initializing"} for slot in self.gone.slots}
        self.paused.of_pool = {"state": "paused", "waiting": 3}
        made.host |= {
            "cpu_ratio": 0.99, "throttled_ratio": 0.6, "memory_ratio": 0.97, "memory_used": round(7.8 * GIB),
            "disk_free": 4 * GIB, "shm_free": GIB // 20, "fds": 95_000, "processes": 7_800, "oom_kills": 2,
        }  # fmt: skip
        made.process |= {"user_threads": 95, "threads_limit": 100}
        made.lag_s = 2.5
        made.workers["dead-1"] = {"state_letter": "T"}
        made.workers["held-0"] = {"zombies": 1, "zombie_duration": 11 * 10**9}
        made.workers["dead-2"] = {"cpu_ratio": 0.9}
        identity = Identity(4242, 1)
        made.orphans[identity] = Orphan(identity, ServiceRun(4000, 1, "n", "s"), "sleep 1000")
        made.monitor.context.degraded("otlp", "the receiver does not answer")
        telemetry.attach("test.broken", ("test", "event"), lambda *_: 1 / 0)
        telemetry.execute(("test", "event"), {}, {})

    def second(self, made: Service, began: int) -> None:
        passed = made.seconds - began
        for slot in range(4):
            self.text.ended("slow", 1.0, waited=40.0, slot=slot)
        self.text.failed("bad")
        self.text.refused("slow")
        if passed % 6 == 0:
            self.text.failed("rare")
        if passed % 20 == 0:
            telemetry.execute(("pool", "operation", "stop"), {"duration": "long"}, self.text.identity.metadata)
        monitor = made.monitor.snapshot().monitor if 100 < passed < 130 else None
        if passed > 200 or (monitor and monitor.series < 0.9 * monitor.series_limit):
            self.text.ended(f"another {passed}", 0.001)
        self.held.busy = 1
        self.held.of_pool = {"waiting": 1}
        self.held.of_workers = {slot: {"state_age": float(passed)} for slot in self.held.slots}
        grown = min(GIB // 5 + passed * 3 * 2**20, round(0.97 * GIB))
        made.workers["text-0"] = {"rss": grown, "fds": min(20 + 4 * passed, 1000)}

    def end(self, made: Service) -> None:
        for pool in self.pools:
            pool.of_pool, pool.of_workers, pool.busy = {}, {}, 0
        fine = Service.fine()
        made.host, made.process, made.lag_s = *fine, 0.001
        made.workers, made.orphans = {}, {}
        made.monitor.context.recovered("otlp", "it answers")

    def well(self) -> None:
        for operation in ("slow", "bad", "rare"):
            for _ in range(3):
                self.text.ended(operation, 0.01)


@pytest.mark.slow
@pytest.mark.gate
async def test_rules_about_pools_and_resources_fire_and_end():
    faults = Faults()
    async with service(*faults.pools, pace=2, metrics=MetricsConfig(series_limit=60)) as made:
        await made.go_on(20, faults.well)
        assert made.active() == {}
        faults.begin(made)
        began = made.seconds
        await made.go_on(380, lambda: faults.second(made, began))
        assert SIMULATED - made.fired().keys() == set()
        faults.end(made)
        await made.go_on(400, faults.well)
        assert check(made) == SIMULATED


def shortened(alert: str, kind: dict[str, Any] | None = None, **fields: Any) -> CheckedRule:
    """A default rule with other times."""
    rule = RULES[alert]
    return structs.replace(rule, kind=structs.replace(rule.kind, **(kind or {})), **fields)


@pytest.mark.slow
@pytest.mark.gate
async def test_rules_that_compare_with_the_past_fire_and_end():
    slow = RULES["SlowCalls"].kind
    assert isinstance(slow, Threshold)
    day = structs.replace(slow.levels[0].bound, seconds=7200.0)
    levels = tuple(
        structs.replace(one, bound=structs.replace(day, times=one.bound.times), clear=one.clear and day)
        for one in slow.levels
    )
    async with service(alerts={"default_rules": False}) as made:
        made.monitor.alerts.add(shortened("SlowCalls", {"levels": levels}, for_=20.0))
        made.monitor.alerts.add(shortened("ThroughputFell", {"against": 300.0}, for_=20.0))

        def calls(seconds: float, number: int) -> None:
            for _ in range(number):
                made.pool.ended("op", seconds)

        await made.go_on(320, lambda: calls(0.1, 5))
        assert made.active() == {}
        await made.go_on(310, lambda: calls(1.0, 1))
        assert made.fired().keys() == {"SlowCalls", "ThroughputFell"}
        await made.go_on(340, lambda: calls(0.1, 5))
        assert check(made) == {"SlowCalls", "ThroughputFell"}


TARGET = """
import os
if os.path.exists({flag!r}):
    raise RuntimeError("no licence")

class Target:
    def echo(self, value):
        return value

    def fail(self):
        raise ValueError("as asked")
"""


@pytest.mark.slow
@pytest.mark.gate
async def test_rules_about_a_real_pool_fire_and_end(tmp_path: Path):
    flag, target = tmp_path / "flag", tmp_path / "target.py"
    target.write_text(TARGET.format(flag=str(flag)))
    pool = Pool(f"{target}:Target", name="real", size=1, backoff_min=0.02, backoff_max=0.1, restart_period=0.3)
    async with pool, service(pool, pace=2) as made:

        async def killed() -> None:
            """Kill the worker, and wait until the pool has seen it."""
            deaths = made.monitor.snapshot().pools["real"].deaths
            os.kill(pid_of(pool), signal.SIGKILL)
            await eventually(lambda: made.monitor.snapshot().pools["real"].deaths > deaths)

        await made.go_on(10)
        assert made.active() == {}
        for _ in range(70):
            with pytest.raises(OperationError):
                await pool.run("fail")
        await made.go_on(40)
        assert made.active() == {"FailingCalls": "firing"}

        await pool.pause()
        waiting = asyncio.ensure_future(pool.run("echo", 1))
        await eventually(lambda: pool.status().waiting)
        await made.go_on(40)
        assert made.active()["PoolPaused"] == "firing"
        await pool.resume()
        assert await waiting == 1

        await killed()
        await eventually(lambda: pool.status().idle)
        await made.go_on(10)
        assert made.active()["WorkerDied"] == "firing"
        flag.touch()
        await killed()
        await eventually(lambda: pool.status().breaker == "open")
        await made.go_on(20)
        assert made.active().keys() >= {"CannotStart", "NoWorker", "BreakerOpen"}
        flag.unlink()
        await eventually(lambda: pool.status().idle and not pool.status().crash_loops)
        for number in range(5):
            assert await pool.run("echo", number) == number
        assert pool.status().breaker == "closed"
        await made.go_on(330)
        # A worker that starts may be seen starting.
        assert check(made, "WorkersMissing") == {
            "FailingCalls", "PoolPaused", "WorkerDied", "CannotStart", "NoWorker", "BreakerOpen",
        }  # fmt: skip


# -- rules about the monitor ------------------------------------------------------------------------------------------


async def test_rules_about_the_monitor_fire_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: []")
    async with service(
        SimulatedPool(1, "one"),
        SimulatedPool(1, "two"),
        pace=2,
        alerts={"rules": (str(rules),)},
        state=StateConfig(path=str(tmp_path / "state.db")),
        metrics=MetricsConfig(series_limit=3 * ROWS, memory_limit=10_000_000),
    ) as made:
        await made.go_on(10)
        assert made.active() == {}
        elsewhere = SimpleNamespace(held_bytes=0)
        real = ruling.evaluate

        def evaluate(rule: CheckedRule, *others: Any) -> Any:
            if rule.alert == "Odd":
                raise RuntimeError("a defect")
            return real(rule, *others)

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(ruling, "evaluate", evaluate)
        monkeypatch.setattr(StateStore, "write", full)
        made.monitor.alerts.add({"alert": "Odd", "threshold": {"metric": "pool.size", "above": 9}})
        made.monitor.alerts.add({"alert": "Many", "threshold": {"metric": "pool.size", "above": 0}, "limit": 1})
        rules.write_text("rules: [{alert: A}]")
        with pytest.raises(ConfigError):
            await made.monitor.alerts.reload()
        [part] = [runner.part for runner in made.monitor._parts.values() if runner.name == "alerts"]
        limit = made.monitor.snapshot().monitor.memory_limit_bytes
        monkeypatch.setattr(type(part), "held_bytes", property(lambda _: elsewhere.held_bytes))
        elsewhere.held_bytes = round(0.93 * limit)
        await made.go_on(60)
        elsewhere.held_bytes = 0
        overload = Overload("one")
        await made.go_on(12, lambda: overload.second(2000))
        await made.go_on(60)
        monkeypatch.undo()
        made.monitor.alerts.remove("Odd")
        made.monitor.alerts.remove("Many")
        rules.write_text("rules: []")
        await made.monitor.alerts.reload()
        await made.go_on(200)
        assert made.active() == {}
        identity, (spec, function) = next(iter(made.monitor._collector._intake.handlers().items()))
        telemetry.detach(identity)
        await made.go_on(10)
        telemetry.attach(identity, spec.name, function)
        await made.go_on(10)
        fired = check(made, "Many")
        assert fired == {
            "RuleFailing", "RulesNotReloaded", "AlertsRefused", "StateNotKept", "CollectingStopped", "MonitorMemory",
            "MonitorReduced",
        }  # fmt: skip


async def test_rules_about_the_history_fire_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    history = HistoryConfig(path=str(tmp_path / "history.db"), size_limit=8 * 2**20, flush_interval=0.02)
    usage, write = Store.usage, Store.write
    small = {"file_bytes": 8 * 2**20 - 1000, "disk_free": 4, "disk_total": 100}
    async with service(pace=2, history=history) as made:

        def view() -> HistoryView:
            found = made.monitor.snapshot().monitor.history
            assert found is not None
            return found

        await eventually(lambda: view().file_bytes)
        monkeypatch.setattr(Store, "usage", lambda store: usage(store)._replace(**small))
        await eventually(lambda: view().disk_free == 4)
        await made.go_on(45)

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Store, "write", full)
        made.pool.ended("op", 0.01)
        await made.go_on(2)
        await eventually(lambda: view().degraded)
        await made.go_on(45)
        monkeypatch.setattr(Store, "write", write)
        monkeypatch.setattr(Store, "usage", usage)
        await eventually(lambda: view().degraded is None and view().disk_free != 4)
        await made.go_on(40)
        assert check(made) == {"HistoryNear", "HistoryDisk", "HistoryDegraded"}


# -- rules about delivery ---------------------------------------------------------------------------------------------


async def test_a_receiver_that_refuses_a_message_is_told_to_another_one(tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    async with FaultServer() as server:
        server.script("/ops", status(404))
        rules.write_text(RECEIVERS.format(ops=server.url("/ops"), post=server.url("/post")))
        async with service(pace=2, alerts={"rules": (str(rules),)}) as made:
            made.pool.of_pool = {"breaker": "open"}
            await made.go_on(10)
            await eventually(lambda: made.monitor.alerts.view().parked)
            await made.go_on(30)
            assert made.active() == {"BreakerOpen": "firing", "NotificationParked": "firing"}
            [parked] = [one for one in made.monitor.alerts.active() if one.alertname == "NotificationParked"]
            assert parked.summary == "messages about alerts have not arrived (1): ops: answered 404"
            await eventually(lambda: server.of("/post"))
            snapshot = made.monitor.snapshot()
            texts = [one.text for one in notices(snapshot, snapshot.pools["text"], LIVE)]
            assert [text for text in texts if "arrived" in text or "Parked" in text] == [
                "1 message to ops has not arrived: answered 404"
            ]
            server.script("/ops", ok())
            assert (await made.monitor.alerts.test_receiver("ops")).result == "sent"
            await eventually(lambda: not made.monitor.alerts.view().owed)
            made.pool.of_pool = {}
            await made.go_on(120)
            assert check(made) == {"BreakerOpen", "NotificationParked"}
            await eventually(lambda: len(server.of("/post")) == 2)
            assert [one.json["type"] for one in server.of("/post")] == ["alert.firing", "alert.resolved"]


RECEIVERS = """
rules: []
route:
  receiver: ops
  group_wait: 0s
  group_interval: 1s
  routes: [{{match: {{alertname: NotificationParked}}, receiver: post}}]
receivers: [{{name: ops, webhook: {{url: "{ops}"}}}}, {{name: post, webhook: {{url: "{post}"}}}}]
"""


# -- told once --------------------------------------------------------------------------------------------------------


async def test_a_finding_and_the_default_rule_about_it_are_one_notice():
    async with service() as made:
        made.host |= {"memory_ratio": 0.97, "memory_used": round(0.97 * made.host["memory_total"])}
        made.pool.of_pool = {"breaker": "open"}
        made.workers["text-1"] = {"rss": GIB, "zombies": 1, "zombie_duration": 11 * 10**9}
        telemetry.execute(("pool", "operation", "stop"), {"duration": "long"}, made.pool.identity.metadata)
        await made.go_on(75)
        assert made.active() == dict.fromkeys(
            ("HostMemory", "BreakerOpen", "WorkerMemory", "Zombies", "TelemetryDropped"), "firing"
        )
        snapshot = made.monitor.snapshot()
        texts = [one.text for one in notices(snapshot, snapshot.pools["text"], LIVE)]
        assert len(texts) == 5, texts
        # Who silences the alert is not told of the finding either.
        for alert in ("HostMemory", "TelemetryDropped"):
            made.monitor.alerts.silence({"alertname": alert}, duration="1h", comment="known", author="me")
        snapshot = made.monitor.snapshot()
        assert len(notices(snapshot, snapshot.pools["text"], LIVE)) == 3


# -- rules of the same name -------------------------------------------------------------------------------------------


async def test_a_rule_of_the_same_name_takes_the_place_of_a_default_one(tmp_path: Path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n"
        "  - {alert: PoolBusy, threshold: {metric: pool.busy, above: 3}}\n"
        "  - {alert: Both, all: [{alert: PoolBusy}, {alert: Sessions}]}\n"
    )
    async with service(alerts={"rules": (str(rules),), "disable": ("WorkerLeak",)}) as made:

        def origins() -> dict[str, bool]:
            return {one.alertname: one.default for one in made.monitor.alerts.rules()}

        names = origins()
        assert (names["PoolBusy"], names["Both"], names["Sessions"]) == (False, False, True)
        assert names.keys() == RULES.keys() - {"WorkerLeak", "ThroughputFell"} | {"Both"}  # there is no history
        made.monitor.alerts.add({"alert": "Zombies", "finding": "zombie", "for": "1h"})
        assert origins()["Zombies"] is False
        with pytest.raises(ConfigError, match="PoolBusy"):
            made.monitor.alerts.add({"alert": "PoolBusy", "threshold": {"metric": "pool.busy", "above": 1}})
        await made.monitor.alerts.reload()
        assert origins() == names | {"Zombies": False}
        made.monitor.alerts.remove("Zombies")
        await made.monitor.alerts.reload()
        assert "Zombies" not in origins()
