"""Sampling as a part of the monitor: what it costs, and what it does when a sampler fails or hangs."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import Monitor, telemetry
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.resources import part as part_module
from pool_monitor.resources.cost import INTERVAL_MAX, SHARE, SamplingCost
from pool_monitor.resources.part import ResourcesPart
from pool_monitor.resources.sample import Execution, Moment
from tests.helpers.support import eventually
from tests.test_monitor import Gauges

pytestmark = pytest.mark.usefixtures("no_leaks")


def config(interval: float = 0.05) -> MonitorConfig:
    resources = ResourcesConfig(interval=interval, gpu=False)
    return MonitorConfig(service=ServiceConfig(socket=False), resources=resources)


def part_of(monitor: Monitor) -> ResourcesPart:
    [part] = [runner.part for runner in monitor._parts.values() if runner.name == "resources"]
    assert isinstance(part, ResourcesPart)
    return part


async def test_a_monitor_shows_host_and_process_and_what_sampling_costs():
    callbacks = list(gc.callbacks)
    async with Monitor(Gauges(), config=config()) as monitor:
        await eventually(lambda: "memory_ratio" not in monitor.snapshot().resources.host.missing)
        view = await eventually(lambda: (found := monitor.snapshot().monitor.resources) and found.cpu_ratio and found)
        found = monitor.snapshot().resources
        assert len(gc.callbacks) > len(callbacks)
    assert gc.callbacks == callbacks
    assert found.host.memory_total
    assert found.process.tasks
    assert view.wanted_interval == 0.05
    assert view.interval >= 0.05
    assert 0 < view.cpu_ratio <= 2 * SHARE
    assert view.sample_cpu > 0
    assert view.sample_seconds > 0
    assert view.overdue is None


class Broken:
    """A sampler that raises, or that hangs until it is let go."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.go_on, self.samples = error, threading.Event(), 0

    def sample(self, moment: Moment) -> Sequence[Execution]:
        self.samples += 1
        if self.error is not None:
            raise self.error
        self.go_on.wait(30)
        return []


async def test_a_sampler_that_raises_costs_its_own_figures_only(capsys: pytest.CaptureFixture[str]):
    broken = Broken(RuntimeError("a defect"))
    with telemetry.capture(("resource", "host")) as events:
        async with Monitor(Gauges(), config=config()) as monitor:
            part_of(monitor)._samplers.insert(0, broken)  # type: ignore[arg-type]
            events.clear()
            await eventually(lambda: broken.samples >= 3 and len(events) >= 3)
            assert part_of(monitor)
            degraded = monitor.snapshot().monitor.degraded
            assert degraded == {"resources": "Broken fails: RuntimeError: a defect"}
            assert monitor.readiness().degraded == ("resources: Broken fails: RuntimeError: a defect",)
            broken.error = None
            broken.go_on.set()
            await eventually(lambda: not monitor.snapshot().monitor.degraded)
    assert events[-1].measurements["load1"] >= 0
    assert events[-1].measurements["interval"] >= 50_000_000


async def test_a_sample_that_hangs_is_reported_and_holds_nothing_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(part_module, "_OVERDUE", 0.05)
    broken = Broken()
    with telemetry.capture(("monitor", "degrade")) as events:
        async with Monitor(Gauges(), config=config()) as monitor:
            part = part_of(monitor)
            part._samplers.append(broken)  # type: ignore[arg-type]
            await eventually(lambda: broken.samples, 30)  # samples are rarer where one costs much
            await eventually(lambda: monitor.snapshot().monitor.resources.overdue)  # type: ignore[union-attr]
            await eventually(lambda: events)
            threads = threading.active_count()
            for _ in range(20):
                part.tick()
                await asyncio.sleep(0)
            assert threading.active_count() <= threads
            broken.go_on.set()
            await eventually(lambda: len(events) >= 2)
            broken.go_on.clear()
            assert part_of(monitor) is part
            broken.go_on.set()
    assert [event.metadata["state"] for event in events][:2] == ["degraded", "recovered"]
    assert events[0].metadata["part"] == "resources"
    assert events[0].metadata["reason"].startswith("a sample has not ended for")


@pytest.mark.slow
@pytest.mark.gate
async def test_a_part_whose_sample_hangs_can_be_left():
    broken = Broken()
    async with Monitor(Gauges(), config=config()) as monitor:
        part_of(monitor)._samplers.append(broken)  # type: ignore[arg-type]
        await eventually(lambda: broken.samples)
        [thread] = [thread for thread in threading.enumerate() if thread.name == "pool_monitor sampling"]
        assert thread.daemon  # the program can end
        leaving = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - leaving < 10
    broken.go_on.set()


async def test_a_monitor_tells_its_measurements_from_those_of_another_one():
    with telemetry.capture() as events:
        async with Monitor(Gauges(), config=config()) as one, Monitor(Gauges(), config=config()) as two:
            ids = {one._collector.monitor, two._collector.monitor}
            for name in ("host", "self", "loop_lag"):
                await eventually(
                    lambda name=name: ids == {event.metadata["monitor"] for event in events if event.name[-1] == name}
                )
            part_of(two)._context.degraded("resources", "y" * 10_000)
            assert two.snapshot().monitor.degraded["resources"] == "y" * 500
            assert not one.snapshot().monitor.degraded


async def test_leaving_ends_the_sampling_thread():
    for _ in range(5):
        async with Monitor(Gauges(), config=config()):
            await asyncio.sleep(0)
        await eventually(lambda: "pool_monitor sampling" not in {thread.name for thread in threading.enumerate()})


async def test_a_monitor_that_is_left_in_its_first_sample_does_not_wait_for_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pool_monitor.side_thread.LEAVE_S", 600.0)
    monkeypatch.setattr("pool_monitor.resources.host._DISK_TIMEOUT", 600.0)
    for _ in range(5):
        async with Monitor(Gauges(), config=config()):
            await asyncio.sleep(0)


# -- the interval -----------------------------------------------------------------------------------------------------


def test_the_interval_is_as_wanted_until_samples_are_dear_and_again_when_they_are_not():
    cost = SamplingCost()
    assert cost.interval(1.0) == 1.0
    cost.add(0.02)
    assert cost.interval(1.0) == 1.0  # 2 % of a processor
    for _ in range(30):
        cost.add(0.1)
    assert cost.interval(1.0) == pytest.approx(5.0, rel=0.01)
    for _ in range(30):
        cost.add(0.001)
    assert cost.interval(1.0) == 1.0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1e6))
def test_sampling_never_takes_more_than_its_share_or_the_longest_interval(costs: list[float], wanted: float):
    cost = SamplingCost()
    for seconds in costs:
        cost.add(seconds)
    interval = cost.interval(wanted)
    assert wanted <= interval <= max(wanted, INTERVAL_MAX)
    assert cost.seconds is not None
    assert interval >= INTERVAL_MAX or cost.seconds / interval <= SHARE * 1.0001


def test_one_slow_sample_does_not_stretch_the_interval_for_long():
    cost = SamplingCost()
    for seconds in (0.001, 0.001, 0.2, 0.001, 0.001, 0.001, 0.001):
        cost.add(seconds)
    assert cost.interval(1.0) == 1.0
