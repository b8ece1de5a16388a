"""The alerts of a monitor: `Monitor.alerts`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from pool_monitor.alerts.announcer import Announcer
from pool_monitor.alerts.clock_guard import ClockGuard
from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES
from pool_monitor.alerts.loading import RuleFiles
from pool_monitor.alerts.outages import Outages
from pool_monitor.alerts.overlays import Overlays
from pool_monitor.alerts.past import Past
from pool_monitor.alerts.quantity import checked, parse
from pool_monitor.alerts.reach import check_reach
from pool_monitor.alerts.reader import LiveReader
from pool_monitor.alerts.recording import Recorder, encode_transition
from pool_monitor.alerts.rule_book import RuleBook
from pool_monitor.alerts.saving import Saving, decoded
from pool_monitor.alerts.slices import Slices
from pool_monitor.alerts.wording import texts_of
from pool_monitor.errors import ConfigError, PoolError
from pool_monitor.log import logger
from pool_monitor.parts import retrieve_error
from pool_monitor.side_thread import SideThread
from pool_monitor.snapshot import AlertingView, AlertState, AlertTransition, AlertView, RuleView, SilenceView

if TYPE_CHECKING:
    from pool_monitor.alerts.inputs import Inputs
    from pool_monitor.alerts.rule import CheckedRule
    from pool_monitor.config import MonitorConfig
    from pool_monitor.parts import Context
    from pool_monitor.storage.state import State

HISTORY = 10_000
"""Changes that `AlertManager.history` has at most."""
_WORST: dict[AlertState, int] = {"firing": 4, "recovering": 3, "pending": 2, "resolved": 1, "inactive": 0}
_ACTIVE = frozenset({"pending", "firing", "recovering"})


class AlertManager:
    """Evaluates the rules of one monitor and keeps what follows. It outlives the part that drives it.

    All methods must be called in the event loop of the monitor. None of them blocks. What changes an alert is stored
    first (``[state] path``), then shown, and then told: as the event ``alert.transition``, in the log and in a file.

    Evaluations are *interval* seconds apart, at multiples of it. One that the service had no time for is left out and
    counted. After the machine was suspended or the process stopped, the time in between does not count for any rule,
    and evaluation pauses for as long, at most a minute (clock_guard.py), so that nothing fires because of it.
    """

    def __init__(self, config: MonitorConfig, context: Context) -> None:
        self._config, self._context = config, context
        interval = config.alerts.interval
        self._engine, self._guard, self._recorder = Engine(interval), ClockGuard(interval), Recorder()
        past = Past(context.metrics, context.history, context.clock, interval, config.history)
        self._reader = LiveReader(context.snapshot, past)
        self._book, self._files = RuleBook(), RuleFiles(config.alerts, config.history)
        self._overlays = Overlays()
        self._saving = Saving(self._engine, self._overlays)
        self._state: State | None = None
        self._outages = Outages(context)
        self._announcer = Announcer(config.alerts, context, self._outages)
        self._thread = SideThread("alerts")
        self._history: deque[AlertTransition] = deque(maxlen=HISTORY)
        self._untold: list[AlertTransition] = []  # made, but neither stored nor told yet
        self._walking, self._reloading = asyncio.Lock(), asyncio.Lock()
        self._settling: asyncio.Task[None] | None = None
        self._whole = True  # whether all that there is has to be stored
        self._restored = False
        self._shown: tuple[AlertView, ...] = ()
        self._states: dict[str, int] = {}
        self._reload_error: str | None = None
        self._reloaded_ns: int | None = None
        self._evaluated_ns: int | None = None
        self._evaluations = 0
        self._took: float | None = None
        self._longest_hold: float | None = None
        self.due: float | None = None
        """When the next evaluation is due, by the clock of the event loop; None: it is not known."""

    # -- rules ----------------------------------------------------------------------------------------------------

    def add(self, rule: Any) -> None:
        """Evaluate *rule* too: a `Rule`, or a mapping with the fields of the file. It stays when files are read again.

        It may be added before the monitor is entered. Raises ConfigError for a rule that is wrong, that looks further
        back than what is kept, or that has the name of another one.
        """
        from pool_monitor.alerts.rule_file import checked_rule

        made = checked_rule(rule)
        if problems := check_reach([made], self._config.history):
            raise ConfigError(str(problems[0]))
        self._book.add(made, complete=self._state is not None)
        self._use_rules()

    def remove(self, alert: str) -> None:
        """Stop evaluating the rule *alert*, also when the file that has it is read again, until it is added. Its alerts
        are resolved with the reason ``rule_removed``. Raises UnknownName.
        """
        self._book.remove(alert)
        self._use_rules()

    def rules(self) -> tuple[RuleView, ...]:
        """The rules that are evaluated."""
        due = None if self.due is None or self._state is None else self.due - asyncio.get_running_loop().time()
        states: dict[str, list[AlertState]] = {}
        for one in self._shown:
            states.setdefault(one.alertname, []).append(one.state)
        found = []
        for rule in self._book.rules.values():
            mine = states.get(rule.alert, [])
            state: AlertState = max(mine, key=_WORST.__getitem__, default="inactive")
            view = RuleView(
                alertname=rule.alert,
                kind=str(rule.kind.__struct_config__.tag),
                state=state if self._evaluations else None,
                alerts=sum(one in _ACTIVE for one in mine),
                severities=rule.severities,
                failing=self._engine.failing.get(rule.alert),
                default=rule.default,
                origin="" if rule.origin is None else f"{rule.origin.file}:{rule.origin.line}",
                next_in=None if due is None else max(due, 0.0),
            )
            found.append(view)
        return tuple(found)

    async def reload(self) -> None:
        """Read the files of rules again, and use what they have. Alerts and timers of rules that have not changed stay.

        Raises ConfigError with everything that is wrong in them; then the rules before stay in force.
        """
        async with self._reloading:
            try:
                self._book.take(await self._thread.run(partial(self._files.read, self._book.added)))
            except ConfigError as error:
                if str(error) != self._reload_error:
                    logger("alerts").error("the rules could not be read; those before stay", reason=str(error))
                self._reload_error = str(error)
                raise
            if self._reload_error is not None:
                logger("alerts").warning("the rules could be read again")
            self._reload_error, self._reloaded_ns = None, self._context.clock.monotonic_ns()
            self._use_rules()

    async def reload_if_changed(self) -> None:
        """Do what `reload` does if a file has changed. A problem is kept for `view`, and logged."""
        with suppress(ConfigError):
            if await self._thread.run(self._files.changed):
                await self.reload()

    def _use_rules(self) -> None:
        if self._state is not None:
            known = dict(self._engine.rules)
            changed = self._engine.set_rules(list(self._book.rules.values()), self._now())
            known |= self._engine.rules
            self._untold += [_worded(one, known) for one in changed]
            self._settle_soon()

    # -- alerts ---------------------------------------------------------------------------------------------------

    def active(self) -> tuple[AlertView, ...]:
        """The alerts that are pending, firing or recovering: firing first, the worst first."""
        return tuple(one for one in self._shown if one.state in _ACTIVE)

    def shown(self) -> tuple[AlertView, ...]:
        """The same, and those that were resolved of late. It is what a Snapshot has."""
        return self._shown

    def history(self, limit: int = 100) -> tuple[AlertTransition, ...]:
        """The latest changes, at most *limit* and `HISTORY`, the newest first."""
        return tuple(self._history)[-limit:][::-1] if limit > 0 else ()

    # -- what people do -------------------------------------------------------------------------------------------

    def silence(
        self,
        matchers: Mapping[str, str | Mapping[str, str]],
        *,
        duration: str | float,
        comment: str = "",
        author: str = "",
        starts_in: str | float | None = None,
    ) -> str:
        """Tell nobody of alerts whose labels match, for *duration* (such as ``2h``, or seconds). Return an id.

        *matchers*: label -> text that matches itself to the letter, or ``{"glob": "text*"}``, a shell pattern;
        ``alertname`` and ``severity`` are labels too. *starts_in*: after how long it begins, for a maintenance window.
        The state of the alerts does not change. Raises ConfigError.
        """
        wait = 0.0 if starts_in is None else _seconds(starts_in, "starts_in")
        made = self._overlays.silence(
            matchers,
            duration=_seconds(duration, "duration"),
            at=self._now(),
            starts_in=wait,
            author=author,
            comment=comment,
        )
        self._overlays_changed()
        return made

    def unsilence(self, silence: str) -> None:
        """End the silence with an id, also before it begins. Raises UnknownName."""
        self._overlays.unsilence(silence, self._now())
        self._overlays_changed()

    def silences(self) -> tuple[SilenceView, ...]:
        """The silences that last or will begin, the next to end first."""
        return self._overlays.silences(self._now())

    def ack(
        self, fingerprint: str, *, author: str = "", comment: str = "", duration: str | float | None = None
    ) -> None:
        """Acknowledge an alert: somebody deals with it, for *duration*, or until it is resolved. Its next life needs a
        new acknowledgement. Raises UnknownName for a fingerprint that no active alert has, and ConfigError.
        """
        active = {one.fingerprint: one for one in self._engine.alerts.values() if one.state in ACTIVE_PHASES}
        seconds = None if duration is None else _seconds(duration, "duration")
        self._overlays.acknowledge(
            fingerprint, active, at=self._now(), duration=seconds, author=author, comment=comment
        )
        self._overlays_changed()

    def unack(self, fingerprint: str) -> None:
        """Take an acknowledgement back. Raises UnknownName where there is none."""
        self._overlays.unacknowledge(fingerprint)
        self._overlays_changed()

    def _overlays_changed(self) -> None:
        """Show what somebody did, and store it soon. An evaluation that is under way shows it at its end."""
        if not self._walking.locked():
            self._shown = tuple(view for view in self._laying() if view is not None)
        self._settle_soon()

    # -- evaluation -----------------------------------------------------------------------------------------------

    async def evaluate(self) -> None:
        """Evaluate all rules now, for tests and scripts. All the time since the latest evaluation counts, whatever
        happened in it.

        Returns when the changes are stored and told. Raises PoolError while the monitor is not entered, and where
        ``[alerts] enabled = false``.
        """
        self._check_open()
        async with self._walking:
            await self._walk(self._guard.asked(self._context.clock.monotonic_ns()))

    async def evaluate_at_its_time(self) -> None:
        """Evaluate all rules, unless the guard of the clock says that the figures are not to be trusted now."""
        async with self._walking:
            self.tick()
            elapsed = self._guard.scheduled(self._context.clock.monotonic_ns())
            if elapsed is not None:
                await self._walk(elapsed)

    async def settled(self) -> None:
        """Wait until everything that was changed before is stored."""
        if self._state is not None:
            async with self._walking:
                await self._settle(Slices())

    async def _walk(self, elapsed: float) -> None:
        """One evaluation: see the package's docstring."""
        began = time.perf_counter()
        wanted = self._engine.wanted
        await self._reader.prepare(wanted)
        slices = Slices()
        inputs: Inputs | None = None
        for read in self._reader.reading(wanted, elapsed):
            inputs = read
            await slices.pause()
        assert inputs is not None
        transitions: list[AlertTransition] = []
        for found in self._engine.stepping(inputs):
            if found is not None:
                transitions.append(_worded(found, self._engine.rules))
            await slices.pause()
        self._overlays.note(transitions, elapsed)
        self._untold += transitions
        self._record(inputs, transitions)
        await self._settle(slices)
        slices.note()
        self._evaluations += 1
        self._evaluated_ns = self._context.clock.monotonic_ns()
        self._took, self._longest_hold = time.perf_counter() - began, slices.longest

    def _record(self, inputs: Inputs, transitions: list[AlertTransition]) -> None:
        record = self._context.record()
        if record is not None:
            record(inputs.at, self._recorder.encode(inputs), [*map(encode_transition, transitions)])

    async def _settle(self, slices: Slices) -> None:
        """Store what has changed, show it, and tell it. The lock is held."""
        state = self._state
        assert state is not None
        transitions = list(self._untold)
        whole, self._whole = self._whole, True  # if this is cancelled, nobody knows what was stored
        changes = await self._saving.changes(transitions, slices, whole=whole)
        slices.note()
        self._whole = False
        await state.commit(changes)  # takes the changes over before it waits
        slices.begin()
        del self._untold[: len(transitions)]
        self._history.extend(transitions)
        await self._lay(slices)
        await self._announcer.tell(transitions, slices)

    def _settle_soon(self) -> None:
        """Store and tell what has changed outside an evaluation."""
        if self._state is not None and (self._settling is None or self._settling.done()):
            self._settling = asyncio.get_running_loop().create_task(self.settled(), name="pool_monitor alerts settle")
            self._settling.add_done_callback(retrieve_error)

    async def _lay(self, slices: Slices) -> None:
        """Make the views of all alerts."""
        shown = []
        for view in self._laying():
            if view is not None:
                shown.append(view)
            await slices.pause()
        self._shown = tuple(shown)

    def _laying(self) -> Iterator[AlertView | None]:
        alerts = self._engine.alerts.values()
        self._states = dict(Counter(one.state.value for one in alerts))
        return self._overlays.laying(alerts, self._engine.rules, self._book.loaded.inhibitions, self._now(), texts_of)

    def _was_blocked(self, seconds: float) -> bool:
        """Whether the event loop was blocked for about *seconds*, as the watchdog of the loop has seen it. It does not
        count the time in which the machine was suspended or the process stopped.
        """
        loop = self._context.snapshot("1m").resources.loop
        longest = None if loop is None else loop.lag.max
        return longest is not None and longest >= seconds / 2

    # -- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin: read the state and the rules. Raises ConfigError for either; then nothing has begun."""
        self._outages.forget()
        self._walking, self._reloading, self._thread = asyncio.Lock(), asyncio.Lock(), SideThread("alerts")
        state = await self._opened_state()
        try:
            loaded = state.load()
            saved, rows = decoded(loaded), {str(table): found for table, found in loaded.rows.items()}
            await self._read_rules()
            self._state = state
            self._use_rules()
            if not self._restored:
                self._restored = True
                restored = self._engine.restore(saved.alerts, saved.memories, saved.seq, self._now())
                self._saving.restored()
                self._history.extend(saved.transitions)
                self._untold += [_worded(one, self._engine.rules) for one in restored.transitions]
                going_on = [one.fingerprint for one in self._engine.alerts.values() if one.state in ACTIVE_PHASES]
                for why in [*restored.refused, *self._overlays.restore(rows, going_on)]:
                    logger("alerts").warning("something saved cannot be used", reason=why)
            self._whole = True
            self._guard.restart()
            await self._announcer.open(list(self._history), self._history[-1].seq if self._history else saved.seq)
            await self.settled()
        except BaseException:
            self._state = None
            await state.close()
            raise

    async def _opened_state(self) -> State:
        from pool_monitor.storage.state import MemoryState, StateFile

        path = self._config.state.path
        if path is None:
            return MemoryState()
        return await StateFile.open(
            path,
            clock=self._context.clock,
            on_degrade=partial(self._outages.begin, "state"),
            on_recover=lambda: self._outages.end("state", f"{path} is written again"),
            spent=self._context.spent,
        )

    async def _read_rules(self) -> None:
        """Read the rules for the first time. Later, those before stay in force where they cannot be read."""
        try:
            await self.reload()
        except ConfigError:
            if not self._restored:
                raise

    async def close(self) -> None:
        """End. What has changed is stored, within the limits of the part."""
        self.due = None
        state = self._state
        if state is None:
            return
        try:
            await self.settled()
        finally:
            self._state = None
            try:
                await self._announcer.close()
            finally:
                await state.close()
                await self._thread.close()

    def tick(self) -> None:
        """The event loop runs. Called about once a second."""
        self._guard.seen(self._context.clock.monotonic_ns(), self._was_blocked)

    def hang_up(self) -> None:
        """SIGHUP came: read the rules again, and open the file of changes again."""
        self._announcer.reopen()
        task = asyncio.get_running_loop().create_task(self._reload_in_words(), name="pool_monitor alerts reload")
        task.add_done_callback(retrieve_error)

    async def _reload_in_words(self) -> None:
        with suppress(ConfigError):
            await self.reload()

    @property
    def has_files(self) -> bool:
        """Whether there are files of rules, which may change."""
        return self._files.any

    # -- what is shown of it --------------------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """Memory of the alerts and of the changes that are kept, in bytes: estimated from some of each."""
        return 0

    def view(self) -> AlertingView:
        """The state of the evaluation."""
        now_ns, state = self._context.clock.monotonic_ns(), self._state
        pause = self._guard.pause_left(now_ns)
        return AlertingView(
            rules=len(self._engine.rules),
            interval=self._engine.interval,
            failing=dict(self._engine.failing),
            states=dict(self._states),
            evaluations=self._evaluations,
            missed=self._guard.missed,
            evaluation_seconds=self._took,
            longest_hold=self._longest_hold,
            evaluated_age=_age(now_ns, self._evaluated_ns),
            reload_error=self._reload_error,
            reloaded_age=_age(now_ns, self._reloaded_ns),
            state_path=None if state is None or state.path is None else str(state.path),
            state_degraded=None if state is None else state.degraded,
            silences=self.silences(),
            transitions=self._announcer.told,
            refused=self._engine.refused,
            paused=pause or None,
            file_degraded=self._outages.reasons.get("file"),
        )

    def _check_open(self) -> None:
        if self._state is None:
            raise PoolError(
                "rules are evaluated while the monitor is entered"
                if self._config.alerts.enabled
                else "rules are not evaluated: [alerts] enabled = false"
            )

    def _now(self) -> float:
        return self._context.clock.wall_ns() / 1e9


def _age(now_ns: int, then_ns: int | None) -> float | None:
    return None if then_ns is None else max(now_ns - then_ns, 0) / 1e9


def _worded(transition: AlertTransition, rules: Mapping[str, CheckedRule]) -> AlertTransition:
    """Add the texts of its rule to *transition*."""
    texts = texts_of(rules.get(transition.alert), transition)
    return msgspec.structs.replace(transition, summary=texts.summary, value_text=texts.value_text)


def _seconds(value: str | float, name: str) -> float:
    """Return a duration that somebody gave, in seconds. Raises ConfigError."""
    try:
        return parse(value, "s") if isinstance(value, str) else checked(float(value), "s")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}={value!r:.80}: {error}") from None
