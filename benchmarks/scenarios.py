"""Scenarios for one pool. Each runs in its own process, the parent of the workers.

``python -c "from benchmarks.scenarios import main; main()" LABEL SCENARIO SIZE``. It is not run as a script because
some pools load the script of their parent into every worker. Results are lines of JSON on standard output.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from benchmarks.load import PAYLOAD, Load
from benchmarks.peers import ALL, Peer

HOLD_S = 0.002
"""How long a call occupies its worker where it matters which worker answers. Subtracted from the times."""
PATIENCE_S = 3.0
"""How long a pool may take to serve again."""
SPIN_S = 30.0


class Served(msgspec.Struct):
    """How long a pool took to serve with all its workers. Milliseconds; None: not within `PATIENCE_S`."""

    first_ms: float | None = None
    """Until the first answer."""
    full_ms: float | None = None
    """Until every worker had answered a call."""
    errors: dict[str, int] = {}
    """The errors that callers got, counted by type."""
    silent: bool = False
    """At the end, a call had been waiting for more than a second."""


class Loss(msgspec.Struct):
    """What happened to the calls of a pool when one of its busy workers was killed."""

    error: str | None
    """What the caller of that worker got: the type of the error, "" for a result, None for neither in `PATIENCE_S`."""
    seen_ms: float | None
    others: int
    others_lost: int
    after: Served


async def served(peer: Peer, size: int, began: float, patience: float = PATIENCE_S) -> Served:
    """Run as many callers as workers, until that many processes have answered."""
    result, errors, pids = Served(), Counter[str](), set[int]()
    asked: dict[int, float] = {}

    async def caller(number: int) -> None:
        while result.full_ms is None:
            asked[number] = time.perf_counter()
            try:
                pid = await peer.call("hold", HOLD_S)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
                errors[type(error).__name__] += 1
                await asyncio.sleep(0.005)
                continue
            taken = (time.perf_counter() - began - HOLD_S) * 1e3
            result.first_ms = taken if result.first_ms is None else result.first_ms
            pids.add(pid)
            if len(pids) == size and result.full_ms is None:
                result.full_ms = taken

    tasks = [asyncio.ensure_future(caller(number)) for number in range(size)]
    _, pending = await asyncio.wait(tasks, timeout=patience)
    for task in pending:
        task.cancel()  # not awaited: it may never end
    now = time.perf_counter()
    result.errors = dict(errors)
    result.silent = any(not task.done() and now - asked[number] > 1.0 for number, task in enumerate(tasks))
    return result


async def workers(peer: Peer, size: int) -> list[int]:
    """Return the pids of all workers, once all have started and are idle."""
    pids: set[int] = set()
    end = time.monotonic() + 20.0
    while len(pids) < size:
        if time.monotonic() > end:
            raise TimeoutError(f"{len(pids)} of {size} workers after 20 s")
        pids.update(await asyncio.gather(*(peer.call("hold", 0.01) for _ in range(size))))
    await asyncio.sleep(0.1)
    return sorted(pids)


def write_result(value: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


async def answer(peer: Peer, size: int) -> None:
    """Make one call and end in an orderly way."""
    await peer.start(size)
    write_result(await peer.call("echo", PAYLOAD))
    await peer.close()


async def serve(peer: Peer, size: int) -> None:
    """Measure a slice of load for every line on standard input."""
    await peer.start(size)
    write_result(await workers(peer, size))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        write_result(await peer.drive(msgspec.json.decode(line, type=Load)))
    await peer.close()


async def cold(peer: Peer, size: int) -> None:
    """Measure a start, to the first answer and to an answer of every worker."""
    began = time.perf_counter()
    await peer.start(size)
    await peer.call("echo", PAYLOAD)
    first = (time.perf_counter() - began) * 1e3
    result = await served(peer, size, began)
    result.first_ms = first
    write_result(result)


async def lose_idle(peer: Peer, size: int) -> None:
    """Kill an idle worker."""
    await peer.start(size)
    victim = (await workers(peer, size))[0]
    began = time.perf_counter()
    os.kill(victim, signal.SIGKILL)
    write_result(await served(peer, size, began))


async def lose_busy(peer: Peer, size: int) -> None:
    """Kill a worker while all are busy and twice as many calls wait."""
    await peer.start(size)
    pids = await workers(peer, size)
    failures: list[tuple[float, str]] = []

    async def caller(operation: str, argument: Any) -> None:
        try:
            await peer.call(operation, argument)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
            failures.append((time.perf_counter(), type(error).__name__))

    calls = [asyncio.ensure_future(caller("hold", 0.5)) for _ in pids]
    calls += [asyncio.ensure_future(caller("echo", PAYLOAD)) for _ in range(2 * size)]
    await asyncio.sleep(0.1)
    began = time.perf_counter()
    os.kill(pids[0], signal.SIGKILL)
    _, silent = await asyncio.wait(calls, timeout=PATIENCE_S)
    seen, error = failures[0] if failures else (None, None if silent else "")
    loss = Loss(
        error=error,
        seen_ms=None if seen is None else (seen - began) * 1e3,
        others=len(calls) - 1,
        others_lost=max(0, len(failures) + len(silent) - 1),
        after=await served(peer, size, time.perf_counter()),
    )
    write_result(loss)


async def cancel(peer: Peer, size: int) -> None:
    """Cancel the caller of an operation that keeps its worker's processor busy."""
    await peer.start(size)
    await workers(peer, size)
    call = asyncio.ensure_future(peer.call("spin", SPIN_S))
    await asyncio.sleep(0.1)
    began = time.perf_counter()
    call.cancel()
    write_result(await served(peer, size, began, patience=1.5))


async def orphan(peer: Peer, size: int) -> None:
    """Keep one worker busy and the others idle, and wait to be killed."""
    await peer.start(size)
    pids = await workers(peer, size)
    call = asyncio.ensure_future(peer.call("spin", SPIN_S))
    await asyncio.sleep(0.1)
    write_result(pids)
    await call


ORDERLY: dict[str, Callable[[Peer, int], Awaitable[None]]] = {"answer": answer, "serve": serve}
ABRUPT: dict[str, Callable[[Peer, int], Awaitable[None]]] = {
    "cold": cold,
    "lose_idle": lose_idle,
    "lose_busy": lose_busy,
    "cancel": cancel,
    "orphan": orphan,
}
"""Scenarios whose pools may be unable to close. The runner ends what is left."""


async def run(label: str, scenario: str, size: int) -> None:
    peer = ALL[label]()
    if scenario in ORDERLY:
        await ORDERLY[scenario](peer, size)
    else:
        await ABRUPT[scenario](peer, size)
        os._exit(0)


def main() -> None:
    label, scenario, size = sys.argv[1:]
    with asyncio.Runner(loop_factory=ALL[label].loop) as runner:
        runner.run(run(label, scenario, int(size)))
