"""What a person does to the selected alert: a key asks, a second key confirms, and the answer is shown. No I/O."""

from __future__ import annotations

import getpass
from typing import Literal, NamedTuple

from pool_monitor.snapshot import AlertView
from pool_monitor.view import alert_words
from pool_monitor.view.text import one_line

AlertActionName = Literal["ack", "silence"]
SILENCE_FOR = "1h"
"""How long a silence of the dashboard lasts. The command line takes any duration."""


class AlertRequest(NamedTuple):
    """One thing to do to one alert."""

    action: AlertActionName
    alert: AlertView
    author: str

    @property
    def matchers(self) -> dict[str, str]:
        """The labels that a silence of this alert alone matches."""
        labels = {name: value for name, value in self.alert.labels.items() if name != "severity"}
        return {"alertname": self.alert.alertname, **labels}

    @property
    def words(self) -> str:
        """What is to be done, in words."""
        name = alert_words.name(self.alert)
        who = f" as {one_line(self.author)}" if self.author else ""
        if self.action == "ack":
            return f"acknowledge {name} until it is resolved{who}"
        return f"silence {name} for {SILENCE_FOR}{who}"


class AlertPrompt:
    """The question about one alert, and then the answer. Both are gone when another alert is selected."""

    def __init__(self) -> None:
        self._asked: AlertRequest | None = None
        self._about = ""
        self._answer = ""

    def ask(self, action: AlertActionName, alert: AlertView) -> None:
        """Ask whether to do *action* to *alert*."""
        self._asked, self._about, self._answer = AlertRequest(action, alert, user()), alert.fingerprint, ""

    def confirm(self) -> AlertRequest | None:
        """Return what is to be done now; None: nothing was asked."""
        asked, self._asked = self._asked, None
        self._answer = f"{asked.words} …" if asked is not None else self._answer
        return asked

    def answer(self, request: AlertRequest, text: str) -> None:
        """Show what became of *request*."""
        self._about, self._answer = request.alert.fingerprint, one_line(text)

    def cancel(self) -> bool:
        """Take back the question. Return whether there was one."""
        asked, self._asked = self._asked, None
        return asked is not None

    def text(self, fingerprint: str | None) -> str:
        """Return the line to show while the alert with *fingerprint* is selected; empty: there is none."""
        if fingerprint != self._about:
            self._asked, self._answer = None, ""
        return f"{self._asked.words}?   y yes   Esc no" if self._asked is not None else self._answer


def user() -> str:
    """Return the name of the user who sits here. Empty: it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""
