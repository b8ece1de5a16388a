"""The tuner of a monitor: `Monitor.tuner`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast, get_args

from msgspec.structs import replace

from pool_monitor import telemetry
from pool_monitor.alerts.quantity import checked, parse
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.events import TUNING_TRANSITION
from pool_monitor.log import logger, plain
from pool_monitor.parts import in_slices, retrieve_error
from pool_monitor.side_thread import SideThread
from pool_monitor.snapshot import TRIAL_OVER, TrialState, TrialView, TunerMode, TuningView
from pool_monitor.tunable import effect_delay
from pool_monitor.tuner.kill_switch import KILL_SWITCH, is_killed
from pool_monitor.tuner.rules import range_of

if TYPE_CHECKING:
    from pool_monitor.advisor.journal import Journal
    from pool_monitor.config import MonitorConfig
    from pool_monitor.parts import Context
    from pool_monitor.snapshot import PoolView
    from pool_monitor.storage.state import Keeper
    from pool_monitor.tunable import Tunable
    from pool_monitor.tuner.assessing import Assessor
    from pool_monitor.tuner.core import TunerCore
    from pool_monitor.tuner.driver import TunerDriver
    from pool_monitor.tuner.observation import Observation
    from pool_monitor.tuner.observer import Observer

SHOWN = 20
"""Changes that are over in a `TuningView`: the latest. `Tuner.history` has more."""
MODES: tuple[TunerMode, ...] = get_args(TunerMode)


class Tuner:
    """Changes the settings of the pools, one at a time, and undoes what does harm. It outlives the part that drives it.

    All methods must be called in the event loop of the monitor. None of them blocks: what they ask for is stored and
    applied afterwards, and `settled` waits for it. Nothing is loaded before `open`.
    """

    def __init__(self, config: MonitorConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._wish: TunerMode | None = None
        """The mode that was set before there was a core."""
        self._core: TunerCore | None = None
        self._driver: TunerDriver | None = None
        self._keeper: Keeper | None = None
        self._journal: Journal | None = None
        self._assessor: Assessor | None = None
        self._observers: dict[str, Observer] = {}
        self._turn = asyncio.Lock()
        self._settling: asyncio.Task[None] | None = None
        self._asked = False
        """Whether a person has asked for something that is not done yet."""
        self._observations: dict[str, Observation] = {}
        """The latest, by pool."""
        self._ended: dict[TrialState, int] = {}
        self._handler = f"pool_monitor tuner {context.monitor}"

    # -- the mode -------------------------------------------------------------------------------------------------

    @property
    def mode(self) -> TunerMode:
        """``off``, ``recommend`` or ``auto``. It is ``off`` while the environment variable POOL_MONITOR_TUNER says so.

        Setting it raises ConfigError for another word.
        """
        if is_killed():
            return "off"
        return self._core.mode if self._core is not None else self._wish or self._config.tuner.mode

    @mode.setter
    def mode(self, mode: TunerMode) -> None:
        self.set_mode(mode)

    def set_mode(self, mode: str, *, author: str = "") -> None:
        """Set the mode, and note who asked for it. ``off`` undoes what is on trial. Raises ConfigError for a word that
        is no mode, and for one that the environment variable forbids.
        """
        if mode not in MODES:
            raise ConfigError(f"mode={mode!r:.80}: needs one of {', '.join(MODES)}")
        if mode != "off" and is_killed():
            raise ConfigError(f"mode={mode!r}: the environment variable {KILL_SWITCH}=off keeps the tuner off")
        if self._core is None:
            self._wish = mode
            return
        self._core.set_mode(mode, author)
        self._settle_soon()

    # -- reading --------------------------------------------------------------------------------------------------

    def pending(self) -> tuple[TrialView, ...]:
        """The trials that wait for approval, the oldest first."""
        return () if self._core is None else tuple(self._core.pending())

    def history(self, limit: int = 100) -> tuple[TrialView, ...]:
        """The latest changes, at most *limit*, the newest first: trials, and, in the state ``set``, what the policy and
        the schedule have decided. Those that wait for approval are in `pending`.
        """
        if self._core is None or limit <= 0:
            return ()
        made = [*self._core.history(), *self._core.decisions()]
        return tuple(sorted(made, key=lambda one: -one.started_at)[:limit])

    def view(self) -> TuningView | None:
        """What a Snapshot shows; None: the tuner is off and was never on."""
        if self._core is not None:
            view = self._core.view()
            running = tuple(one for one in view.trials if one.state not in TRIAL_OVER)
            over = tuple(one for one in view.trials if one.state in TRIAL_OVER)
            return replace(view, trials=(*running, *over[:SHOWN]), ended=dict(self._ended))
        if self.mode == "off":
            return None
        return TuningView(mode=self.mode, policy=self._config.tuner.policy)

    def explain(self, trial: str) -> str:
        """Why a change is tried, was kept or rolled back, with all figures, in several lines. *trial* is its id, or the
        beginning of it. Raises UnknownName.
        """
        return self._opened(f"no trial {trial!r:.80}").explain(trial)

    # -- what people do -------------------------------------------------------------------------------------------

    def approve(self, trial: str, *, author: str = "") -> None:
        """Let a trial that waits for approval begin. *trial* is its id, or the beginning of it. It is validated and
        rolled back like any other. Raises UnknownName, and ConfigError while it may not begin.
        """
        self._opened(f"no trial {trial!r:.80} waits for approval").approve(trial, author)
        self._settle_soon()

    def reject(self, trial: str, *, author: str = "", reason: str = "") -> None:
        """End a trial that waits for approval. Raises UnknownName, and ConfigError if it does not wait."""
        self._opened(f"no trial {trial!r:.80} waits for approval").reject(trial, author, reason)
        self._settle_soon()

    def rollback(self, trial: str | None = None, *, everything: bool = False, author: str = "") -> list[str]:
        """Restore the value before a trial; None: of what is on trial, or else of the latest change that was kept.
        *everything*: restore each setting to the value with which its pool began; in ``auto`` all but the sizes, which
        the policy chooses. Return the ids of the trials.

        Raises UnknownName where there is nothing to restore, and ConfigError for a trial that has changed nothing.
        """
        undone = self._opened("no change can be rolled back").rollback(trial, author, everything=everything)
        self._settle_soon()
        return undone

    def propose(self, pool: str, knob: str, value: float, *, reason: str = "", author: str = "") -> str:
        """Propose a change by hand, and return the id of its trial. It waits for approval like any other.

        Raises UnknownName for a pool or a setting that is not there, and ConfigError for a value that does not fit.
        """
        made = self._running().propose(pool, knob, value, author, reason)
        self._settle_soon()
        return made

    def freeze(self, reason: str, duration: str | float | None = None, *, author: str = "") -> None:
        """Change nothing for *duration* (such as ``1h``, or seconds; None: until `thaw`). What is on trial is undone.

        Raises ConfigError, also while the tuner is off.
        """
        seconds = None if duration is None else _seconds(duration)
        self._running().freeze(reason, seconds, author)
        self._settle_soon()

    def thaw(self, *, author: str = "") -> None:
        """End every freeze, also one that the tuner has set itself. Raises ConfigError while the tuner is off."""
        self._running().thaw(author)
        self._settle_soon()

    def _opened(self, problem: str) -> TunerCore:
        if self._core is None:
            raise UnknownName(f"{problem}; there is none")
        return self._core

    def _running(self) -> TunerCore:
        if self._core is None:
            raise ConfigError("the tuner is off: set its mode to recommend or auto, in a monitor that is entered")
        return self._core

    # -- the work -------------------------------------------------------------------------------------------------

    @property
    def interval(self) -> float:
        """Seconds between two steps."""
        return self._config.tuner.interval

    async def step(self) -> None:
        """Look at every pool once, and do what follows. For the part, tests and scripts."""
        async with self._turn:
            await self._step()

    async def _step(self, *, measured: bool = True) -> None:
        """*measured* False: out of turn, because a person has asked for something. Then no policy is asked: it is
        called once per interval.
        """
        from pool_monitor.tuner.intents import TunerInputs

        driver, journal, context, assessor = self._driver, self._journal, self._context, self._assessor
        if driver is None or journal is None or assessor is None:
            return
        await context.advisor().count_calls()
        began = time.thread_time()
        tunables = context.tunables()
        if measured:
            views = context.advisor().take_gauges()
            context.spent(time.thread_time() - began)
            self._observations = await self._observed(views, tunables)
            began = time.thread_time()
        inputs = TunerInputs(
            tunables=tunables,
            observations=self._observations,
            measured=measured,
            later=assessor.ask,
            recommendations=context.advisor().recommendations(),
            alerts=context.alerts().shown() if self._config.alerts.enabled else (),
            outage=context.outages().get("collector"),
        )
        todo = driver.core.step(journal.now(), journal.wall(), inputs)
        context.spent(time.thread_time() - began)
        await driver.carry_out(todo)
        await assessor.work(tunables)

    async def _observed(
        self, views: Mapping[str, PoolView], tunables: Mapping[str, Sequence[Tunable]]
    ) -> dict[str, Observation]:
        """Observe each pool. Others may work in between: there may be many pools."""
        found: dict[str, Observation] = {}
        async for name, observer in in_slices(self._observers.items(), self._context.spent):
            view = views.get(name)
            size = next((one for one in tunables.get(name, ()) if one.name == "size"), None)
            if view is not None and size is not None:
                low, high = range_of(size, self._config.tuner.knobs)
                found[name] = observer.observe(
                    view,
                    low=round(low),
                    high=round(high),
                    wait_target=self._config.tuner.wait_target,
                    cold_start=effect_delay(size),
                )
        return found

    def _settle_soon(self) -> None:
        if self._driver is None:
            return
        self._asked = True
        if self._settling is None or self._settling.done():
            self._settling = asyncio.get_running_loop().create_task(self._settle(), name="pool_monitor tuner asked")
            self._settling.add_done_callback(retrieve_error)

    async def _settle(self) -> None:
        """Store and do what was asked for. What is asked for meanwhile is done together, however much it is."""
        while self._asked and self._driver is not None:
            self._asked = False
            async with self._turn:
                if self._driver is not None:
                    await self._driver.settle()
                await self._step(measured=False)  # what was asked for takes effect with a step

    async def settled(self) -> None:
        """Wait until everything that was asked for is stored and applied."""
        if self._settling is not None:
            await asyncio.wait([self._settling])

    async def _commit(self, rows: Mapping[str, Mapping[str, bytes | None]]) -> bool:
        from pool_monitor.storage.state import Changes

        return self._keeper is not None and await self._keeper.commit(Changes(cast("Any", rows)))

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether it has to be opened: it is on, or what it has stored may say that it is, or must be undone."""
        return self.mode != "off" or self._config.state.path is not None

    async def open(self) -> None:
        """Begin: read what was left by the run before, and undo what it has not finished. Raises ConfigError, also for
        a policy that cannot be made.
        """
        if self._driver is not None:
            return
        thread = SideThread("imports")
        try:
            await thread.run(partial(_load, self._config.tuner.policy))
        finally:
            await thread.close()
        from pool_monitor.tuner.assessing import Assessor
        from pool_monitor.tuner.core import TunerCore
        from pool_monitor.tuner.driver import TunerDriver
        from pool_monitor.tuner.mismatch import mismatches
        from pool_monitor.tuner.observer import Observer

        context = self._context
        keeper = await context.state().open("tuner")
        try:
            rows = cast("Mapping[str, Mapping[str, bytes]]", keeper.load().rows)
            core = self._core
            if core is None or keeper.path is not None:
                core = TunerCore(self._config.tuner, rows=rows, service=context.service, monitor=context.monitor)
            if self._wish is not None:
                core.set_mode(self._wish)
                self._wish = None
        except BaseException:
            await keeper.close()
            raise
        self._turn = asyncio.Lock()
        telemetry.attach(self._handler, TUNING_TRANSITION.name, self._count)
        self._journal = context.advisor().watch()
        self._observers = {name: Observer(self._journal, name) for name in self._journal.pools}
        self._keeper, self._core = keeper, core
        self._driver = TunerDriver(core, self._commit, context.tunables)
        self._assessor = Assessor(self._journal, context.spent)
        for text in mismatches(self._config.tuner, self._journal.pools, context.tunables()):
            logger("tuner").warning(plain(text))

    async def close(self) -> None:
        """End. What is on trial is undone: nobody watches it from now on."""
        if self._driver is None or self._core is None:
            return
        telemetry.detach(self._handler)
        self._context.advisor().unwatch()
        try:
            await self.settled()
            async with self._turn:
                self._core.leave("the monitor is left")
                await self._driver.settle()
        finally:
            self._driver = None
            assessor, self._assessor = self._assessor, None
            if assessor is not None:
                await assessor.close()
            keeper, self._keeper = self._keeper, None
            if keeper is not None:
                await keeper.close()

    def _count(self, _event: object, _measurements: object, about: Mapping[str, Any], _config: object) -> None:
        """The handler of ``tuning.transition``."""
        if about["monitor"] == self._context.monitor and about["to"] in TRIAL_OVER:
            self._ended[about["to"]] = self._ended.get(about["to"], 0) + 1

    @property
    def held_bytes(self) -> int:
        """Memory of the trials and of the policies, in bytes."""
        return 0 if self._core is None else self._core.held_bytes


def _seconds(value: str | float) -> float:
    """Return a duration that somebody gave, in seconds. Raises ConfigError."""
    try:
        return parse(value, "s") if isinstance(value, str) else checked(float(value), "s")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"duration={value!r:.80}: needs a duration, such as 1h, or seconds: {error}") from None


def _load(policy: str) -> None:
    """Load what is large, and the user's policy. Raises ConfigError for one that cannot be made."""
    import pool_monitor.advisor.journal
    import pool_monitor.storage.shared_state
    import pool_monitor.tuner.assessing
    import pool_monitor.tuner.core
    import pool_monitor.tuner.driver
    import pool_monitor.tuner.mismatch
    import pool_monitor.tuner.observer  # noqa: F401
    from pool_monitor.tuner.sizing import make_policy

    make_policy(policy)
