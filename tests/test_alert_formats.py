"""The bodies of webhooks: golden files, the limits of those who read them, and the signature."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import standardwebhooks
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor.alerts.channels.formats import FORMATS, pagerduty
from pool_monitor.alerts.channels.formats.writing import encoded, rfc3339
from pool_monitor.alerts.channels.signature import signed
from pool_monitor.alerts.channels.text import headline
from pool_monitor.alerts.channels.webhook import WebhookSender
from pool_monitor.alerts.delivery.notification import ALERTS_MAX, Notification, Outcome, ToldAlert
from pool_monitor.alerts.routing import Secret, Webhook
from tests.helpers import fault_server as fault
from tests.helpers import golden
from tests.helpers.fault_server import FaultServer
from tests.helpers.notifications import AT, ended, notification, told
from tests.helpers.told import HOSTILE, kinds

KEY = "R0UT1NG"
KINDS = kinds()


def body_of(format_: str, notified: Notification, key: str = KEY) -> Any:
    return json.loads(FORMATS[format_].body(notified, key))


# -- as a person has checked them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_is_as_it_was_checked(format_: str, kind: str) -> None:
    body = body_of(format_, KINDS[kind])
    if kind == "many":
        body = _shortened(body)
    golden.check(f"webhook_{format_}_{kind}.json", json.dumps(body, indent=1, ensure_ascii=kind == "hostile") + "\n")


def _shortened(body: Any) -> Any:
    """Long lists with their first two entries and their last one: the ones between are alike."""
    if isinstance(body, dict):
        return {name: _shortened(value) for name, value in body.items()}
    if isinstance(body, list) and len(body) > 10:
        return [*map(_shortened, body[:2]), f"... {len(body) - 3} more ...", _shortened(body[-1])]
    return list(map(_shortened, body)) if isinstance(body, list) else body


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_is_the_same_each_time(format_: str, kind: str) -> None:
    assert FORMATS[format_].body(KINDS[kind], KEY) == FORMATS[format_].body(kinds()[kind], KEY)


texts = st.text(st.characters() | st.sampled_from(HOSTILE), max_size=30)
numbers = st.none() | st.floats()
alerts = st.builds(
    lambda ends, **fields: (
        told(**fields, annotations={fields["alertname"]: fields["summary"]}, labels={"pool": fields["reason"]})
        if ends is None
        else ended(ends_at=ends, **fields)
    ),
    ends=numbers.filter(lambda at: at is None or at == at),
    alertname=texts,
    summary=texts,
    runbook=texts,
    reason=texts,
    severity=texts,
    value=numbers,
    value_text=texts,
    unit=texts,
    limit=numbers,
    values=st.lists(numbers, max_size=6).map(tuple),
    starts_at=st.floats(allow_nan=False),
)


@settings(max_examples=60)
@given(alerts, texts, st.sampled_from(list(FORMATS)))
def test_whatever_an_alert_says_there_is_a_body(alert: Any, text: str, format_: str) -> None:
    notified = notification(alert, service=text, about=text, reason=text, group_labels={"pool": text}, group_key=text)
    json.loads(FORMATS[format_].body(notified, text))


# -- native -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "type_"), [("firing", "alert.firing"), ("resolved", "alert.resolved"), ("digest", "alert.digest")]
)
def test_the_envelope_of_native_is_that_of_standard_webhooks(kind: str, type_: str) -> None:
    body = body_of("native", KINDS[kind])
    assert list(body) == ["type", "timestamp", "data"]
    assert body["type"] == type_
    assert datetime.fromisoformat(body["timestamp"]) == datetime.fromtimestamp(AT, UTC)


def test_native_says_what_is_unknown_as_null() -> None:
    [_, unknown] = body_of("native", KINDS["firing"])["data"]["alerts"]
    assert unknown["value"] is None
    assert unknown["limit"] is None
    assert unknown["values"] == []
    assert body_of("native", KINDS["firing"])["data"]["alerts"][0]["values"] == [0.01, 0.01, None, 0.02, 0.05, 0.12]


def test_native_has_every_field_of_a_notification() -> None:
    data = body_of("native", KINDS["firing"])["data"]
    assert set(data) == {*Notification.__struct_fields__, "truncated"}
    assert set(data["alerts"][0]) == {*type(told()).__struct_fields__, "sparkline"}


# -- alertmanager -----------------------------------------------------------------------------------------------------


def test_the_body_of_alertmanager_has_its_keys_in_its_order() -> None:
    body = body_of("alertmanager", KINDS["firing"])
    assert list(body) == [
        "receiver", "status", "alerts", "groupLabels", "commonLabels", "commonAnnotations", "externalURL", "version",
        "groupKey", "truncatedAlerts",
    ]  # fmt: skip
    assert list(body["alerts"][0]) == [
        "status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint",
    ]  # fmt: skip
    assert body["version"] == "4"
    assert body["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"
    assert body["alerts"][0]["labels"]["alertname"] == "FailingCalls"
    assert list(body["alerts"][0]["labels"]) == sorted(body["alerts"][0]["labels"])


def test_alertmanagers_common_labels_are_those_that_all_alerts_have() -> None:
    same = body_of("alertmanager", notification(told(1), told(2)))
    assert same["commonLabels"] == {
        "alertname": "FailingCalls", "pool": "text", "severity": "critical",
    }  # fmt: skip
    assert set(same["commonAnnotations"]) == {"runbook", "sparkline"}
    mixed = body_of("alertmanager", notification(told(1), told(2, labels={"pool": "other"}, severity="warning")))
    assert mixed["commonLabels"] == {"alertname": "FailingCalls"}
    assert body_of("alertmanager", KINDS["empty"])["commonLabels"] == {}


def test_what_has_no_room_is_counted() -> None:
    many = KINDS["many"]
    assert body_of("alertmanager", many)["truncatedAlerts"] == 250 - ALERTS_MAX
    assert body_of("native", many)["data"]["truncated"] == 250 - ALERTS_MAX
    assert body_of("pagerduty", many)["payload"]["custom_details"]["not_listed"] == 250 - ALERTS_MAX
    blocks = body_of("slack", many)["blocks"]
    shown = sum(block["type"] == "section" for block in blocks)
    assert blocks[-1]["elements"][0]["text"] == f"{250 - shown} more alerts are not listed."


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "1970-01-01T00:00:00Z"),
        (1_800_000_000.25, "2027-01-15T08:00:00.25Z"),
        (1.001, "1970-01-01T00:00:01.001Z"),
        (10.0, "1970-01-01T00:00:10Z"),
        (-5.0, "1970-01-01T00:00:00Z"),
        (1e300, "9999-12-31T00:00:00Z"),
    ],
)
def test_a_moment_is_written_as_go_writes_it(at: float, text: str) -> None:
    assert rfc3339(at) == text


@given(st.floats(0, 4e9))
def test_a_moment_can_be_read_again(at: float) -> None:
    assert abs(datetime.fromisoformat(rfc3339(at)).timestamp() - at) <= 0.0006


# -- slack ------------------------------------------------------------------------------------------------------------


def strings(value: Any) -> list[str]:
    """All texts in a body, without its keys."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    return [text for item in value for text in strings(item)] if isinstance(value, list) else [str(value)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_within_slacks_limits(kind: str) -> None:
    body = body_of("slack", KINDS[kind])
    assert len(body["blocks"]) <= 50
    assert sum(map(len, strings(body))) < 35_000
    for block in body["blocks"]:
        for text in [block.get("text"), *block.get("elements", ())]:
            if text is not None:
                assert 1 <= len(text["text"]) <= (150 if text["type"] == "plain_text" else 3000)


