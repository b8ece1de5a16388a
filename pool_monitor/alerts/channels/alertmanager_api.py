"""A running Alertmanager: it is told of each alert over ``/api/v2/alerts``, and tells others itself.

Alertmanager forgets an alert that is not posted again before its ``endsAt``, and all of them when it starts anew. So
what fires is posted again and again, and what has ended for a while.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import msgspec

from pool_monitor.alerts.channels.formats.writing import rfc3339
from pool_monitor.alerts.channels.http import HttpClient, Message
from pool_monitor.alerts.channels.judgement import Answer, judged
from pool_monitor.alerts.channels.sender import SEND_S
from pool_monitor.alerts.channels.text import annotations_of
from pool_monitor.alerts.delivery.notification import SENT, Outcome
from pool_monitor.log import logger
from pool_monitor.parts import retrieve_error

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, ToldAlert
    from pool_monitor.alerts.routing import AlertmanagerApi

AGAIN_S = 60.0
"""After how long everything is posted again."""
ENDS_AFTER_S = 4 * AGAIN_S
"""``endsAt`` of what fires, from now on: three posts may fail."""
ENDED_S = 15 * 60.0
"""How long what has ended is posted again, as Prometheus does."""
BATCH = 256
"""Most alerts of one post."""
KNOWN_MAX = 50_000
"""Most alerts that are posted again. Of more, the oldest are not."""
_HALVINGS = 64
"""Most posts that look for the alerts that Alertmanager does not take."""
_PATH = "/api/v2/alerts"
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")
_Labels = tuple[tuple[str, str], ...]


class _State(NamedTuple):
    """An alert as Alertmanager is told it."""

    fingerprint: str
    annotations: Mapping[str, str]
    starts_at: float
    ends_at: float | None
    """None: it fires."""
    until: float
    """Until when it is posted again."""


class AlertmanagerSender:
    """Posts the alerts of each notification at once, and all that it knows every `AGAIN_S`, until it is closed.

    Bound: `KNOWN_MAX` alerts. The labels of an alert are its identity for Alertmanager: when they change, as its level
    does, the alert with the old ones ends.
    """

    kind = "alertmanager"

    def __init__(self, channel: AlertmanagerApi) -> None:
        self._client = HttpClient(channel.url, channel.headers)
        self._states: dict[_Labels, _State] = {}
        self._news: dict[_Labels, None] = {}
        """Those that have not been accepted as they are."""
        self._labels: dict[str, _Labels] = {}
        """Those of what fires, by fingerprint."""
        self._one_at_a_time = asyncio.Lock()
        self._repeating: asyncio.Task[None] | None = None
        self._failing = self._closed = False

    @property
    def where(self) -> str:
        """Where alerts go, as people may see it."""
        return self._client.where

    def knowing(self, alerts: Iterable[ToldAlert]) -> Iterator[None]:
        """Go on telling that *alerts* fire: Alertmanager was told so before this sender was made. In steps: others may
        work at each.
        """
        for alert in alerts:
            self._take(alert)
            yield
        self._begin_to_repeat(at_once=True)

    async def send(self, notification: Notification) -> Outcome:
        """Post the alerts of *notification*, and what was not accepted of those before."""
        mine = {labels for alert in notification.alerts for labels in self._take(alert)}
        self._begin_to_repeat()
        refused: dict[_Labels, Outcome] = {}
        try:
            with anyio.fail_after(SEND_S):
                outcome = await self._post([*self._news], refused)
        except TimeoutError:
            return Outcome("retry", f"not done within {SEND_S:g} s", unsure=True)
        bad = mine & refused.keys()
        if outcome.result != "sent" or not bad:
            return outcome
        first = refused[next(iter(bad))]
        return first if len(mine) == 1 else first._replace(reason=f"{len(bad)} of {len(mine)}: {first.reason}")

    async def aclose(self) -> None:
        """Post nothing more, and close the connection."""
        self._closed = True
        repeating, self._repeating = self._repeating, None
        if repeating is not None:
            repeating.cancel()
            await asyncio.wait([repeating])
        await self._client.aclose()

    # -- what Alertmanager is told ------------------------------------------------------------------------------------

    def _take(self, alert: ToldAlert) -> list[_Labels]:
        """Keep *alert* as it is now. Returns what is to be posted: also the end of the labels that it had before."""
        labels, now = _labels_of(alert), time.time()
        before = self._labels.pop(alert.fingerprint, labels)
        if before != labels and (old := self._states.get(before)) is not None:
            self._put(before, old._replace(ends_at=now, until=now + ENDED_S))
        if alert.ends_at is None:
            self._labels[alert.fingerprint] = labels
        until = float("inf") if alert.ends_at is None else now + ENDED_S
        self._put(labels, _State(alert.fingerprint, _annotations_of(alert), alert.starts_at, alert.ends_at, until))
        while len(self._states) > KNOWN_MAX:
            self._drop(next(iter(self._states)))
        return [labels] if before == labels else [before, labels]

    def _put(self, labels: _Labels, state: _State) -> None:
        self._states[labels] = state
        self._news[labels] = None

    def _drop(self, labels: _Labels) -> None:
        self._news.pop(labels, None)
        state = self._states.pop(labels, None)
        if state is not None and self._labels.get(state.fingerprint) == labels:
            del self._labels[state.fingerprint]

    def _begin_to_repeat(self, *, at_once: bool = False) -> None:
        if self._states and not self._closed and (self._repeating is None or self._repeating.done()):
            self._repeating = asyncio.get_running_loop().create_task(
                self._repeat(0.0 if at_once else AGAIN_S), name="pool_monitor alerts to Alertmanager"
            )
            self._repeating.add_done_callback(retrieve_error)

    async def _repeat(self, pause: float) -> None:
        while self._states:
            await asyncio.sleep(pause)
            pause, now = AGAIN_S, time.time()
            for labels in [labels for labels, state in self._states.items() if state.until <= now]:
                self._drop(labels)
            outcome = await self._post([*self._states], {})
            if outcome.result != "sent" and not self._failing:
                logger("alerts").warning("alerts cannot be repeated", receiver=self.where, reason=outcome.reason)
            self._failing = outcome.result != "sent"

    # -- how it is told -----------------------------------------------------------------------------------------------

    async def _post(self, every: Sequence[_Labels], refused: dict[_Labels, Outcome]) -> Outcome:
        """Post *every* state. What Alertmanager does not take as it is gets into *refused*, and is forgotten; to find
        it, a batch is halved. Any other failure ends this.
        """
        parts, halvings = [every[start : start + BATCH] for start in range(0, len(every), BATCH)][::-1], _HALVINGS
        while parts:
            part = parts.pop()
            states = {labels: self._states[labels] for labels in part if labels in self._states}
            outcome, status = await self._request(states)
            if outcome.result == "sent":
                for labels, state in states.items():
                    if self._states.get(labels) is state:
                        self._news.pop(labels, None)
            elif status not in _ABOUT_ITS_ALERTS:
                return outcome
            elif len(part) > 1 and halvings > 0:
                halvings -= 2
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            else:
                for labels in states:
                    refused[labels] = outcome
                    self._drop(labels)
        return SENT

    async def _request(self, states: Mapping[_Labels, _State]) -> tuple[Outcome, int]:
        """Return what came of one post, and the status of the answer; 0: there was none."""
        if not states:
            return SENT, 0
        status = 0

        def write(_key: str) -> Message:
            ends_at = time.time() + ENDS_AFTER_S
            return Message(msgspec.json.encode([_written(labels, state, ends_at) for labels, state in states.items()]))

        def judge(answer: Answer, now: float) -> Outcome:
            nonlocal status
            status = answer.status
            return judged(answer, now)

        async with self._one_at_a_time:
            return await self._client.post(write, judge, path=_PATH), status


_ABOUT_ITS_ALERTS = (400, 413, 422)
"""Statuses that mean that one of the alerts, or their number, is not as it should be."""


def _labels_of(alert: ToldAlert) -> _Labels:
    """Its labels as Alertmanager takes them: names of letters, digits and ``_``, and no empty value."""
    named = {**alert.labels, "severity": alert.severity, "alertname": alert.alertname}
    return tuple(sorted((_name(name), _text(value)) for name, value in named.items() if value))


def _annotations_of(alert: ToldAlert) -> dict[str, str]:
    return {_name(name): _text(value) for name, value in annotations_of(alert).items()}


def _written(labels: _Labels, state: _State, ends_at: float) -> dict[str, Any]:
    if state.ends_at is not None:
        ends_at = max(state.ends_at, state.starts_at + 0.001)  # before its start Alertmanager takes none
    times = {"startsAt": rfc3339(state.starts_at), "endsAt": rfc3339(ends_at)}
    return {"labels": dict(labels), "annotations": state.annotations, **times}


def _name(name: str) -> str:
    name = _NOT_IN_NAMES.sub("_", name)
    return f"_{name}" if name[:1].isdigit() else name


def _text(value: str) -> str:
    return value.encode(errors="replace").decode()
