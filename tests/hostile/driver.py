"""The service that hostile workers are let loose on, and what must hold of it.

A `Battle` is one pool. It opens in peace, with honest workers; then there is war: every worker that ends is followed by
the next session, until all were played; then peace again. Meanwhile callers make calls. It is right when

- every call ends once, in time, with what the worker that it was on last has sent for it, or with a documented error;
  on an honest worker with its own result, unless that worker was ended;
- the gauges are true at every event, and no exception reaches the event loop;
- the service takes a bounded amount of memory, and holds nothing more at the end than at the beginning;
- in peace all slots are filled again and answer, and the pool closes in time;
- nothing of a worker's was run in the service.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from pool_monitor import (
    OperationCancelled,
    OperationError,
    OperationTimeout,
    Pool,
    PoolSaturated,
    ProtocolError,
    QueueTimeout,
    SessionLost,
    WorkerDied,
)
from tests.helpers.chaos import Witness, rested
from tests.helpers.support import Leftovers
from tests.hostile.messages import KINDS, is_tag
from tests.hostile.worker import FIELD, LIFE_S, RECORD, SENT, SERVICE, Field

TARGET = f"{Path(__file__).with_name('target.py')}:Target"
NEVER_BEGUN = (QueueTimeout, PoolSaturated, SessionLost)
ERRORS = (OperationError, OperationTimeout, WorkerDied, ProtocolError, OperationCancelled, *NEVER_BEGUN)
HUNG_S = 10.0  # beyond its deadline, after which a call counts as hung
QUIET_S = 30.0  # no other session has begun: the pool has come to a stop
CLOSED_S = 20.0
RESIDENT_MAX = 128 << 20  # bytes by which the service may grow while there is war, and for one message that is decoded:
DECODED = 70  # times its size, if it is made of empty dicts
KEPT_MAX = 48 << 20  # and that it may keep, with what the C library does not give back of such a message:
KEPT = 24  # times its size; it does not grow with further sessions
FOUND_MAX = 40

_asking: ContextVar[int] = ContextVar("asking")


class Layout(NamedTuple):
    """A kind of pool. *share* is how many sessions of a run it gets, compared with the others; every *honest*-th
    process of it is honest.
    """

    door: str
    codec: str
    concurrency: int = 1
    honest: int = 0
    frame_limit: int = 256 << 10
    share: int = 4
    size: int = 16

    def __str__(self) -> str:
        return f"{self.door}-{self.codec}-{self.concurrency}"


LAYOUTS = (
    Layout("zygote", "msgpack", honest=4),
    Layout("zygote", "msgpack", 4, honest=4),
    Layout("zygote", "json"),
    Layout("zygote", "json", 4, honest=4),
    Layout("zygote", "pickle", honest=4),
    Layout("zygote", "pickle", 4),
    Layout("zygote", "auto", frame_limit=4 << 20),
    Layout("command", "auto", 4, honest=4, frame_limit=4 << 20, share=1, size=6),
    Layout("command", "json", share=1, size=6),
    Layout("exec", "msgpack", honest=4, share=1, size=6),
    Layout("exec", "pickle", 4, share=1, size=6),
)
"""Session number n is played in the layout at n modulo their number."""


def open_pool(layout: Layout, field: Field) -> Pool:
    fields: dict[str, Any] = {
        "zygote": {"start_method": "zygote", "preload": ("tests.hostile.worker",)},
        "command": {"command": (sys.executable, "-m", "tests.hostile.worker")},
        "exec": {"start_method": "exec"},
    }[layout.door]
    return Pool(
        TARGET,
        name="hostile",
        size=layout.size,
        codec=layout.codec,
        concurrency=layout.concurrency,
        frame_limit=layout.frame_limit,
        session_data_limit=64 << 10,
        env={FIELD: str(field.path), SERVICE: str(os.getpid())},
        timeout=20.0,
        cancel_grace=0.1,
        stop_grace=0.3,
        kill_grace=0.3,
        start_timeout=30.0,  # hostile ones do not live so long
        backoff_min=0.001,
        backoff_max=0.01,
        restart_limit=10**9,
        breaker_failures=0,
        health_interval=0.3,
        health_timeout=0.3,
        health_misses=2,
        retries=3,
        retry_budget=1.0,
        shed=False,
        warmup="staged",
        **fields,
    )


class Process(NamedTuple):
    """The process behind a slot. *session* is None where it is honest."""

    pid: int
    session: int | None


class Observer(Witness):
    """Also knows which process each call was handed to last. Calls are known by their callers' numbers."""

    def __init__(self, pool: Pool, field: Field) -> None:
        super().__init__(pool)
        self.on: dict[int, Process] = {}
        self._numbers: dict[int, int] = {}
        self._slots: dict[str, Process] = {}
        self._roster = (field.path / "roster").open()
        self._sessions: dict[int, int | None] = {}

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._roster.close()

    def _hear(self, name: tuple[str, ...], measurements: object, about: Mapping[str, Any], config: object) -> None:
        super()._hear(name, measurements, about, config)
        dotted = ".".join(name)
        if dotted == "pool.operation.start":
            self._numbers[about["call_id"]] = _asking.get()
        elif dotted == "pool.worker.ready":
            for line in self._roster:
                pid, session = map(int, line.split())
                self._sessions[pid] = None if session < 0 else session
            self._slots[about["worker"]] = Process(about["pid"], self._sessions.get(about["pid"], -1))
        elif dotted == "pool.worker.checkout":
            self.on[self._numbers[about["call_id"]]] = self._slots[about["worker"]]
        elif dotted in ("pool.operation.stop", "pool.operation.exception"):
            self._numbers.pop(about["call_id"], None)

    def honest(self, pid: int) -> bool:
        return self._sessions.get(pid, -1) is None

    def slots(self) -> str:
        """The pool's slots, in words, with the sessions behind them."""
        slots = [(slot, self._slots.get(slot.id)) for slot in self.pool.workers()]
        return "; ".join(f"{slot.id} {slot.state} with {slot.calls_held} calls, {process}" for slot, process in slots)


