"""All slots of a pool, the number in each state, and the workers that can take a call."""

from __future__ import annotations

from collections import OrderedDict

from pool_monitor import emit, events
from pool_monitor.emit import PoolIdentity
from pool_monitor.pool.policy.lifecycle import COUNTED_AS, State
from pool_monitor.pool.worker import Worker

AWAKE = 2  # workers that short operations keep awake; longer operations, or more calls, wake further workers

_TRANSITION = events.WORKER_TRANSITION.event


class Roster:
    """All slots by id. `move` keeps the counts up to date, `offer`, `withdraw` and `changed` the free workers."""

    def __init__(self, identity: PoolIdentity, concurrency: int) -> None:
        self.identity = identity
        self.pool = identity.name
        self.concurrency = concurrency
        self.depth = concurrency  # calls that a worker may hold; a sequential worker has all but the first handed ahead
        self.awake_depth = 1  # calls that an awake worker may hold before another worker is woken
        self.workers: dict[str, Worker] = {}
        self.counts = dict.fromkeys(COUNTED_AS.values(), 0)
        self._idle: OrderedDict[str, Worker] = OrderedDict()  # the last worker in is the first out: its caches are warm
        self._room: OrderedDict[str, Worker] = OrderedDict()  # have calls and can take another; these take turns

    def set_concurrency(self, concurrency: int) -> None:
        """Set the number of calls that a worker may hold, for pools with a number above 1."""
        if concurrency != self.concurrency:
            self.concurrency = self.depth = concurrency
            for worker in self.workers.values():
                if worker.process is not None:
                    worker.most_calls = min(worker.process.concurrency, concurrency)
                self.changed(worker)

    def add(self, worker: Worker) -> None:
        """Add a new slot, which has no process yet."""
        self.workers[worker.id] = worker
        self.counts[COUNTED_AS[worker.lifecycle.state]] += 1

    def drop(self, worker: Worker) -> None:
        """Remove a slot."""
        self.counts[COUNTED_AS[worker.lifecycle.state]] -= 1
        del self.workers[worker.id]

    @property
    def capacity(self) -> int:
        """The number of calls that can run at once on the workers that are idle or busy."""
        return (self.counts["busy"] + self.counts["idle"]) * self.concurrency

    # -- workers that can take a call -----------------------------------------------------------------------------

    def choose(self, preferred: str | None) -> Worker | None:
        """Return a worker for a call: an idle worker, else a busy worker with room, else None. The preferred worker
        comes first in either group.
        """
        if self._idle:
            known = self._idle.get(preferred) if preferred is not None else None
            return known or next(reversed(self._idle.values()))
        if self._room:
            known = self._room.get(preferred) if preferred is not None else None
            return known or next(iter(self._room.values()))
        return None

    def awake(self) -> Worker | None:
        """Return a busy worker that will finish its calls before an idle worker could wake up; None if there is none.
        Such workers take turns.
        """
        if self._room and self.counts["busy"] >= AWAKE:
            worker = next(iter(self._room.values()))
            if len(worker.calls) < self.awake_depth:
                self._room.move_to_end(worker.id)
                return worker
        return None

    def free(self, worker_id: str) -> Worker | None:
        """Return the worker *worker_id* if it can take a call, else None."""
        return self._idle.get(worker_id) or self._room.get(worker_id)

    def offer(self, worker: Worker) -> None:
        """Mark the worker as accepting calls."""
        worker.accepting = True
        self.changed(worker)

    def withdraw(self, worker: Worker) -> None:
        """Mark the worker as accepting no more calls."""
        worker.accepting = False
        self.changed(worker)

    def changed(self, worker: Worker) -> None:
        """Update the free workers after the worker's calls, or its limit, have changed."""
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
        """Return how many calls the worker may hold. A worker that was asked to give calls back gets no others: once it
        began a later call, the pool could not know whether a call that it gives back had begun.
        """
        if worker.recalling:
            return 0
        return self.depth if worker.reports_progress else worker.most_calls

    # -- states ---------------------------------------------------------------------------------------------------

    def move(self, worker: Worker, trigger: str, now_ns: int) -> None:
        """Move a worker to its next state in the lifecycle table, and count and emit the transition."""
        lifecycle = worker.lifecycle
        before, since_ns = lifecycle.state, lifecycle.since_ns
        after = lifecycle.step(trigger, now_ns)
        self.counts[COUNTED_AS[before]] -= 1
        self.counts[COUNTED_AS[after]] += 1
        if _TRANSITION.on:
            emit.worker_transition(
                self.identity,
                worker.id,
                duration=now_ns - since_ns,
                before=before.value,
                after=after.value,
                trigger=trigger,
            )

    def alive(self, worker_id: str, process: object) -> bool:
        """Whether *process* still fills the slot *worker_id*."""
        worker = self.workers.get(worker_id)
        return (
            worker is not None
            and worker.process is not None
            and worker.process is process
            and worker.lifecycle.state is not State.TERMINATED
        )
