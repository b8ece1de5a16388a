"""`Assessor`: judges histories in a thread, for the core of the tuner, which asks again with its next step.

To make the history of a pool and to judge it takes up to a tenth of a second, which must not be in the event loop.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from pool_monitor.advisor.gil_pauses import gil_pauses
from pool_monitor.advisor.journal import Journal
from pool_monitor.side_thread import SideThread
from pool_monitor.tunable import Tunable
from pool_monitor.tuner.intents import PENDING, HistoryJudge


class _Result(NamedTuple):
    value: object
    error: Exception | None


class Assessor:
    """Judges the pools of *journal*. Bound: what is asked for in one step, and its results until the next one."""

    def __init__(self, journal: Journal, spent: Callable[[float], object]) -> None:
        """*spent* is given the processor time of the thread, in seconds."""
        self._journal, self._spent = journal, spent
        self._thread = SideThread("tuner")
        self._asked: dict[str, tuple[str, HistoryJudge[Any]]] = {}
        self._results: dict[str, _Result] = {}

    def ask(self, key: str, pool: str, judge: HistoryJudge[Any]) -> Any:
        """Return what *judge* has found of the history of *pool*, or raise what it has raised, if it was asked under
        this *key* in the step before; else `PENDING`, and it is asked. It is called in a thread.
        """
        found = self._results.pop(key, None)
        if found is None:
            self._asked[key] = (pool, judge)
            return PENDING
        if found.error is not None:
            raise found.error
        return found.value

    async def work(self, tunables: Mapping[str, Sequence[Tunable]]) -> None:
        """Do what was asked for, and drop earlier results that nobody has fetched. *tunables* are those of now."""
        self._results.clear()
        asked, self._asked = self._asked, {}
        for key, (pool, judge) in asked.items():
            taken = self._journal.taken(pool, tunables.get(pool, ())) if pool in self._journal.pools else None
            result, spent_s = await self._thread.run(partial(_judged, taken, judge))
            self._spent(spent_s)
            self._results[key] = result

    async def close(self) -> None:
        """End the thread."""
        await self._thread.close()


def _judged(taken: Callable[[], Any] | None, judge: HistoryJudge[Any]) -> tuple[_Result, float]:
    began = time.thread_time()
    try:
        with gil_pauses():
            result = _Result(judge(None if taken is None else taken()), None)
    except Exception as error:  # noqa: BLE001 (the core is told, and says so)
        result = _Result(None, error)
    return result, time.thread_time() - began