class Battle:
    """One layout's sessions: *count* of them, from the one numbered *first*, each *step* further."""

    def __init__(self, layout: Layout, field: Field, *, seed: int, first: int, count: int, step: int) -> None:
        self.layout, self.field, self.seed = layout, field, seed
        self.first, self.count, self.step = first, count, step
        self._found: dict[str, list[Any]] = {}  # by what it is but for its numbers: the first of it, and how many
        self.ends: Counter[str] = Counter()
        self.memory = {"before": 0, "peak": 0, "after": 0}
        self.seconds = 0.0
        self._calls = 0
        self._over = False

    @property
    def found(self) -> list[str]:
        """All that was wrong, in words; what differs in its numbers only stands once."""
        return [f"{self.layout}: {what}" + f" ({count} times)" * (count > 1) for what, count in self._found.values()]

    def find(self, what: str) -> None:
        kind = re.sub(r"\d+", "#", what)[:200]
        if kind in self._found or len(self._found) < FOUND_MAX:
            self._found.setdefault(kind, [what, 0])[1] += 1

    async def fight(self) -> None:
        """Returns when the pool has closed."""
        leftovers, began = Leftovers(), time.monotonic()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self.find(f"unhandled in the loop: {_told(context)}"))
        sys.unraisablehook = lambda raised: self.find(f"unraisable: {raised.exc_value!r} in {raised.object!r}")
        pool = self.pool = open_pool(self.layout, self.field)
        with Observer(pool, self.field) as self.observer:
            try:
                await pool.__aenter__()
                await self._battle()
            except Exception as error:
                self.find(f"the battle broke off: {error!r}")
            await self._close()
        for what in self.observer.found:
            self.find(what)
        if self.observer.open:
            self.find(f"calls that never ended: {self.observer.open}")
        if not await _soon(lambda: not leftovers.found(), 5.0):
            self.find(f"left behind: {leftovers.found()}")
        if not await _soon(lambda: not self._strays(), LIFE_S + 3.0):
            self.find(f"processes outlive the pool: {self._strays()}")
            for process in self._strays():
                process.kill()
        slips = (self.field.path / "slips").read_text()
        if slips:
            self.find(f"the test itself is wrong: {slips[:2000]}")
        if Path(self.field.marker).exists():
            self.find("a worker's program ran in the service")
        self.seconds = time.monotonic() - began

    async def _battle(self) -> None:
        await self._peace()
        gc.collect()
        self.memory["before"] = self.memory["peak"] = _resident()
        self.field.set(self.seed, self.first, self.count, self.step, self.layout.honest)
        for worker in self.pool.workers():
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGKILL)
        callers = [
            asyncio.create_task(self._caller(number))
            for number in range(self.layout.size * self.layout.concurrency + 8)
        ]
        await self._watch(callers)
        self._over = True
        for outcome in await asyncio.gather(*callers, return_exceptions=True):
            if isinstance(outcome, BaseException):
                self.find(f"a caller broke off: {outcome!r}")
        self.field.set(self.seed, 0, 0, 1, 0)
        await self._peace()
        gc.collect()
        self.memory["after"] = _resident()
        message = self.layout.frame_limit
        if self.memory["peak"] - self.memory["before"] > RESIDENT_MAX + DECODED * message:
            self.find(f"the service took too much memory: {self.memory}")
        if self.memory["after"] - self.memory["before"] > KEPT_MAX + KEPT * message:
            self.find(f"the service kept too much memory: {self.memory}")

    async def _watch(self, callers: list[asyncio.Task[None]]) -> None:
        """Return when all sessions have begun, or nothing goes on."""
        left, since = self.field.left(), time.monotonic()
        while left and not any(caller.done() for caller in callers):
            await asyncio.sleep(0.02)
            self.memory["peak"] = max(self.memory["peak"], _resident())
            if self.field.left() != left:
                left, since = self.field.left(), time.monotonic()
            elif time.monotonic() - since > QUIET_S:
                self.find(f"no other worker for {QUIET_S} s; {self.observer.slots()}")
                return

    async def _peace(self) -> None:
        """Every slot has an honest worker, and these answer."""

        def settled() -> bool:
            pids = [worker.pid for worker in self.pool.workers()]
            return rested(self.pool) and all(pid is not None and self.observer.honest(pid) for pid in pids)

        if not await _soon(settled, QUIET_S):
            self.find(f"there is no peace: {self.observer.slots()}")
        _asking.set(self._next())
        calls = [self.pool.options(timeout=10.0).run("echo", number) for number in range(40)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        wrong = [result for number, result in enumerate(results) if result != ["honest", number]]
        if wrong:
            self.find(f"in peace {len(wrong)} of 40 calls went wrong, such as {wrong[0]!r:.300}")

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(CLOSED_S):
                await self.pool.__aexit__(None, None, None)
        except TimeoutError:
            self.find(f"the pool did not close within {CLOSED_S} s: {self.observer.slots()}")
        except BaseException as error:
            self.find(f"the pool closed with {error!r:.500}")

    def _strays(self) -> list[psutil.Process]:
        """Processes of this field. One that has left its group, where the pool cannot find it, has a limited life."""
        mark, found = f"{FIELD}={self.field.path}\0".encode(), []
        for process in psutil.process_iter(["pid"]):
            with suppress(OSError, psutil.Error):
                if process.pid != os.getpid() and mark in Path(f"/proc/{process.pid}/environ").read_bytes():
                    found.append(process)
        return found

    # -- callers --------------------------------------------------------------------------------------------------

    def _next(self) -> int:
        self._calls += 1
        return self._calls

    async def _caller(self, caller: int) -> None:
        rng = random.Random(f"{self.seed} caller {caller}")
        while not self._over:
            if self.pool.status().state != "running":
                self.find("the pool has ended by itself")
                return
            number, kind = self._next(), rng.choice(CALLS)
            _asking.set(number)
            timeout = rng.choice((0.05, 0.2, 0.5))
            outcome: Any = None
            try:
                async with asyncio.timeout(timeout + HUNG_S) as guard:
                    outcome = await kind(self, number, timeout, rng)
            except (Exception, asyncio.CancelledError) as error:
                outcome = error
                if guard.expired():
                    self.find(f"call {number}, {kind.__name__}: it hung; it was on {self.observer.on.get(number)}")
                    continue
            self._judge(number, kind.__name__, outcome)
            await asyncio.sleep(0)

    def _judge(self, number: int, kind: str, outcome: Any) -> None:
        process = self.observer.on.pop(number, None)
        side = "waiting" if process is None else "honest" if process.session is None else "hostile"
        name = type(outcome).__name__ if isinstance(outcome, BaseException) else "result"
        self.ends[f"{side} {name}"] += 1
        about = f"call {number}, {kind}, on {process}"
        if isinstance(outcome, asyncio.CancelledError) and kind == "fickle":
            return
        if not isinstance(outcome, BaseException):
            for value in outcome if kind == "stream" else [outcome]:
                if not self._is_right(value, number, process):
                    self.find(f"{about}: not its result: {value!r:.300}")
                    return
        elif not isinstance(outcome, ERRORS):
            self.find(f"{about}: {outcome!r:.3000}")
        elif process is None and not isinstance(outcome, NEVER_BEGUN):
            self.find(f"{about}: it was on no worker: {outcome!r:.3000}")
        elif side == "honest" and not isinstance(outcome, (OperationTimeout, *NEVER_BEGUN)):
            ended = isinstance(outcome, WorkerDied) and (outcome.reason or outcome.exit_code == -signal.SIGALRM)
            if not ended:
                self.find(f"{about}: {outcome!r:.3000}")

    def _is_right(self, value: Any, number: int, process: Process | None) -> bool:
        if process is None:
            return False
        if process.session is None or (type(value) is list and value[:1] == ["honest"]):
            return bool(type(value) is list and value[:2] == ["honest", number])
        if not is_tag(value):  # twisted
            return True
        return value[1] in (-1, number) and bool(value[2] == process.session)  # -1: its id was guessed

    async def plain(self, number: int, timeout: float, rng: random.Random) -> Any:
        caller = self.pool.options(timeout=timeout, idempotent=rng.random() < 0.3)
        return await caller.run("echo", number, "x" * 150_000 if rng.random() < 0.05 else None)

    async def later(self, number: int, timeout: float, rng: random.Random) -> Any:
        return await self.pool.options(timeout=timeout).run("later", number, rng.choice((0.0, 0.01, 0.1)))

    async def fickle(self, number: int, timeout: float, rng: random.Random) -> Any:
        task = asyncio.create_task(self.pool.options(timeout=timeout).run("later", number, 0.05))
        await asyncio.sleep(rng.choice((0.0, 0.001, 0.03)))
        task.cancel()
        return await task

    async def stream(self, number: int, timeout: float, rng: random.Random) -> Any:
        """Reads at its own pace; what came before an error is right, too."""
        got, pause, wanted = [], rng.choice((None, None, 0.01, timeout)), rng.choice((1, 10**9))
        try:
            async with aclosing(self.pool.options(timeout=timeout).stream("items", number, 20)) as items:
                async for item in items:
                    got.append(item)
                    if len(got) >= wanted:
                        break
                    if pause is not None:
                        await asyncio.sleep(pause)
                        pause = None
        finally:
            process = self.observer.on.get(number)
            wrong = [item for item in got if not self._is_right(item, number, process)]
            if wrong:
                self.find(f"call {number}, stream, on {process}: not its item: {wrong[0]!r:.300}")
        return got

    async def session(self, number: int, timeout: float, rng: random.Random) -> Any:
        name = f"s{rng.randrange(16)}"
        caller = self.pool.options(timeout=timeout, session=name, affinity=rng.choice((None, "strict")))
        try:
            return await caller.run("turn", number)
        finally:
            data = self.pool.session(name).data
            whose = data.get("of")
            if isinstance(whose, str) and whose.startswith("s") and whose != name:
                self.find(f"session {name} has the data of {whose}")


CALLS: tuple[Callable[[Battle, int, float, random.Random], Awaitable[Any]], ...] = (
    Battle.plain,
    Battle.plain,
    Battle.later,
    Battle.fickle,
    Battle.stream,
    Battle.stream,
    Battle.session,
)


async def _soon(predicate: Callable[[], object], timeout: float) -> bool:
    end = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.01)
    return True


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _told(context: Mapping[str, Any]) -> str:
    import traceback

    error = context.get("exception")
    where = ""
    if error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    return f"{context.get('message', '')[:200]} {error!r:.300} {where}"


