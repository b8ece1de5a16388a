"""Long runs in which much goes wrong at once. What may be random is so from one seed, which a failure names."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from pool_monitor import OperationCancelled, Pool, PoolClosed
from tests.helpers.chaos import (
    WORK,
    Killer,
    Kind,
    Load,
    Witness,
    again,
    pausing,
    quick,
    resident,
    resizing,
    rested,
    seeded,
    stream,
    turn,
    watched,
)
from tests.helpers.gates import IN_GATES, in_gates, thinned
from tests.helpers.support import eventually

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(sys.platform != "linux", reason="the ways workers are ended here are those of Linux"),
]

KILLED_BY = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGSEGV}
GROWTH_MAX = 16 << 20  # bytes by which a run may raise the memory of the service


async def in_chaos(seed: int, *, calls: int, kills: int, kinds: Sequence[Kind] = (), **fields: Any) -> None:
    """The run: a load on four workers that are being killed, and all that must hold at its end."""
    async with watched(WORK, size=4, timeout=60.0, **fields) as (pool, witness):
        await Load(pool, calls=300, seed=seed + 1, kinds=kinds).run()  # whatever is loaded once is loaded
        await eventually(lambda: rested(pool))
        gc.collect()
        memory, before, turns = resident(), witness.outcomes.copy(), sessions(pool)
        load = Load(pool, calls=calls, seed=seed, kinds=kinds)
        load.turns = turns
        killer = Killer(pool, load, kills=kills, seed=seed)
        await asyncio.gather(load.run(), killer.run())
        await eventually(lambda: rested(pool))
        load.check()
        assert killer.killed >= kills
        check_losses(load, killer, witness)
        told = witness.outcomes
        told.subtract(before)
        assert sum(told.values()) == calls
        # A caller may give up in the moment in which its call ends: then the two do not see the same.
        assert told["worker_lost"] >= load.ends["WorkerDied"]
        assert told["rejected"] == load.ends["QueueTimeout"] + load.ends["PoolSaturated"]
        assert (told["timeout"], told["error"]) == (load.ends["OperationTimeout"], 0)
        gc.collect()
        assert resident() - memory < GROWTH_MAX


def sessions(pool: Pool) -> dict[str, list[int]]:
    """The turns the sessions of an earlier load have had."""
    return {f"s{number}": list(range(1, pool.session(f"s{number}").data.get("number", 0) + 1)) for number in range(8)}


def check_losses(load: Load, killer: Killer, witness: Witness) -> None:
    """Each kill costs one call at most, that its worker was on; and nobody but the killer cost any."""
    assert witness.outcomes["worker_lost"] + witness.events["pool.retry"] <= killer.killed
    assert {error.exit_code for error in load.lost} <= KILLED_BY


@pytest.mark.parametrize(
    ("start_method", "calls"), [in_gates("exec", 1_000), ("zygote", 1_200), in_gates("zygote", 2_000)]
)
async def test_while_workers_are_killed_every_call_ends_once_and_right(start_method: str, calls: int) -> None:
    with seeded(7) as seed:
        await in_chaos(seed, calls=calls, kills=calls // 80, start_method=start_method)


@pytest.mark.parametrize("calls", [3_000, in_gates(6_000)])
async def test_while_workers_with_many_quick_calls_before_them_are_killed_each_kill_costs_one_call(calls: int) -> None:
    with seeded(9) as seed:
        await in_chaos(seed, calls=calls, kills=calls // 150, kinds=(quick, quick, quick, again, stream, turn))


@pytest.mark.slow
@pytest.mark.gate
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("codec", "start_method"), [("msgpack", "exec"), ("msgpack", "zygote"), ("pickle", "zygote")])
async def test_while_very_many_workers_are_killed_every_call_ends_once_and_right(codec: str, start_method: str) -> None:
    with seeded(11) as seed:
        await in_chaos(seed, calls=20_000, kills=220, start_method=start_method, codec=codec)


VERY_MANY = pytest.param(15_000, marks=[*IN_GATES, pytest.mark.timeout(180)])


@pytest.mark.parametrize("calls", [600, VERY_MANY])
async def test_while_a_pool_is_resized_and_its_workers_stumble_no_call_notices(calls: int) -> None:
    with seeded(13) as seed:
        fields: dict[str, Any] = {"size": 4, "max_size": 6, "timeout": 60.0, "cancel_grace": 1.0}
        async with watched(WORK, resized=True, **fields) as (pool, witness):
            load = Load(pool, calls=calls, seed=seed)
            await asyncio.gather(load.run(), resizing(pool, load, (1, 6), seed), pausing(pool, load, seed))
            load.check()
            assert load.lost == []
            await pool.resize(3)
            await eventually(lambda: rested(pool))
            assert pool.status().size == len(pool.workers()) == 3
            assert witness.ends.keys() <= {"resize", "cancel", "timeout"}
            assert witness.events["pool.resize"] > 10


@pytest.mark.parametrize("step", thinned(range(4), 4))
async def test_a_pool_that_is_drained_under_load_ends_every_call_once(step: int) -> None:
    with seeded(17 + step) as seed:
        async with watched(WORK, size=3, max_size=6, resized=True) as (pool, witness):
            load = Load(pool, calls=600, seed=seed, closing=(PoolClosed, OperationCancelled))
            killer = Killer(pool, load, kills=20, seed=seed)
            loading = asyncio.gather(load.run(), killer.run())
            await eventually(lambda: load.done >= 100 + 50 * step)
            open_calls = len(witness.open)
            result = await pool.drain(0.02 * step)
            assert result.finished + result.cancelled == open_calls
            assert result.abandoned <= result.cancelled
            await loading
            load.check()
            check_losses(load, killer, witness)
            assert load.ends["OperationCancelled"] <= result.cancelled
            assert load.ends["PoolClosed"] > 0
