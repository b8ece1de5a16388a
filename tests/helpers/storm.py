"""A notifier under load, on virtual time, and receivers that believe what they are told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.delivery.notification import Notification
from pool_monitor.alerts.delivery.notifier import Notifier
from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.lifecycle import Phase
from pool_monitor.snapshot import AlertTransition, AlertView, ToldView

START = 1_700_000_000.0


def all_of(steps: Iterable[None]) -> None:
    """Do all *steps* of what the event loop does in slices."""
    for _ in steps:
        pass


class Storm:
    """Alerts that a test fires, ends and covers, and what each receiver is told of them.

    *arrives* says whether an attempt to deliver a notification succeeds.
    """

    def __init__(self, routing: Routing, arrives: Callable[[Notification], bool] = lambda _: True) -> None:
        self.at = START
        self.views: dict[str, AlertView] = {}
        self.told: list[Notification] = []
        """What arrived, in order."""
        self.outbox: dict[tuple[str, str], Notification] = {}
        self.arrives, self.delivers = arrives, True
        self.notifier = Notifier("shop")
        self._seq = 0
        self._untold: list[AlertTransition] = []
        self.use(routing)

    def use(self, routing: Routing) -> None:
        """Tell by *routing* from now on."""
        self._routing = routing
        self.notifier.use(routing)
        all_of(self.notifier.reconciling([_alert(view) for view in self.views.values()], self.at))

    # -- alerts

    def fire(self, number: int, *, severity: str = "warning", **labels: str) -> None:
        """Let an alert fire, or fire with another severity."""
        name = f"{number:016x}"
        before = self.views.get(name)
        labels = {"number": str(number), **labels, "severity": severity}
        fired = before is not None and before.state == "firing"
        since = before.since if before is not None and fired else self.at
        self.views[name] = AlertView(
            alertname="Slow",
            labels=labels,
            state="firing",
            severity=severity,
            value=1.0,
            since=since,
            fingerprint=name,
            summary=f"number {number} is slow",
        )
        self._change(name, "firing" if fired else "inactive")

    def end(self, number: int) -> None:
        """Resolve an alert."""
        name = f"{number:016x}"
        self.views[name] = replace(self.views[name], state="resolved")
        self._change(name, "firing")

    def cover(self, number: int, **changes: object) -> None:
        """Change what lies over an alert."""
        name = f"{number:016x}"
        self.views[name] = replace(self.views[name], **changes)

    def notify(self, seconds: float = 0.0) -> list[Notification]:
        """Let time pass, and return what was told meanwhile."""
        before = len(self.told)
        self.run(seconds)
        return self.told[before:]

    def _change(self, name: str, before: str) -> None:
        view, self._seq = self.views[name], self._seq + 1
        self._untold.append(
            AlertTransition(
                seq=self._seq,
                at=self.at,
                alert=view.alertname,
                labels=view.labels,
                fingerprint=name,
                from_state=before,  # type: ignore[arg-type]
                to_state=view.state,
                severity=view.severity,
                summary=view.summary,
            )
        )

    # -- time

    def settle(self) -> None:
        """Do what the evaluator does after each evaluation."""
        self.notifier.note(self._untold, self.at)
        self._untold = []
        for one in self.notifier.flush(self.at, self.views.get):
            self.outbox[one.receiver, one.group_key] = one
        self.deliver()

    def park(self, reason: str = "HTTP 404") -> None:
        """Refuse what is in the outbox."""
        for one in self.outbox.values():
            self.notifier.parked(one, reason)

    def deliver(self) -> None:
        """Try what is in the outbox, unless the courier is kept from it (*delivers*)."""
        if not self.delivers:
            return
        for key, one in list(self.outbox.items()):
            self.notifier.sending(one)
            if self.arrives(one):
                del self.outbox[key]
                self.told.append(one)
                all_of(self.notifier.arriving(one, self.at))
            else:
                all_of(self.notifier.failing(one, unsure=False))

    def run(self, seconds: float, every: float = 5.0) -> None:
        """Let time pass, with an evaluation *every* so many seconds and at each time that the notifier asks for."""
        ends, evaluation = self.at + seconds, self.at + every
        self.settle()
        while self.at < ends:
            asked = self.notifier.next_at
            self.at = min(ends, evaluation, max(asked, self.at) if asked is not None else ends)
            if self.at >= evaluation:
                evaluation += every
            self.settle()

    def restart(self) -> None:
        """Begin a new life with what was saved."""
        rows = self.notifier.all_rows()
        saved = {table: {key: row for key, row in some.items() if row is not None} for table, some in rows.items()}
        routing, self.notifier = self._routing, Notifier("shop")
        assert self.notifier.restore(saved, self.at) == []
        self.notifier.check([one.id for one in self.outbox.values()])
        self.use(routing)

    # -- what receivers know

    def explain(self, number: int) -> ToldView:
        """What the first receiver knows of an alert."""
        return self.notifier.knowledge.told(self.views[f"{number:016x}"], self.at)[0]

    def believed(self, receiver: str) -> set[str]:
        """The alerts that *receiver* believes to fire; messages list all of theirs."""
        known: dict[str, bool] = {}
        for one in self.of(receiver):
            assert not one.truncated
            for alert in one.alerts:
                known[alert.fingerprint] = alert.status == "firing"
        return {name for name, fires in known.items() if fires}

    def of(self, receiver: str) -> list[Notification]:
        """What *receiver* was told."""
        return [one for one in self.told if one.receiver == receiver]

    def per_minute(self, receiver: str) -> Mapping[int, int]:
        """Messages by the minute since the start."""
        return Counter(int((one.at - START) // 60) for one in self.of(receiver))

    def by_group(self, receiver: str) -> Mapping[str, list[Notification]]:
        """What *receiver* was told of each group."""
        found: defaultdict[str, list[Notification]] = defaultdict(list)
        for one in self.of(receiver):
            found[one.group_key].append(one)
        return found


def _alert(view: AlertView) -> Alert:
    """Return the alert of *view* as the engine has it."""
    labels = {name: value for name, value in view.labels.items() if name != "severity"}
    return Alert(
        alert=view.alertname,
        instance=tuple(sorted(labels.items())),
        labels=labels,
        fingerprint=view.fingerprint,
        state=Phase(view.state),
        severity=view.severity,
        since=view.since,
        fired_at=view.since,
    )
