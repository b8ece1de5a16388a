"""One evaluation after the other: reads, judges, stores, shows and tells."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from pool_monitor.alerts.before import Before, Begun
from pool_monitor.alerts.delivery.delivery import Delivery
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.engine import Engine
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES
from pool_monitor.alerts.measured import ValueCourses
from pool_monitor.alerts.overlays import Overlays
from pool_monitor.alerts.past import Past
from pool_monitor.alerts.reader import LiveReader
from pool_monitor.alerts.recording import Recorder, encode_transition
from pool_monitor.alerts.saving import Saving, decoded
from pool_monitor.alerts.slices import Slices
from pool_monitor.alerts.soon import Soon
from pool_monitor.alerts.wording import texts_of, worded
from pool_monitor.log import logger
from pool_monitor.storage.state import Changes

if TYPE_CHECKING:
    from pool_monitor.alerts.alert import Alert
    from pool_monitor.alerts.announcer import Announcer
    from pool_monitor.alerts.inputs import Inputs
    from pool_monitor.alerts.reader import InputReader
    from pool_monitor.alerts.rule import CheckedRule, Inhibition
    from pool_monitor.config import MonitorConfig
    from pool_monitor.parts import Context
    from pool_monitor.side_thread import SideThread
    from pool_monitor.snapshot import AlertTransition, AlertView
    from pool_monitor.storage.state import Keeper
    from pool_monitor.storage.state_store import SavedState

HISTORY = 10_000
"""Changes that are kept at most."""
DRAWN = 100
"""Most alerts whose values are in a Snapshot: it is made and encoded every second."""
_MEASURED = 20


class Evaluator:
    """Has the engine and what is around it, and does what the docstring of the package calls a walk.

    What changes an alert is stored first, then shown, and then told. Nothing holds the event loop for long: the work
    is done in slices (slices.py). It keeps `HISTORY` changes; the engine, the overlays and the reader have bounds of
    their own.
    """

    def __init__(
        self, config: MonitorConfig, context: Context, announcer: Announcer, reader: InputReader | None = None
    ) -> None:
        interval = config.alerts.interval
        self.engine, self.overlays = Engine(interval), Overlays()
        self._context, self._announcer = context, announcer
        if reader is None:
            past = Past(context.metrics, context.history, context.clock, interval, config.history)
            reader = LiveReader(context.snapshot_in_steps, past)
        self._reader: InputReader = reader
        self._recorder = Recorder(interval, keeps_state=config.state.path is not None)
        self._unrecorded: list[AlertTransition] = []  # made outside an evaluation
        self.delivery = Delivery(context, self.settle_soon, self.store_soon)
        self._alerts: dict[str, Alert] = {}  # by fingerprint, as they were laid last
        self._courses = ValueCourses()
        self._before = Before(context.metrics, context.clock)
        self._saving = Saving(self.engine, self.overlays, self.delivery)
        self._inhibitions: Sequence[Inhibition] = ()
        self._state: Keeper | None = None
        self._restored, self._saved_seq = False, 0
        self._whole = True  # whether all that there is has to be stored
        self._untold: list[AlertTransition] = []  # made, but neither stored nor told yet
        self._walking = asyncio.Lock()
        self._settling = Soon("pool_monitor alerts settle", self.walking, lambda: self._settle(Slices()))
        self._storing = Soon("pool_monitor alerts store", self.walking, self._store)
        self.history: deque[AlertTransition] = deque(maxlen=HISTORY)
        """The changes that are stored, the oldest first."""
        self.shown: tuple[AlertView, ...] = ()
        """The alerts as Snapshots show them."""
        self.states: dict[str, int] = {}
        """The number of alerts in each state."""
        self.held_bytes = 0
        """Memory of the alerts and changes that are kept, in bytes, from the size of some of each."""
        self.evaluations = 0
        self.evaluated_ns: int | None = None
        """When the latest evaluation ended, by the monotonic clock."""
        self.took: float | None = None
        self.longest_hold: float | None = None
        """How long the latest evaluation took, and for how long at most it held the event loop, in seconds."""

    @property
    def state(self) -> Keeper | None:
        """What keeps the state; None: it is not open."""
        return self._state

    # -- life -----------------------------------------------------------------------------------------------------

    async def restore(self, state: Keeper, rules: Sequence[CheckedRule], thread: SideThread) -> None:
        """Take over what *state* has of an earlier life, for *rules*. Call it before `open`. If this was open before,
        it goes on with what it had.

        The work is done in *thread*: for ten thousand alerts, it takes a quarter of a second.
        """
        loaded = state.load()
        self._saved_seq = loaded.seq
        if self._restored:
            return
        self.use(rules, (), None)
        for why in await thread.run(partial(self._restore, loaded)):
            logger("alerts").warning("something saved cannot be used", reason=why)
        self._restored = True

    def _restore(self, loaded: SavedState) -> list[str]:
        """Take over *loaded*. Return what cannot be used, in words."""
        saved, rows = decoded(loaded), {str(table): found for table, found in loaded.rows.items()}
        restored = self.engine.restore(saved.alerts, saved.memories, saved.seq, self._now())
        self.history.extend(saved.transitions)
        ended = [worded(one, self.engine.rules) for one in restored.transitions]
        self._untold += ended
        self._unrecorded += ended
        going_on = [one.fingerprint for one in self.engine.each() if one.state in ACTIVE_PHASES]
        return [*restored.refused, *self.overlays.restore(rows, going_on), *self.delivery.restore(rows)]

    async def open(
        self, state: Keeper, rules: Sequence[CheckedRule], inhibitions: Sequence[Inhibition], routing: Routing
    ) -> None:
        """Begin with *rules* and *routing*, and store changes in *state* from now on."""
        self._walking = asyncio.Lock()
        self._state = state
        self.use(rules, inhibitions, routing)
        self._whole = True
        self.delivery.open()
        await self._announcer.open(list(self.history), self.history[-1].seq if self.history else self._saved_seq)
        await self.settled()

    async def close(self) -> None:
        """End, and store what is not stored yet."""
        state = self._state
        if state is None:
            return
        try:
            await self.settled()
        finally:
            self._state = None
            try:
                await self.delivery.close()
                await self._store_delivery(state)
                await self._announcer.close()
            finally:
                await state.close()
                await self._reader.close()
                await self._before.close()

    def use(self, rules: Sequence[CheckedRule], inhibitions: Sequence[Inhibition], routing: Routing | None) -> None:
        """Use *rules* and *routing* from now on; None: the routing stays. The alerts and timers of rules that have not
        changed stay.
        """
        known = dict(self.engine.rules)
        changed = self.engine.set_rules(rules, self._now())
        known |= self.engine.rules
        self._inhibitions = inhibitions
        if routing is not None:
            self.delivery.use(routing)
        ended = [worded(one, known) for one in changed]
        self._untold += ended
        self._unrecorded += ended
        self.settle_soon()

    # -- evaluation -----------------------------------------------------------------------------------------------

    def walking(self) -> asyncio.Lock:
        """The lock of the evaluation: `walk` is for its holder."""
        return self._walking

    async def walk(self, elapsed: float) -> None:
        """Evaluate all rules, *elapsed* seconds of counted time after the evaluation before."""
        began = time.perf_counter()
        wanted = self.engine.wanted
        await self._reader.prepare(wanted)
        slices = Slices()
        inputs: Inputs | None = None
        for read in self._reader.reading(wanted, elapsed):
            inputs = read
            await slices.pause()
        assert inputs is not None
        transitions = []
        for found in self.engine.stepping(inputs):
            if found is not None:
                transitions.append(worded(found, self.engine.rules))
                self._untold.append(transitions[-1])
            await slices.pause()
        at = self._context.clock.monotonic_ns() / 1e9
        for _ in self._courses.note(self.engine.each(), at, self.engine.interval):
            await slices.pause()
        rules = self.engine.rules
        self._before.read(
            Begun(rules[alert.alert], alert.instance, course)
            for alert, course in self._courses.begun
            if alert.alert in rules
        )
        self.overlays.note((), elapsed)
        for one in transitions:
            self.overlays.note((one,), 0.0)
            await slices.pause()
        await self._record(inputs, transitions, slices)
        await self._settle(slices)
        slices.note()
        self.evaluations += 1
        self.evaluated_ns = self._context.clock.monotonic_ns()
        self.took, self.longest_hold = time.perf_counter() - began, slices.longest

    async def _record(self, inputs: Inputs, transitions: Sequence[AlertTransition], slices: Slices) -> None:
        """Keep the evaluation in the history, with the changes that were made since the one before."""
        changes, self._unrecorded = [*self._unrecorded, *transitions], []
        record = self._context.record()
        if record is None:
            return
        encoded = []
        for one in changes:
            encoded.append(encode_transition(one))
            await slices.pause()
        record(inputs.at, self._recorder.encode(inputs), encoded)

    async def settled(self) -> None:
        """Wait until everything that was changed before is stored, shown and told."""
        async with self._walking:
            await self._settle(Slices())

    def settle_soon(self) -> None:
        """Store, show and tell what has changed outside an evaluation. Before `open`, `open` does it."""
        if self._state is not None:
            self._settling.ask()

    def store_soon(self) -> None:
        """Store what has become of notifications. Nothing is laid, shown or told."""
        if self._state is not None:
            self._storing.ask()

    async def _store(self) -> None:
        if self._state is not None:
            await self._store_delivery(self._state)

    async def _store_delivery(self, state: Keeper) -> None:
        rows = {table: found for table, found in self.delivery.rows(whole=False).items() if found}
        await state.commit(Changes(rows))  # type: ignore[arg-type]

    def overlays_changed(self) -> None:
        """Show what somebody did now, and store it soon. An evaluation that is under way shows it at its end."""
        if not self._walking.locked():
            self.shown = self.overlays.laid_again(self.shown, self._now())
        self.settle_soon()

    async def _settle(self, slices: Slices) -> None:
        state = self._state
        if state is None:
            return
        transitions = list(self._untold)
        shown: list[AlertView] = []
        states = Counter[str]()
        for view in self._laying(states):
            if view is not None:
                shown.append(view)
            await slices.pause()
        for _ in self.delivery.settling(transitions, self.engine.each(), self._look):
            await slices.pause()
        for number, view in enumerate(shown):
            shown[number] = self._with_told(self._drawn(view) if number < DRAWN else view)
            await slices.pause()
        whole, self._whole = self._whole, True  # if this is cancelled, nobody knows what was stored
        changes = await self._saving.changes(transitions, slices, whole=whole)
        slices.note()
        self._whole = False
        await state.commit(changes)  # takes the changes over before it waits
        slices.begin()
        del self._untold[: len(transitions)]
        self.delivery.release()
        self.history.extend(transitions)
        self.shown, self.states = tuple(shown), dict(states)
        # Measured when it changes: the monitor reads it every second.
        alerts = sum(self.states.values())
        self.held_bytes = (
            _room(self.shown, alerts + len(self.shown))
            + _room(self.history, len(self.history))
            + self._courses.held_bytes
        )
        await self._announcer.tell(transitions, slices)

    def _laying(self, states: Counter[str]) -> Iterator[AlertView | None]:
        """Make the views. Counts the *states* of all alerts, also of those that are not shown."""
        self._alerts = alerts = {}

        def counted() -> Iterator[Alert]:
            for alert in self.engine.each():
                states[alert.state.value] += 1
                alerts[alert.fingerprint] = alert
                yield alert

        return self.overlays.laying(counted(), self.engine.rules, self._inhibitions, self._now(), texts_of)

    def _look(self, fingerprint: str) -> AlertView | None:
        """Return one alert as it was laid last, also if there are too many to be shown."""
        alert = self._alerts.get(fingerprint)
        view = None if alert is None else self.overlays.view(alert, self.engine.rules, texts_of)
        return None if view is None else self._drawn(view)

    def _with_told(self, view: AlertView) -> AlertView:
        """Return *view* with what the receivers know of it."""
        told = self.delivery.told(view)
        if not told:
            return view
        return msgspec.structs.replace(view, told=told, escalated_at=self.delivery.escalated_at(view.fingerprint))

    def _drawn(self, view: AlertView) -> AlertView:
        """Return *view* with the course of its value."""
        values, seconds = self._courses.of(view.fingerprint)
        return msgspec.structs.replace(view, values=values, values_s=seconds) if values else view

    def _now(self) -> float:
        return self._context.clock.wall_ns() / 1e9


def _room(items: Sequence[msgspec.Struct], count: int) -> int:
    """The memory of *count* items like the first of *items*."""
    some = list(islice(items, _MEASURED))
    return round(sum(map(_size, some)) / len(some) * count) if some else 0


def _size(thing: Any) -> int:
    """The memory of a value and of what is in it."""
    size = sys.getsizeof(thing)
    if isinstance(thing, msgspec.Struct):
        return size + sum(_size(getattr(thing, name)) for name in thing.__struct_fields__)
    if isinstance(thing, dict):
        return size + sum(map(_size, thing)) + sum(map(_size, thing.values()))
    return size + sum(map(_size, thing)) if isinstance(thing, tuple) else size
