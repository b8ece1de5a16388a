"""The pools that a monitor watches. They may be the user's own classes, so reading them may fail."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar, get_args

import msgspec

from pool_monitor.errors import ConfigError, UnknownName, WrongLoop
from pool_monitor.log import logger
from pool_monitor.snapshot import PoolView, WorkerView
from pool_monitor.snapshot.validation import checked, plain_text
from pool_monitor.telemetry import FAILURES, describe, pass_on
from pool_monitor.tunable import Tunable, TunableUnit, effect_delay

T = TypeVar("T")

_STACK_TIMEOUT = 5.0  # seconds; a `Pool` takes one at most
_STACK_MAX = 128 * 1024  # characters
_NAME_MAX = 100

_watched: list[tuple[str, str | int]] = []
"""Name and instance of the pools that the entered monitors of this process watch. A pool without an instance is known
by its address."""


class Monitored(Protocol):
    """What a monitor needs of a pool besides its events. `Pool` has all of it."""

    @property
    def name(self) -> str:
        """The pool's name in events, unique among the pools of one monitor."""

    def status(self) -> PoolView:
        """The gauges of the pool now."""

    def workers(self) -> list[WorkerView]:
        """The gauges of the pool's slots now."""


class WatchedPools:
    """The pools of one monitor, by name.

    Raises TypeError for an object that is not a pool, and ConfigError for an invalid name or two pools of one name.
    """

    def __init__(self, pools: Monitored | Sequence[Monitored]) -> None:
        watched = list(pools) if isinstance(pools, Sequence) and not isinstance(pools, str) else [pools]
        for pool in watched:
            if not all(hasattr(pool, name) for name in ("name", "status", "workers")):
                raise TypeError(f"Monitor({pool!r:.80}): needs a Pool, or a sequence of them")
        self.names = [pool.name for pool in watched]
        for name in self.names:
            if not isinstance(name, str) or not name or not name.isprintable():
                raise ConfigError(f"Monitor: the name of a pool is {name!r:.80}; it needs a non-empty printable string")
        if not watched or len(set(self.names)) < len(self.names):
            raise ConfigError(f"Monitor(pools={self.names}): needs at least one pool, and a different name for each")
        self._pools = dict(zip(self.names, watched, strict=True))
        found = ((name, _instance_of(pool)) for name, pool in self._pools.items())
        self.instances = {name: instance for name, instance in found if instance}
        """The ids of the pools that have one, by name."""
        self._unreadable: set[tuple[str, str]] = set()  # what could not be read of a pool the last time

    @contextmanager
    def entered(self) -> Iterator[None]:
        """While open, other monitors of this process know that these pools are watched."""
        identities = [self._identity(name) for name in self.names]
        _watched.extend(identities)
        try:
            yield
        finally:
            for identity in identities:
                _watched.remove(identity)

    def _identity(self, name: str) -> tuple[str, str | int]:
        return name, self.instances.get(name, id(self._pools[name]))

    def gauges(self, name: str) -> tuple[PoolView, list[WorkerView]] | None:
        """The gauges of a pool and of its slots, checked. None when they cannot be read."""
        found = self._guarded(name, lambda pool: (self._status_of(name, pool), _workers_of(pool)))
        own = self._identity(name)
        if found is not None and any(other[0] == name and other != own for other in _watched):
            return msgspec.structs.replace(found[0], shares_name=True), found[1]
        return found

    def workers(self) -> dict[str, list[WorkerView]]:
        """The gauges of the slots of every pool, checked. Pools whose gauges cannot be read are left out."""
        return {name: found[1] for name in self.names if (found := self.gauges(name)) is not None}

    def status(self, name: str) -> PoolView | None:
        """The gauges of a pool, checked. None when they cannot be read."""
        return self._guarded(name, lambda pool: self._status_of(name, pool))

    def statuses(self) -> Iterator[PoolView]:
        """The gauges of every pool, checked. Pools whose gauges cannot be read are left out."""
        for name in self.names:
            status = self.status(name)
            if status is not None:
                yield status

    def tunables(self) -> dict[str, list[Tunable]]:
        """What each pool offers to be changed, checked. A pool that offers nothing, or cannot be asked, is left out."""
        offers = {name: self._guarded(name, _tunables_of, "what may be changed") for name in self.names}
        return {name: found for name, found in offers.items() if found}

    async def stack(self, name: str, slot: str) -> tuple[str | None, str | None]:
        """The stack of a worker, or else the reason why it is not available. Raises UnknownName."""
        if name not in self._pools:
            raise UnknownName(f"no pool {name!r:.80}; there are {', '.join(self.names)}")
        pool = self._pools[name]
        try:
            take = getattr(pool, "stack", None)
            if take is None:
                return None, f"pool {name} cannot tell what its workers do"
            async with asyncio.timeout(_STACK_TIMEOUT):
                text = await take(slot)
            if isinstance(text, str):
                return plain_text(text, _STACK_MAX), None
            reason = getattr(pool, "why_no_stack", lambda _slot: None)(slot)
        except (UnknownName, WrongLoop):
            raise
        except FAILURES as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # meant for our caller, not for the pool
                raise
            pass_on(error)
            return None, describe(error)
        return None, plain_text(reason) if isinstance(reason, str) else "no reason is known"

    def not_ready(self, statuses: Mapping[str, PoolView | None] | None = None) -> str | None:
        """Why the pools cannot take calls now, in words; None when every pool is running and has a worker.

        *statuses* are their gauges by name, if they have been read already.
        """
        for name in self.names:
            status = self.status(name) if statuses is None else statuses[name]
            if status is None:
                return f"pool {name}: its state is unknown"
            if status.state != "running":
                return f"pool {name} is {status.state}"
            if not status.busy + status.idle:
                return f"pool {name} has no worker that can take a call"
        return None

    def _status_of(self, name: str, pool: Monitored) -> PoolView:
        """The gauges, with the id by which its events are counted, whatever id they name."""
        fields = msgspec.structs.asdict(pool.status())
        if name in self.instances:
            fields["instance"] = self.instances[name]
        return checked(PoolView, fields)

    def _guarded(self, name: str, read: Callable[[Monitored], T], what: str = "gauges") -> T | None:
        """What *read* returns for a pool; None when it raises. The first failure in a row is logged."""
        try:
            found = read(self._pools[name])
        except FAILURES as error:
            pass_on(error)
            if (name, what) not in self._unreadable:
                logger("monitor").exception(f"{what} cannot be read", pool=name)
            self._unreadable.add((name, what))
            return None
        self._unreadable.discard((name, what))
        return found


