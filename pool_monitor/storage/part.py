"""The history as a part of the monitor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

from pool_monitor.parts import view_from
from pool_monitor.snapshot import HistoryView
from pool_monitor.storage.history import History
from pool_monitor.storage.history_metrics import HistoryMetrics

if TYPE_CHECKING:
    from pool_monitor.config import HistoryConfig
    from pool_monitor.parts import Context


class HistoryPart:
    """Writes each second's block to disk while entered. *config* must have a path."""

    def __init__(self, config: HistoryConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._history: History | None = None
        self.metrics: HistoryMetrics | None = None
        """Queries of the history; None while the part is not entered."""

    async def __aenter__(self) -> Self:
        config, context = self._config, self._context
        assert config.path is not None
        history = self._history = await History.open(
            config.path,
            config,
            clock=context.clock,
            on_degrade=partial(context.degraded, "history"),
            on_recover=partial(context.recovered, "history", f"{config.path} is written again"),
            spent=context.spent,
        )
        self.metrics = HistoryMetrics(history, context.clock)
        context.know_errors(await history.errors_first_seen())
        context.on_second(lambda start, block, names, errors: history.put(start, 1, block, names, errors))
        context.on_gauges(lambda start, block: history.put_gauges(start, 1, block))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._context.on_second(None)
        self._context.on_gauges(None)
        self.metrics = None
        if self._history is not None:
            await self._history.close()

    @property
    def held_bytes(self) -> int:
        """Memory of the blocks that wait to be written or are being written. Read at every tick."""
        return 0 if self._history is None else self._history.held_bytes

    def record(self, at: float, evaluation: bytes, transitions: Sequence[bytes] = ()) -> None:
        """Keep one evaluation of alert rules, and the changes that followed. Never blocks."""
        if self._history is not None:
            self._history.put_evaluation(at, evaluation, transitions)

    def view(self) -> HistoryView | None:
        """The state of the history."""
        return None if self._history is None else view_from(HistoryView, self._history.stats())

    def tick(self) -> None:
        """Raise when the task that writes has ended."""
        if self._history is not None:
            self._history.check()
