"""The thread that watches the event loop: its lag, and what blocks it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import Monitor, telemetry
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.errors import ConfigError
from pool_monitor.events import LOOP_LAG, LOOP_RESUME, RESOURCE_LOOP
from pool_monitor.metrics import parse_window
from pool_monitor.parts import PartUnavailable
from pool_monitor.resources import loop_stack, watchdog
from pool_monitor.resources.garbage import GarbagePauses
from pool_monitor.resources.loop_probe import (
    MISSED_MAX,
    OWN_LATENESS_NS,
    PROBE,
    STACK_EVERY_NS,
    ProbeState,
    StackLimit,
    counted_from,
    excused,
    lags,
)
from pool_monitor.resources.loop_stack import stack_of_thread
from pool_monitor.resources.stall_check import StallCheck
from pool_monitor.resources.watchdog import Watchdog
from pool_monitor.snapshot import LoopView
from pool_monitor.state_machine import IllegalTransition
from tests.helpers import virtual
from tests.helpers.programs import until
from tests.helpers.support import eventually
from tests.test_monitor import Gauges

pytestmark = pytest.mark.usefixtures("nobody_stays_attached")
QUICK = ResourcesConfig(lag_interval=0.02, blocked_after=0.1)
CALM = ResourcesConfig(
    lag_interval=0.02, blocked_after=1.0
)  # for loops that are not to be found blocked: machines are busy
MS = 1_000_000
PATIENCE = 20.0
LOOPS = [
    "asyncio",
    pytest.param("uvloop", marks=pytest.mark.skipif(not importlib.util.find_spec("uvloop"), reason="no uvloop")),
]


def run(main: Any, loops: str = "asyncio") -> Any:
    """Run *main* on a new loop in this thread."""
    factory = asyncio.new_event_loop
    if loops == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


# -- decisions ----------------------------------------------------------------------------------------------------


def test_a_block_counts_as_often_as_probes_were_due_in_it():
    assert lags(250 * MS, 0, 100 * MS) == [250 * MS, 150 * MS, 50 * MS]
    assert lags(300 * MS, 0, 100 * MS) == [300 * MS, 200 * MS, 100 * MS]
    assert lags(99 * MS, 0, 100 * MS) == [99 * MS]
    assert lags(0, 0, 100 * MS) == [0]


def test_a_time_in_which_the_process_did_not_run_counts_once():
    hour = 3_600_000 * MS
    assert lags(hour, hour, 100 * MS) == [hour]
    assert lags(hour + 150 * MS, hour, 100 * MS) == [hour + 150 * MS, hour + 50 * MS]


@given(st.integers(0, 10**14), st.integers(0, 10**14), st.integers(10 * MS, 10_000 * MS))
def test_lags_are_bounded_and_fall(lag: int, excused_ns: int, interval: int):
    found = lags(lag, excused_ns, interval)
    assert found[0] == lag
    assert len(found) <= MISSED_MAX + 1
    assert found == sorted(found, reverse=True)
    assert all(0 < value <= lag for value in found[1:])
    assert found[-1] >= min(lag, excused_ns)


def test_a_block_of_two_seconds_shows_in_the_p99_of_a_minute():
    measured = sorted(lags(2000 * MS, 0, 100 * MS) + [MS // 10] * 580)
    assert measured[-len(measured) // 100] > 1000 * MS


@pytest.mark.parametrize(
    ("late", "cpu", "result"),
    [(0, 0, 0), (5, 100, 0), (100, 9, 100), (100, 10, 0), (100, 0, 100), (-3, 0, 0), (100, -5, 100)],
)
def test_the_lateness_of_the_watchdog_is_excused_if_the_process_did_not_run(late, cpu, result):
    assert excused(late, cpu) == result


def test_a_probe_that_another_thread_delayed_a_little_counts_from_when_it_was_sent():
    assert counted_from(1000, 1000 + OWN_LATENESS_NS) == 1000 + OWN_LATENESS_NS
    assert counted_from(1000, 1001 + OWN_LATENESS_NS) == 1000


@pytest.mark.parametrize("while_blocked", [False, True])
def test_time_in_which_the_process_did_not_run_is_no_part_of_a_block(monkeypatch, while_blocked: bool):
    watching, now, told = Watchdog(QUICK), [1_000 * MS], []
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic_ns=lambda: now[0]))
    monkeypatch.setattr(watching, "_loop", SimpleNamespace(is_running=lambda: True), raising=False)
    monkeypatch.setattr(watching, "_loop_thread", 0, raising=False)

    def step(after: int, excused_ns: int = 0) -> tuple[bool, bool]:
        now[0] += after
        return watching._step(now[0], now[0], excused_ns)

    assert step(0) == (True, False)
    if not while_blocked:
        step(4_000 * MS, 4_000 * MS)
    with telemetry.capture(("resource", "loop")) as events:
        assert step(150 * MS) == (False, True)
        watching._tell_blocked(now[0], None)
    told = [event.measurements["duration"] for event in events]
    if while_blocked:
        step(4_000 * MS, 4_000 * MS)
    now[0] += 50 * MS
    assert told == [150 * MS]
    assert watching._answered() == 200 * MS


def test_the_first_stack_is_taken_always_and_then_one_in_ten_seconds():
    limit = StackLimit()
    asked = [0, 1, STACK_EVERY_NS - 1, STACK_EVERY_NS, STACK_EVERY_NS + 1, 2 * STACK_EVERY_NS, 2 * STACK_EVERY_NS + 1]
    taken = []
    for now in asked:
        taken.append(limit.allows(now))
        if taken[-1]:
            limit.took(now)
    assert taken == [True, False, False, True, False, True, False]


def test_a_block_is_told_before_its_end_in_every_order():
    for path in (["send", "answer"], ["send", "late", "told", "answer"], ["send", "late", "answer", "told"]):
        state = PROBE.first
        for trigger in path:
            state = PROBE.step(state, trigger)
        assert state is ProbeState.RESTING
    for state, trigger in [(ProbeState.RESTING, "answer"), (ProbeState.ASKED, "send"), (ProbeState.BLOCKED, "late")]:
        with pytest.raises(IllegalTransition):
            PROBE.step(state, trigger)
    assert PROBE.reachable(PROBE.first) == set(ProbeState)


def test_a_counter_has_stalled_after_calls_and_seconds():
    check = StallCheck(3, 5.0)
    assert not check.stalled(0, 0.0)
    assert [check.stalled(0, now) for now in (1.0, 2.0, 3.0, 5.0, 9.0)] == [False, False, False, True, True]
    assert not check.stalled(1, 9.0)
    assert [check.stalled(1, 9000.0) for _ in range(3)] == [False, False, True]


def test_a_block_has_to_be_longer_than_the_time_between_two_measurements():
    with pytest.raises(ConfigError, match=r"blocked_after=0\.5 is below lag_interval=2"):
        ResourcesConfig(lag_interval=2.0)
    assert ResourcesConfig(lag_interval=2.0, blocked_after=2.0).lag_interval == 2.0


# -- stacks -------------------------------------------------------------------------------------------------------


def test_the_stack_of_a_thread_has_its_source_and_the_innermost_frame_last():
    lines = stack_of_thread(threading.get_ident()).splitlines()
    assert lines[-1].startswith("    found = ") or "stack_of_thread" in "".join(lines[-4:])
    assert any(
        line.endswith("in test_the_stack_of_a_thread_has_its_source_and_the_innermost_frame_last") for line in lines
    )


def test_a_thread_that_has_ended_has_no_stack():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert thread.ident is not None
    assert stack_of_thread(thread.ident) == ""


def deep(left: int, then: Callable[[], Any]) -> Any:
    return deep(left - 1, then) if left else then()


def test_what_measures_the_garbage_collector_is_not_in_the_stack():
    pauses, texts = GarbagePauses(), []

    class Waiting(deque):
        def append(self, _took: int) -> None:
            texts.append(stack_of_thread(threading.get_ident()))

    pauses._waiting = Waiting()
    pauses.measuring("start", None)
    pauses.measuring("stop", None)
    assert "in Waiting.append" in texts[0]
    assert "GarbagePauses" not in texts[0]


def test_a_deep_stack_keeps_its_ends():
    text = deep(500, lambda: stack_of_thread(threading.get_ident()))
    assert len(text) <= loop_stack.STACK_MAX
    assert re.search(r"\n  \.\.\. \d+ more frames \.\.\.\n", text)
    assert text.count("  File ") == loop_stack.FRAMES_OUTER + loop_stack.FRAMES_INNER
    assert "stack_of_thread" in text.splitlines()[-2]


@pytest.mark.parametrize("kind", ["pipe", "large", "folder", "relative", "absent", "binary"])
def test_odd_source_files_are_neither_waited_for_nor_shown(tmp_path: Path, kind: str):
    path = tmp_path / "sp\x1b[31mam.py"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.write_bytes(b"secret\n" * (loop_stack.SOURCE_BYTES_MAX // 7 + 1))
    elif kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\xff\x1b]0;title\x07secr" + b"x" * 500)
    names: dict[str, Any] = {"see": lambda: stack_of_thread(threading.get_ident())}
    where = "relative.py" if kind == "relative" else str(path)
    exec(compile(f"def {'long' * 100}():\n return see()\nresult = {'long' * 100}()", where, "exec"), names)
    text = names["result"]
    assert "secret" not in text
    assert all(line.isprintable() for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 3 * loop_stack.LINE_MAX
    assert "relative.py" in text if kind == "relative" else "am.py" in text


# -- a real loop --------------------------------------------------------------------------------------------------


class Told:
    """The executions of the events of the event loop, with the thread that they came from."""

    def __init__(self) -> None:
        self.blocks: list[tuple[str, int, str, str]] = []
        self.lags: list[int] = []
        self.cpu: list[int] = []
        self.blocked = threading.Event()
        telemetry.attach_many("test.loop", [RESOURCE_LOOP.name, LOOP_RESUME.name], self._on_loop)
        telemetry.attach("test.lag", LOOP_LAG.name, self._on_lag)

    def _on_loop(self, name: Any, measurements: Any, metadata: Any, _config: Any) -> None:
        spec = RESOURCE_LOOP if name == RESOURCE_LOOP.name else LOOP_RESUME
        assert spec.problems(measurements, metadata) == []
        if "cpu_duration" in measurements:
            self.cpu.append(measurements["cpu_duration"])
        state, stack = ("blocked", metadata["stack"]) if spec is RESOURCE_LOOP else ("over", "")
        self.blocks.append((state, measurements["duration"], stack, threading.current_thread().name))
        if spec is RESOURCE_LOOP:
            self.blocked.set()

    def _on_lag(self, _name: Any, measurements: Any, metadata: Any, _config: Any) -> None:
        assert LOOP_LAG.problems(measurements, metadata) == []
        assert threading.current_thread() is threading.main_thread()
        self.lags.append(measurements["duration"])

    @property
    def states(self) -> list[str]:
        return [block[0] for block in self.blocks]

    def block_the_loop(self) -> None:
        """Block until the event has come."""
        self.blocked.clear()
        assert self.blocked.wait(PATIENCE)  # the guilty line

    async def over(self) -> None:
        await eventually(lambda: self.states[-1:] == ["over"])


@contextlib.asynccontextmanager
async def watching(config: ResourcesConfig = QUICK) -> AsyncIterator[Watchdog]:
    dog = Watchdog(config)
    dog.start()
    try:
        yield dog
    finally:
        await dog.stop()
        until(lambda: not dog._thread.is_alive())


@pytest.fixture(params=LOOPS)
def loops(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def test_a_blocked_loop_is_told_with_the_guilty_line_while_it_is_blocked(loops: str):
    async def main() -> None:
        told = Told()
        async with watching():
            await eventually(lambda: told.lags)
            told.block_the_loop()
            assert told.states == ["blocked"]
            await told.over()
        [(_state, so_far, stack, thread), (_over, whole, no_stack, loops_thread)] = told.blocks
        assert thread == "pool_monitor watchdog"
        assert loops_thread == threading.current_thread().name
        lines = stack.splitlines()
        assert "in main" in lines[0]  # nothing of the event loop, and nothing outside it
        at = next(index for index, line in enumerate(lines) if line.endswith("in Told.block_the_loop"))
        assert lines[at + 1].strip() == "assert self.blocked.wait(PATIENCE)  # the guilty line"
        assert 0.1e9 <= so_far <= whole
        assert no_stack == ""
        assert max(told.lags) >= so_far
        assert sum(lag > 20 * MS for lag in told.lags) >= 4  # those that were due meanwhile count

    run(main(), loops)


def test_a_long_block_is_logged_once_with_its_line_and_its_end_is_too(monkeypatch, caplog):
    monkeypatch.setattr(watchdog, "LOG_AFTER_NS", 150 * MS)

    def logged() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "pool_monitor.monitor"]

    async def main() -> None:
        told = Told()
        async with watching():
            await eventually(lambda: told.lags)
            told.block_the_loop()  # shorter: not logged
            await told.over()
            short = max(block[1] for block in told.blocks) < 150 * MS
            assert not short or logged() == []
            caplog.clear()
            until(logged)  # the guilty line
            time.sleep(0.1)
            await eventually(lambda: told.states[-1:] == ["over"] and len(logged()) > 1)
        begun, over = logged()
        assert "the event loop is blocked" in begun
        assert "test_watchdog.py" in begun
        assert "until(logged)" in begun
        assert "the event loop runs again blocked_seconds=" in over

    run(main())


def test_a_loop_that_is_not_blocked_is_not_told_to_be():
    async def main() -> None:
        told = Told()
        async with watching(CALM):
            await eventually(lambda: len(told.lags) >= 20)
        assert told.blocks == []

    run(main())


def test_one_stack_is_taken_of_many_blocks_and_every_block_is_told():
    async def main() -> None:
        told = Told()
        async with watching():
            for _ in range(4):
                told.block_the_loop()
                await told.over()
        assert told.states == ["blocked", "over"] * 4
        assert [bool(stack) for state, _duration, stack, _thread in told.blocks if state == "blocked"] == [
            True, False, False, False,
        ]  # fmt: skip

    run(main())


def test_a_regular_expression_that_holds_the_interpreter_is_told_with_its_line():
    async def main() -> None:
        told = Told()
        length, used = 14, 0.0
        while used < 0.3:
            length += 1
            before = time.process_time()
            re.match(r"(a+)+$", "a" * length + "b")
            used = time.process_time() - before
        async with watching() as dog:
            await eventually(lambda: told.lags)
            for _ in range(30):
                # A busy machine may give the watchdog a processor only after the expression has ended: nothing is told
                # then, or the stack is that of a later line.
                dog._limit, answered = StackLimit(), len(told.lags)
                re.match(r"(a+)+$", "a" * length + "b")  # evil
                await eventually(lambda answered=answered: len(told.lags) > answered)
                stacks = [stack for _state, _duration, stack, _thread in told.blocks if stack]
                if any("# evil" in stack for stack in stacks):
                    break
        assert stacks[-1].count("# evil") == 1
        assert max(told.cpu) > 0.1e9
        assert max(told.lags) > 0.1e9  # although no probe could be sent meanwhile

    run(main())


def test_an_event_says_whether_the_loop_waits_or_computes():
    async def main() -> None:
        told = Told()
        async with watching():
            told.block_the_loop()
            await told.over()
            told.blocked.clear()
            end = time.monotonic() + PATIENCE
            while not told.blocked.is_set() and time.monotonic() < end:
                pass
            await told.over()
        waiting, computing = told.cpu
        assert waiting < computing  # by how much depends on the machine: the loop may have shared its processor

    run(main())


def test_the_end_of_a_block_is_told_after_its_beginning_even_if_a_handler_is_slow():
    async def main() -> None:
        entered, release = threading.Event(), threading.Event()

        def slow(_name: Any, _measurements: Any, metadata: Any, _config: Any) -> None:
            entered.set()
            release.wait(PATIENCE)

        telemetry.attach("slow", RESOURCE_LOOP.name, slow)
        told = Told()
        async with watching() as dog:
            assert entered.wait(PATIENCE)  # blocks the loop
            await eventually(lambda: dog._state is ProbeState.ANSWERED)
            assert told.blocks == []
            release.set()
            await told.over()
            assert told.states == ["blocked", "over"]
            told.block_the_loop()
            await told.over()

    run(main())


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_handler_that_raises_does_not_end_the_watching(error: type[BaseException], caplog):
    async def main() -> None:
        told = Told()

        def bad(_name: Any, _measurements: Any, metadata: Any, _config: Any) -> None:
            raise error

        telemetry.attach("bad", RESOURCE_LOOP.name, bad)
        async with watching() as dog:
            for _ in range(2):
                told.block_the_loop()
                await told.over()
            dog.check()
        assert told.states == ["blocked", "over"] * 2

    run(main())


def test_a_handler_that_hangs_is_reported_and_few_threads_are_left_behind(monkeypatch):
    monkeypatch.setattr(watchdog, "HANG_S", 0.05)
    monkeypatch.setattr(watchdog, "_LEAVE_S", 0.02)
    entered, release = threading.Event(), threading.Event()

    def hang(_name: Any, _measurements: Any, metadata: Any, _config: Any) -> None:
        entered.set()
        release.wait(PATIENCE)

    async def hanging() -> threading.Thread:
        dog = Watchdog(QUICK)
        dog.start()
        entered.clear()
        assert entered.wait(PATIENCE)  # blocks the loop

        def reported() -> bool:
            try:
                dog.check()
            except PartUnavailable as error:
                return "hangs in a handler of resource.loop" in str(error)
            return False

        await eventually(reported)
        await dog.stop()
        return dog._thread

    async def main() -> None:
        telemetry.attach("hang", RESOURCE_LOOP.name, hang)
        told = Told()
        threads = [await hanging() for _ in range(watchdog.LEFT_BEHIND_MAX)]
        with pytest.raises(PartUnavailable, match="3 earlier threads"):
            Watchdog(QUICK).start()
        release.set()
        until(lambda: not any(thread.is_alive() for thread in threads))
        await eventually(lambda: told.states.count("over") >= 3)
        assert told.states[-1] == "over"
        async with watching() as dog:
            dog.check()

    try:
        run(main())
    finally:
        release.set()


def test_leaving_while_a_block_is_told_ends_the_block():
    async def main() -> None:
        told = Told()
        async with watching():
            told.block_the_loop()
        await told.over()
        assert told.states == ["blocked", "over"]

    run(main())


def test_a_loop_that_is_closed_without_leaving_ends_the_thread():
    async def main() -> Watchdog:
        dog = Watchdog(QUICK)
        dog.start()
        return dog

    dog = run(main())
    until(lambda: not dog._thread.is_alive())


def test_a_loop_between_two_runs_is_not_blocked():
    told = Told()
    with asyncio.Runner() as runner:
        dog = Watchdog(ResourcesConfig(lag_interval=0.02, blocked_after=0.4))

        async def start() -> None:
            dog.start()
            await eventually(lambda: told.lags)

        runner.run(start())
        wakes = dog._wakes
        until(lambda: dog._wakes > wakes + 25)  # at least 0.5 s, which is more than blocked_after

        async def go_on() -> None:
            before = len(told.lags)
            await eventually(lambda: len(told.lags) > before + 2)
            await dog.stop()

        runner.run(go_on())
    assert told.blocks == []


def test_a_forked_process_does_not_hang_on_the_lock_of_the_thread():
    async def main() -> None:
        async with watching() as dog:
            with dog._lock:  # as if the thread held it
                pid = os.fork()
                if not pid:
                    signal.alarm(10)
                    dog._probe()
                    os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0

    run(main())


def test_a_loop_on_virtual_time_can_be_watched():
    told = Told()

    async def main() -> None:
        async with watching(CALM):
            end = time.monotonic() + PATIENCE
            while len(told.lags) < 3 and time.monotonic() < end:
                await asyncio.sleep(1.0)  # not an hour: sums of so many are not exact

    virtual.run(main())
    assert len(told.lags) >= 3
    assert told.blocks == []


def test_without_handlers_and_with_a_lane_the_lag_costs_no_mapping():
    async def main() -> None:
        received: list[tuple[int, ...]] = []

        def mapped(*_args: Any) -> None:
            raise AssertionError("called with mappings")

        async with watching():
            telemetry.attach("lane", LOOP_LAG.name, mapped, bind=lambda: lambda *numbers: received.append(numbers))
            await eventually(lambda: len(received) >= 3)
            assert telemetry.detach("lane")
        assert all(len(numbers) == 1 and numbers[0] >= 0 for numbers in received)

    run(main())


async def test_a_snapshot_shows_the_block_while_it_lasts_and_its_stack_afterwards():
    config = MonitorConfig(resources=QUICK, service=ServiceConfig(socket=False))
    async with Monitor(Gauges(), config=config) as monitor:
        meanwhile: list[LoopView] = []

        def look(_name: Any, _measurements: Any, metadata: Any, _config: Any) -> None:
            meanwhile.append(monitor._collector.readings.view(parse_window("1m")).loop)

        telemetry.attach("look", RESOURCE_LOOP.name, look)
        told = Told()
        await eventually(lambda: told.lags)
        before = monitor.snapshot("1m").resources.loop
        assert (before.blocked, before.blocks, before.stack) == (None, 0, None)
        told.block_the_loop()
        await told.over()
        after = monitor.snapshot("1m").resources.loop
    assert meanwhile[0].blocked is not None
    assert meanwhile[0].blocked >= 0.1
    assert (after.blocked, after.blocks) == (None, 1)
    assert after.stack is not None
    assert "# the guilty line" in after.stack
    assert after.lag.max is not None
    assert after.lag.max >= 0.1


# -- real processes -----------------------------------------------------------------------------------------------

SERVICE = """
import asyncio, json, sys, threading, time
from pool_monitor import Monitor, telemetry
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig

