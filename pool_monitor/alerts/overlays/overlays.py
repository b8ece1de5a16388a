"""The overlays of one monitor: what its owner does with them, and what the state file keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES
from pool_monitor.alerts.overlays.acknowledgements import Acknowledgements
from pool_monitor.alerts.overlays.flapping import Flapping
from pool_monitor.alerts.overlays.inhibition import Inhibitors
from pool_monitor.alerts.overlays.mute import local_time
from pool_monitor.alerts.overlays.silences import Silences
from pool_monitor.alerts.overlays.views import Covers, Texts, covered, laying, no_texts, view_of
from pool_monitor.alerts.rule import CheckedRule, Inhibition
from pool_monitor.alerts.saved_rows import SavedRows, left_out
from pool_monitor.errors import UnknownName
from pool_monitor.snapshot import Acknowledgement, AlertTransition, AlertView, SilenceView

Rows = dict[str, dict[str, bytes | None]]
"""By table of the state file and key; None: the row is gone."""


class Overlays:
    """Silences, acknowledgements and flapping. They are laid over the states of alerts and never change them.

    Methods take the wall-clock time as *at*, seconds since the epoch. None of them blocks. Each part states its bound.
    """

    def __init__(self) -> None:
        self._silences = Silences()
        self._acknowledgements = Acknowledgements()
        self._flapping = Flapping()
        self._covers: Covers | None = None

    # -- what people do

    def silence(
        self,
        matchers: Mapping[str, object],
        *,
        duration: float,
        at: float,
        starts_in: float = 0.0,
        author: str = "",
        comment: str = "",
    ) -> str:
        """Silence alerts that match for *duration* seconds, from *starts_in* seconds on. Return the id of the silence.

        *matchers*: label -> text that matches itself to the letter, or ``{"glob": "text*"}``, a shell pattern;
        ``alertname`` and ``severity`` are labels too. Raises ConfigError, also if no matcher is there or one is empty.
        """
        begins = at + max(starts_in, 0.0)
        made = self._silences.add(
            matchers, starts_at=begins, ends_at=begins + duration, at=at, author=author, comment=comment
        )
        return made.id

    def unsilence(self, silence: str, at: float) -> None:
        """End the silence with this id. Raises UnknownName when no such silence lasts or is to come."""
        self._silences.end(silence, at)

    def acknowledge(
        self,
        fingerprint: str,
        active: Mapping[str, Alert],
        *,
        at: float,
        duration: float | None = None,
        author: str = "",
        comment: str = "",
    ) -> Acknowledgement:
        """Acknowledge an alert for *duration* seconds; None: until it is resolved.

        *active*: the alerts that are pending, firing or recovering, by fingerprint. Raises UnknownName for another
        fingerprint, and ConfigError.
        """
        if fingerprint not in active:
            known = ", ".join(sorted(active)[:10]) or "none"
            raise UnknownName(f"no alert {fingerprint!r:.100} is pending or firing; those that are: {known}")
        until = None if duration is None else at + duration
        return self._acknowledgements.give(fingerprint, author=author, comment=comment, at=at, until=until)

    def unacknowledge(self, fingerprint: str) -> None:
        """Take an acknowledgement back. Raises UnknownName when there is none."""
        self._acknowledgements.take_back(fingerprint)

    # -- what happens

    def note(self, transitions: Sequence[AlertTransition], elapsed: float) -> None:
        """Take account of *transitions*, after *elapsed* seconds of counted time. Call it for each evaluation."""
        self._flapping.note(transitions, elapsed)
        for transition in transitions:
            if transition.to_state not in ACTIVE_PHASES:
                self._acknowledgements.forget(transition.fingerprint)

    # -- what is shown

    def silences(self, at: float) -> tuple[SilenceView, ...]:
        """Return the silences that last or are to come, the next to end first."""
        return self._silences.views(at)

    def laying(
        self,
        alerts: Iterable[Alert],
        rules: Mapping[str, CheckedRule],
        inhibitions: Sequence[Inhibition],
        at: float,
        texts: Callable[[CheckedRule | None, Alert], Texts] = no_texts,
    ) -> Iterator[AlertView | None]:
        """Yield a view of each alert with what lies over it, as `views.laying` does. Call it after each evaluation and
        each action, not for each Snapshot.
        """
        self._covers = covers = self._covers_at(inhibitions, at)
        return laying(alerts, rules, covers, texts)

    def cover(self, alerts: Iterable[Alert], inhibitions: Sequence[Inhibition], at: float) -> None:
        """Make ready for `view` without a view of each alert. *alerts*: all of them."""
        self._covers = covers = self._covers_at(inhibitions, at)
        for alert in alerts:
            covers.add(alert)

    def _covers_at(self, inhibitions: Sequence[Inhibition], at: float) -> Covers:
        return Covers(
            self._silences.lasting(at),
            self._acknowledgements,
            Inhibitors(inhibitions),
            self._flapping,
            at,
            local_time(at),
        )

    def view(
        self,
        alert: Alert,
        rules: Mapping[str, CheckedRule],
        texts: Callable[[CheckedRule | None, Alert], Texts] = no_texts,
    ) -> AlertView | None:
        """Return the view of one of the alerts that `laying` or `cover` was called with last; None: neither was yet."""
        rule = rules.get(alert.alert)
        return None if self._covers is None else view_of(alert, rule, self._covers, texts(rule, alert))

    def lay(
        self,
        alerts: Iterable[Alert],
        rules: Mapping[str, CheckedRule],
        inhibitions: Sequence[Inhibition],
        at: float,
        texts: Callable[[CheckedRule | None, Alert], Texts] = no_texts,
    ) -> tuple[AlertView, ...]:
        """Do what `laying` does at once."""
        return tuple(view for view in self.laying(alerts, rules, inhibitions, at, texts) if view is not None)

    def laid_again(self, shown: Iterable[AlertView], at: float) -> tuple[AlertView, ...]:
        """Return *shown* with the silences and acknowledgements of now. The rest is as it was: an action changes no
        more, and to lay everything again takes as long as there are alerts.
        """
        silences = self._silences.lasting(at)
        return tuple(
            covered(
                view,
                silences.of({**view.labels, "alertname": view.alertname}),
                self._acknowledgements.of(view.fingerprint, at),
            )
            for view in shown
        )

    # -- what survives a restart

    def take_changes(self) -> Rows:
        """Return the rows of the state file that have changed since the last call."""
        return {table: found for table, saved in self._saved().items() if (found := saved.take_changes())}

    def all_rows(self) -> Rows:
        """Return all rows, for a state file that is to have nothing else."""
        return {table: dict(saved.encoded()) for table, saved in self._saved().items()}

    def _saved(self) -> dict[str, SavedRows[Any]]:
        return {
            "silences": self._silences.saved,
            "acknowledgements": self._acknowledgements.saved,
            "flapping": self._flapping.saved,
        }

    def restore(self, rows: Mapping[str, Mapping[str, bytes]], active: Iterable[str]) -> list[str]:
        """Take over the rows of a state file, of an earlier life. Call it once, at the beginning.

        *active*: the fingerprints of the alerts that go on; acknowledgements of others are forgotten. Returns what
        cannot be used, in words; it is left out.
        """
        unusable = {
            "silence": self._silences.restore(rows.get("silences", {})),
            "acknowledgement": self._acknowledgements.restore(rows.get("acknowledgements", {}), active),
            "flap score": self._flapping.restore(rows.get("flapping", {})),
        }
        return [line for noun, keys in unusable.items() for line in left_out(noun, keys)]
