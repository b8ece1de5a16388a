"""What a dashboard asks of its feed beside Snapshots, for a limited time. What a feed does wrong is the answer."""

from __future__ import annotations

import asyncio

from pool_monitor.dashboard.alert_actions import AlertRequest
from pool_monitor.dashboard.feed import AlertFeed, Feed, StackFeed, TuningFeed
from pool_monitor.dashboard.tuning_actions import TuningRequest
from pool_monitor.service.stacks import StackReading

TIMEOUT_S = 10.0
"""Seconds after which an answer is not awaited any longer."""


async def stack_of(feed: Feed, pool: str, slot: str) -> StackReading:
    """Return the stack of a worker, or why there is none."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if isinstance(feed, StackFeed):
                return await feed.stack(pool, slot)
            reason = "the source of these numbers cannot ask workers"
    except TimeoutError:
        reason = f"no answer in {TIMEOUT_S:g} s"
    except Exception as error:  # noqa: BLE001 - a feed is foreign code
        reason = _words(error)
    return StackReading(stack=None, reason=reason)


async def outcome_of(feed: Feed, request: AlertRequest | TuningRequest) -> str:
    """Have *request* done, and return what became of it, in words."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if isinstance(request, TuningRequest):
                if isinstance(feed, TuningFeed):
                    return await feed.tune(request)
            elif isinstance(feed, AlertFeed):
                return await feed.act(request)
            return "not done: this dashboard only shows; attach with `pool-monitor dashboard`"
    except TimeoutError:
        return f"no answer in {TIMEOUT_S:g} s: it may have been done or not"
    except Exception as error:  # noqa: BLE001 - a feed is foreign code
        return f"not done: {_words(error)}"


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
