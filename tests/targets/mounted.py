"""A service as others write one: a pool and a monitor in the lifespan of an ASGI app, the monitor's face mounted."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount

from pool_monitor import Monitor, Pool

pool = Pool(f"{Path(__file__).parent / 'ops.py'}:Ops", size=1, name="mounted")
monitor = Monitor(pool)


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    async with pool, monitor:
        yield
    print(f"left: the pool is {pool.status().state}", file=sys.stderr, flush=True)


face = TrustedHostMiddleware(monitor.asgi(), allowed_hosts=["localhost", "127.0.0.1"])
app = Starlette(routes=[Mount("/monitor", face)], lifespan=lifespan)
