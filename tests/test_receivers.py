"""Receivers: how their channels are written in a file, and how a running Alertmanager is told by the notifier."""

from __future__ import annotations

import pytest

from pool_monitor.alerts.channels import precautions
from pool_monitor.alerts.channels.precautions import warnings_of
from pool_monitor.alerts.delivery.notification import Notification, ToldAlert
from pool_monitor.alerts.delivery.notifier import Notifier
from pool_monitor.alerts.delivery.senders import Senders
from pool_monitor.alerts.delivery.targets import NEVER, Routing, targets_of
from pool_monitor.alerts.routing import AlertmanagerApi, AppriseChannel, Email, LogChannel, Receiver, Route, Secret
from pool_monitor.alerts.rule_file import check
from pool_monitor.snapshot import AlertTransition
from tests.helpers.fault_server import FaultServer
from tests.helpers.notifications import told
from tests.helpers.storm import all_of

# -- in a file --------------------------------------------------------------------------------------------------------


def said(receiver: str) -> list[str]:
    """What is said of a file with this receiver."""
    _, problems = check(f"route: {{receiver: a}}\nreceivers: [{{name: a, {receiver}}}]", "rules.yaml")
    return [str(problem) for problem in problems]


def channel(receiver: str) -> object:
    file, problems = check(f"route: {{receiver: a}}\nreceivers: [{{name: a, {receiver}}}]", "rules.yaml")
    assert file is not None, [str(one) for one in problems]
    return file.receivers[0].channel


MAIL = "to: [ops@example.org], smtp: 'mail.example.org:587'"


def test_an_e_mail_may_have_its_password_in_a_file_and_name_its_tls():
    assert channel(f"email: {{{MAIL}, user_env: U, password_file: /run/p, tls: starttls}}") == Email(
        to=("ops@example.org",),
        host="mail.example.org",
        port=587,
        user_env="U",
        password_file="/run/p",
        tls="starttls",
    )


@pytest.mark.parametrize(
    "keys",
    ["user_env: U", "password_env: P", "user_env: U, password_env: P, password_file: p", "password_file: p"],
)
def test_a_user_and_one_password_belong_together(keys: str):
    assert any(
        "needs user_env and one of password_env and password_file" in one for one in said(f"email: {{{MAIL}, {keys}}}")
    )


def test_a_password_without_tls_is_for_this_machine_only():
    keys = "user_env: U, password_env: P, tls: none"
    assert any("without TLS a password is never sent" in one for one in said(f"email: {{{MAIL}, {keys}}}"))
    for host in ("localhost", "127.0.0.1"):
        assert said(f"email: {{to: [a@b], smtp: '{host}:25', {keys}}}") == []


def test_an_smtp_server_is_never_the_metadata_service():
    assert any("metadata" in one for one in said("email: {to: [a@b], smtp: '169.254.169.254:25'}"))


def test_a_service_of_apprise_is_named_by_its_url():
    assert channel("apprise: {url_env: NOTIFY}") == AppriseChannel(url=Secret(variable="NOTIFY"))
    assert channel("apprise: {url: 'ntfy://topic'}") == AppriseChannel(url=Secret("ntfy://topic"))
    [problem] = said("apprise: {url: hunter2}")
    assert "is not a URL of apprise" in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("one", "extra"),
    [
        (Email(to=("a@b",), host="h", port=25), "mail"),
        (AppriseChannel(url=Secret("ntfy://topic")), "notify"),
    ],
)
def test_a_missing_extra_is_warned_of_at_load(one: Email, extra: str, monkeypatch: pytest.MonkeyPatch):
    receiver = Receiver(name="a", channel=one)
    monkeypatch.setattr(precautions, "find_spec", lambda _name: None)
    assert [*warnings_of([receiver])] == [f"receiver a: needs the extra: pip install 'pool-monitor[{extra}]'"]


def test_a_password_that_cannot_be_read_is_warned_of_at_load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("U", "monitor")
    receiver = Receiver(name="a", channel=Email(to=("a@b",), host="h", port=25, user_env="U", password_file="/no/p"))
    [warning] = warnings_of([receiver])
    assert warning.startswith("receiver a: the file /no/p cannot be read")


