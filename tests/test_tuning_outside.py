"""Advice and tuning as a program outside of this repository uses them: a real service, pools, policies and scenarios of
its own, HTTP, and the command line.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.lab.scenario import parse
from pool_monitor import ConfigError, Monitor, Pool, PoolError
from pool_monitor.testing import InlinePool
from tests.helpers.gates import in_gates
from tests.helpers.programs import ROOT, Done

pytestmark = pytest.mark.usefixtures("runtime_dir", "no_leaks")

QUICK = "[tuner]\ninterval = 0.1\n"


class Summarizer:
    def work(self, value: int = 0) -> int:
        return value


class Batch:
    """A setting of another package, with what is promised and nothing more."""

    name, unit, low, high, step, live = "batch", "count", 1, 16, 1, True

    def __init__(self) -> None:
        self.value = 4

    def set(self, value: float) -> None:
        self.value = round(value)


class Batching(InlinePool):
    """A pool of another package."""

    def __init__(self) -> None:
        super().__init__(Summarizer, name="mine")
        self.batch = Batch()

    def tunables(self) -> Any:
        return [self.batch]


class Steps:
    """A policy of twenty lines: one worker more for each call that waits, one less after a calm minute."""

    def __init__(self) -> None:
        self.calm = 0.0

    def decide(self, observation: Any) -> int | None:
        if observation.waiting:
            self.calm = 0.0
            return int(observation.size + observation.waiting)
        self.calm += observation.interval
        if self.calm < 60 or not observation.idle:
            return None
        self.calm = 0.0
        return int(observation.size - 1)


class Constant:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def decide(self, observation: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


three, many, fraction, word, broken = map(Constant, (3, 99, 2.8, "four", RuntimeError("no idea")))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pool-monitor.toml"
    path.write_text(text)
    return path


@asynccontextmanager
async def batching(tmp_path: Path, text: str = QUICK) -> AsyncIterator[tuple[Batching, Monitor]]:
    async with Batching() as pool, Monitor(pool, config=written(tmp_path, text)) as monitor:
        await until(lambda: monitor.snapshot().tuning is not None and monitor.context.tunables())
        await monitor.tuner.step()
        yield pool, monitor


async def until(condition: Callable[[], Any]) -> Any:
    async with asyncio.timeout(20):
        while not (found := condition()):
            await asyncio.sleep(0.02)
    return found


def states(monitor: Monitor) -> list[str]:
    return [one.state for one in monitor.tuner.history()]


# a service that nobody has configured


async def test_a_new_service_recommends_by_default_and_says_nothing():
    async with InlinePool(Summarizer, name="text") as pool, Monitor(pool) as monitor:
        for value in range(20):
            await pool.run("work", value)
        assert monitor.tuner.mode == "recommend"
        assert list(monitor.advisor.recommendations()) == []
        assert list(monitor.tuner.pending()) == list(monitor.tuner.history()) == []
        snapshot = monitor.snapshot(window="5m")
        assert (list(snapshot.recommendations), snapshot.tuning.mode) == ([], "recommend")  # type: ignore[union-attr]


async def test_a_mode_that_is_set_before_entering_holds_and_a_bad_one_changes_nothing():
    monitor = Monitor(InlinePool(Summarizer, name="text"))
    monitor.tuner.mode = "auto"
    for bad in ("on", "AUTO", "", None, 3):
        with pytest.raises(ConfigError, match="off, recommend, auto"):
            monitor.tuner.mode = bad  # type: ignore[assignment]
    assert monitor.tuner.mode == "auto"
    async with InlinePool(Summarizer, name="other") as pool, Monitor(pool) as entered:
        for mode in ("off", "auto", "recommend"):
            entered.tuner.mode = mode
            assert entered.tuner.mode == mode


async def test_an_id_that_is_not_there_is_an_error_of_ours(tmp_path: Path):
    async with batching(tmp_path) as (_, monitor):
        for ask in (monitor.tuner.approve, monitor.tuner.reject, monitor.tuner.rollback):
            with pytest.raises(PoolError, match="nope"):
                ask("nope")
        with pytest.raises(PoolError, match="no change can be rolled back"):
            monitor.tuner.rollback()


def test_a_pool_says_what_may_be_changed_and_how_far():
    found = {one.name: one for one in Pool("builtins:object", name="text", size=2, min_size=1, max_size=4).tunables()}
    assert {"size", "queue_limit", "timeout", "health_interval", "retry_delay", "prefetch"} <= found.keys()
    for one in found.values():
        assert one.low <= one.value <= one.high
        assert (one.step > 0, isinstance(one.live, bool), bool(one.unit)) == (True, True, True)
    size = found["size"]
    assert (size.value, size.low, size.high, size.step, size.live) == (2, 1, 4, 1, True)


# a pool of another package


async def test_a_setting_of_another_package_is_tried_and_restored(tmp_path: Path):
    async with batching(tmp_path) as (pool, monitor):
        trial = monitor.tuner.propose("mine", "batch", 6)
        [waiting] = monitor.tuner.pending()
        assert (waiting.id, waiting.pool, waiting.knob, waiting.before, waiting.after) == (trial, "mine", "batch", 4, 6)
        assert pool.batch.value == 4
        monitor.tuner.approve(trial)
        await until(lambda: pool.batch.value == 6 and states(monitor) == ["validating"])
        assert list(monitor.tuner.pending()) == []
        assert monitor.tuner.rollback() == [trial]
        await until(lambda: pool.batch.value == 4)
        rejected = monitor.tuner.propose("mine", "batch", 5)
        monitor.tuner.reject(rejected)
        assert "rejected" in states(monitor)


async def test_a_pool_that_keeps_its_value_ends_the_trial_with_that_reason(tmp_path: Path):
    async with batching(tmp_path) as (pool, monitor):
        pool.batch.set = lambda _value: None  # type: ignore[method-assign]
        monitor.tuner.approve(monitor.tuner.propose("mine", "batch", 6))
        await until(lambda: states(monitor) == ["rejected"])
        assert "kept 4" in monitor.tuner.history()[0].reason


async def test_nothing_begins_while_it_is_frozen(tmp_path: Path):
    async with batching(tmp_path) as (pool, monitor):
        monitor.tuner.freeze("release", duration="1h")
        monitor.tuner.approve(monitor.tuner.propose("mine", "batch", 6))
        await monitor.tuner.settled()
        for _ in range(3):
            await monitor.tuner.step()
        assert monitor.snapshot().tuning.frozen == "release"  # type: ignore[union-attr]
        assert (pool.batch.value, len(monitor.tuner.pending())) == (4, 1)
        for bad in ("soon", "-1s", float("nan")):
            with pytest.raises(ConfigError, match="duration"):
                monitor.tuner.freeze("release", duration=bad)
        monitor.tuner.thaw()
        await until(lambda: pool.batch.value == 6)


async def test_switching_off_undoes_what_is_on_trial(tmp_path: Path):
    async with batching(tmp_path) as (pool, monitor):
        monitor.tuner.approve(monitor.tuner.propose("mine", "batch", 6))
        await until(lambda: pool.batch.value == 6)
        monitor.tuner.mode = "off"
        await until(lambda: pool.batch.value == 4)


async def test_the_environment_switches_the_tuner_off_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POOL_MONITOR_TUNER", "off")
    async with Batching() as pool, Monitor(pool, config=written(tmp_path, "[tuner]\nmode = 'auto'\n")) as monitor:
        assert (monitor.tuner.mode, monitor.snapshot().tuning) == ("off", None)
        with pytest.raises(ConfigError, match="POOL_MONITOR_TUNER"):
            monitor.tuner.mode = "auto"


async def test_the_audit_outlives_the_service_and_its_trials_do_not(tmp_path: Path):
    text = f"{QUICK}[state]\npath = '{tmp_path}/state.db'\n"
    async with batching(tmp_path, text) as (pool, monitor):
        trial = monitor.tuner.propose("mine", "batch", 6)
        monitor.tuner.approve(trial, author="anna")
        await until(lambda: pool.batch.value == 6)
    assert pool.batch.value == 4
    async with batching(tmp_path, text) as (_, monitor):
        [told] = monitor.tuner.history()
        assert (told.id, told.state, told.actor, told.before, told.after) == (trial, "rolled_back", "anna", 4, 6)


# the configuration


@pytest.mark.parametrize(
    "line",
    [
        "mode = 'off'", "policy = 'conservative'", "policy = 'my_service.sizing:Steps'", "interval = 5",
        "knobs = {size = [2, 16], timeout = [1.5, 30.0]}", "wait_target = 0.1",
        "schedule = [{days = 'mon-fri', from = '08:55', to = '18:00', min_size = 6}]",
        "schedule = [{from = '22:00', to = '06:00', min_size = 1, pool = 'text'}]",
    ],
)  # fmt: skip
def test_what_is_promised_of_the_configuration_is_accepted(tmp_path: Path, line: str):
    Monitor(InlinePool(Summarizer, name="text"), config=written(tmp_path, f"[tuner]\n{line}\n"))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("mode = 'on'", "mode"), ("policy = 'brave'", "policy"), ("policy = 'a:b:c'", "policy"),
        ("interval = 0", "interval"), ("interval = nan", "interval"), ("wait_target = -1", "wait_target"),
        ("knobs = {size = [16, 2]}", "size"), ("knobs = {size = [2]}", "size"), ("knobs = {size = 4}", "size"),
        ("colour = 'red'", "colour"), ("schedule = [{from = '08:00', min_size = 2}]", "'to'"),
        ("schedule = [{from = '8am', to = '18:00', min_size = 2}]", "8am"),
        ("schedule = [{days = 'mon-fry', from = '08:00', to = '18:00', min_size = 2}]", "fry"),
        ("schedule = [{from = '08:00', to = '18:00', min_size = 0}]", "min_size"),
        ("schedule = {days = 'mon'}", "schedule"),
    ],
)  # fmt: skip
def test_a_bad_line_of_the_configuration_is_named_before_anything_begins(tmp_path: Path, line: str, named: str):
    with pytest.raises(ConfigError, match=r"pool-monitor\.toml: .*tuner") as refused:
        Monitor(InlinePool(Summarizer, name="text"), config=written(tmp_path, f"[tuner]\n{line}\n"))
    assert named in str(refused.value)


async def test_a_policy_that_cannot_be_made_is_refused_on_entering(tmp_path: Path):
    for name in ("no_module_of_this_name:Policy", f"{__name__}:Nothing", f"{__name__}:Batch"):
        monitor = Monitor(Batching(), config=written(tmp_path, f"[tuner]\npolicy = '{name}'\n"))
        with pytest.raises(ConfigError, match=name):
            async with monitor:
                pass


# a policy, and a schedule


@pytest.mark.parametrize(("name", "size"), [("many", 4), in_gates("three", 3), in_gates("fraction", 3)])
async def test_a_policy_of_ones_own_sets_the_size_within_the_range(tmp_path: Path, name: str, size: int):
    config = written(tmp_path, f"{QUICK}mode = 'auto'\npolicy = '{__name__}:{name}'\nknobs = {{size = [1, 4]}}\n")
    async with InlinePool(Summarizer, name="text", size=2, max_size=8) as pool, Monitor(pool, config=config) as monitor:
        await until(lambda: pool.status().size == size)
        assert monitor.tuner.history()[0].origin == "policy"


@pytest.mark.parametrize(("name", "words"), [("broken", "no idea"), in_gates("word", "four")])
async def test_a_policy_that_fails_changes_nothing_and_is_told(tmp_path: Path, name: str, words: str):
    config = written(tmp_path, f"{QUICK}mode = 'auto'\npolicy = '{__name__}:{name}'\n")
    async with InlinePool(Summarizer, name="text", size=2) as pool, Monitor(pool, config=config) as monitor:
        frozen = await until(lambda: getattr(monitor.snapshot().tuning, "frozen", None))
        assert words in frozen
        assert "text" in frozen
        assert (pool.status().size, await pool.run("work", 5)) == (2, 5)


async def test_a_schedule_is_followed_while_everything_else_waits_for_approval(tmp_path: Path):
    always = "schedule = [{from = '00:00', to = '00:00', min_size = 3}]"
    config = written(tmp_path, f"{QUICK}{always}\n")
    async with InlinePool(Summarizer, name="text", size=1, max_size=4) as pool, Monitor(pool, config=config) as monitor:
        await until(lambda: pool.status().size == 3)
        assert monitor.tuner.mode == "recommend"
        assert [(one.origin, one.after) for one in monitor.tuner.history()] == [("schedule", 3)]


# HTTP and the command line


@asynccontextmanager
async def asked(monitor: Monitor) -> AsyncIterator[httpx.AsyncClient]:
    assert monitor.address is not None
    transport = httpx.AsyncHTTPTransport(uds=str(monitor.address))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


async def test_over_http_a_trial_is_approved_and_rolled_back(tmp_path: Path):
    async with batching(tmp_path, f"{QUICK}[service]\nactions = true\n") as (pool, monitor), asked(monitor) as client:
        assert (await client.get("/v1/recommendations")).json() == {"recommendations": []}
        trial = monitor.tuner.propose("mine", "batch", 6)

        async def status(path: str, body: Any = None) -> int:
            return (await client.post(f"/v1/tuning/{path}", json={} if body is None else body)).status_code

        assert await status(f"{trial}/rollback") == 400  # it has changed nothing
        assert await status(f"{trial}/approve", {"colour": 1}) == 400
        assert await status("nope/approve") == 404
        assert await status(f"{trial}/approve") == 200
        await until(lambda: pool.batch.value == 6)
        assert await status(f"{trial}/reject") == 400  # it runs
        assert await status(f"{trial}/rollback") == 200
        await until(lambda: pool.batch.value == 4)
        other = monitor.tuner.propose("mine", "batch", 3)
        assert await status(f"{other}/reject") == 200
        assert list(monitor.tuner.pending()) == []


async def test_without_actions_nothing_can_be_changed_over_http(tmp_path: Path):
    async with batching(tmp_path) as (pool, monitor), asked(monitor) as client:
        trial = monitor.tuner.propose("mine", "batch", 6)
        for what in ("approve", "reject", "rollback"):
            answer = await client.post(f"/v1/tuning/{trial}/{what}", json={})
            assert (answer.status_code, "actions = true" in answer.text) == (403, True)
        assert (pool.batch.value, len(monitor.tuner.pending())) == (4, 1)


async def test_the_command_line_drives_a_real_service(tmp_path: Path, command: Callable[..., Done]):
    async def tune(*arguments: str) -> Done:
        return await asyncio.to_thread(command, "tune", *arguments)

    async with batching(tmp_path, f"{QUICK}[service]\nactions = true\nname = 'mine'\n") as (pool, monitor):
        assert json.loads((await tune("status", "--json")).out)["tuning"]["mode"] == "recommend"
        made = await tune("propose", "mine", "batch", "6")
        trial = made.out.strip()
        assert (made.code, [one.id for one in monitor.tuner.pending()]) == (0, [trial])
        assert (await tune("approve", "zzz")).code == 2
        assert (await tune("approve", trial[:4])).code == 0
        await until(lambda: pool.batch.value == 6)
        assert (await tune("rollback")).code == 0
        await until(lambda: pool.batch.value == 4)
        assert (await tune("freeze", "release", "--duration", "1h")).code == 0
        assert "release" in (await tune("status")).out
        assert (await tune("mode", "off")).code == 0
        assert monitor.tuner.mode == "off"
        assert (await tune("status", "no-such-service")).code == 3


# the laboratory

SERVICE = {"kind": "lognormal", "mean_s": 0.1, "cv": 1.0}
SCENARIO = {
    "name": "mine", "duration_s": 60, "wait_target_s": 0.1, "cold_start_s": 2.0, "n0": 4, "n_min": 2, "n_max": 16,
    "queue_limit": 5000, "patience_s": 30.0, "cores": None, "kappa": 0.0, "service": SERVICE,
    "rate": {"kind": "linear", "points": [[0.0, 20.0], [60.0, 20.0]]}, "slowdown": [],
}  # fmt: skip
FAULTS = [
    ({"kind": "slow", "factor": 2}, ("worker text-1", "operation a", "pool text", "*")),
    ({"kind": "pin", "share": 0.3}, ("worker text-1",)),
    ({"kind": "leak", "bytes_per_hour": 1e9}, ("worker text-1", "pool text", "*")),
    ({"kind": "errors", "ratio": 0.2, "type": "ValueError", "burst_mean": 5}, ("worker text-1", "operation a", "*")),
    ({"kind": "hang", "share": 0.05}, ("operation b", "pool text", "*")),
    ({"kind": "restart", "every_s": 30}, ("pool text", "worker text-1", "*")),
    ({"kind": "restart", "planned": True, "rolling": True}, ("pool text", "*")),
    ({"kind": "throttle", "periods_ratio": 0.5, "slowdown": 1.5}, ("host", "pool text", "*")),
    ({"kind": "block_loop", "block_s": 0.5, "every_s": 5}, ("loop", "*")),
    ({"kind": "neighbour", "cores": 6, "slowdown": 1.4, "pressure": 0.3}, ("host", "*")),
]


@pytest.mark.parametrize(("fault", "subjects"), FAULTS)
def test_every_field_and_fault_of_a_labelled_scenario_is_known(fault: dict[str, Any], subjects: tuple[str, ...]):
    two = [{"name": name, "share": 0.5, "service": SERVICE, "timeout_s": 3} for name in "ab"]
    rss = {"base_bytes": 1e8, "noise_bytes": 1e6, "ar": 0.9, "every_s": 10, "warmup_bytes": 1e7, "warmup_tau_s": 60}
    more = {
        "pool": "text", "size": [[0, 4], [100, 6]], "operations": two, "timeout_s": 5, "cores": 8, "cpu_fraction": 0.5,
        "cpu_quota": 4, "rss": {**rss, "saw_bytes": 1e6, "saw_every_s": 120},
        "faults": [{**fault, "at_s": 6, "until_s": 20, "subject": subject} for subject in subjects],
        "labels": [{"pattern": "leak", "subject": "worker text-1"}],
        "also_true": [{"pattern": "throttled", "subject": "host"}],
    }  # fmt: skip
    parse({**SCENARIO, **more})


POLICY = """
class Steps:
    def __init__(self):
        self.calm = 0

    def decide(self, observation):
        self.calm = 0 if observation.waiting else self.calm + 1
        if observation.waiting:
            return observation.size + 1
        return observation.size - 1 if self.calm % 20 == 0 else None


steps = Steps()
"""


@pytest.mark.slow
@pytest.mark.gate
def test_the_laboratory_scores_a_policy_of_the_working_directory(tmp_path: Path):
    (tmp_path / "my_policy.py").write_text(POLICY)
    (tmp_path / "mine.json").write_text(json.dumps([SCENARIO]))
    chosen = "my_policy:Steps,my_policy:steps,hpa-fast"
    options = ["--scenarios", "mine.json", "--controllers", chosen, "--seeds", "1-2", "--json", "out.json"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "benchmarks", "lab", *options], cwd=tmp_path, env=environ, check=True)
    rows = {(row.pop("controller"), row.pop("seed")): row for row in json.loads((tmp_path / "out.json").read_text())}
    assert set(rows) == {(name, seed) for name in chosen.split(",") for seed in (1, 2)}
    assert [rows["my_policy:Steps", seed] for seed in (1, 2)] == [rows["my_policy:steps", seed] for seed in (1, 2)]
    names = {"scenario", "violations", "p95_wait_s", "worker_hours", "reversals", "peak"}
    assert all(row.keys() == names and 2 <= row["peak"] <= 16 for row in rows.values())
