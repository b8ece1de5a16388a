"""Pools of other libraries, monitored like a `Pool`: threads, processes, and the calls of an async client.

python examples/foreign_pools.py
"""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from pool_monitor import Monitor
from pool_monitor.adapters import MonitoredCalls, MonitoredExecutor

DOCUMENT = b"the quick brown fox jumps over the lazy dog " * 20_000


class Client:
    """A stand-in for any async client, such as that of a language model."""

    async def ask(self, question: str) -> str:
        await asyncio.sleep(0.01)
        if not question:
            raise ValueError("nothing was asked")
        return question.upper()


async def main() -> None:
    loop = asyncio.get_running_loop()
    calls = MonitoredCalls(name="client", limit=4)
    ask = calls.wrap(Client().ask)
    with (
        MonitoredExecutor(ThreadPoolExecutor(2), name="threads") as threads,
        MonitoredExecutor(ProcessPoolExecutor(2), name="processes") as processes,
    ):
        async with Monitor([threads, processes, calls]) as monitor:
            hashing = [loop.run_in_executor(threads, hashlib.sha256, DOCUMENT) for _ in range(50)]
            packing = [loop.run_in_executor(processes, zlib.compress, DOCUMENT) for _ in range(50)]
            asking = [ask("hello"), ask("are you there?"), ask("")]
            await asyncio.gather(*hashing, *packing)
            await asyncio.gather(*asking, return_exceptions=True)

            for name, pool in monitor.snapshot("1m").pools.items():
                print(f"{name}: {pool.size} wide, {pool.total.calls} calls, {pool.total.errors} failed")
                for operation, stats in pool.operations.items():
                    p95_ms = [f"{1000 * (part.p95 or 0):.1f}" for part in (stats.latency, stats.queue, stats.execution)]
                    print(f"  {operation}: p95 {p95_ms[0]} ms; waiting {p95_ms[1]}, running {p95_ms[2]}")
                for slot, worker in pool.workers.items():
                    print(f"  {slot}: {worker.calls} calls, {worker.calls / pool.total.calls:.0%}")


if __name__ == "__main__":
    asyncio.run(main())
