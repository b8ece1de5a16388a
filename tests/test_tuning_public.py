"""`Monitor.advisor` and `Monitor.tuner`, and the same over HTTP: what a person asks for is done, kept and noted."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pool_monitor import Monitor, telemetry
from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.history import PoolHistory
from pool_monitor.advisor.patterns import PATTERNS
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig, StateConfig, TunerConfig
from pool_monitor.config.advisor import AdvisorConfig
from pool_monitor.config.alerts import AlertsConfig
from pool_monitor.errors import ConfigError, ConnectError, PoolError, UnknownName
from pool_monitor.events import ADVICE_TRANSITION, MONITOR_ACTION, TUNING_TRANSITION
from pool_monitor.service.client import Address, open_client
from pool_monitor.snapshot import Change, Effect
from pool_monitor.testing import InlinePool
from pool_monitor.tuner.observation import Observation
from tests.helpers.programs import runtime_dir

__all__ = ["runtime_dir"]
pytestmark = pytest.mark.usefixtures("runtime_dir", "no_leaks")


class Target:
    def work(self, value: int) -> int:
        return value


class Three:
    """A policy that wants three workers."""

    def decide(self, observation: Observation) -> int:
        return 3


def configured(path: Path | None = None, **tuner: Any) -> MonitorConfig:
    return MonitorConfig(
        service=ServiceConfig(actions=True),
        resources=ResourcesConfig(enabled=False),
        alerts=AlertsConfig(enabled=False),
        tuner=TunerConfig(interval=3600, **tuner),
        state=StateConfig(path=None if path is None else str(path / "state.db")),
    )


@asynccontextmanager
async def entered(config: MonitorConfig | None = None) -> AsyncIterator[tuple[InlinePool, Monitor]]:
    async with (
        InlinePool(Target, name="text", size=2, min_size=1, max_size=4) as pool,
        Monitor(pool, config=config or configured()) as monitor,
    ):
        await monitor.tuner.step()
        yield pool, monitor


def at(monitor: Monitor) -> Address:
    assert monitor.address is not None
    return Address("it", monitor.address, "http://localhost")


def growing(history: PoolHistory) -> list[Detection]:
    """A pattern that always finds that the pool should have one worker more."""
    return [
        Detection(
            pattern="overloaded", subject=f"pool {history.pool}", summary="calls\x1b[2J wait", action="more workers",
            evidence={"wait_seconds": 0.5}, samples=100, p=0.0, fidelity=1.0, impact=1.0, urgency=1.0, risk=1,
            samples_min=10, change=Change(knob="size", current=2, proposed=3),
            effect=Effect(metric="pool.queue.p95", now=0.5, expected=0.1, low=0.05, high=0.2),
        )
    ]  # fmt: skip


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    for pattern in list(PATTERNS):
        monkeypatch.delitem(PATTERNS, pattern)
    monkeypatch.setitem(PATTERNS, "overloaded", growing)


# the advisor


@pytest.mark.usefixtures("found")
async def test_what_lasts_is_recommended_told_explained_and_dismissed_for_good(tmp_path: Path):
    with telemetry.capture(ADVICE_TRANSITION.name) as events:
        async with entered(configured(tmp_path)) as (_, monitor):
            assert monitor.advisor.recommendations() == ()
            for _ in range(3):
                await monitor.advisor.advise()
            [advice] = monitor.advisor.recommendations()
            assert monitor.snapshot().recommendations == (advice,)
            assert (advice.pattern, advice.subject, advice.pool) == ("overloaded", "pool text", "text")
            assert "\x1b" not in advice.summary
            assert advice.playbook.endswith("#advice-overloaded")
            assert "overloaded" in monitor.advisor.explain(advice.id)
            with pytest.raises(UnknownName, match=advice.id):
                monitor.advisor.dismiss("none")
            monitor.advisor.dismiss(advice.id, "we know", author="anna")
            assert monitor.advisor.recommendations() == ()
            with pytest.raises(ConfigError, match="already"):
                monitor.advisor.dismiss(advice.id)
            await monitor.advisor.settled()
        async with entered(configured(tmp_path)) as (_, monitor):
            for _ in range(4):
                await monitor.advisor.advise()
            assert monitor.advisor.recommendations() == ()
            assert "we know" in monitor.advisor.explain(advice.id)
    assert [(event.metadata["from"], event.metadata["to"]) for event in events] == [("", "new"), ("new", "dismissed")]
    for event in events:
        assert ADVICE_TRANSITION.problems(event.measurements, event.metadata) == []


async def test_a_pattern_that_raises_costs_itself_alone(monkeypatch: pytest.MonkeyPatch):
    for pattern in list(PATTERNS):
        monkeypatch.delitem(PATTERNS, pattern)
    monkeypatch.setitem(PATTERNS, "leak", lambda _history: 1 / 0)
    monkeypatch.setitem(PATTERNS, "overloaded", growing)
    async with entered() as (_, monitor):
        for _ in range(3):
            await monitor.advisor.advise()
        assert [one.pattern for one in monitor.advisor.recommendations()] == ["overloaded"]
        assert "division" in monitor.advisor.failing["leak"]
        assert monitor.snapshot().monitor.degraded == {}


async def test_without_the_advisor_nothing_is_recommended_and_the_tuner_works():
    async with entered(MonitorConfig(advisor=AdvisorConfig(enabled=False), tuner=TunerConfig(interval=3600))) as (
        pool,
        monitor,
    ):
        with pytest.raises(PoolError, match="enabled = false"):
            await monitor.advisor.advise()
        made = monitor.tuner.propose("text", "size", 3)
        monitor.tuner.approve(made)
        await monitor.tuner.settled()
        assert pool.size == 3


async def test_before_a_monitor_is_entered_there_is_nothing_to_ask():
    monitor = Monitor(InlinePool(Target, name="text"))
    assert (monitor.advisor.recommendations(), monitor.tuner.pending(), monitor.tuner.history()) == ((), (), ())
    assert monitor.tuner.mode == "recommend"
    for asked in (monitor.tuner.approve, monitor.tuner.reject, monitor.tuner.explain, monitor.advisor.explain):
        with pytest.raises(UnknownName, match="there is none"):
            asked("a1")
    with pytest.raises(UnknownName):
        monitor.tuner.rollback()
    with pytest.raises(ConfigError, match="off"):
        monitor.tuner.freeze("release")
    with pytest.raises(PoolError, match="entered"):
        await monitor.advisor.advise()


# the tuner


async def test_an_approved_change_is_made_told_counted_and_undone_on_request():
    with telemetry.capture(TUNING_TRANSITION.name) as events:
        async with entered() as (pool, monitor):
            tuner = monitor.tuner
            made = tuner.propose("text", "size", 3, reason="a rise comes", author="anna")
            await tuner.settled()
            assert [(one.id, one.why, one.state) for one in tuner.pending()] == [
                (made, "a rise comes", "awaiting_approval")
            ]
            assert pool.size == 2
            tuner.approve(made[:4], author="bert")
            await tuner.settled()
            assert (pool.size, tuner.pending()) == (3, ())
            assert "size of pool text" in tuner.explain(made)
            assert tuner.rollback(author="bert") == [made]
            await tuner.settled()
            assert pool.size == 2
            [undone] = tuner.history()
            assert (undone.state, undone.actor) in (("verifying", "bert"), ("rolled_back", "bert"))
            assert monitor.snapshot().tuning is not None
    told = [event.metadata["to"] for event in events]
    assert told[:3] == ["proposed", "awaiting_approval", "applying"]
    assert "rolling_back" in told
    for event in events:
        assert TUNING_TRANSITION.problems(event.measurements, event.metadata) == []


async def test_what_does_not_fit_is_refused_in_words():
    async with entered() as (pool, monitor):
        tuner = monitor.tuner
        with pytest.raises(ConfigError, match="off, recommend, auto"):
            tuner.mode = "on"  # type: ignore[assignment]
        with pytest.raises(ConfigError, match="1h"):
            tuner.freeze("release", duration="soon")
        with pytest.raises(UnknownName, match="text"):
            tuner.propose("other", "size", 3)
        with pytest.raises(UnknownName, match="size"):
            tuner.propose("text", "colour", 3)
        with pytest.raises(ConfigError, match="from 1 to 4"):
            tuner.propose("text", "size", 40)
        with pytest.raises(UnknownName):
            tuner.approve("none")
        made = tuner.propose("text", "size", 3)
        tuner.reject(made, reason="not now", author="anna")
        with pytest.raises(ConfigError, match="rejected"):
            tuner.approve(made)
        await tuner.settled()
        assert pool.size == 2


async def test_a_freeze_is_shown_with_its_end_and_thawed():
    async with entered() as (_, monitor):
        monitor.tuner.freeze("release\x1b[2J", duration="1h", author="anna")
        await monitor.tuner.settled()
        view = monitor.tuner.view()
        assert view is not None
        assert view.frozen is not None
        assert view.frozen.startswith("release")
        assert view.frozen_until == pytest.approx(monitor.snapshot().taken_at + 3600, abs=60)
        monitor.tuner.thaw()
        await monitor.tuner.settled()
        view = monitor.tuner.view()
        assert view is not None
        assert view.frozen is None


async def test_switching_off_undoes_what_is_on_trial():
    async with entered() as (pool, monitor):
        made = monitor.tuner.propose("text", "size", 3)
        monitor.tuner.approve(made)
        await monitor.tuner.settled()
        assert pool.size == 3
        monitor.tuner.mode = "off"
        await monitor.tuner.settled()
        assert pool.size == 2
        with pytest.raises(ConfigError, match="off"):
            monitor.tuner.approve(monitor.tuner.propose("text", "size", 3))


async def test_what_is_on_trial_is_undone_when_the_monitor_is_left(tmp_path: Path):
    async with InlinePool(Target, name="text", size=2, min_size=1, max_size=4) as pool:
        async with Monitor(pool, config=configured(tmp_path)) as monitor:
            await monitor.tuner.step()
            monitor.tuner.approve(monitor.tuner.propose("text", "size", 3))
            await monitor.tuner.settled()
            assert pool.size == 3
        assert pool.size == 2
        async with Monitor(pool, config=configured(tmp_path)) as monitor:
            await monitor.tuner.step()
            [undone] = monitor.tuner.history()
            assert (undone.state, pool.size) == ("rolled_back", 2)


@pytest.mark.usefixtures("found")
async def test_a_monitor_that_is_entered_again_goes_on_with_what_it_knows():
    async with InlinePool(Target, name="text", size=2, min_size=1, max_size=4) as pool:
        monitor = Monitor(pool, config=configured())
        async with monitor:
            for _ in range(3):
                await monitor.advisor.advise()
            await monitor.tuner.step()
            made = monitor.tuner.propose("text", "size", 3)
        known = monitor.advisor.recommendations()
        assert len(known) == 1
        async with monitor:
            assert monitor.advisor.recommendations() == known
            await monitor.tuner.step()
            assert made in [one.id for one in monitor.tuner.pending()]
            monitor.tuner.approve(made)
            await monitor.tuner.settled()
            assert pool.size == 3


async def test_leaving_waits_for_a_pass_and_leaves_no_thread():
    async with entered() as (_, monitor):
        passing = asyncio.create_task(monitor.advisor.advise())
        await asyncio.sleep(0)
    await asyncio.wait_for(passing, 5)


async def test_the_kill_switch_wins_over_every_mode(monkeypatch: pytest.MonkeyPatch):
    async with entered(configured(mode="auto")) as (pool, monitor):
        made = monitor.tuner.propose("text", "size", 3)
        monitor.tuner.approve(made)
        await monitor.tuner.settled()
        assert (pool.size, monitor.tuner.mode) == (3, "auto")
        monkeypatch.setenv("POOL_MONITOR_TUNER", "off")
        await monitor.tuner.step()
        assert (pool.size, monitor.tuner.mode) == (2, "off")
        with pytest.raises(ConfigError, match="POOL_MONITOR_TUNER"):
            monitor.tuner.mode = "auto"


async def test_a_tuner_that_is_off_can_be_switched_on_while_the_service_runs():
    async with entered(configured(mode="off")) as (_, monitor):
        assert (monitor.tuner.mode, monitor.tuner.view(), monitor.snapshot().tuning) == ("off", None, None)
        monitor.tuner.mode = "recommend"
        async with asyncio.timeout(10):
            while not (view := monitor.tuner.view()) or not view.sizing:
                await asyncio.sleep(0.01)
        assert view.mode == "recommend"


async def test_a_policy_that_cannot_be_made_is_refused_when_the_monitor_is_entered():
    with pytest.raises(ConfigError, match="nowhere cannot be imported"):
        async with entered(configured(policy="nowhere:Steps")):
            pass


async def test_a_defect_of_the_tuner_costs_its_own_part_of_the_snapshot_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    async with entered() as (_, monitor):
        monkeypatch.setattr(monitor.tuner, "view", lambda: 1 / 0)
        monkeypatch.setattr(monitor.advisor, "recommendations", lambda: 1 / 0)
        snapshot = monitor.snapshot()
        assert (snapshot.tuning, snapshot.recommendations, list(snapshot.pools)) == (None, (), ["text"])
        assert "a Snapshot has a gap" in caplog.text
        monkeypatch.undo()


async def test_what_a_policy_decides_is_in_the_history_also_after_a_restart(tmp_path: Path):
    one = InlinePool(Target, name="text", size=2, min_size=1, max_size=4)
    config = configured(tmp_path, mode="auto", policy="tests.test_tuning_public:Three", season=False)
    async with one as pool:
        async with Monitor(pool, config=config) as monitor:
            for _ in range(2):
                await monitor.tuner.step()
            assert pool.size == 3
        async with Monitor(pool, config=config) as monitor:
            await monitor.tuner.step()
            [made] = monitor.tuner.history()
            assert (made.state, made.origin, made.before, made.after) == ("set", "policy", 2.0, 3.0)


async def test_what_was_decided_survives_a_restart(tmp_path: Path):
    async with entered(configured(tmp_path)) as (_, monitor):
        made = monitor.tuner.propose("text", "size", 3, author="anna")
        monitor.tuner.mode = "auto"
        await monitor.tuner.settled()
    async with entered(configured(tmp_path)) as (_, monitor):
        assert monitor.tuner.mode == "auto"
        assert made in {one.id for one in (*monitor.tuner.pending(), *monitor.tuner.history())}


@pytest.mark.slow
@pytest.mark.gate
def test_while_both_are_off_nothing_of_them_is_loaded():
    code = """
