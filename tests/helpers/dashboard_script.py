"""The dashboard on a feed of sample snapshots. test_dashboard_pty runs this program in a terminal.

    python dashboard_script.py [FRAMES] [raise]

The feed yields FRAMES snapshots (by default endlessly), ten a second; then it yields nothing more, or raises. The last
line reports what `run` left behind in this process.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from pool_monitor.dashboard import Frame, can_run
from pool_monitor.dashboard.app import run
from tests.helpers import samples

TICK = 0.1


class ScriptedFeed:
    def __init__(self, frames: int | None, *, fails: bool) -> None:
        self.ticks = itertools.count() if frames is None else iter(range(frames))
        self.fails = fails

    async def frames(self, window: str) -> AsyncIterator[Frame]:
        for tick in self.ticks:
            yield samples.snapshot(tick, window=window)
            await asyncio.sleep(TICK)
        if self.fails:
            raise ValueError("the feed broke")
        await asyncio.Event().wait()


async def main() -> None:
    if not can_run():
        sys.exit("this is no terminal for a dashboard")
    watched = (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP)
    before = [signal.getsignal(number) for number in watched]
    frames = int(sys.argv[1]) if len(sys.argv) > 1 else None
    await run(ScriptedFeed(frames, fails="raise" in sys.argv), interval=TICK)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    restored = before == [signal.getsignal(number) for number in watched]
    print(f"left behind: {len(tasks)} tasks, {threading.active_count() - 1} threads, signals restored: {restored}")


asyncio.run(main())
