"""The demo's callers: a load that rises and falls, with occasional bursts."""

from __future__ import annotations

import asyncio
import math
import random
import sysconfig
import time
from collections.abc import Collection
from pathlib import Path
from pydoc_data.topics import topics

from pool_monitor.errors import PoolError
from pool_monitor.pool.pool import Pool

_OPEN_MAX = 200  # calls at once, so that they do not pile up when the pool hangs
_DOCUMENT = 80_000  # characters of a document: about ten milliseconds of work
_DOCUMENTS = 60
_MIX = {"keywords": 60, "summary": 25, "chat": 11, "generate": 4}  # shares of the calls
_USERS = 12
SERVICE_FAULTS = {"block": "the service sometimes holds up its event loop for most of a second"}
_BLOCK_EVERY_S, _BLOCK_S = 20.0, 0.8


def documents() -> list[str]:
    """Return passages of the licence and the reference texts that come with this Python."""
    licence = Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"
    first = licence.read_text(encoding="utf-8", errors="replace") if licence.is_file() else ""
    text = "\n".join([first, *topics.values()])
    step = max(1, len(text) // _DOCUMENTS)
    return [text[start : start + _DOCUMENT] for start in range(0, len(text), step)]


def rate_at(seconds: float) -> float:
    """Return calls per second: a wave of 90 s, doubled for six of every 40 s."""
    wave = 30.0 * (1.0 + 0.6 * math.sin(seconds * math.tau / 90.0))
    return wave * (2.0 if seconds % 40.0 > 34.0 else 1.0)


async def drive(pool: Pool, faults: Collection[str] = ()) -> None:
    """Call the pool as a service would, until cancelled. Errors are ignored here: the monitor reports them. *faults*
    names faults of `SERVICE_FAULTS`.
    """
    texts, rng, loop = documents(), random.Random(), asyncio.get_running_loop()  # noqa: S311
    started = blocked = loop.time()
    under_way: set[asyncio.Task[None]] = set()
    try:
        while True:
            await asyncio.sleep(rng.expovariate(rate_at(loop.time() - started)))
            if "block" in faults and loop.time() - blocked > _BLOCK_EVERY_S:
                _block()
                blocked = loop.time()
            if len(under_way) < _OPEN_MAX:
                task = loop.create_task(_call(pool, rng, rng.choice(texts)))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def _block() -> None:
    time.sleep(_BLOCK_S)


async def _call(pool: Pool, rng: random.Random, text: str) -> None:
    operation = rng.choices(list(_MIX), weights=list(_MIX.values()))[0]
    try:
        if operation == "generate":
            async for _word in pool.stream(operation, text[:200], words=rng.randint(10, 60)):
                pass
        elif operation == "chat":
            await pool.session(f"user-{rng.randrange(_USERS)}").run(operation, text[:400])
        else:
            await pool.run(operation, text)
    except PoolError:
        pass
