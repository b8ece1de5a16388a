"""Passes the reports of one worker process on to the parts of the pool that handle them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pool_monitor import emit, telemetry
from pool_monitor.pool.worker_output import WorkerOutput

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.emit import PoolIdentity
    from pool_monitor.pool.checkups import Checkups
    from pool_monitor.pool.dispatcher import Dispatcher
    from pool_monitor.pool.processes import ProcessControl
    from pool_monitor.pool.worker import Worker, WorkerProcess


class ProcessEvents:
    """The `Sink` of one process's transport."""

    def __init__(
        self,
        identity: PoolIdentity,
        config: PoolConfig,
        worker: Worker,
        process: WorkerProcess,
        dispatcher: Dispatcher,
        processes: ProcessControl,
        checkups: Checkups,
    ) -> None:
        self._identity, self._worker, self._process = identity, worker, process
        self._processes, self._checkups = processes, checkups
        # Reports about calls go straight to the dispatcher, without another Python frame.
        self.returned, self.caught_up = partial(dispatcher.returned, worker), partial(dispatcher.caught_up, worker)
        self.replied, self.failed = partial(dispatcher.replied, worker), partial(dispatcher.failed, worker)
        self.recalled = partial(dispatcher.recalled, worker)
        self.item, self.undecodable_item = (
            partial(dispatcher.item, worker),
            partial(dispatcher.undecodable_item, worker),
        )
        self.output = WorkerOutput(identity, config, worker, process)
        self.wrote, self.logged = self.output.wrote, self.output.logged

    def takes_view(self, call_id: int) -> bool:
        call = self._worker.calls.get(call_id)
        return call is not None and call.options.zero_copy

    def ponged(self, token: int, _call_id: int | None, rss: int | None) -> None:
        self._checkups.ponged(self._worker, self._process, token, rss)

    def emitted(self, event: tuple[str, ...], measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
        telemetry.execute(event, measurements, {**metadata, **self._identity.worker(self._worker.id)})

    def dropped(self, count: int) -> None:
        emit.worker_drop(self._identity, self._worker.id, count=count)

    def broke(self, reason: str) -> None:
        self._processes.note_breach(self._worker, self._process, reason)

    def gone(self, exit_code: int | None, stderr: str) -> None:
        self.output.report_left_out()
        self._processes.gone(self._worker, self._process, exit_code, stderr)
