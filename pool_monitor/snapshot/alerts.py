"""The alerts in a Snapshot: what a rule found bad, for how long, and who has dealt with it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

AlertState = Literal["inactive", "pending", "firing", "recovering", "resolved"]
"""``pending``: bad, but not for long enough yet. ``recovering``: good again, but still firing for a while
(``keep_firing_for``); it is firing for receivers. ``resolved``: over, and shown for a while."""


ReceiverState = Literal["ready", "retrying", "paused", "open", "parked", "gone"]
"""``ready``: nothing is in the way. ``retrying``: the latest attempt failed, and is repeated. ``paused``: the receiver
asked for a pause. ``open``: the breaker is open after several failures, and one attempt now and then finds out whether
it works again. ``parked``: it refuses messages. ``gone``: it wants no message any more."""

ToldStatus = Literal["told", "waiting", "owed", "held_back", "silenced", "inhibited", "muted", "flapping", "parked"]


class ToldView(Struct, frozen=True, kw_only=True, gc=False):
    """What one receiver knows of an alert."""

    receiver: str
    status: ToldStatus
    """``told``: it knows the present state. ``waiting``: for its group's time. ``owed``: the message is under way.
    ``held_back``: by the rate limit. Else why it is told nothing now."""
    at: float | None = None
    """When it was told, or will be at the earliest; None: not known."""
    reason: str = ""
    """More words, such as why a message was refused."""


class Acknowledgement(Struct, frozen=True, kw_only=True):
    """Somebody is dealing with an alert."""

    author: str
    comment: str
    at: float
    """Seconds since the epoch."""
    until: float | None = None
    """When it ends; None: when the alert is resolved."""


class AlertView(Struct, frozen=True, kw_only=True, gc=False):
    """One alert: one rule and one instance, whatever the number of levels. Times are seconds since the epoch."""

    alertname: str
    labels: dict[str, str]
    """The labels of the instance and of the rule, with ``severity``, without ``alertname``."""
    state: AlertState
    severity: str
    """The highest level that is reached; of a pending alert, the level that would be."""
    value: float | None
    """The latest known value, in the base unit of its metric."""
    since: float
    """When its state began: pending or firing. Recovering goes on with the time of firing."""
    summary: str = ""
    runbook: str = ""
    fingerprint: str = ""
    """16 hexadecimal digits. Of the name and the labels without ``severity``, so a change of level keeps it."""
    silenced: bool = False
    inhibited: bool = False
    acknowledged: bool = False
    flapping: bool = False
    changes: int = 0
    """Of one that flaps: how often it has lately begun or ceased to fire."""
    muted: bool = False
    """Whether a mute time of its rule lasts now."""
    unknown: bool = False
    """Whether its value is unknown now, or the evaluation of its rule fails."""
    silences: tuple[str, ...] = ()
    """The ids of the silences that match it."""
    inhibited_by: tuple[str, ...] = ()
    """The fingerprints of alerts that inhibit it."""
    acknowledgement: Acknowledgement | None = None
    unit: str = ""
    """The unit of *value*: s, bytes, ratio, /s, count, or empty."""
    value_text: str = ""
    """The value in words, such as ``250ms`` or ``5%``."""
    reason: str = ""
    """Why its state began, if that is not its value: such as no_data or rule_removed."""
    active_since: float | None = None
    """When the value became bad: for a firing alert, when it became pending."""
    annotations: dict[str, str] = {}
    """All annotations, with their placeholders replaced."""
    limit: float | None = None
    """The bound that *value* was judged against, in the same unit; None: there is none."""
    findings: tuple[str, ...] = ()
    """The kinds of findings that its rule reads. Empty: it reads metrics."""
    told: tuple[ToldView, ...] = ()
    """What the receivers that it is for know of it, at most 8 of them. Empty: it is for none."""
    values: tuple[float | None, ...] = ()
    """The measured value up to now, the oldest first, at equal distances, at most 60 of an hour or somewhat more; None:
    unknown. They begin 15 minutes before the alert where memory has that. Empty: not known at all, or of an alert
    beyond the first hundred."""
    values_s: float = 0.0
    """The time that *values* span."""
    escalated_at: float | None = None
    """When another receiver was told because nobody had acknowledged it; None: that did not happen."""


class AlertTransition(Struct, frozen=True, kw_only=True, gc=False, rename={"from_state": "from", "to_state": "to"}):
    """One change of an alert: of its state, or, from firing to firing, of its level."""

    seq: int
    """Grows with each change of this service; survives a restart where a state is kept."""
    at: float
    """Seconds since the epoch."""
    alert: str
    """The name of the rule."""
    labels: dict[str, str]
    """As in `AlertView`: the labels after the change."""
    fingerprint: str
    from_state: AlertState
    to_state: AlertState
    severity: str
    value: float | None = None
    """None: unknown, or of a finding that is over."""
    last_value: float | None = None
    """The latest known value. The summary is about it."""
    reason: str = ""
    """Why, if it was not the value: no_data, rule_removed, rule_changed, error or level."""
    value_text: str = ""
    summary: str = ""
    note: str = ""
    """Of a rule that reads findings: their reason, or their names."""


class SilenceView(Struct, frozen=True, kw_only=True):
    """Alerts that match are not told to anybody. Times are seconds since the epoch."""

    id: str
    matchers: dict[str, str]
    """Label -> what it must be, as text. A pattern begins with ``glob:``."""
    starts_at: float
    ends_at: float
    author: str = ""
    comment: str = ""


class RuleView(Struct, frozen=True, kw_only=True):
    """One rule that is evaluated. Times are seconds."""

    alertname: str
    kind: str
    """Such as threshold."""
    state: AlertState | None
    """The worst state of its alerts; None: it was not evaluated yet."""
    alerts: int = 0
    """Its alerts that are pending, firing or recovering."""
    severities: tuple[str, ...] = ()
    """Its levels, the lowest first."""
    failing: str | None = None
    """Why its evaluation fails."""
    default: bool = False
    """Whether it comes with the package."""
    origin: str = ""
    """Where it stands, such as ``rules.yaml:12``; empty: it was added by the program."""
    next_in: float | None = None
    """After how long it is evaluated next; None: it is not: the alerts are off or degraded, or no service runs."""


class ReceiverView(Struct, frozen=True, kw_only=True):
    """Somebody who is told of alerts, and what is owed to them. Times are seconds."""

    name: str
    channel: str
    """webhook, email, alertmanager, apprise, log or file."""
    where: str = ""
    """Where its messages go, as people may see it."""
    page: bool = False
    state: ReceiverState = "ready"
    owed: int = 0
    """Notifications that have not arrived, the parked ones too."""
    parked: int = 0
    """Those of them that were refused: they are tried rarely."""
    held_back: int = 0
    """Notifications that the rate limit holds back now."""
    oldest_debt: float | None = None
    """Age of the oldest notification that is owed; None: nothing is."""
    last_success_age: float | None = None
    """Since a notification arrived; None: none has since the state began."""
    last_error: str | None = None
    """Why the latest attempt failed; None: it did not."""
    failures: int = 0
    """Attempts that have failed in a row."""
    next_in: float | None = None
    """Until it is tried again, or, while messages are held back, until the next digest; None: not known."""
    sent: int = 0
    failed: int = 0
    """Attempts since the monitor was made."""
    lost: int = 0
    """Notifications that were given up, because they were too old or there was no room."""


class AlertReport(Struct, frozen=True, kw_only=True):
    """The alerts of a service, the silences that are set or will begin, the latest changes, the newest first, and who
    is told of alerts.
    """

    alerts: tuple[AlertView, ...]
    silences: tuple[SilenceView, ...] = ()
    transitions: tuple[AlertTransition, ...] = ()
    receivers: tuple[ReceiverView, ...] = ()


class HeartbeatView(Struct, frozen=True, kw_only=True):
    """The beats that somebody outside expects. Times are seconds."""

    every: float
    """Time between two beats."""
    failing: tuple[str, ...] = ()
    """Why the beats say that the monitor fails; empty: they say that it is well."""
    last_success_age: float | None = None
    """Since a beat arrived; None: none has yet."""
    last_error: str | None = None
    """Why the latest beat did not arrive; None: it did."""


class AlertingView(Struct, frozen=True, kw_only=True):
    """The evaluation of rules: its cost, and what fails. Times are seconds."""

    rules: int
    interval: float
    failing: dict[str, str] = {}
    """Why the evaluation of a rule fails, by its name."""
    states: dict[str, int] = {}
    """Alerts by state."""
    evaluations: int = 0
    missed: int = 0
    """Evaluations that were left out because the one before had not ended, or the machine or process was stopped."""
    evaluation_seconds: float | None = None
    """How long the latest evaluation took; None before the first."""
    longest_hold: float | None = None
    """The longest time that the latest evaluation held the event loop at once."""
    evaluated_age: float | None = None
    """Seconds since the latest evaluation; None before the first."""
    reload_error: str | None = None
    """Why the files could not be read again: the rules before stay in force. None: they were read."""
    reloaded_age: float | None = None
    state_path: str | None = None
    """The file that keeps the states; None: a restart forgets them."""
    state_degraded: str | None = None
    """Why that file cannot be written now; None: it can be written, or there is none."""
    silences: tuple[SilenceView, ...] = ()
    transitions: int = 0
    """Changes of alerts since the monitor was made."""
    refused: int = 0
    """Alerts that were not made because a rule has too many instances."""
    paused: float | None = None
    """For how long nothing is evaluated yet, because the machine or the process was stopped before; None: it is not."""
    owed: int = 0
    """Notifications that have not arrived yet, of all receivers; so are the next ones."""
    parked: int = 0
    """Those of them that were refused."""
    held_back: int = 0
    """Notifications that a rate limit holds back now."""
    lost: int = 0
    """Notifications that were given up."""
    oldest_debt: float | None = None
    """Age of the oldest notification that is owed; None: nothing is."""
    notified_age: float | None = None
    """Since a notification arrived anywhere; None: none has."""
    receivers: tuple[ReceiverView, ...] = ()
    """Who is told of alerts: those that rule files have, and those that are still owed something."""
    heartbeat: HeartbeatView | None = None
    """None: no heartbeat is sent."""
    file_degraded: str | None = None
    """Why the changes of alerts cannot be appended to ``[alerts] file``; None: they can, or there is none."""
