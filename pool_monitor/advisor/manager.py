"""The advice of a monitor: `Monitor.advisor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pool_monitor.errors import UnknownName
from pool_monitor.snapshot import Recommendation

if TYPE_CHECKING:
    from pool_monitor.config import MonitorConfig
    from pool_monitor.parts import Context

_LISTED = 10
"""Most ids that an error lists."""


class Advisor:
    """Looks for patterns in the history of the pools, and keeps what it recommends. It outlives the part that drives
    it.

    All methods must be called in the event loop of the monitor. None of them blocks. Nothing is loaded before `open`.
    """

    def __init__(self, config: MonitorConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._core: Any = None

    # -- reading --------------------------------------------------------------------------------------------------

    def recommendations(self) -> tuple[Recommendation, ...]:
        """What is recommended now, the most urgent first."""
        return () if self._core is None else tuple(self._core.recommendations())

    def explain(self, recommendation: str) -> str:
        """Why something is recommended: the test, its figures, and what would disprove it. Raises UnknownName."""
        self._known(recommendation)
        return str(self._core.explain(recommendation))

    # -- what people do -------------------------------------------------------------------------------------------

    def dismiss(self, recommendation: str, reason: str = "", *, author: str = "") -> None:
        """Show a recommendation no more, for a week or until it is much worse. Raises UnknownName."""
        self._known(recommendation)
        self._core.dismiss(recommendation, reason, author)

    def _known(self, recommendation: str) -> None:
        there = [one.id for one in self.recommendations()]
        if recommendation not in there:
            raise UnknownName(f"no recommendation {recommendation!r:.80}; {listed(there)}")

    # -- the work -------------------------------------------------------------------------------------------------

    async def advise_when_due(self) -> None:
        """Look for patterns if that is due."""

    async def advise(self) -> None:
        """Look for patterns now, for tests and scripts."""

    async def settled(self) -> None:
        """Wait until everything that was changed before is stored and told."""

    # -- life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to watch the pools."""

    async def close(self) -> None:
        """End."""

    def tick(self) -> None:
        """Take the gauges of the pools into the history. Called about once a second."""

    @property
    def held_bytes(self) -> int:
        """Memory of the history and of the recommendations, in bytes."""
        return 0


def listed(there: list[str]) -> str:
    """Which names there are, in words, at most ten."""
    more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
    return f"there are {', '.join(there[:_LISTED])}{more}" if there else "there is none"