def _instance_of(pool: Monitored) -> str | None:
    """The id of a pool; None where it has none that can be read."""
    try:
        instance = getattr(pool, "instance", None)
    except FAILURES as error:
        pass_on(error)
        return None
    return instance if isinstance(instance, str) else None


def _workers_of(pool: Monitored) -> list[WorkerView]:
    return [checked(WorkerView, msgspec.structs.asdict(worker)) for worker in pool.workers()]


def _tunables_of(pool: Monitored) -> list[Tunable]:
    """What a pool offers to be changed. Raises ValueError for what cannot be used. A pool need not have the method."""
    offer = getattr(pool, "tunables", None)
    found = [] if offer is None else list(offer())
    for one in found:
        if inspect.iscoroutinefunction(one.set):
            raise ValueError(f"{one.name} has a set() that is a coroutine; it has to return at once")
        numbers = (one.low, one.value, one.high, one.step, effect_delay(one))
        if not isinstance(one.name, str) or not one.name.isidentifier() or len(one.name) > _NAME_MAX:
            raise ValueError(f"a tunable is named {one.name!r:.80}; it needs a name such as size")
        if one.unit not in get_args(TunableUnit):
            raise ValueError(f"{one.name} has the unit {one.unit!r:.80}; there are {', '.join(get_args(TunableUnit))}")
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError(f"{one.name} has numbers that are not finite: {numbers!r:.200}")
        if not one.low <= one.value <= one.high or one.step <= 0 or effect_delay(one) < 0 or not callable(one.set):
            raise ValueError(f"{one.name} is not in its range, or has no step: {numbers!r:.200}")
    if len({one.name for one in found}) < len(found):
        raise ValueError("two tunables have the same name")
    return found
