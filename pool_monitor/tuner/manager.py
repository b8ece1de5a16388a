"""The tuner of a monitor: `Monitor.tuner`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, get_args

from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.snapshot import TrialView, TunerMode, TuningView

if TYPE_CHECKING:
    from pool_monitor.config import MonitorConfig
    from pool_monitor.parts import Context

KILL_SWITCH = "POOL_MONITOR_TUNER"
"""The environment variable that switches the tuner off with the value ``off``, whatever its mode."""
MODES: tuple[TunerMode, ...] = get_args(TunerMode)


class Tuner:
    """Changes the settings of the pools, one at a time, and keeps what has helped. It outlives the part that drives it.

    All methods must be called in the event loop of the monitor. None of them blocks: what they ask for is done with
    the next step, and `settled` waits for it. Nothing is loaded before `open`.
    """

    def __init__(self, config: MonitorConfig, context: Context) -> None:
        self._config, self._context = config, context
        self._mode: TunerMode = config.tuner.mode
        self._core: Any = None

    # -- the mode -------------------------------------------------------------------------------------------------

    @property
    def mode(self) -> TunerMode:
        """``off``, ``recommend`` or ``auto``. It is ``off`` while the environment variable POOL_MONITOR_TUNER says so.

        Setting it raises ConfigError for another word.
        """
        return "off" if is_killed() else self._mode

    @mode.setter
    def mode(self, mode: TunerMode) -> None:
        self.set_mode(mode)

    def set_mode(self, mode: str, *, author: str = "") -> None:
        """Set the mode, and note who asked for it. Raises ConfigError for a word that is no mode, and for one that the
        environment variable forbids.
        """
        if mode not in MODES:
            raise ConfigError(f"mode={mode!r:.80}: needs one of {', '.join(MODES)}")
        if mode != "off" and is_killed():
            raise ConfigError(f"mode={mode!r}: the environment variable {KILL_SWITCH}=off keeps the tuner off")
        self._mode = mode

    # -- reading --------------------------------------------------------------------------------------------------

    def pending(self) -> tuple[TrialView, ...]:
        """The trials that wait for approval, the oldest first."""
        return ()

    def history(self, limit: int = 100) -> tuple[TrialView, ...]:
        """The latest changes, at most *limit*, the newest first."""
        return ()

    def view(self) -> TuningView | None:
        """What a Snapshot shows; None: the tuner is off and was never on."""
        if self._core is None and self.mode == "off":
            return None
        return TuningView(mode=self.mode, policy=self._config.tuner.policy)

    def explain(self, trial: str) -> str:
        """Why a change is tried, was kept or rolled back: all figures. Raises UnknownName."""
        raise UnknownName(f"no trial {trial!r:.80}; there is none")

    # -- what people do -------------------------------------------------------------------------------------------

    def approve(self, trial: str, *, author: str = "") -> None:
        """Let a trial that waits for approval begin. Raises UnknownName."""
        raise UnknownName(f"no trial {trial!r:.80} waits for approval; there is none")

    def reject(self, trial: str, *, author: str = "", reason: str = "") -> None:
        """End a trial that waits for approval. Raises UnknownName."""
        raise UnknownName(f"no trial {trial!r:.80} waits for approval; there is none")

    def rollback(self, trial: str | None = None, *, author: str = "") -> None:
        """Restore the value before a trial; None: before the latest one. Raises UnknownName where there is none."""
        raise UnknownName("no change can be rolled back: there is none")

    def freeze(self, reason: str, duration: str | float | None = None, *, author: str = "") -> None:
        """Change nothing for *duration* (such as ``1h``, or seconds; None: until `thaw`). Raises ConfigError."""

    def thaw(self, *, author: str = "") -> None:
        """End a freeze."""

    async def settled(self) -> None:
        """Wait until everything that was asked for is stored and applied."""

    # -- the work -------------------------------------------------------------------------------------------------

    @property
    def interval(self) -> float:
        """Seconds between two steps."""
        return self._config.tuner.interval

    async def step(self) -> None:
        """Look at every pool once, and do what follows."""

    async def open(self) -> None:
        """Begin: read what was left by the run before, and undo what it has not finished."""

    async def close(self) -> None:
        """End."""

    def tick(self) -> None:
        """The event loop runs. Called about once a second."""

    @property
    def held_bytes(self) -> int:
        """Memory of the trials and of the policies, in bytes."""
        return 0


def is_killed() -> bool:
    """Whether the environment variable switches the tuner off. It is looked at before every action."""
    return os.environ.get(KILL_SWITCH, "").strip().lower() == "off"
