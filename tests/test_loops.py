"""A pool and its event loop: use from elsewhere, entering and leaving under cancellation, late closing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from pool_monitor import Pool, PoolClosed, PoolError, WrongLoop, telemetry
from tests.helpers.programs import Program
from tests.helpers.support import OPS, ops_pool, read, words

Use = Callable[[Pool], Awaitable[Any]]
USES: dict[str, Use] = {
    "run": lambda pool: pool.run("pid"),
    "run with options": lambda pool: pool.options(timeout=1).run("pid"),
    "run of a session": lambda pool: pool.session("s").run("pid"),
    "stream": lambda pool: read(pool.stream("count", 2)),
    "map": lambda pool: read(pool.map("echo", [1, 2], return_exceptions=True)),
    "resize": lambda pool: pool.resize(2),
    "drain": lambda pool: pool.drain(),
    "pause": lambda pool: pool.pause(),
    "resume": lambda pool: pool.resume(),
    "restart": lambda pool: pool.restart(),
    "leave": lambda pool: pool.__aexit__(None, None, None),
}


def in_a_loop_of_its_own(use: Use, pool: Pool) -> Any:
    async def used() -> Any:
        return await use(pool)

    return asyncio.run(used())


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


# -- used from elsewhere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.usefixtures("both_pools")
async def test_what_another_event_loop_asks_is_refused_before_anything_is_done(use: Use, no_leaks: None) -> None:
    async with ops_pool(max_size=2) as pool:
        before = pool.status()
        with (
            telemetry.capture(("pool",)) as events,
            pytest.raises(WrongLoop, match="run_coroutine_threadsafe") as refusal,
        ):
            await asyncio.to_thread(in_a_loop_of_its_own, use, pool)
        assert words(events) == []
        assert pool.status() == before
        assert not refusal.value.retryable
        assert await pool.run("echo", 1) == 1


@pytest.mark.usefixtures("both_pools")
async def test_try_run_gives_the_refusal_and_a_session_raises_it(no_leaks: None) -> None:
    async with ops_pool() as pool:
        session = pool.session("s")
        assert await session.run("remember", "a") == ["a"]
        outcome = await asyncio.to_thread(in_a_loop_of_its_own, lambda pool: pool.try_run("pid"), pool)
        assert isinstance(outcome.error, WrongLoop)
        for ask in (lambda: session.data, session.end):
            with pytest.raises(WrongLoop):
                await asyncio.to_thread(ask)
        assert session.data == {"words": ["a"]}
        assert pool.status().completed == 1


@pytest.mark.usefixtures("both_pools")
async def test_another_thread_may_use_the_pool_through_its_loop(no_leaks: None) -> None:
    async with ops_pool() as pool:
        loop = asyncio.get_running_loop()
        submitted = await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(pool.run("echo", 1), loop))
        assert await asyncio.wrap_future(submitted) == 1


@pytest.mark.usefixtures("both_pools")
def test_a_session_can_be_read_while_the_loop_stands_still() -> None:
    with asyncio.Runner() as runner:
        pool = ops_pool()
        session = pool.session("s")
        runner.run(pool.__aenter__())
        assert runner.run(session.run("remember", "a")) == ["a"]
        assert session.data == {"words": ["a"]}
        assert session.end()
        runner.run(pool.__aexit__(None, None, None))
    assert session.data == {}


@pytest.mark.usefixtures("both_pools")
def test_a_pool_whose_loop_has_ended_is_closed() -> None:
    pool = ops_pool()
    asyncio.run(pool.__aenter__())
    for use in (USES["run"], USES["stream"], USES["resize"], USES["drain"]):
        with pytest.raises(PoolClosed):
            in_a_loop_of_its_own(use, pool)


def test_without_an_asyncio_loop_a_pool_cannot_be_entered_and_says_what_it_needs() -> None:
    entering = ops_pool().__aenter__()
    with pytest.raises(WrongLoop, match=r"needs asyncio.*anyio\.run\(main, backend='asyncio'\)"):
        entering.send(None)  # as a framework other than asyncio would


FORKING = """
import asyncio, os, sys
from pool_monitor import Pool, WrongLoop
async def main():
    async with Pool(sys.argv[1], size=1, name="p") as pool:
        before = await pool.run("pid")
        child = os.fork()
        if not child:
            try:
                await pool.run("pid")
            except WrongLoop as error:
                print(str(error).replace(str(os.getppid()), "PARENT").replace(str(os.getpid()), "CHILD"), flush=True)
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), await pool.run("pid") == before, flush=True)
asyncio.run(main())
"""


def test_a_process_forked_off_the_service_is_refused_and_leaves_the_pool_alone(
    tmp_path: Path, program: Callable[..., Program]
) -> None:
    script = tmp_path / "service.py"
    script.write_text(FORKING)
    done = program(str(script), OPS).ended()
    refusal, goes_on = done.out.splitlines()
    assert refusal.startswith("pool 'p' was entered in process PARENT, and this is process CHILD, forked off it")
    assert goes_on == "3 True"
    assert (done.code, done.err) == (0, "")


# -- closed late --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["zygote", "exec"])
@pytest.mark.parametrize("end", ["asyncio.run", "stopped", "closed"])
def test_leaving_on_another_loop_when_the_pools_own_does_not_run_ends_every_process_quietly(
    end: str, method: str
) -> None:
    before = set(children())
    pool = ops_pool(size=2, start_method=method)
    if end == "asyncio.run":
        asyncio.run(pool.__aenter__())
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(pool.__aenter__())
        if end == "closed":
            loop.close()
    for _ in range(2):
        in_a_loop_of_its_own(USES["leave"], pool)
        assert pool.status().state == "closed"
        assert set(children()) == before
    if end == "stopped":  # when the loop runs again, the pool's runner ends too
        assert pool._runner is not None
        loop.run_until_complete(pool._runner)
        loop.close()
    elif end == "closed":
        pool._runner._log_destroy_pending = False  # type: ignore[union-attr] - that such loops leave tasks is theirs


# -- cancelled ----------------------------------------------------------------------------------------------------


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that collects garbage and returns the errors that asyncio has logged."""

    def found() -> list[str]:
        gc.collect()
        return [record.getMessage() for record in caplog.records if record.name == "asyncio"]

    caplog.set_level(logging.WARNING)
    return found


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05])
@pytest.mark.usefixtures("both_pools")
async def test_entering_in_a_scope_that_is_cancelled_ends_in_order(
    delay: float, complaints: Callable[[], list[str]], no_leaks: None
) -> None:
    pool = ops_pool(size=2)
    with telemetry.capture(("pool", "error")) as errors, anyio.move_on_after(delay) as scope:
        async with pool:
            await anyio.sleep(20)
    assert scope.cancelled_caught
    assert pool.status().state == "closed"
    assert pool.workers() == []
    assert errors == []
    assert complaints() == []