def test_a_message_of_long_texts_is_within_slacks_limits() -> None:
    long = "<&>" * 2000
    texts = dict.fromkeys(("alertname", "summary", "reason", "acknowledged_by", "value_text"), long)
    alert = told(1, runbook=f"https://x/{'&' * 300}", **texts)
    many = notification(*[alert] * 100, service=long, about=long, reason=long, group_labels={"a": long})
    body = body_of("slack", many)
    assert sum(map(len, strings(body))) < 35_000
    assert len(body["text"]) < 3000
    for block in body["blocks"]:
        for text in [block.get("text"), *block.get("elements", ())]:
            assert text is None or len(text["text"]) <= 3000


def test_nothing_foreign_becomes_a_link_or_a_mention() -> None:
    text = "".join(strings(body_of("slack", KINDS["hostile"])["blocks"][1:]))
    assert "&lt;!channel&gt;" in text
    assert re.findall("<[^>]*>", text) == []


def test_a_runbook_is_a_link_only_if_it_is_a_url() -> None:
    def links(runbook: str) -> list[str]:
        return re.findall("<[^>]*>", json.dumps(body_of("slack", notification(told(runbook=runbook)))["blocks"][2]))

    assert links("https://r.example/a|b&c") == ["<https://r.example/a%7Cb&amp;c|runbook>"]
    assert links("javascript:alert(1)") == []
    assert links("https://r.example/\u202e") == []
    assert links("") == []