import asyncio, sys
from pool_monitor import Monitor
from pool_monitor.config import MonitorConfig, ServiceConfig, TunerConfig
from pool_monitor.config.advisor import AdvisorConfig
from pool_monitor.testing import InlinePool
class Target:
    def work(self): pass
async def main():
    off = MonitorConfig(
        service=ServiceConfig(socket=False), tuner=TunerConfig(mode="off"), advisor=AdvisorConfig(enabled=False)
    )
    async with InlinePool(Target, name="text") as pool, Monitor(pool, config=off) as monitor:
        monitor.snapshot()
        await monitor.ticked()
asyncio.run(main())
print([name for name in sys.modules if name in ("pool_monitor.advisor.journal", "pool_monitor.tuner.core")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == "[]", done.stderr


# over HTTP


@pytest.mark.usefixtures("found")
async def test_a_viewer_reads_and_decides_and_every_action_is_noted():
    with telemetry.capture(MONITOR_ACTION.name) as events:
        async with entered() as (pool, monitor), open_client(at(monitor)) as service:
            for _ in range(3):
                await monitor.advisor.advise()
            [advice] = (await service.recommendations()).recommendations
            assert "overloaded" in await service.explain("recommendations", advice.id)
            await service.dismiss(advice.id, "known", author="anna")
            assert (await service.recommendations()).recommendations == ()
            made = await service.propose("text", "size", 3, reason="a rise", author="anna")
            await service.tune("approve", made, author="anna")
            report = await service.tuning()
            assert (pool.size, [one.id for one in report.history]) == (3, [made])
            assert report.tuning is not None
            assert report.tuning.mode == "recommend"
            assert "size" in await service.explain("tuning", made)
            assert await service.roll_back(author="anna") == [made]
            other = await service.propose("text", "size", 4)
            await service.tune("reject", other, reason="no")
            await service.freeze("release", "1h", author="anna")
            await service.thaw()
            await service.set_tuner_mode("off")
            assert monitor.tuner.mode == "off"
            for wrong in (service.set_tuner_mode("on"), service.freeze("x", "soon"), service.tune("approve", "zzz")):
                with pytest.raises(ConfigError):
                    await wrong
    assert [event.metadata["action"] for event in events[:4]] == ["dismiss", "propose", "approve", "rollback-latest"]
    assert {event.metadata["author"] for event in events[:4]} == {"anna"}


async def test_reading_needs_no_permission_and_deciding_does():
    config = MonitorConfig(service=ServiceConfig(actions=False), tuner=TunerConfig(interval=3600))
    async with entered(config) as (_, monitor), open_client(at(monitor)) as service:
        assert (await service.tuning()).history == ()
        for asked in (service.set_tuner_mode("auto"), service.propose("text", "size", 3), service.roll_back()):
            with pytest.raises(ConfigError, match=r"\[service\] actions = true"):
                await asked
        transport = httpx.ASGITransport(monitor.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            for path in ("/v1/recommendations", "/v1/tuning"):
                assert path in (await http.get("/")).text
                assert json.loads((await http.get(path)).content)
            assert (await http.get("/v1/tuning", params={"limit": "x"})).status_code == 400
            assert (await http.get("/v1/tuning/zzz/explain")).status_code == 404


async def test_a_service_of_an_older_version_is_said_to_be_one():
    from starlette.applications import Starlette

    from pool_monitor.service.client import Client

    transport = httpx.ASGITransport(Starlette())
    async with httpx.AsyncClient(transport=transport, base_url="http://old") as http:
        for asked in (Client(http).tuning(), Client(http).recommendations(), Client(http).explain("tuning", "a")):
            with pytest.raises(ConnectError, match="older version"):
                await asked


class Counting:
    """A policy that counts how often it is asked."""

    asked = 0

    def decide(self, observation: Observation) -> None:
        type(self).asked += 1


async def test_a_thousand_requests_at_once_are_done_together_and_ask_no_policy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Counting, "asked", 0)
    steps = 0

    async with entered(configured(policy=f"{__name__}:Counting")) as (_pool, monitor):
        tuner, before = monitor.tuner, Counting.asked
        step = tuner._step

        async def counted(**how: bool) -> None:
            nonlocal steps
            steps += 1
            await step(**how)

        monkeypatch.setattr(tuner, "_step", counted)
        for number in range(1001):
            made = tuner.propose("text", "size", 3 + number % 2)
            (tuner.approve if number % 3 else tuner.reject)(made)
        await tuner.settled()
        assert steps <= 2
        assert Counting.asked == before
        states = [one.state for one in tuner.history()]
        assert states.count("validating") == 1
        assert len(tuner.pending()) <= 1
        await tuner.step()
        assert Counting.asked == before + 1
