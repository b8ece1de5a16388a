"""The settings of a pool that may change while it runs: its size and its configuration. `Pool.tunables` offers some."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from pool_monitor import emit
from pool_monitor.cgroup import Cgroup
from pool_monitor.pool.argument_checks import checked_size

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.emit import PoolIdentity
    from pool_monitor.pool.admission import Admission
    from pool_monitor.pool.dispatcher import Dispatcher
    from pool_monitor.pool.supervisor import Supervisor


class PoolSettings:
    """What a pool is set to now. A change is told to the actors of the pool, which keep the configuration themselves:
    so a call reads a setting as fast as if it could not change.
    """

    def __init__(self, config: PoolConfig, size: int, min_size: int, max_size: int) -> None:
        self.config: PoolConfig = config
        self.configured: PoolConfig = config
        """The configuration that the pool was made with."""
        self.min_size: int = min_size
        self.max_size: int = max_size
        self.size: int = checked_size(size, min_size, max_size)
        self._identity: PoolIdentity | None = None
        self._admission: Admission | None = None
        self._dispatcher: Dispatcher | None = None
        self._supervisor: Supervisor | None = None

    def tell(
        self, identity: PoolIdentity, admission: Admission, dispatcher: Dispatcher, supervisor: Supervisor
    ) -> None:
        """Tell these actors of all changes from now on: the pool is entered."""
        self._identity, self._admission = identity, admission
        self._dispatcher, self._supervisor = dispatcher, supervisor

    @property
    def start_seconds(self) -> float:
        """How long a worker takes until it is ready: the mean of the latest starts. Before the first, the longest time
        that a start may take.
        """
        measured = None if self._supervisor is None else self._supervisor.start_seconds
        return self.config.start_timeout if measured is None else measured

    @cached_property
    def memory_limit(self) -> int | None:
        """The limit of the memory of this process and its workers together (of the cgroup), in bytes, as it was when it
        was first asked for. None: there is none, or it cannot be read.
        """
        try:
            found = Cgroup().memory()
        except (OSError, ValueError):
            return None
        return None if found is None else found.limit

    @property
    def mean_seconds(self) -> float | None:
        """The mean execution time of the latest calls; None while too few are known."""
        return None if self._admission is None else self._admission.times.mean

    def resize(self, size: int) -> None:
        """Set the number of workers. Raises ConfigError for a size outside the bounds of the pool."""
        before, self.size = self.size, checked_size(size, self.min_size, self.max_size)
        assert self._identity is not None
        assert self._admission is not None
        assert self._supervisor is not None
        self._admission.size = size
        emit.pool_resize(self._identity, before=before, after=size)
        self._supervisor.resize(size)

    def change(self, **fields: Any) -> None:
        """Set *fields* of the configuration. Raises ConfigError for a value that the configuration does not allow."""
        assert self._dispatcher is not None
        assert self._supervisor is not None
        self.config = config = msgspec.structs.replace(self.config, **fields)
        self._dispatcher.configure(config)
        self._supervisor.configure(config)
