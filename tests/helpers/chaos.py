"""Checks of a pool's invariants at every event, and load on the pool while its workers fail.

A `Witness` handles every event of a pool and records violations. A `Load` is many callers with calls of every kind; it
checks how each call ends. A `Killer` kills workers, some of them after a stop. All random choices come from one seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

from pool_monitor import OperationTimeout, Pool, PoolError, Rejected, WorkerDied, telemetry
from pool_monitor.events import CATALOGUE
from tests.helpers.support import TARGETS

FAULTS = f"{TARGETS / 'faults.py'}:Faults"
WORK = f"{TARGETS / 'faults.py'}:Work"
GAUGES = {
    "initializing": "starting",
    "ready": "idle",
    "degraded": "idle",
    "busy": "busy",
    "terminating": "draining",
    "terminated": "dead",
}
"""State of a worker -> the gauge of the pool that counts it."""
FOUND_MAX = 20  # violations that are kept

_numbers = itertools.count(1)


# -- what must hold at every moment -------------------------------------------------------------------------------


class Witness:
    """Handles every event of *pool* in its ``with`` block. `found` lists the violations, in words.

    At every event, the gauges must match the states of the slots. Unless the pool is *resized*, they must add up to its
    size. Every call that starts must end exactly once.
    """

    def __init__(self, pool: Pool, *, resized: bool = False) -> None:
        self.pool, self.resized = pool, resized
        self.found: list[str] = []
        self.open: dict[int, str] = {}  # calls that have started and not ended, and their operations
        self.outcomes: Counter[str] = Counter()  # of calls that have ended
        self.events: Counter[str] = Counter()
        self.last: dict[str, Mapping[str, Any]] = {}  # the latest metadata of each event
        self.ends: Counter[str] = Counter()  # of worker processes: "crash", or the reason of the pool
        self._id = f"witness {next(_numbers)}"

    def __enter__(self) -> Self:
        telemetry.attach_many(self._id, [name for name in CATALOGUE if name[0] == "pool"], self._hear)
        return self

    def __exit__(self, *_error: object) -> None:
        if not telemetry.detach(self._id):
            self._find("the witness was detached: its handler raised")

    def check(self) -> None:
        """Assert that every call has ended and no violation was found."""
        if self.open:
            self._find(f"never ended: {self.open}")
        assert not self.found, "\n".join(self.found)

    def _find(self, what: str) -> None:
        if len(self.found) < FOUND_MAX:
            self.found.append(what)

    def _hear(self, name: tuple[str, ...], _measurements: object, about: Mapping[str, Any], _config: object) -> None:
        if about["pool"] != self.pool.name:
            return
        dotted = ".".join(name)
        self.events[dotted] += 1
        self.last[dotted] = about
        if dotted == "pool.operation.start":
            if about["call_id"] in self.open:
                self._find(f"started twice: {about}")
            self.open[about["call_id"]] = about["operation"]
        elif dotted in ("pool.operation.stop", "pool.operation.exception"):
            if self.open.pop(about["call_id"], None) is None:
                self._find(f"ended twice, or never started: {dotted} {about}")
            self.outcomes[about.get("outcome", "ok")] += 1
        elif dotted == "pool.worker.crash":
            self.ends["crash"] += 1
        elif dotted == "pool.worker.terminate":
            self.ends[about["reason"]] += 1
        self.look(dotted)

    def look(self, when: str) -> None:
        """Check the gauges."""
        view, slots = self.pool.status(), self.pool.workers()
        gauges = {name: getattr(view, name) for name in ("busy", "idle", "starting", "draining", "dead")}
        counted = Counter(GAUGES[slot.state] for slot in slots)
        if any(counted[name] != count for name, count in gauges.items()):
            self._find(f"{when}: gauges {gauges}, but slots {dict(counted)}")
        if view.state == "running" and not self.resized and sum(gauges.values()) != view.size:
            self._find(f"{when}: gauges {gauges} do not add up to {view.size}")
        if not 0 <= view.waiting <= view.queue_limit:
            self._find(f"{when}: {view.waiting} waiting")


class Footprint:
    """The numbers of descriptors, tasks and child processes while a pool is at rest."""

    def __init__(self) -> None:
        self.descriptors = len(list(Path("/proc/self/fd").iterdir()))
        self.tasks = len(asyncio.all_tasks())
        self.processes = len(psutil.Process().children(recursive=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Footprint) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Footprint({vars(self)})"


def rested(pool: Pool) -> bool:
    """Return whether every worker that the pool wants is idle, and there is no other worker."""
    view = pool.status()
    return view.idle == view.size == len(pool.workers()) and view.waiting == 0


@asynccontextmanager
async def watched(target: str, *, resized: bool = False, **fields: Any) -> AsyncIterator[tuple[Pool, Witness]]:
    """Run a pool with short timeouts and no breaker, and its witness, which is checked after the pool has closed."""
    defaults: dict[str, Any] = {
        "size": 2,
        "name": "watched",
        "timeout": 30.0,
        "cancel_grace": 0.1,
        "stop_grace": 0.5,
        "kill_grace": 0.5,
        "backoff_min": 0.01,
        "backoff_max": 0.05,
        "breaker_failures": 0,
        "retries": 5,
        "retry_budget": 1.0,
        "shed": False,
    }
    pool = Pool(target, **{**defaults, **fields})
    with Witness(pool, resized=resized) as witness:
        try:
            async with pool:
                yield pool, witness
        finally:
            await asyncio.sleep(0)  # for the callers of calls that closing has ended
    witness.check()


# -- load ---------------------------------------------------------------------------------------------------------


class Load:
    """*callers* callers that make *calls* calls altogether, of random kinds, and check how each ends.

    `found` lists wrong results, and errors that are not allowed for the kind of call. Errors in *closing* are always
    allowed: those of a pool that is being closed.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        calls: int,
        seed: int,
        callers: int = 50,
        kinds: Sequence[Kind] = (),
        closing: tuple[type[PoolError], ...] = (),
    ) -> None:
        self.pool, self.calls, self.seed, self.callers, self.closing = pool, calls, seed, callers, closing
        self.kinds = kinds or tuple(KINDS)
        self.done = 0  # calls that have ended
        self.found: list[str] = []
        self.ends: Counter[str] = Counter()  # of calls, as their callers saw them: "ok" or the error's type
        self.lost: list[WorkerDied] = []
        self.turns: dict[str, list[int]] = {f"s{number}": [] for number in range(8)}
        """The results of each session's calls, in the order of their return."""
        self._numbers = iter(range(calls))

    async def run(self) -> None:
        """Return when every call has ended."""
        await asyncio.gather(*(self._caller() for _ in range(self.callers)))

    async def _caller(self) -> None:
        for number in self._numbers:
            rng = random.Random(f"{self.seed} {number}")
            kind = rng.choice(self.kinds)
            try:
                right = await kind(self, number, rng)
                self.ends["ok"] += 1
                if not right:
                    self._find(f"call {number}, {kind.__name__}: a wrong result")
            except (PoolError, asyncio.CancelledError) as error:
                self.ends[type(error).__name__] += 1
                if isinstance(error, WorkerDied):
                    self.lost.append(error)
                if not isinstance(error, (*KINDS[kind], *self.closing)):
                    self._find(f"call {number}, {kind.__name__}: {error!r}")
            self.done += 1

    def _find(self, what: str) -> None:
        if len(self.found) < FOUND_MAX:
            self.found.append(what)

    def check(self) -> None:
        """Assert that every call has ended in an allowed way, and that no session lost or repeated a turn."""
        assert not self.found, "\n".join(self.found)
        assert self.done == sum(self.ends.values()) == self.calls
        for name, turns in self.turns.items():
            assert turns == list(range(1, len(turns) + 1)), name
            assert self.pool.session(name).data.get("number", 0) == len(turns), name


