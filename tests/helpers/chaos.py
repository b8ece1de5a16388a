"""Watching a pool for what must hold at every moment, and loading it while things go wrong.

A `Witness` hears every event of a pool and keeps what it finds wrong. A `Load` is many callers with work of every
kind; each call's end is checked where it comes. A `Killer` ends workers, or only stops them for a moment. All that is
random comes from one seed.
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
"""Which gauge of a pool a state of a worker counts in."""
FOUND_MAX = 20  # what is kept of that which is wrong

_numbers = itertools.count(1)


# -- what must hold at every moment -------------------------------------------------------------------------------


class Witness:
    """Hears every event of *pool* inside its ``with`` block; `found` is what was wrong, in words.

    At every event the gauges are those of the slots, and add up to the size the pool has (to that of its slots while
    it is *resized*). Every call that starts ends exactly once.
    """

    def __init__(self, pool: Pool, *, resized: bool = False) -> None:
        self.pool, self.resized = pool, resized
        self.found: list[str] = []
        self.open: dict[int, str] = {}  # calls that have started and not ended, and their operations
        self.outcomes: Counter[str] = Counter()  # of calls that have ended
        self.events: Counter[str] = Counter()
        self.last: dict[str, Mapping[str, Any]] = {}  # the metadata an event had last
        self.ends: Counter[str] = Counter()  # of worker processes: "crash", or why they were ended
        self._id = f"witness {next(_numbers)}"

    def __enter__(self) -> Self:
        telemetry.attach_many(self._id, [name for name in CATALOGUE if name[0] == "pool"], self._hear)
        return self

    def __exit__(self, *_error: object) -> None:
        if not telemetry.detach(self._id):
            self._find("the witness was detached: its handler raised")

    def check(self) -> None:
        """All that was started has ended, and nothing was found wrong."""
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
    """What a pool that is at rest holds: descriptors and tasks, by number, and processes."""

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
    """Whether every worker the pool wants is idle, and there is no other."""
    view = pool.status()
    return view.idle == view.size == len(pool.workers()) and view.waiting == 0


@asynccontextmanager
async def watched(target: str, *, resized: bool = False, **fields: Any) -> AsyncIterator[tuple[Pool, Witness]]:
    """A pool without patience or breaker, and its witness, whose findings are checked after the pool has closed."""
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
    """*callers* callers that make *calls* calls in all, of every kind by turns, and check how each ends.

    An error that a kind of call may not have, or a wrong result, is in `found`. Errors in *closing* are right too:
    those of a pool that is being closed.
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
        """What the calls of each session returned, in the order in which they did."""
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
        """Every call has ended, as it may; no session has lost or repeated a turn it was told of."""
        assert not self.found, "\n".join(self.found)
        assert self.done == sum(self.ends.values()) == self.calls
        for name, turns in self.turns.items():
            assert turns == list(range(1, len(turns) + 1)), name
            assert self.pool.session(name).data.get("number", 0) == len(turns), name


async def quick(load: Load, number: int, _rng: random.Random) -> bool:
    return bool(await load.pool.run("quick", number) == number)


async def again(load: Load, number: int, rng: random.Random) -> bool:
    """May be sent again, and so is never lost."""
    caller = load.pool.options(idempotent=True)
    return bool(await caller.run("nap", number, rng.uniform(0.0, 0.002)) == number)


async def nap(load: Load, number: int, rng: random.Random) -> bool:
    return bool(await load.pool.run("nap", number, rng.uniform(0.001, 0.005)) == number)


async def burn(load: Load, number: int, rng: random.Random) -> bool:
    return bool(await load.pool.run("burn", number, rng.uniform(0.001, 0.003)) == number)


async def later(load: Load, number: int, rng: random.Random) -> bool:
    return bool(await load.pool.run("later", number, rng.uniform(0.0, 0.003)) == number)


async def stream(load: Load, _number: int, rng: random.Random) -> bool:
    """Reads all of it, or leaves early; what comes before an error is right too."""
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
    """A caller that gives up, perhaps at once, perhaps too late."""
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
"""Each kind of call, and how it may fail."""


# -- trouble ------------------------------------------------------------------------------------------------------


class Killer:
    """Sends signals to workers of *pool*, spread over a load, until it has ended *kills* of them."""

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
        """Return when all are killed, or the load is over."""
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
    """Resize *pool* at random within *sizes* as long as the load goes on."""
    rng = random.Random(f"resizing {seed}")
    while load.done < load.calls:
        await pool.resize(rng.randint(*sizes))
        await asyncio.sleep(rng.choice([0.0, 0.005, 0.05]))


async def pausing(pool: Pool, load: Load, seed: int) -> None:
    """Stop workers for a moment and let them go on, as long as the load goes on."""
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
    """The seed of a run: that in the environment, or *default*; a failure says how to have it again."""
    seed = int(os.environ.get("CHAOS_SEED", default))
    try:
        yield seed
    except BaseException as error:
        error.add_note(f"the seed was {seed}: CHAOS_SEED={seed} repeats the run, as far as it can be repeated")
        raise


def resident() -> int:
    """Bytes of memory this process has now."""
    return int(psutil.Process().memory_info().rss)
