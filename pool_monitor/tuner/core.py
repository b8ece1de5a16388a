"""`TunerCore`: the tuner without I/O. It is told the time and what is known, and returns what is to be done."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from pool_monitor.config.tuner import TunerConfig
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot.tuning import TrialView, TunerMode, TuningView
from pool_monitor.tuner.audit import restored
from pool_monitor.tuner.intents import Intent, TunerInputs
from pool_monitor.tuner.pace import Pace
from pool_monitor.tuner.policy import Policy
from pool_monitor.tuner.trials import TrialBook

KILL_SWITCH = "POOL_MONITOR_TUNER"
"""The environment variable that stops the tuner, with the value ``off``. It is looked at before every action."""


def switched_off() -> bool:
    """Whether the environment stops the tuner."""
    return os.environ.get(KILL_SWITCH, "").strip().lower() == "off"


class TunerCore:
    """The tuner of one monitor. Synchronous, without I/O; *now* is monotonic, *wall* the time since the epoch.

    A person's methods take effect at the next `step`; `take` returns what they want done before.
    """

    def __init__(
        self,
        config: TunerConfig,
        *,
        policies: Callable[[str], Policy] | None = None,
        rows: Mapping[str, Mapping[str, bytes]] | None = None,
        service: str = "",
        monitor: str = "",
        pace: Pace | None = None,
        killed: Callable[[], bool] = switched_off,
        new_id: Callable[[], str] = lambda: secrets.token_hex(4),
    ) -> None:
        """*policies* makes the policy of a pool, by its name; *rows* is what was stored, by table and key."""
        self._config, self._policies, self._killed = config, policies, killed
        self._pace = pace or Pace()
        self._out: list[Intent] = []
        self._about: dict[str, Any] = {"monitor": monitor, "service": service}
        self._book = TrialBook(self._out, lambda: dict(self._about), new_id)
        self._mode: TunerMode = config.mode
        self._book.restore(restored(rows or {}).trials)
        self._now = self._wall = 0.0

    # -- what people ask for --------------------------------------------------------------------------------------

    @property
    def mode(self) -> TunerMode:
        """``off``, ``recommend`` or ``auto``."""
        return self._mode

    def set_mode(self, mode: str, author: str = "") -> None:  # noqa: ARG002
        """Change the mode. ``off`` undoes the trials that run. Raises ConfigError for another word."""
        if mode not in ("off", "recommend", "auto"):
            raise ConfigError(f"tuner mode {mode!r}: use off, recommend or auto")
        self._mode = mode  # type: ignore[assignment]

    def pending(self) -> list[TrialView]:
        """The trials that wait for approval, the oldest first."""
        return [trial.view(self._now, self._wall) for trial in self._book.waiting()]

    def history(self) -> list[TrialView]:
        """The other trials, the newest first."""
        return [trial.view(self._now, self._wall) for trial in reversed(list(self._book)) if not trial.waiting]

    def propose(self, pool: str, knob: str, value: float, author: str = "", reason: str = "") -> str:
        """Propose a change by hand, and return the id of the trial. It waits for approval like any other.

        Raises UnknownName for a pool or a knob that is not there, and ConfigError for a value outside its range.
        """
        raise NotImplementedError

    def approve(self, name: str, author: str = "") -> None:
        """Let the trial *name* (an id, or its beginning) run. Raises UnknownName, and ConfigError while it may not."""
        raise NotImplementedError

    def reject(self, name: str, author: str = "", reason: str = "") -> None:
        """End the trial *name* that waits. Raises UnknownName, and ConfigError if it does not wait."""
        raise NotImplementedError

    def rollback(self, name: str | None = None, author: str = "", *, all: bool = False) -> list[str]:  # noqa: A002
        """Undo the trial *name*; None: those that run, or else the latest that was kept. *all*: restore every setting
        to the value with which its pool began. Returns the ids. Raises UnknownName, and ConfigError.
        """
        raise NotImplementedError

    def freeze(self, reason: str, duration: float | None = None, author: str = "") -> None:
        """Change nothing for *duration* seconds; None: until `thaw`. Trials that run are undone."""
        raise NotImplementedError

    def thaw(self, author: str = "") -> None:
        """End every freeze, and the taking back of the mode."""
        raise NotImplementedError

    def explain(self, name: str) -> str:
        """Everything that is known of the trial *name*, as lines of text. Raises UnknownName."""
        raise NotImplementedError

    def view(self) -> TuningView:
        """What is shown of the tuner."""
        return TuningView(mode=self._mode, policy=self._config.policy, pending=tuple(self.pending()))

    # -- the drive ------------------------------------------------------------------------------------------------

    def step(self, now: float, wall: float, inputs: TunerInputs) -> list[Intent]:  # noqa: ARG002
        """Do what is due, once per interval. Returns what is to be done, in its order.

        When an intent cannot be carried out, those after it must not be.
        """
        self._now, self._wall = now, wall
        return self.take()

    def take(self) -> list[Intent]:
        """Return what is to be done and was not returned yet."""
        taken = list(self._out)
        self._out.clear()
        return taken

    def applied(self, pool: str, knob: str, value: float, trial: str | None) -> None:
        """The driver has set a tunable."""

    def failed(self, pool: str, knob: str, trial: str | None, reason: str, *, gone: bool = False) -> None:
        """The driver could not set it. *gone*: the pool or the knob is no longer there, or the pool drains."""

    def not_stored(self) -> None:
        """The driver could not keep rows, and has left out what came after them."""