still = threading.Event()
lags = []

def told(name, measurements, metadata, config):
    thread = threading.current_thread().name
    print(json.dumps([name[-1], still.is_set(), metadata.get("stack"), thread]), flush=True)

async def main():
    telemetry.attach_many("told", [("resource", "loop"), ("resource", "loop_resume")], told)
    telemetry.attach("lag", ("resource", "loop_lag"), lambda n, m, md, c: lags.append(m["duration"]))
    resources = ResourcesConfig(lag_interval=0.02, blocked_after=AFTER)
    config = MonitorConfig(resources=resources, service=ServiceConfig(socket=False))
    async with Monitor(Gauges(), config=config):
        while len(lags) < 3:
            await asyncio.sleep(0.01)
        BODY
    print(json.dumps(["end", max(lags) / 1e9]), flush=True)

class Gauges:
    name = "none"
    def status(self):
        raise RuntimeError("none")
    def workers(self):
        return []

asyncio.run(main())
"""


def service(body: str, after: float) -> subprocess.Popen[str]:
    text = SERVICE.replace("AFTER", str(after)).replace("BODY", body.replace("\n", "\n        "))
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_service_that_blocks_its_loop_is_told_what_does_it():
    with ended(service("still.set()\ntime.sleep(0.6)\nstill.clear()\nawait asyncio.sleep(0.1)", after=0.1)) as process:
        out, _ = process.communicate(timeout=30)
    blocked, over, end = map(json.loads, out.splitlines())
    assert blocked[:2] == ["loop", True]
    assert blocked[2].splitlines()[-1].endswith("in main")  # a program given with -c has no source lines
    assert blocked[3] == "pool_monitor watchdog"
    assert over[:2] == ["loop_resume", False]
    assert end[1] >= 0.5


def test_a_process_that_was_stopped_was_not_blocked():
    with ended(
        service("print(1, flush=True)\nwhile max(lags) < 0.6e9: await asyncio.sleep(0.02)", after=0.4)
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.8)  # the time for which it is stopped
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=30)
    [end] = map(json.loads, out.splitlines())
    assert end[0] == "end"
    assert end[1] >= 0.6