@pytest.mark.usefixtures("both_pools")
async def test_entering_may_be_cancelled_twice(complaints: Callable[[], list[str]], no_leaks: None) -> None:
    pool = ops_pool()
    entering = asyncio.ensure_future(pool.__aenter__())
    for _ in range(5):
        await asyncio.sleep(0)
    for _ in range(3):
        entering.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert pool._runner is not None
    await asyncio.wait([pool._runner])
    assert not pool._runner.cancelled()
    assert pool.status().state == "closed"
    assert complaints() == []


async def test_a_time_limit_on_entering_is_that_and_nothing_else(no_leaks: None, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    pool = Pool(f"{tmp_path}/slow.py:X", size=1)
    with pytest.raises(TimeoutError) as error:
        async with asyncio.timeout(0.1), pool:
            pass
    assert not isinstance(error.value, PoolError)
    assert pool.status().state == "closed"


async def test_leaving_in_a_scope_that_is_cancelled_returns_when_every_process_is_gone(
    complaints: Callable[[], list[str]], no_leaks: None
) -> None:
    pool = ops_pool(size=2)
    with anyio.CancelScope() as scope:
        async with pool:
            call = asyncio.ensure_future(pool.run("sleep", 60))
            scope.cancel()
            await anyio.sleep(20)
    assert pool.status().state == "closed"
    assert pool.workers() == []
    with pytest.raises(PoolError):
        await call
    assert complaints() == []


@pytest.mark.usefixtures("both_pools")
async def test_leaving_a_pool_whose_runner_was_cancelled_cancels_no_other_task(no_leaks: None) -> None:
    pool = ops_pool()
    async with pool:
        assert pool._runner is not None
        pool._runner.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pool._runner
    assert pool.status().state == "closed"


def test_many_threads_at_once_disturb_no_call() -> None:
    async def main() -> None:
        async with ops_pool(size=2) as pool:
            refusals: list[WrongLoop] = []

            def ask() -> None:
                for _ in range(20):
                    try:
                        in_a_loop_of_its_own(USES["run"], pool)
                    except WrongLoop as error:
                        refusals.append(error)

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                assert await pool.run("echo", 1) == 1
            assert len(refusals) == 80
            assert (pool.status().busy, pool.status().waiting) == (0, 0)

    asyncio.run(main())