async def quick(load: Load, number: int, _rng: random.Random) -> bool:
    return bool(await load.pool.run("quick", number) == number)


async def again(load: Load, number: int, rng: random.Random) -> bool:
    """An idempotent call: the pool may send it again, so it is never lost."""
    caller = load.pool.options(idempotent=True)
    return bool(await caller.run("nap", number, rng.uniform(0.0, 0.002)) == number)


async def nap(load: Load, number: int, rng: random.Random) -> bool:
    return bool(await load.pool.run("nap", number, rng.uniform(0.001, 0.005)) == number)


async def burn(load: Load, number: int, rng: random.Random) -> bool:
    return bool(await load.pool.run("burn", number, rng.uniform(0.001, 0.003)) == number)


async def later(load: Load, number: int, rng: random.Random) -> bool:
    return bool(await load.pool.run("later", number, rng.uniform(0.0, 0.003)) == number)


async def stream(load: Load, _number: int, rng: random.Random) -> bool:
    """A stream that is read to its end or left early. Items before an error must be right too."""
    stop, wanted = rng.randrange(100), rng.randrange(200)
    got: list[int] = []
    try:
        async with aclosing(load.pool.stream("items", stop)) as items:
            async for item in items:
                got.append(item)
                if len(got) == wanted:
                    break
    except PoolError:
        if got != list(range(len(got))):
            return False
        raise
    return got == list(range(len(got))) and len(got) == (min(stop, wanted) or stop)


