"""`Scaler`: the fast loop. Once per interval it asks what chooses the size of each pool, and follows or proposes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import ceil, floor, isfinite

from pool_monitor.errors import ConfigError
from pool_monitor.log import logger, plain
from pool_monitor.snapshot.tuning import SizingView
from pool_monitor.tunable import Tunable
from pool_monitor.tuner.audit import TUNING
from pool_monitor.tuner.failing import FailureWatch
from pool_monitor.tuner.freeze import firing
from pool_monitor.tuner.intents import StoreRows
from pool_monitor.tuner.memory import TunerMemory
from pool_monitor.tuner.observation import Observation
from pool_monitor.tuner.policy import Policy
from pool_monitor.tuner.policy_watch import PolicyWatch
from pool_monitor.tuner.proposals import Proposer
from pool_monitor.tuner.running import TrialRunner
from pool_monitor.tuner.sizing import SizePolicy, Sizer, Sizing
from pool_monitor.tuner.trial import Trial

FAILURES = 3
"""So many exceptions of a policy in a row freeze the tuner."""
SLOW_S = 0.05
"""A policy that takes longer is logged."""
HANGING_S = 1.0
"""A policy that takes longer has failed. After `FAILURES` in a row it is not asked until the freeze is ended: it holds
the event loop of the service."""
SEASON_S = 600.0
"""Time between two rows of what the season has learned."""
SOON_S = 3600.0
"""How long before a rise of the season the size for it is proposed."""
POOLS_MAX = 256
"""Pools whose size is chosen."""
TEXT_MAX = 300


class _Pool:
    """What is remembered of one pool."""

    __slots__ = (
        "differs_since",
        "direction",
        "error",
        "failing",
        "failures",
        "hangs",
        "raised",
        "saved_at",
        "sizer",
        "slow",
        "view",
        "watch",
    )

    def __init__(self) -> None:
        self.sizer: Sizer | None = None
        self.error = ""
        """Why there is no sizer."""
        self.watch: PolicyWatch | None = None
        """Of a policy that is not ours."""
        self.failing = FailureWatch()
        self.failures = 0
        self.hangs = 0
        """How often the policy has held the event loop, in a row."""
        """Of the policy, in a row."""
        self.slow = False
        self.differs_since: float | None = None
        self.direction = 0
        self.raised: tuple[int, int] | None = None
        """The size before the schedule or the season has raised it, and the one it was raised to; None: neither has, or
        the policy has chosen a size since."""
        self.saved_at = 0.0
        self.view: SizingView | None = None


class Scaler:
    """Chooses the sizes of all pools. Bound: `POOLS_MAX` pools."""

    def __init__(
        self,
        memory: TunerMemory,
        proposer: Proposer,
        runner: TrialRunner,
        policies: Callable[[str], Policy] | None,
        rows: Mapping[str, bytes],
        timer: Callable[[], float],
    ) -> None:
        """*policies* makes the policy of a pool; None: the one of the configuration. *rows* is what the season had."""
        self._memory, self._proposer, self._runner = memory, proposer, runner
        self._policies, self._rows, self._timer = policies, dict(rows), timer
        self._pools: dict[str, _Pool] = {}
        self._raised: dict[str, tuple[int, int] | None] = {}
        """Of pools that were not looked at for a while, because the mode was ``off``."""

    def step(self) -> None:
        """Look at each pool that was measured."""
        memory = self._memory
        self._keep(set() if memory.mode == "off" else memory.pools())
        if memory.mode == "off":
            return
        for pool, observation in memory.inputs.observations.items():
            tunable = memory.tunable(pool, "size")
            if tunable is None or (pool not in self._pools and len(self._pools) >= POOLS_MAX):
                continue
            known = self._pools.setdefault(pool, _Pool())
            known.raised = self._raised.pop(pool, known.raised)
            if known.sizer is None and not known.error:
                self._make(pool, known)
            if known.sizer is not None:
                self._choose(pool, known, known.sizer, tunable, observation)

    def views(self) -> tuple[SizingView, ...]:
        """What is wanted, by pool."""
        return tuple(known.view for _, known in sorted(self._pools.items()) if known.view is not None)

    def _keep(self, pools: Collection[str]) -> None:
        """Forget the others, but for what their season has learned and the schedule has raised: they may come back."""
        for pool in self._pools.keys() - set(pools):
            known = self._pools.pop(pool)
            self._raised[pool] = known.raised
            if known.sizer is not None and (state := known.sizer.state()) and len(self._rows) < POOLS_MAX:
                self._rows[f"season:{pool}"] = state

    # -- one pool ---------------------------------------------------------------------------------------------------

    def _make(self, pool: str, known: _Pool) -> None:
        try:
            policy = self._policies(pool) if self._policies is not None else None
            known.sizer = Sizer(pool, self._memory.config, policy)
        except ConfigError as error:
            known.error = str(error)
            logger("tuner").warning("the size of a pool is not chosen", pool=pool, why=str(error))
            return
        if not isinstance(known.sizer.policy, SizePolicy):
            known.watch = PolicyWatch(pool, self._memory, self._runner)
        if state := self._rows.get(f"season:{pool}", b""):
            known.sizer.restore(state)

    def _choose(self, pool: str, known: _Pool, sizer: Sizer, tunable: Tunable, observation: Observation) -> None:
        memory = self._memory
        allowed = memory.allowed(tunable)
        low, high = ceil(allowed.low), floor(allowed.high)
        size = round(tunable.value)
        if low > high:
            low = high = size
        seen = observation._replace(size=size, low=low, high=high)
        auto = memory.mode == "auto"
        sizer.resting = known.hangs >= FAILURES and memory.freezes.has("policy")
        began = self._timer()
        try:
            sizing = sizer.decide(seen, follow_season=auto)
        except Exception as error:  # noqa: BLE001 (a policy may be a user's, and may answer anything)
            sizing = Sizing(None, "policy", None, None, "", error)
        self._watch(pool, known, sizer, sizing, self._timer() - began)
        wanted = sizing.wanted
        if isinstance(wanted, float) and isfinite(wanted):
            wanted = round(wanted)
        wanted = None if wanted is None else min(max(wanted, low), high)
        if wanted is not None and auto and known.watch is not None:
            wanted = known.watch.bounded(wanted)
        wanted, why = self._sensible(pool, known, seen, sizing, wanted)
        known.view = SizingView(
            pool=pool,
            size=size,
            wanted=wanted,
            low=low,
            high=high,
            floor=sizing.floor,
            ceiling=sizing.ceiling,
            why=why,
        )
        self._save(pool, known, sizer)
        if auto:
            known.differs_since = None
            if known.watch is not None:
                known.watch.step(low, high)
            if wanted is None:
                self._lower(pool, known, tunable, sizing.floor, low, high)
            elif wanted != size:
                self._follow(pool, known, tunable, seen, wanted, sizing.origin, why)
            if wanted is not None and sizing.origin == "policy":
                known.raised = None
        else:
            self._follow_schedule(pool, known, tunable, sizing, low, high)
            self._propose(pool, known, sizer, tunable, wanted, why)

    def _sensible(
        self, pool: str, known: _Pool, seen: Observation, sizing: Sizing, wanted: int | None
    ) -> tuple[int | None, str]:
        """Return *wanted* without what calls that fail, or workers that die, would make of it, and why in words."""
        memory, size, why = self._memory, seen.size, plain(sizing.why)
        known.failing.observe(
            seen.now, seen.interval, len(seen.calls) if seen.ended is None else seen.ended, seen.failed
        )
        failing = known.failing.why()
        least = min(size, seen.high, size if sizing.ceiling is None else max(sizing.ceiling, seen.low))
        if failing is not None and wanted is not None and wanted <= least:
            wanted, why = least, f"{failing}; {why}"
        most = max(size, seen.low)
        if seen.crash_loops and wanted is not None and wanted > most and sizing.origin != "schedule":
            wanted, why = most, f"it does not grow while workers die as they start; {why}"
        if contested := memory.contested.why(memory.now, pool, "size"):
            why = f"it does not shrink: {contested}; {why}"
        return wanted, why[:TEXT_MAX]

    def _watch(self, pool: str, known: _Pool, sizer: Sizer, sizing: Sizing, took: float) -> None:
        """Look at how the policy behaves."""
        memory = self._memory
        error = sizing.error
        known.hangs = known.hangs + 1 if took > HANGING_S else known.hangs if sizer.resting else 0
        if error is None and known.hangs and not sizer.resting:
            error = TimeoutError(f"it has held the event loop for {took:.1f} s")
        if error is None:
            known.failures = 0
        else:
            known.failures += 1
            text = plain(f"{type(error).__name__}: {error}")[:TEXT_MAX]
            if known.failures == 1:
                logger("tuner").warning("the policy has failed", pool=pool, error=text)
            elif known.failures % FAILURES == 0 and not memory.freezes.has("policy"):
                reason = f"the policy of pool {pool} has failed {FAILURES} times in a row: {text}"
                memory.freezes.add("policy", reason, memory.now, memory.wall, None)
                memory.save()
        if took > SLOW_S and not known.slow:
            known.slow = True
            logger("tuner").warning("the policy is slow and holds the event loop", pool=pool, seconds=round(took, 3))

    def _save(self, pool: str, known: _Pool, sizer: Sizer) -> None:
        memory = self._memory
        if known.saved_at == 0.0:
            known.saved_at = memory.now
        elif memory.now - known.saved_at >= SEASON_S:
            known.saved_at = memory.now
            if state := sizer.state():
                self._rows[f"season:{pool}"] = state
                memory.out.append(StoreRows({TUNING: {f"season:{pool}": state}}))

    # -- auto -------------------------------------------------------------------------------------------------------

    def _follow(
        self, pool: str, known: _Pool, tunable: Tunable, seen: Observation, wanted: int, origin: str, why: str
    ) -> None:
        memory, size = self._memory, seen.size
        trial = memory.book.running(pool)
        if wanted < size and (trial is not None or self._only_up(pool)):
            return
        if trial is not None:
            if origin == "schedule":
                self._make_way(trial, f"the schedule asks for {wanted} workers")
            elif seen.waiting * 2 < size:  # not pressing: the trial goes on with the size it has
                return
            else:
                self._make_way(trial, f"the load has changed: {wanted} workers were needed")
        for one in memory.book.waiting():
            if (one.pool, one.knob) == (pool, "size"):
                memory.book.move(one, "lapse", memory.wall, f"the size is {wanted} by now")
        memory.set(pool, tunable, wanted, origin, why, grows=wanted > size)
        if origin != "policy" and (wanted > size or known.raised is not None):
            known.raised = (known.raised[0] if known.raised is not None else size, wanted)
        if known.watch is not None and origin == "policy":
            known.watch.changed(size, wanted)

    def _make_way(self, trial: Trial, reason: str) -> None:
        """End *trial* so that the size can change. What another setting has done could not be told apart from that."""
        if trial.knob == "size":
            self._runner.leave(trial, reason)
        else:
            self._runner.undo(trial, reason)

    def _only_up(self, pool: str) -> bool:
        memory = self._memory
        frozen = memory.freezes.frozen(memory.now, memory.wall) or memory.freezes.held(memory.now)
        contested = memory.contested.why(memory.now, pool, "size")
        return bool(frozen or contested or memory.inputs.outage or firing(memory.inputs.alerts, pool))

    # -- recommend --------------------------------------------------------------------------------------------------

    def _follow_schedule(self, pool: str, known: _Pool, tunable: Tunable, sizing: Sizing, low: int, high: int) -> None:
        """The schedule is the operator's own word."""
        memory, size = self._memory, round(tunable.value)
        lowest = None if sizing.floor is None else min(max(sizing.floor, low), high)
        if lowest is not None and lowest > size:
            before = known.raised[0] if known.raised is not None else size
            known.raised = (before, lowest)
            if (trial := memory.book.running(pool)) is not None:
                self._make_way(trial, f"the schedule asks for {lowest} workers")
            memory.set(pool, tunable, lowest, "schedule", f"the schedule asks for {lowest}", grows=True)
        else:
            self._lower(pool, known, tunable, sizing.floor, low, high)

    def _lower(self, pool: str, known: _Pool, tunable: Tunable, floor: int | None, low: int, high: int) -> None:
        """When the schedule or the season asks for no more, and no policy chooses, the size from before comes back."""
        if known.raised is None:
            return
        memory, size = self._memory, round(tunable.value)
        before, raised = known.raised
        lowest = None if floor is None else min(max(floor, low), high)
        target = max(before, low, lowest or 0)
        if size != raised:
            known.raised = None  # somebody has set another size
        elif target < raised and memory.book.running(pool) is None and not self._only_up(pool):
            known.raised = (before, target) if lowest is not None and target > before else None
            memory.set(pool, tunable, target, "schedule", "the schedule asks for no more")

    def _propose(self, pool: str, known: _Pool, sizer: Sizer, tunable: Tunable, wanted: int | None, why: str) -> None:
        memory, size = self._memory, round(tunable.value)
        direction = 0 if wanted is None else (wanted > size) - (wanted < size)
        if direction != known.direction or known.differs_since is None:
            known.direction, known.differs_since = direction, memory.now
        lasting = memory.now - known.differs_since >= memory.pace.propose
        if lasting and direction and wanted is not None:
            self._proposer.propose(
                pool,
                tunable,
                wanted,
                origin="policy",
                reason=why or f"{wanted} workers are wanted",
                cause=f"policy {'up' if direction > 0 else 'down'}",
                protective=direction > 0,
            )
            return
        if lasting:
            self._withdraw(pool)
        coming = sizer.upcoming(memory.wall)
        if coming is None or coming.size <= size or not 0 <= coming.at - memory.wall <= SOON_S:
            return
        self._proposer.propose(
            pool,
            tunable,
            coming.size,
            origin="season",
            reason=plain(coming.why)[:TEXT_MAX],
            cause=f"season {coming.at:.0f}",
            protective=True,
        )

    def _withdraw(self, pool: str) -> None:
        memory = self._memory
        for trial in memory.book.waiting():
            if trial.pool == pool and trial.origin == "policy" and not trial.approved:
                memory.book.move(trial, "lapse", memory.wall, "its reason is gone")