# -- a run --------------------------------------------------------------------------------------------------------


def shares(sessions: int) -> dict[int, int]:
    """How many of *sessions* each layout gets, by its place."""
    total = sum(layout.share for layout in LAYOUTS)
    return {place: max(1, sessions * layout.share // total) for place, layout in enumerate(LAYOUTS)}


def messages(field: Field) -> Counter[str]:
    """What the workers have sent, by kind: * those that were twisted, ~ those of a flood."""
    counts: Counter[str] = Counter()
    data = (field.path / "journal").read_bytes()
    for _, kind, sent, count in struct.iter_unpack(RECORD.format, data[: len(data) // RECORD.size * RECORD.size]):
        counts[KINDS[kind] + SENT[sent]] += count
    return counts


def serve(battles: list[Battle]) -> dict[str, Any]:
    """Fight them, one after the other, and report."""
    for battle in battles:
        asyncio.run(battle.fight())
    ends: Counter[str] = Counter()
    for battle in battles:
        ends.update(battle.ends)
    field = battles[0].field
    sent, roster = messages(field), (field.path / "roster").read_text().splitlines()
    return {
        "sessions": sum(not line.endswith(" -1") for line in roster),
        "messages": sum(sent.values()),
        "twisted": sum(count for kind, count in sent.items() if kind.endswith("*")),
        "by kind": dict(sorted(sent.items())),
        "calls": sum(ends.values()),
        "ends": dict(sorted(ends.items())),
        "memory": {str(battle.layout): battle.memory for battle in battles},
        "seconds": {str(battle.layout): round(battle.seconds, 1) for battle in battles},
        "found": [what for battle in battles for what in battle.found],
    }
