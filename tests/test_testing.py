"""What `pool_monitor.testing` gives to tests of other programs. What an InlinePool has in common with a Pool is tested
where Pool is: see the fixture `both_pools`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import psutil
import pytest

from pool_monitor import (
    ConfigError,
    Monitor,
    MonitorConfig,
    OperationError,
    OperationTimeout,
    PayloadError,
    Pool,
    StartError,
    telemetry,
)
from pool_monitor.config import ServiceConfig
from pool_monitor.testing import InlinePool, ManualClock
from tests.helpers.support import OPS, TARGETS, eventually, read, words
from tests.targets import plain, scoped

pytestmark = pytest.mark.usefixtures("no_leaks")

QUIET = MonitorConfig(service=ServiceConfig(socket=False))


class Counter:
    """Counts in each worker for itself."""

    made = 0

    def __init__(self, start: int = 0) -> None:
        type(self).made += 1
        self.number = start

    def count(self) -> int:
        self.number += 1
        return self.number

    def thread(self) -> str:
        return threading.current_thread().name

    async def loop(self) -> int:
        return id(asyncio.get_running_loop())

    def until(self, flag: bool = True) -> None:
        while not released.is_set():
            pass

    def wait(self) -> str:
        released.wait(30)
        return "late"

    async def doze(self) -> None:
        await asyncio.sleep(60)


released = threading.Event()


def workers() -> int:
    """How many threads of workers there are."""
    return sum(thread.name == "inline worker" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def nothing_waits_after_the_test() -> Any:
    released.clear()
    yield
    released.set()


# -- targets ------------------------------------------------------------------------------------------------------


async def test_a_target_can_be_a_class_and_each_worker_has_an_instance() -> None:
    Counter.made = 0
    async with InlinePool(Counter, size=2, init_kwargs={"start": 5}) as pool:
        assert pool.target == f"{__name__}:Counter"
        for slot in ("default-0", "default-1"):
            assert [await pool.options(worker=slot).run("count") for _ in range(2)] == [6, 7]
    assert Counter.made == 2


async def test_a_target_can_be_a_module_or_an_object_which_all_workers_share(monkeypatch: pytest.MonkeyPatch) -> None:
    async with InlinePool(plain) as pool:
        assert pool.target == plain.__name__
        operations = set(pool._calls().operations)
    async with InlinePool(plain.__name__) as pool:
        assert set(pool._calls().operations) == operations
    async with InlinePool(Counter(), size=2) as pool:
        assert [await pool.options(worker=f"default-{n}").run("count") for n in (0, 1, 0)] == [1, 2, 3]


async def test_what_a_test_replaces_in_a_module_operations_see(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "shop_of_tests.py").write_text("PRICE = 3\ndef price(): return PRICE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import shop_of_tests  # type: ignore[import-not-found]

    for target in ("shop_of_tests", f"{tmp_path}/shop_of_tests.py", shop_of_tests):
        async with InlinePool(target) as pool:
            monkeypatch.setattr(shop_of_tests, "PRICE", 7)
            assert await pool.run("price") == 7
    monkeypatch.delitem(sys.modules, "shop_of_tests")


async def test_a_target_that_is_none_is_refused_in_words() -> None:
    for target, complaint in (
        (7, "is a int, but a target must be"),
        (len, "is a function"),
        ("no_such_module:X", "no module"),
    ):
        with pytest.raises(StartError, match=complaint):
            async with InlinePool(target):
                pass
    with pytest.raises(ConfigError, match=r"InlinePool\(target=''\): needs what Pool takes, or a class"):
        InlinePool("")
    with pytest.raises(ConfigError, match=r"InlinePool\(command=\['worker'\]\): .* use a Pool"):
        InlinePool(Counter, command=("worker",))
    with pytest.raises(ConfigError, match="did you mean 'timeout'"):
        InlinePool(Counter, timeot=3)


async def test_a_target_that_cannot_be_made_is_a_start_error_with_its_traceback() -> None:
    with pytest.raises(StartError, match=r"cannot load .*raises.py:Ops") as failure:
        async with InlinePool(f"{TARGETS}/raises.py:Ops"):
            pass
    assert "raises.py" in failure.value.traceback


def test_a_script_that_is_its_own_target_and_has_no_guard_is_refused_at_once(tmp_path: Path) -> None:
    script = tmp_path / "own.py"
    script.write_text(
        "import asyncio\nfrom pool_monitor.testing import InlinePool\n"
        "class Own:\n    def hi(self): return 'hi'\n"
        "async def main():\n    async with InlinePool(f'{__file__}:Own', size=2) as pool: print(await pool.run('hi'))\n"
    )
    with script.open("a") as file:
        file.write("asyncio.run(main())\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 1
    assert 'put what starts the program under `if __name__ == "__main__":`' in done.stderr
    script.write_text(script.read_text().replace("\nasyncio.run", "\nif __name__ == '__main__': asyncio.run"))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=40, check=False)
    assert (done.stdout, done.stderr) == ("hi\n", "")


# -- this process -------------------------------------------------------------------------------------------------


async def test_no_process_is_started_and_operations_run_in_threads() -> None:
    before = psutil.Process().children(recursive=True)
    async with InlinePool(Counter, size=2) as pool:
        assert await pool.run("thread") != threading.current_thread().name
        assert await pool.run("loop") != id(asyncio.get_running_loop())
        assert psutil.Process().children(recursive=True) == before
        assert {worker.pid for worker in pool.workers()} == {os.getpid()}
    await eventually(lambda: workers() == 0)


async def test_path_environment_and_modules_are_as_before_when_the_pool_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "borrowed_by_test.py").write_text("WORD = 'hello'\n")
    (tmp_path / "owner_of_test.py").write_text(
        "import os, borrowed_by_test\n"
        "def word(): return borrowed_by_test.WORD, os.environ['OF_TEST'], os.environ['KEPT']\n"
    )
    monkeypatch.setenv("KEPT", "before")
    path, environment = list(sys.path), dict(os.environ)
    pool = InlinePool(
        f"{tmp_path}/owner_of_test.py", size=2, sys_path=[str(tmp_path / "lib")], env={"OF_TEST": "1", "KEPT": "during"}
    )
    async with pool:
        assert await pool.run("word") == ["hello", "1", "during"]
    assert (sys.path, dict(os.environ)) == (path, environment)
    assert "owner_of_test" not in sys.modules
    monkeypatch.delitem(sys.modules, "borrowed_by_test")


@pytest.mark.parametrize("first", [0, 1])
async def test_pools_may_be_left_in_any_order_and_leave_the_process_as_it_was(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lent_by_test.py").write_text("WORD = 'hello'\n")
    (tmp_path / "asker_of_test.py").write_text(
        "import os\n"
        "def ask():\n    import lent_by_test, asker_of_test\n    return lent_by_test.WORD, os.environ.get('OF_TEST')\n"
    )
    for there in ([], [str(tmp_path)]):
        monkeypatch.setattr(sys, "path", [*sys.path, *there])
        path, environment, modules = list(sys.path), dict(os.environ), set(sys.modules)
        pools = [InlinePool(f"{tmp_path}/asker_of_test.py", size=2, env={"OF_TEST": text}) for text in "ab"]
        for pool in pools:
            await pool.__aenter__()
        await pools[first].__aexit__(None, None, None)
        other = pools[1 - first]
        assert await other.run("ask") == ["hello", "ba"[first]]
        await other.__aexit__(None, None, None)
        assert (sys.path, dict(os.environ)) == (path, environment)
        assert set(sys.modules) - modules == {"lent_by_test"}
        del sys.modules["lent_by_test"]


async def test_a_mock_of_a_target_has_its_operations() -> None:
    mocked = create_autospec(Counter, instance=True)
    mocked.count.return_value = 7
    async with InlinePool(mocked) as pool:
        assert await pool.run("count") == 7
    mocked.count.assert_called_once_with()


async def test_a_file_named_like_a_loaded_module_leaves_that_one_alone(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def hi(): return 'hi'\n")
    async with InlinePool(f"{tmp_path}/json.py") as pool:
        assert await pool.run("hi") == "hi"
        assert sys.modules["json"] is json
    assert sys.modules["json"] is json


async def test_what_could_not_be_sent_to_a_process_is_refused_here_too() -> None:
    async with InlinePool(OPS) as pool:
        with pytest.raises(PayloadError, match="the arguments cannot be carried as msgpack"):
            await pool.run("echo", object())
        with pytest.raises(PayloadError, match="the result cannot be carried as msgpack"):
            await pool.run("unserialisable")
        assert await pool.run("echo", (1, 2)) == [1, 2]  # as it would arrive
        mine = [1]
        assert await pool.run("echo", mine) is not mine


async def test_the_events_are_those_of_a_pool_of_processes() -> None:
    told: list[list[str]] = []
    for kind in (Pool, InlinePool):
        with telemetry.capture(("pool",)) as events:
            async with kind(OPS, size=1, name="ops") as pool:
                await pool.run("echo", 1)
                await read(pool.stream("count", 2))
                await pool.session("s").run("remember", "a")
                await pool.try_run("fail")
                await pool.try_run("echo", object())
        told.append(words(events))
    assert told[0] == told[1]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_context_variables_travel_and_stay_with_their_call(concurrency: int) -> None:
    names = ("tests.targets.scoped:request_id",)
    async with InlinePool(scoped, size=1, context=names, concurrency=concurrency) as pool:

        async def ask(request_id: str) -> list[Any]:
            scoped.request_id.set(request_id)
            return [(await pool.run("seen"))[0], (await pool.run("seen_later"))[0]]

        found = await asyncio.gather(*(asyncio.create_task(ask(name)) for name in "ab"))
        assert found == [["a", "a"], ["b", "b"]]
        assert (await pool.run("seen"))[0] == "none"


async def test_an_error_shows_the_lines_of_the_target_and_none_of_ours() -> None:
    async with InlinePool(OPS) as pool:
        with pytest.raises(OperationError) as failure:
            await pool.run("fail", "so it goes")
    error = failure.value
    assert (error.type_name, error.message) == ("ValueError", "so it goes")
    assert error.traceback.count("File ") == 1
    assert "ops.py" in error.traceback


# -- what does not let go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("operation", ["doze", "until"])
async def test_python_code_and_coroutines_are_interrupted_and_the_worker_stays(
    operation: str, concurrency: int
) -> None:
    async with InlinePool(Counter, size=1, concurrency=concurrency, cancel_grace=20) as pool:
        for _ in range(20):
            with pytest.raises(OperationTimeout, match=f"{operation} was not done within its timeout of 0.02 s"):
                await pool.options(timeout=0.02).run(operation)
        assert await pool.options(timeout=20).run("count") == 1
        assert pool.status().restarts == 0


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_call_that_cannot_be_interrupted_ends_all_the_same_and_its_late_result_reaches_nobody(
    concurrency: int,
) -> None:
    async with InlinePool(Counter, size=1, concurrency=concurrency, cancel_grace=0.05) as pool:
        began = time.monotonic()
        with telemetry.capture(("pool", "worker", "terminate")) as ends:
            with pytest.raises(OperationTimeout):
                await pool.options(timeout=0.1).run("wait")
            assert time.monotonic() - began < 10
            assert await pool.run("count") == 1  # another worker, in the place of the one that waits
        assert [event.metadata["reason"] for event in ends] == ["timeout"]
        released.set()
        await eventually(lambda: workers() == 1)
        assert await pool.run("count") == 2
        assert pool.status().restarts == 1


async def test_a_pool_is_left_though_an_operation_goes_on() -> None:
    began = time.monotonic()
    async with InlinePool(Counter, size=1, drain_timeout=0.05, cancel_grace=0.05) as pool:
        left = asyncio.ensure_future(pool.try_run("wait"))
        await eventually(lambda: pool.status().busy)
    assert (await left).error is not None
    assert time.monotonic() - began < 10
    released.set()


async def test_a_worker_that_computes_answers_health_checks() -> None:
    async with InlinePool(Counter, size=1, health_interval=0.02, health_timeout=1.0) as pool:
        call = asyncio.ensure_future(pool.try_run("until"))
        await eventually(lambda: pool.workers()[0].health == "responsive" and pool.workers()[0].operation == "until")
        assert pool.workers()[0].rss is None  # what of this process is its own, nobody knows
        released.set()
        assert (await call).error is None


async def test_a_loop_that_is_given_up_takes_the_threads_along(caplog: pytest.LogCaptureFixture) -> None:
    def run() -> None:
        async def leave_open() -> None:
            pool = InlinePool(Counter, size=2)
            await pool.__aenter__()
            assert await pool.run("count") == 1

        asyncio.run(leave_open())

    await asyncio.to_thread(run)
    await eventually(lambda: workers() == 0)
    gc.collect()


# -- watching and time --------------------------------------------------------------------------------------------


async def test_a_monitor_watches_it_and_a_manual_clock_moves_its_windows() -> None:
    clock = ManualClock()
    async with InlinePool(OPS, size=2, name="ops") as pool, Monitor(pool, config=QUIET, clock=clock) as monitor:
        await read(pool.map("echo", range(10)))
        await pool.try_run("fail")
        seen = monitor.snapshot("1m").pools["ops"]
        assert (seen.operations["echo"].calls, seen.operations["fail"].errors) == (10, 1)
        clock.advance(61)
        assert "echo" not in monitor.snapshot("1m").pools["ops"].operations or (
            monitor.snapshot("1m").pools["ops"].operations["echo"].calls == 0
        )
        assert monitor.snapshot("5m").pools["ops"].operations["echo"].calls == 10


def test_a_manual_clock_stands_until_it_is_moved() -> None:
    clock = ManualClock(wall_s=1000.0)
    assert (clock.monotonic_ns(), clock.wall_ns()) == (0, 1_000_000_000_000)
    clock.advance(1.5)
    assert (clock.monotonic_ns(), clock.wall_ns()) == (1_500_000_000, 1_001_500_000_000)
    clock.step_wall(-10)
    assert (clock.monotonic_ns(), clock.wall_ns()) == (1_500_000_000, 991_500_000_000)