# -- a running Alertmanager -------------------------------------------------------------------------------------------

LABELS = {"pool": "p", "severity": "warning"}
AM = Receiver(name="am", channel=AlertmanagerApi(url=Secret("http://am:9093")))
ROUTING = Routing(Route(receiver="am", group_by=("alertname",), group_wait=30.0), {"am": AM})


def change(seq: int, to: str, severity: str = "warning", pool: str = "p", **fields: str) -> AlertTransition:
    return AlertTransition(
        seq=seq,
        at=float(seq),
        alert="Lat",
        fingerprint=f"{pool:>016}",
        labels={"pool": pool, "severity": severity},
        from_state=fields.get("was", "inactive"),
        to_state=to,
        severity=severity,
    )


class Told:
    """A notifier whose messages arrive at once."""

    def __init__(self) -> None:
        self.notifier = Notifier()
        self.notifier.use(ROUTING)
        for _ in self.notifier.reconciling((), 0.0):
            pass

    def at(self, at: float, *changes: AlertTransition) -> list[Notification]:
        self.notifier.note(changes, at)
        found = []
        for one in self.notifier.flush(at, lambda _: None):
            self.notifier.sending(one)
            all_of(self.notifier.arriving(one, at))
            found.append(one)
        return found


def test_it_is_told_of_each_alert_alone():
    [first] = targets_of(ROUTING, "Lat", LABELS)
    [other] = targets_of(ROUTING, "Lat", {**LABELS, "pool": "q"})
    [worse] = targets_of(ROUTING, "Lat", {**LABELS, "severity": "critical"})
    assert first.group_key != other.group_key
    assert first == worse, "an alert stays in its group when its severity changes"
    assert (first.options.group_wait, first.options.repeat_interval) == (0.0, NEVER)


def test_it_is_told_each_change_when_it_happens_and_nothing_else():
    here = Told()
    assert [one.status for one in here.at(1, change(1, "firing"))] == ["firing"]
    assert [one.alerts[0].severity for one in here.at(2, change(2, "firing", "critical", was="firing"))] == ["critical"]
    assert [one.status for one in here.at(3, change(3, "resolved", "critical", was="firing"))] == ["resolved"]
    assert [here.at(at) for at in range(4, 10_000, 60)].count([]) == len(range(4, 10_000, 60))


def test_many_of_one_rule_are_told_all_without_a_limit():
    here = Told()
    told_of = here.at(1, *(change(number, "firing", pool=str(number)) for number in range(1, 300)))
    assert len(told_of) == 299
    assert {len(one.alerts) for one in told_of} == {1}


def test_what_it_was_told_to_fire_is_known_and_what_has_ended_or_was_not_told_is_not():
    here = Told()
    here.at(1, change(1, "firing", pool="a"), change(2, "firing", pool="b"), change(3, "firing", pool="c"))
    here.at(4, change(4, "resolved", pool="b", was="firing"))
    here.notifier.note([change(5, "firing", pool="d"), change(6, "firing", "critical", "c", was="firing")], 6)
    known = [(one.labels["pool"], one.severity) for one in here.notifier.told("am", lambda _: None)]
    assert known == [("a", "warning"), ("c", "warning")]
    assert [*here.notifier.told("other", lambda _: None)] == []


async def test_a_new_sender_is_reminded_once_of_what_fires():
    async with FaultServer() as server:
        receivers = {
            "am": Receiver(name="am", channel=AlertmanagerApi(url=Secret(server.url("/one")))),
            "log": Receiver(name="log", channel=LogChannel()),
        }
        asked = []

        def known(receiver: str) -> list[ToldAlert]:
            asked.append(receiver)
            return [told()]

        senders = Senders()
        senders.use(receivers)
        assert [*senders.reminding(known), *senders.reminding(known)] == [None]
        assert asked == ["am"]
        assert len(await server.received("/one/api/v2/alerts")) == 1
        senders.use({**receivers, "am": Receiver(name="am", channel=AlertmanagerApi(url=Secret(server.url("/two"))))})
        assert [*senders.reminding(known)] == [None]
        assert asked == ["am", "am"]
        assert len(await server.received("/two/api/v2/alerts")) == 1
        await senders.close()