async def turn(load: Load, _number: int, rng: random.Random) -> bool:
    name = rng.choice(list(load.turns))
    load.turns[name].append(await load.pool.session(name).run("bump", rng.uniform(0.0, 0.001)))
    return True


async def hasty(load: Load, number: int, rng: random.Random) -> bool:
    caller = load.pool.options(timeout=rng.uniform(0.001, 0.05))
    return bool(await caller.run("nap", number, rng.uniform(0.0, 0.01)) == number)


async def fickle(load: Load, number: int, rng: random.Random) -> bool:
    """A caller that cancels its call: at once, later, or after its end."""
    call = asyncio.ensure_future(load.pool.run("nap", number, rng.uniform(0.0, 0.01)))
    await asyncio.sleep(rng.choice([0.0, 0.001, rng.uniform(0.0, 0.05)]))
    call.cancel()
    return bool(await call == number)


Kind = Callable[[Load, int, random.Random], Awaitable[bool]]
KINDS: dict[Kind, tuple[type[BaseException], ...]] = {
    quick: (WorkerDied,),
    again: (),
    nap: (WorkerDied,),
    burn: (WorkerDied,),
    later: (WorkerDied,),
    stream: (WorkerDied,),
    turn: (WorkerDied,),
    hasty: (WorkerDied, OperationTimeout, Rejected),
    fickle: (WorkerDied, asyncio.CancelledError),
}
"""Each kind of call, and the errors it may raise."""


# -- faults -------------------------------------------------------------------------------------------------------


class Killer:
    """Sends signals to workers of *pool*, spread over a load, until it has killed *kills* of them."""

    WAYS = (
        (signal.SIGKILL,),
        (signal.SIGTERM,),
        (signal.SIGSEGV,),
        (signal.SIGSTOP, signal.SIGKILL),
    )

    def __init__(self, pool: Pool, load: Load, *, kills: int, seed: int) -> None:
        self.pool, self.load, self.kills = pool, load, kills
        self.killed = 0
        self._rng = random.Random(f"killer {seed}")

    async def run(self) -> None:
        """Return when *kills* workers are killed, or the load is over."""
        while self.killed < self.kills and self.load.done < self.load.calls:
            if self.load.done * self.kills >= self.killed * self.load.calls * 0.9:
                await self._kill()
            await asyncio.sleep(0.001)

    async def _kill(self) -> None:
        pids = [worker.pid for worker in self.pool.workers() if worker.state in ("ready", "busy") and worker.pid]
        if not pids:
            return
        pid = self._rng.choice(pids)
        for number in self._rng.choice(self.WAYS):
            if number == signal.SIGKILL:
                await asyncio.sleep(self._rng.choice([0.0, 0.01]))
            if not any(worker.pid == pid for worker in self.pool.workers()):
                return  # the pool was quicker; the number may be another's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        self.killed += 1


async def resizing(pool: Pool, load: Load, sizes: tuple[int, int], seed: int) -> None:
    """Resize *pool* at random within *sizes* until the load is over."""
    rng = random.Random(f"resizing {seed}")
    while load.done < load.calls:
        await pool.resize(rng.randint(*sizes))
        await asyncio.sleep(rng.choice([0.0, 0.005, 0.05]))


async def pausing(pool: Pool, load: Load, seed: int) -> None:
    """Stop and continue random workers until the load is over."""
    rng = random.Random(f"pausing {seed}")
    while load.done < load.calls:
        pids = [worker.pid for worker in pool.workers() if worker.state in ("ready", "busy") and worker.pid]
        pid = rng.choice(pids) if pids else None
        for number in (signal.SIGSTOP, signal.SIGCONT):
            if any(worker.pid == pid for worker in pool.workers()) and pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            await asyncio.sleep(rng.uniform(0.0, 0.02))


@contextmanager
def seeded(default: int) -> Iterator[int]:
    """Yield the seed of a run: CHAOS_SEED, or *default*. A failure gets a note with the seed."""
    seed = int(os.environ.get("CHAOS_SEED", default))
    try:
        yield seed
    except BaseException as error:
        error.add_note(f"the seed was {seed}: CHAOS_SEED={seed} repeats the run, as far as it can be repeated")
        raise


def resident() -> int:
    """Return the memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)
