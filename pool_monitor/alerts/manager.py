"""The alerts of a monitor: `Monitor.alerts`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pool_monitor import telemetry
from pool_monitor.alerts.announcer import Announcer
from pool_monitor.alerts.clock_guard import ClockGuard
from pool_monitor.alerts.evaluator import Evaluator
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES
from pool_monitor.alerts.loading import RuleFiles, RuleSource
from pool_monitor.alerts.outages import Outages
from pool_monitor.alerts.quantity import checked, parse
from pool_monitor.alerts.reach import check_reach
from pool_monitor.alerts.rule_book import RuleBook, view_of
from pool_monitor.alerts.rule_file import checked_rule
from pool_monitor.errors import ConfigError, PoolError
from pool_monitor.events import LOOP_RESUME
from pool_monitor.log import logger
from pool_monitor.side_thread import SideThread
from pool_monitor.snapshot import AlertingView, AlertState, AlertTransition, AlertView, RuleView, SilenceView

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Outcome
    from pool_monitor.alerts.reader import InputReader
    from pool_monitor.config import MonitorConfig
    from pool_monitor.parts import Context
    from pool_monitor.storage.state import Keeper


class AlertManager:
    """Evaluates the rules of one monitor and keeps what follows. It outlives the part that drives it.

    All methods must be called in the event loop of the monitor. None of them blocks. What changes an alert is stored
    first (``[state] path``), then shown, and then told: as the event ``alert.transition``, in the log and in a file.

    Evaluations are *interval* seconds apart, at multiples of it. One that the service had no time for is left out and
    counted. After the machine was suspended or the process stopped, the time in between does not count for any rule,
    and evaluation pauses for as long, at most a minute (clock_guard.py), so that nothing fires because of it.

    *files* has the rules, and *reader* reads what they need; None: the files of *config*, and the Snapshots and the
    history of the monitor.
    """

    def __init__(
        self,
        config: MonitorConfig,
        context: Context,
        *,
        files: RuleSource | None = None,
        reader: InputReader | None = None,
    ) -> None:
        self._config, self._context = config, context
        self._book, self._files = RuleBook(), files or RuleFiles(config.alerts, config.history)
        self._outages = Outages(context)
        self._announcer = Announcer(config.alerts, context, self._outages)
        self._evaluator = Evaluator(config, context, self._announcer, reader)
        self._guard = ClockGuard(config.alerts.interval)
        self._thread, self._reloading = SideThread("alerts"), asyncio.Lock()
        self._handler = f"pool_monitor alerts {context.monitor}"
        self._blocked_s = 0.0  # since the last tick
        self._reload_error: str | None = None
        self._reloaded_ns: int | None = None
        self.due: float | None = None
        """When the next evaluation is due, by the clock of the event loop; None: it is not known."""

    # -- rules ----------------------------------------------------------------------------------------------------

    def add(self, rule: Any) -> None:
        """Evaluate *rule* too: a `Rule`, or a mapping with the fields of the file. It stays when files are read again.

        It may be added before the monitor is entered. Raises ConfigError for a rule that is wrong, that looks further
        back than what is kept, or that has the name of another one.
        """
        made = checked_rule(rule)
        if problems := check_reach([made], self._config.history):
            raise ConfigError(str(problems[0]))
        self._book.add(made, complete=self._is_open)
        self._use_rules()

    def remove(self, alert: str) -> None:
        """Stop evaluating the rule *alert*, also when the file that has it is read again, until it is added. Its alerts
        are resolved with the reason ``rule_removed``. Raises UnknownName, and ConfigError if another rule names it.
        """
        self._book.remove(alert)
        self._use_rules()

    def rules(self) -> tuple[RuleView, ...]:
        """The rules that are evaluated."""
        next_in = None
        if self.due is not None and self._is_open:
            next_in = max(self.due - asyncio.get_running_loop().time(), 0.0)
        states: dict[str, list[AlertState]] = {}
        for one in self._evaluator.engine.each():
            states.setdefault(one.alert, []).append(one.state.value)
        failing, evaluated = self._evaluator.engine.failing, self._evaluator.evaluations > 0
        return tuple(
            view_of(rule, states.get(name, []) if evaluated else None, failing.get(name), next_in)
            for name, rule in self._book.rules.items()
        )

    async def reload(self) -> None:
        """Read the files of rules again, and use what they have. Alerts and timers of rules that have not changed stay.

        Raises ConfigError with everything that is wrong in them; then the rules before stay in force.
        """
        async with self._reloading:
            before = self._book.loaded
            try:
                self._book.take(await self._thread.run(partial(self._files.read, self._book.added)))
            except ConfigError as error:
                if str(error) != self._reload_error and self._is_open:
                    logger("alerts").error("the rules could not be read, and those before stay", reason=str(error))
                self._reload_error = str(error)
                raise
            if self._reload_error is not None:
                logger("alerts").warning("the rules could be read again")
            self._reload_error, self._reloaded_ns = None, self._context.clock.monotonic_ns()
            loaded = self._book.loaded
            for warning in loaded.warnings if loaded.warnings != before.warnings else ():
                logger("alerts").warning(warning)
            self._use_rules()

    async def reload_if_changed(self) -> None:
        """Do what `reload` does if a file has changed."""
        if await self._thread.run(self._files.changed):
            await self.reload()

    def _use_rules(self) -> None:
        if self._is_open:
            loaded = self._book.loaded
            self._evaluator.use(list(self._book.rules.values()), loaded.inhibitions, loaded.routing)

    # -- alerts ---------------------------------------------------------------------------------------------------

    def active(self) -> tuple[AlertView, ...]:
        """The alerts that are pending, firing or recovering: firing first, the worst first."""
        return tuple(one for one in self._evaluator.shown if one.state in ACTIVE_PHASES)

    def shown(self) -> tuple[AlertView, ...]:
        """The same, and those that were resolved of late. It is what a Snapshot has."""
        return self._evaluator.shown

    def history(self, limit: int = 100) -> tuple[AlertTransition, ...]:
        """The latest changes, at most *limit* and 10,000, the newest first."""
        return tuple(self._evaluator.history)[-limit:][::-1] if limit > 0 else ()

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
        made = self._evaluator.overlays.silence(
            matchers,
            duration=_seconds(duration, "duration"),
            at=self._now(),
            starts_in=wait,
            author=author,
            comment=comment,
        )
        self._evaluator.overlays_changed()
        return made

    def unsilence(self, silence: str) -> None:
        """End the silence with an id, also before it begins. Raises UnknownName."""
        self._evaluator.overlays.unsilence(silence, self._now())
        self._evaluator.overlays_changed()

    def silences(self) -> tuple[SilenceView, ...]:
        """The silences that last or will begin, the next to end first."""
        return self._evaluator.overlays.silences(self._now())

    def ack(
        self, fingerprint: str, *, author: str = "", comment: str = "", duration: str | float | None = None
    ) -> None:
        """Acknowledge an alert: somebody deals with it, for *duration*, or until it is resolved. Its next life needs a
        new acknowledgement. Raises UnknownName for a fingerprint that no active alert has, and ConfigError.
        """
        active = {one.fingerprint: one for one in self._evaluator.engine.each() if one.state in ACTIVE_PHASES}
        seconds = None if duration is None else _seconds(duration, "duration")
        self._evaluator.overlays.acknowledge(
            fingerprint, active, at=self._now(), duration=seconds, author=author, comment=comment
        )
        self._evaluator.overlays_changed()

    def unack(self, fingerprint: str) -> None:
        """Take an acknowledgement back. Raises UnknownName where there is none."""
        self._evaluator.overlays.unacknowledge(fingerprint)
        self._evaluator.overlays_changed()

    # -- receivers ------------------------------------------------------------------------------------------------

    async def test_receiver(self, receiver: str) -> Outcome:
        """Send a message to *receiver* that says it is a test, and return what came of it: ``result`` is ``sent`` if
        the receiver has it, and ``reason`` says in words why not. It is tried once, when an attempt that is under way
        to the same receiver has ended; each takes at most 20 s. If the receiver has it, what it is owed is tried at
        once, whatever it has answered to that.

        Raises UnknownName for a receiver that no file of rules has, and PoolError while the monitor is not entered. If
        it is cancelled, the message may arrive all the same.
        """
        if not self._is_open:
            raise PoolError("receivers are known while the monitor is entered")
        return await self._evaluator.delivery.test(receiver)

    # -- evaluation -----------------------------------------------------------------------------------------------

    async def evaluate(self) -> None:
        """Evaluate all rules now, for tests and scripts. All the time since the latest evaluation counts, whatever
        happened in it.

        Returns when the changes are stored and told. If it is cancelled, those that were made by then are stored and
        told later: with the next evaluation, or when the monitor is left. Raises PoolError while the monitor is not
        entered, and where ``[alerts] enabled = false``.
        """
        if not self._is_open:
            raise PoolError(
                "rules are evaluated while the monitor is entered"
                if self._config.alerts.enabled
                else "rules are not evaluated: [alerts] enabled = false"
            )
        async with self._evaluator.walking():
            await self._evaluator.walk(self._guard.asked(self._context.clock.monotonic_ns()))

    async def evaluate_at_its_time(self) -> None:
        """Evaluate all rules, unless the guard of the clock says that the figures are not to be trusted now."""
        async with self._evaluator.walking():
            self.tick()
            elapsed = self._guard.scheduled(self._context.clock.monotonic_ns())
            if elapsed is not None:
                await self._evaluator.walk(elapsed)

    async def settled(self) -> None:
        """Wait until everything that was changed before is stored, shown and told."""
        await self._evaluator.settled()

    # -- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin: read the state and the rules. Raises ConfigError for either; then nothing has begun."""
        from pool_monitor.storage.shared_state import Outage

        again = self._reloaded_ns is not None
        self._outages.forget()
        self._reloading = asyncio.Lock()
        outage = Outage(partial(self._outages.begin, "state"), partial(self._outages.end, "state"))
        state: Keeper = await self._context.state().open("alerts", outage)
        try:
            try:
                await self.reload()
            except ConfigError:
                if not again:
                    raise
            await self._evaluator.restore(state, list(self._book.rules.values()), self._thread)
            loaded = self._book.loaded
            await self._evaluator.open(state, list(self._book.rules.values()), loaded.inhibitions, loaded.routing)
            self._guard.restart()
            telemetry.attach(self._handler, LOOP_RESUME.name, self._note_block)
        except BaseException:
            await self.close()
            await state.close()
            raise

    async def close(self) -> None:
        """End. What has changed is stored, within the limits of the part."""
        self.due = None
        telemetry.detach(self._handler)
        try:
            await self._evaluator.close()
        finally:
            thread, self._thread = self._thread, SideThread("alerts")
            await thread.close()

    def tick(self) -> None:
        """The event loop runs. Called about once a second."""
        self._evaluator.delivery.tick()
        blocked, self._blocked_s = self._blocked_s, 0.0
        self._guard.seen(self._context.clock.monotonic_ns(), blocked)

    def _note_block(self, _event: object, measurements: Mapping[str, Any], about: Mapping[str, Any], _: object) -> None:
        """The handler of ``resource.loop_resume``: the watchdog of this monitor says for how long the loop was blocked.

        That does not count the time in which the machine was suspended or the process stopped.
        """
        if about["monitor"] == self._context.monitor:
            self._blocked_s += measurements["duration"] / 1e9

    def reopen_file(self) -> None:
        """Another program may have rotated the file of changes: look now."""
        self._announcer.reopen()

    @property
    def has_files(self) -> bool:
        """Whether there are files of rules, which may change."""
        return self._files.any

    @property
    def _is_open(self) -> bool:
        return self._evaluator.state is not None

    # -- what is shown of it --------------------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """Memory of the alerts and of the changes that are kept, in bytes."""
        state = self._evaluator.state
        return self._evaluator.held_bytes + (0 if state is None else state.held_bytes)

    def view(self) -> AlertingView:
        """The state of the evaluation."""
        now_ns, evaluator, state = self._context.clock.monotonic_ns(), self._evaluator, self._evaluator.state
        return AlertingView(
            rules=len(evaluator.engine.rules),
            interval=evaluator.engine.interval,
            failing=dict(evaluator.engine.failing),
            states=dict(evaluator.states),
            evaluations=evaluator.evaluations,
            missed=self._guard.missed,
            evaluation_seconds=evaluator.took,
            longest_hold=evaluator.longest_hold,
            evaluated_age=_age(now_ns, evaluator.evaluated_ns),
            reload_error=self._reload_error,
            reloaded_age=_age(now_ns, self._reloaded_ns),
            state_path=None if state is None or state.path is None else str(state.path),
            state_degraded=None if state is None else state.degraded,
            silences=self.silences(),
            transitions=self._announcer.told,
            refused=evaluator.engine.refused,
            paused=self._guard.pause_left(now_ns) or None,
            file_degraded=self._outages.reasons.get("file"),
            **evaluator.delivery.view(),
        )

    def _now(self) -> float:
        return self._context.clock.wall_ns() / 1e9


def _age(now_ns: int, then_ns: int | None) -> float | None:
    return None if then_ns is None else max(now_ns - then_ns, 0) / 1e9


def _seconds(value: str | float, name: str) -> float:
    """Return a duration that somebody gave, in seconds. Raises ConfigError."""
    try:
        return parse(value, "s") if isinstance(value, str) else checked(float(value), "s")
    except TypeError:
        raise ConfigError(f"{name}={value!r:.80}: needs a duration, such as 2h, or seconds") from None
    except ValueError as error:
        raise ConfigError(f"{name}={value!r:.80}: {error}") from None
