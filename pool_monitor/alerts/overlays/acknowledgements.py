"""Acknowledgements: somebody deals with an alert. One ends with the life of its alert, or after a duration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pool_monitor.alerts.overlays.silences import checked_text
from pool_monitor.alerts.saved_rows import SavedRows
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.snapshot import Acknowledgement


class Acknowledgements:
    """The acknowledgements of a monitor, by the fingerprint of an alert. Bound: one for each alert that is not over."""

    def __init__(self) -> None:
        self.saved = SavedRows(Acknowledgement)

    def give(self, fingerprint: str, *, author: str, comment: str, at: float, until: float | None) -> Acknowledgement:
        """Acknowledge an alert, in place of an earlier acknowledgement, and return what is kept. Raises ConfigError.

        The caller knows that the alert is there.
        """
        acknowledgement = Acknowledgement(
            author=checked_text("author", author), comment=checked_text("comment", comment), at=at, until=until
        )
        if until is not None and not until > at:
            raise ConfigError("an acknowledgement must end in the future")
        self.saved[fingerprint] = acknowledgement
        return acknowledgement

    def take_back(self, fingerprint: str) -> None:
        """End the acknowledgement of an alert. Raises UnknownName when it has none."""
        if fingerprint not in self.saved:
            raise UnknownName(f"the alert {fingerprint!r:.100} is not acknowledged")
        self.forget(fingerprint)

    def of(self, fingerprint: str, at: float) -> Acknowledgement | None:
        """Return the acknowledgement of an alert at the wall-clock time *at*."""
        given = self.saved.get(fingerprint)
        return None if given is None or (given.until is not None and given.until <= at) else given

    def forget(self, fingerprint: str) -> None:
        """End the acknowledgement of an alert that is over. Its next life needs a new one."""
        self.saved.pop(fingerprint)

    def restore(self, rows: Mapping[str, bytes], active: Iterable[str]) -> list[str]:
        """Take over the rows of a state file. Those of alerts that are not *active* (fingerprints) are forgotten.

        Returns the fingerprints of those that cannot be used, which are left out.
        """
        there = set(active)
        for fingerprint in rows.keys() - there:
            self.saved.forget(fingerprint)
        return self.saved.restore({fingerprint: row for fingerprint, row in rows.items() if fingerprint in there})