# -- pagerduty --------------------------------------------------------------------------------------------------------


def test_a_group_is_one_incident_from_its_first_message_to_its_end() -> None:
    first, last = body_of("pagerduty", KINDS["firing"]), body_of("pagerduty", KINDS["resolved"])
    assert (first["event_action"], last["event_action"]) == ("trigger", "resolve")
    assert first["routing_key"] == last["routing_key"] == KEY
    assert first["dedup_key"] == last["dedup_key"] == hashlib.sha256(KINDS["firing"].group_key.encode()).hexdigest()
    other = body_of("pagerduty", notification(told(), group_key="{}:{}"))
    assert other["dedup_key"] != first["dedup_key"]


@pytest.mark.parametrize(
    ("severity", "known"),
    [("critical", "critical"), ("emergency", "critical"), ("error", "error"), ("warning", "warning"), ("info", "info"),
     ("odd", "error")],
)  # fmt: skip
def test_a_severity_becomes_one_that_pagerduty_knows(severity: str, known: str) -> None:
    assert body_of("pagerduty", notification(told(severity=severity)))["payload"]["severity"] == known


@pytest.mark.parametrize("character", ["\x1b", "é", '"', "障", "🔥"])
def test_an_event_is_within_pagerdutys_limits(character: str) -> None:
    long = character * 6000
    texts = dict.fromkeys(("alertname", "summary", "reason"), long)
    alert = told(1, runbook="https://r.example/" + character * 1900, annotations={"a" * 60: long}, **texts)
    for notified in (*KINDS.values(), notification(*[alert] * 100, service=long, about=long)):
        body = FORMATS["pagerduty"].body(notified, KEY)
        assert len(body) < pagerduty.EVENT_MAX
        payload = json.loads(body)["payload"]
        assert 1 <= len(payload["summary"]) <= 1024
        assert payload["source"]
        assert len(json.loads(body)["dedup_key"]) <= 255


def test_an_event_without_a_routing_key_has_none() -> None:
    assert "routing_key" not in body_of("pagerduty", KINDS["firing"], "")


# -- for people -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["slack", "pagerduty"])
def test_nothing_foreign_controls_what_a_person_sees(format_: str) -> None:
    for text in strings(body_of(format_, KINDS["hostile"])):
        hidden = {char for char in text if unicodedata.category(char)[0] == "C" and char != "\n"}
        assert not hidden, text


@pytest.mark.parametrize("format_", ["native", "alertmanager"])
def test_a_program_gets_labels_as_they_are_and_texts_cleaned(format_: str) -> None:
    body = body_of(format_, KINDS["hostile"])
    alert = (body if format_ == "alertmanager" else body["data"])["alerts"][0]
    assert alert["labels"]["pool"] == HOSTILE.encode("utf-8", "backslashreplace").decode()
    assert "\x1b" not in alert["annotations"]["summary"]
    assert "\u202e" not in alert["annotations"]["summary"]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_course_of_the_value_is_drawn(format_: str) -> None:
    assert any("▁▁·▂▄█ between 1% and 12% in 1h" in text for text in strings(body_of(format_, KINDS["firing"])))
    just_begun = notification(told(values=(0.12,), values_s=5.0))
    assert any("▁ 12% in 5s" in text for text in strings(body_of(format_, just_begun)))


