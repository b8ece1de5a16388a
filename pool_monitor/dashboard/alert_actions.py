"""What a person does to the selected alert. No I/O."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pool_monitor.snapshot import AlertView
from pool_monitor.view import alert_words
from pool_monitor.view.text import one_line

AlertActionName = Literal["ack", "silence"]
ALERT_KEYS: dict[str, AlertActionName] = {"A": "ack", "S": "silence"}
"""Key -> what it asks."""
SILENCE_FOR = "1h"
"""How long a silence of the dashboard lasts. The command line takes any duration."""


class AlertRequest(NamedTuple):
    """One thing to do to one alert."""

    action: AlertActionName
    alert: AlertView
    author: str

    @property
    def about(self) -> str:
        """The fingerprint of the alert."""
        return self.alert.fingerprint

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
