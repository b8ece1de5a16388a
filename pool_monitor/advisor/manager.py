"""The advice of a monitor: `Monitor.advisor`."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from pool_monitor.errors import ConfigError, PoolError, UnknownName
from pool_monitor.events import ADVICE_TRANSITION
from pool_monitor.log import logger
from pool_monitor.parts import in_slices, retrieve_error
from pool_monitor.side_thread import SideThread
from pool_monitor.snapshot import PoolView, Recommendation
from pool_monitor.state_machine import IllegalTransition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pool_monitor.advisor.core import AdvisorCore, Transition
    from pool_monitor.advisor.journal import Journal
    from pool_monitor.config import MonitorConfig
    from pool_monitor.parts import Context
    from pool_monitor.storage.state import Keeper

_LISTED = 10
"""Most ids that an error lists."""
_FRESH_S = 0.5
"""Gauges that were taken this short a time ago are not taken again."""
_LIMITS_TICKS = 30
"""The limits of the workers' memory are read with one tick of so many."""


class Advisor:
    """Looks for patterns in the history of the pools, and keeps what it recommends. It outlives the part that drives
    it.

    All methods must be called in the event loop of the monitor. None of them blocks: patterns are looked for in a
    thread. Nothing is loaded before `open` or `watch`, and the patterns not before the first pass. The history is in
    memory, and begins anew with the process; what was dismissed is kept in ``[state] path``.
    """

    def __init__(self, config: MonitorConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._core: AdvisorCore | None = None
        self._journal: Journal | None = None
        self._watchers = 0
        self._ticked_at = float("-inf")
        self._ticks = 0
        self._thread = SideThread("advisor")
        self._looking = asyncio.Lock()
        self._keeper: Keeper | None = None
        self._storing: asyncio.Task[None] | None = None
        self._failing: dict[str, str] = {}

    # -- reading --------------------------------------------------------------------------------------------------

    def recommendations(self) -> tuple[Recommendation, ...]:
        """What is recommended now, the most urgent first. Empty while there is too little data to say anything."""
        return () if self._core is None else self._core.recommendations()

    def explain(self, recommendation: str) -> str:
        """Why something is recommended: the test, its figures, and what would disprove it, in several lines.
        *recommendation* is its id. Raises UnknownName.
        """
        return self._known(recommendation).explain(recommendation)

    @property
    def failing(self) -> dict[str, str]:
        """Why patterns could not be looked for with the latest pass, by pattern."""
        return dict(self._failing)

    # -- what people do -------------------------------------------------------------------------------------------

    def dismiss(self, recommendation: str, reason: str = "", *, author: str = "") -> None:
        """Show a recommendation no more, for a week or until it is much worse. Raises UnknownName, and ConfigError for
        one that is dismissed or over already.
        """
        core = self._known(recommendation)
        try:
            changed = core.dismiss(recommendation, reason, author, self._wall())
        except IllegalTransition:
            raise ConfigError(f"the recommendation {recommendation} is dismissed or over already") from None
        self._tell([changed])
        self._store_soon()

    def _known(self, recommendation: str) -> AdvisorCore:
        core = self._core
        there = [] if core is None else [one.id for one in core.known()]
        if core is None or recommendation not in there:
            shown = [one.id for one in self.recommendations()]
            raise UnknownName(f"no recommendation {recommendation!r:.80}; {listed(shown)}")
        return core

    # -- the work -------------------------------------------------------------------------------------------------

    async def advise_when_due(self) -> None:
        """Look for patterns if that is due: every minute in the first quarter of an hour, then every five minutes."""
        core, journal = self._core, self._journal
        if core is not None and journal is not None and core.due(journal.now()):
            await self.advise()

    async def advise(self) -> None:
        """Look for patterns now, for tests and scripts. What is found is told once it has lasted for several passes.

        Raises PoolError while the monitor is not entered, and where ``[advisor] enabled = false``.
        """
        core, journal = self._core, self._journal
        if core is None or journal is None or not self._watchers:
            raise PoolError(
                "advice is given while the monitor is entered"
                if self._config.advisor.enabled
                else "no advice is given: [advisor] enabled = false"
            )
        async with self._looking:
            core.begin(journal.now())
            offers, taken = self._context.tunables(), []
            for name in journal.pools:
                began = time.thread_time()
                taken.append(journal.taken(name, offers.get(name, ())))
                self._context.spent(time.thread_time() - began)
                await asyncio.sleep(0)
            seen, spent_s = await self._thread.run(partial(_looked, taken))
            self._context.spent(spent_s)
            began = time.thread_time()
            for pool, needed in seen.needed.items():
                journal.note_needed(pool, needed)
            changed = core.take(seen)
            self._context.spent(time.thread_time() - began)
            self._note_failures({str(pattern): why for pattern, why in seen.failures.items()})
            self._tell(changed)
            await self._store()

    def _note_failures(self, failing: dict[str, str]) -> None:
        for pattern, why in failing.items():
            if pattern not in self._failing:
                logger("advisor").error("a pattern cannot be looked for", pattern=pattern, reason=why)
        self._failing = failing

    def _tell(self, changed: Iterable[Transition]) -> None:
        for one in changed:
            found = one.recommendation
            about: dict[str, Any] = {
                "monitor": self._context.monitor,
                "service": self._context.service,
                "id": found.id,
                "pattern": found.pattern,
                "subject": found.subject,
                "from": one.before,
                "to": found.state,
                "summary": found.summary,
            }
            ADVICE_TRANSITION.event.emit({"system_time": self._context.clock.wall_ns(), "score": found.score}, about)

    # -- what is stored -------------------------------------------------------------------------------------------

    def _store_soon(self) -> None:
        if self._keeper is not None:
            self._storing = asyncio.get_running_loop().create_task(self._store(), name="pool_monitor advisor state")
            self._storing.add_done_callback(retrieve_error)

    async def _store(self) -> None:
        from pool_monitor.storage.state import Changes

        if self._core is not None and self._keeper is not None and (rows := self._core.unsaved()):
            await self._keeper.commit(Changes({"advice": rows}))

    async def settled(self) -> None:
        """Wait until everything that was changed before is stored."""
        if self._storing is not None:
            await asyncio.wait([self._storing])

    # -- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to watch the pools, with what was dismissed before. Raises ConfigError for the state."""
        await self._import()
        from pool_monitor.advisor.core import AdvisorCore

        journal = self.watch()
        try:
            self._looking = asyncio.Lock()
            self._keeper = await self._context.state().open("advisor")
            if self._core is None:
                self._core = AdvisorCore(journal.since)
                damaged = self._core.restore(self._keeper.load().rows.get("advice", {}))
                if damaged:
                    logger("advisor").warning("some dismissals cannot be read", rows=len(damaged))
        except BaseException:
            self.unwatch()
            raise

    async def _import(self) -> None:
        """Load what is large in a thread: it takes a tenth of a second."""
        thread = SideThread("imports")
        try:
            await thread.run(_load)
        finally:
            await thread.close()

    async def close(self) -> None:
        """End. What it knows stays, for when it is opened again."""
        if self._keeper is None:
            return
        self.unwatch()
        try:
            await self.settled()
            await self._store()
        finally:
            keeper, self._keeper = self._keeper, None
            await keeper.close()
            thread, self._thread = self._thread, SideThread("advisor")
            await thread.close()

    def watch(self) -> Journal:
        """Keep the history of the pools, until `unwatch` was called as often. Return the journal."""
        from pool_monitor.advisor.journal import Journal

        if self._journal is None:
            self._journal = Journal(
                self._context.pool_names,
                self._context.clock,
                journal_id=f"pool_monitor advisor {self._context.monitor}",
                instances=self._context.pool_instances,
                wait_target=self._config.tuner.wait_target,
            )
        if not self._watchers:
            self._journal.attach()
        self._watchers += 1
        return self._journal

    def unwatch(self) -> None:
        """Take a `watch` back."""
        self._watchers -= 1
        if not self._watchers and self._journal is not None:
            self._journal.detach()

    def tick(self) -> None:
        """Take the gauges of the pools into the history, unless that has just been done. Called about once a second."""
        if self._journal is not None and self._journal.now() - self._ticked_at >= _FRESH_S:
            self.take_gauges()

    async def count_calls(self) -> None:
        """Count the calls that have ended, pool by pool, so that the event loop is not held while there are many."""
        journal = self._journal
        if journal is None or not self._watchers:
            return
        async for pool in in_slices(journal.pools.values(), self._context.spent):
            pool.fold_when_due(journal.now())

    def take_gauges(self) -> dict[str, PoolView]:
        """Take the gauges of the pools into the history now, and return them, by pool."""
        journal = self._journal
        views = {view.name: view for view in self._context.statuses()}
        if journal is not None:
            self._ticks += 1
            workers = self._context.workers() if self._ticks % _LIMITS_TICKS == 1 else None
            journal.tick(views, workers)
            self._ticked_at = journal.now()
        return views

    @property
    def held_bytes(self) -> int:
        """Memory of the history and of the recommendations, in bytes."""
        of_core = 0 if self._core is None else self._core.held_bytes
        return of_core + (0 if self._journal is None else self._journal.held_bytes)

    def _wall(self) -> float:
        return self._context.clock.wall_ns() / 1e9


def listed(there: list[str]) -> str:
    """Which names there are, in words, at most ten."""
    more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
    return f"there are {', '.join(there[:_LISTED])}{more}" if there else "there is none"


def _load() -> None:
    import pool_monitor.advisor.core
    import pool_monitor.advisor.journal
    import pool_monitor.storage.shared_state  # noqa: F401


def _looked(taken: list[Callable[[], Any]]) -> tuple[Any, float]:
    """What `look` finds, and the processor time that it took. For a thread."""
    from pool_monitor.advisor.gil_pauses import gil_pauses, yield_gil
    from pool_monitor.advisor.look import look

    began = time.thread_time()
    with gil_pauses():
        histories = []
        for make in taken:
            histories.append(make())
            yield_gil()
        seen = look(histories)
    return seen, time.thread_time() - began