def test_an_end_without_its_rule_still_says_what_ended() -> None:
    gone = notification(ended(annotations={}, runbook="", values=(), summary="2% of summarize fail"))
    assert body_of("alertmanager", gone)["alerts"][0]["annotations"] == {"summary": "2% of summarize fail"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "Slow warning: 640ms at p95"),
        ({"summary": ""}, "Slow warning: operation=sum, value 640ms, bound 250ms"),
        ({"summary": "", "value": None, "limit": None}, "Slow warning: operation=sum"),
        ({"reason": "no_data", "status": "resolved", "ends_at": 1.0}, "Slow warning (no data): 640ms at p95"),
    ],
)
def test_the_first_line_says_what_is_wrong_as_far_as_it_is_known(changes: dict[str, Any], line: str) -> None:
    told = ToldAlert(
        alertname="Slow",
        labels={"operation": "sum", "severity": "warning"},
        fingerprint="1",
        status="firing",
        severity="warning",
        starts_at=0.0,
        summary="640ms at p95",
        value=0.64,
        unit="s",
        limit=0.25,
    )
    assert headline(msgspec.structs.replace(told, **changes)) == line


# -- the signature ----------------------------------------------------------------------------------------------------

VECTOR_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""The example of the standard."""


def test_the_signature_is_that_of_the_standards_example() -> None:
    headers = signed(b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek", VECTOR_KEY, 1614265330.9)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_without_a_key_there_is_no_signature() -> None:
    assert set(signed(b"{}", "a", "", 0.0)) == {"webhook-id", "webhook-timestamp"}


@given(st.binary(max_size=100), st.binary(min_size=1, max_size=64))
def test_the_library_of_the_standard_accepts_what_is_signed(body: bytes, key: bytes) -> None:
    import base64

    written = f"whsec_{base64.b64encode(key).decode()}"
    now = datetime.now(UTC).timestamp()
    content = json.dumps(body.decode("latin-1")).encode()
    for keys in (written, f"{VECTOR_KEY} {written}", f"{written} another"):
        standardwebhooks.Webhook(written).verify(content, dict(signed(content, "msg_1", keys, now)))
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(written).verify(content + b" ", dict(signed(content, "msg_1", keys, now)))


@pytest.mark.parametrize("key", ["plain text key", "whsec_", "whsec_!!!", "k", "ключ"])
def test_a_key_that_is_no_base64_signs_as_it_is(key: str) -> None:
    assert signed(b"{}", "a", key, 0.0)["webhook-signature"].count("v1,") == len(key.split())


# -- sent -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", FORMATS)
async def test_each_attempt_sends_the_same_body_and_id_with_a_signature_of_its_own(
    format_: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setenv("HOOK_SECRET", VECTOR_KEY)
    async with FaultServer() as server:
        server.script("/", fault.status(503), fault.ok())
        sender = WebhookSender(Webhook(url=Secret(server.url("/")), format=format_, secret_env="HOOK_SECRET"))  # type: ignore[arg-type]
        outcomes = [await sender.send(KINDS["firing"]), await sender.send(KINDS["firing"])]
        await sender.aclose()
    assert [outcome.result for outcome in outcomes] == ["retry", "sent"]
    first, second = server.of("/")
    assert first.body == second.body
    for one in (first, second):
        if format_ == "pagerduty":
            assert "webhook-signature" not in one.headers
            assert one.json["routing_key"] == VECTOR_KEY
        else:
            assert one.headers["webhook-id"] == KINDS["firing"].id
            standardwebhooks.Webhook(VECTOR_KEY).verify(one.body, one.headers)


@pytest.mark.parametrize("format_", ["slack", "pagerduty"])
async def test_a_page_that_is_no_receiver_does_not_swallow_messages(format_: str) -> None:
    async with FaultServer() as server:
        server.script("/", fault.ok(b"<html>Log in</html>"))
        sender = WebhookSender(Webhook(url=Secret(server.url("/")), format=format_))  # type: ignore[arg-type]
        outcome = await sender.send(KINDS["firing"])
        await sender.aclose()
    assert outcome == Outcome("refused", "answered 200 without confirming: <html>Log in</html>")


json_values = st.recursive(
    st.none() | texts | st.integers(-5, 5),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(texts, one, max_size=3),
    max_leaves=5,
)


@given(json_values)
@settings(max_examples=50)
def test_any_text_can_be_encoded(value: Any) -> None:
    json.loads(encoded(value))
