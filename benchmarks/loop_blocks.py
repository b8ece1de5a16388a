"""One service whose event loop is watched by one tool, or by none: ``python -m benchmarks.loop_blocks TOOL``.

It reads one job per line and answers each with one line of JSON: the name of a block, ``serve SECONDS`` or
``idle SECONDS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

BLOCK_S = 1.0
THRESHOLD_S = 0.5
CALLERS = 8
Report = tuple[float, str]
"""When a tool reported, on the monotonic clock, and the text of its stacks."""


def block_sleep(_amount: int) -> None:
    time.sleep(BLOCK_S)  # guilty: sleep


def block_file(_amount: int) -> None:
    end = time.monotonic() + BLOCK_S
    with tempfile.TemporaryFile() as file:
        while time.monotonic() < end:
            file.write(bytes(65536))  # guilty: file
            file.flush()  # guilty: file
            os.fsync(file.fileno())  # guilty: file
            file.seek(0)  # guilty: file
            file.read()  # guilty: file


def block_expression(amount: int) -> None:
    re.match(r"(a+)+$", "a" * amount + "b")  # guilty: expression


def block_hash(amount: int) -> None:
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", amount)  # guilty: hash


def block_lock(_amount: int) -> None:
    lock = threading.Lock()
    lock.acquire()
    threading.Timer(BLOCK_S, lock.release).start()
    lock.acquire()  # guilty: lock


BLOCKS: dict[str, Callable[[int], None]] = {
    "sleep": block_sleep,
    "file": block_file,
    "expression": block_expression,
    "hash": block_hash,
    "lock": block_lock,
}


def amount_for(block: str) -> int:
    """How much work takes `BLOCK_S` on this machine now."""
    amount, factor, step = {"expression": (16, 1, 1), "hash": (1000, 2, 0)}.get(block, (0, 1, 0))
    while amount:
        began = time.perf_counter()
        BLOCKS[block](amount)
        if time.perf_counter() - began > BLOCK_S / 2:
            return amount * factor + step
        amount = amount * factor + step
    return 0


def guilty_lines(block: str) -> list[int]:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, 1) if line.endswith(f"# guilty: {block}")]


# -- tools --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def none(_reports: list[Report]) -> AsyncIterator[None]:
    yield


@contextlib.asynccontextmanager
async def watchdog(reports: list[Report]) -> AsyncIterator[None]:
    from pool_monitor import telemetry
    from pool_monitor.config import ResourcesConfig
    from pool_monitor.resources.watchdog import Watchdog

    def told(_name: Any, _measurements: Any, metadata: Any, _config: Any) -> None:
        reports.append((time.monotonic(), metadata["stack"]))

    telemetry.attach("bench.loop", ("resource", "loop"), told)
    # What the Collector does is part of the price.
    telemetry.attach("bench.lag", ("resource", "loop_lag"), lambda *_args: None)
    dog = Watchdog(ResourcesConfig(blocked_after=THRESHOLD_S))
    dog.start()
    yield
    await dog.stop()


@contextlib.asynccontextmanager
async def aiocop(reports: list[Report], *, sampling: bool = True) -> AsyncIterator[None]:
    import aiocop as tool

    def told(event: Any) -> None:
        if event.exceeded_threshold:
            traces = [found["trace"] for found in [*event.blocking_events, *event.cpu_stack_samples]]
            reports.append((time.monotonic(), "\n".join(traces)))

    tool.patch_audit_functions()
    tool.start_blocking_io_detection()
    tool.detect_slow_tasks(threshold_ms=THRESHOLD_S * 1000, on_slow_task=told, cpu_sampling=sampling)
    tool.activate()
    yield
    tool.deactivate()


TOOLS: dict[str, Callable[[list[Report]], contextlib.AbstractAsyncContextManager[None]]] = {
    "none": none,
    "watchdog": watchdog,
    "aiocop": aiocop,
    "aiocop without sampling": lambda reports: aiocop(reports, sampling=False),
}


# -- jobs ---------------------------------------------------------------------------------------------------------


async def blocked(block: str, reports: list[Report]) -> dict[str, Any]:
    """Block the loop in a task of its own. Return what was reported, and when."""
    amount = await asyncio.to_thread(amount_for, block)
    await asyncio.sleep(0.5)
    reports.clear()

    async def task() -> float:
        BLOCKS[block](amount)
        return time.monotonic()

    began = time.monotonic()
    ended = await asyncio.create_task(task())
    await asyncio.sleep(0.5)
    named = any(
        re.search(rf"loop_blocks\.py\D{{1,9}}{line}\b", stack) for _at, stack in reports for line in guilty_lines(block)
    )
    first = min((at for at, _stack in reports), default=None)
    return {
        "found": bool(reports),
        "named": named,
        "after": None if first is None else first - began,
        "lasted": ended - began,
        "stack": "\n".join(stack for _at, stack in reports)[:2000],
    }


async def served(seconds: float) -> dict[str, Any]:
    """Requests over a socket from a few callers to an echo server on the same loop."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def calling() -> int:
        reader, writer = await asyncio.open_unix_connection(path)
        requests = 0
        while time.monotonic() < end:
            writer.write(b"request\n")
            await reader.readline()
            requests += 1
        writer.close()
        return requests

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/echo"
        server = await asyncio.start_unix_server(echo, path)
        cpu, began = time.process_time(), time.monotonic()
        end = began + seconds
        requests = sum(await asyncio.gather(*(calling() for _ in range(CALLERS))))
        took, used = time.monotonic() - began, time.process_time() - cpu
        server.close()
    return {"rate": requests / took, "cpu": used / requests}


async def idle(seconds: float) -> dict[str, Any]:
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    return {"share": (time.process_time() - cpu) / (time.monotonic() - began)}


async def main(tool: str) -> None:
    reports: list[Report] = []
    async with TOOLS[tool](reports):
        while line := await asyncio.to_thread(sys.stdin.readline):
            job, _, seconds = line.strip().partition(" ")
            if job == "serve":
                result = await served(float(seconds))
            elif job == "idle":
                result = await idle(float(seconds))
            else:
                result = await blocked(job, reports)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
