"""The slots of a pool: all of them, how many are in which state, and which can take a call."""

from __future__ import annotations

from collections import OrderedDict

from pool_monitor import emit, events
from pool_monitor.emit import PoolIdentity
from pool_monitor.pool.policy.lifecycle import COUNTED_AS, State
from pool_monitor.pool.worker import Worker

AWAKE = 2  # workers that are kept awake by short operations; more are only for longer ones, or more calls

_TRANSITION = events.WORKER_TRANSITION.event


class Roster:
    """Every slot by id. What `move` and the hand-over methods do keeps the counts and the free ones right."""

    def __init__(self, identity: PoolIdentity, concurrency: int) -> None:
        self.identity = identity
        self.pool = identity.name
        self.concurrency = concurrency
        self.depth = concurrency  # calls a worker may hold; more than one of a sequential worker's are handed ahead
        self.near = 1  # so many calls of those that are awake are done before another one is awake
        self.workers: dict[str, Worker] = {}
        self.counts = dict.fromkeys(COUNTED_AS.values(), 0)
        self._idle: OrderedDict[str, Worker] = OrderedDict()  # the last one in is the next one out: warm caches
        self._room: OrderedDict[str, Worker] = OrderedDict()  # has calls and can take another; these take turns

    def add(self, worker: Worker) -> None:
        """A new slot, with no process yet."""
        self.workers[worker.id] = worker
        self.counts[COUNTED_AS[worker.lifecycle.state]] += 1

    def drop(self, worker: Worker) -> None:
        """The slot is no more."""
        self.counts[COUNTED_AS[worker.lifecycle.state]] -= 1
        del self.workers[worker.id]

    @property
    def capacity(self) -> int:
        """Calls that can run at once on the workers there are."""
        return (self.counts["busy"] + self.counts["idle"]) * self.concurrency

    # -- who can take a call --------------------------------------------------------------------------------------

    def choose(self, preferred: str | None) -> Worker | None:
        """A worker for a call: an idle one, the preferred one if that is idle; else one that has room."""
        if self._idle:
            known = self._idle.get(preferred) if preferred is not None else None
            return known or next(reversed(self._idle.values()))
        if self._room:
            known = self._room.get(preferred) if preferred is not None else None
            return known or next(iter(self._room.values()))
        return None

    def awake(self) -> Worker | None:
        """A busy worker, of several, that is sooner done with the calls it has than an idle one is awake.
        The next time it is another's turn.
        """
        if self._room and self.counts["busy"] >= AWAKE:
            worker = next(iter(self._room.values()))
            if len(worker.calls) < self.near:
                self._room.move_to_end(worker.id)
                return worker
        return None

    def free(self, worker_id: str) -> Worker | None:
        """That worker, if it can take a call."""
        return self._idle.get(worker_id) or self._room.get(worker_id)

    def offer(self, worker: Worker) -> None:
        """It may be handed calls from now on."""
        worker.accepting = True
        self.changed(worker)

    def withdraw(self, worker: Worker) -> None:
        """Hand nothing more to it."""
        worker.accepting = False
        self.changed(worker)

    def changed(self, worker: Worker) -> None:
        """Its calls, or whether it may have any, have changed."""
        held, key, room = len(worker.calls), worker.id, self._room
        if not held:
            room.pop(key, None)
            if worker.accepting:
                self._idle[key] = worker
            else:
                self._idle.pop(key, None)
            return
        self._idle.pop(key, None)
        if worker.accepting and held < self.limit(worker):
            room[key] = worker
            room.move_to_end(key)
        else:
            room.pop(key, None)

    def limit(self, worker: Worker) -> int:
        """Calls that it may hold. While some were asked back, no more: once it had begun a later one, the pool
        could not know whether it gives back one that it had begun.
        """
        if worker.recalling:
            return 0
        return self.depth if worker.reports_progress else self.concurrency

    # -- states ---------------------------------------------------------------------------------------------------

    def move(self, worker: Worker, trigger: str, now_ns: int) -> None:
        """A worker follows the lifecycle table."""
        since_ns = worker.lifecycle.since_ns
        moved = worker.lifecycle.step(trigger, now_ns)
        self.counts[COUNTED_AS[moved.before]] -= 1
        self.counts[COUNTED_AS[moved.after]] += 1
        if _TRANSITION.on:
            before, after = moved.before.value, moved.after.value
            duration = now_ns - since_ns
            emit.worker_transition(
                self.identity, worker.id, duration=duration, before=before, after=after, trigger=trigger
            )

    def alive(self, worker_id: str, process: object) -> bool:
        """Whether that process of that slot is there."""
        worker = self.workers.get(worker_id)
        return (
            worker is not None
            and worker.process is not None
            and worker.process is process
            and worker.lifecycle.state is not State.TERMINATED
        )
