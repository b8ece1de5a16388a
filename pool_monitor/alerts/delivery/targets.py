"""Which receivers an alert belongs to, and in which group of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pool_monitor.alerts.overlays.mute import is_muted, local_time
from pool_monitor.alerts.pattern import LabelMatch
from pool_monitor.alerts.routing import LOG, AlertmanagerApi, Receiver, Route
from pool_monitor.alerts.rule import Matcher, MuteTime

GROUP_WAIT, GROUP_INTERVAL, REPEAT_INTERVAL = 30.0, 300.0, 4 * 3600.0
"""Defaults, as Alertmanager's. Seconds."""
GROUP_BY = ("alertname",)
STATES_INTERVAL, NEVER = 60.0, 1e9
"""Of a receiver that groups and repeats by itself: how often a group is looked at, and told again. Seconds."""


class GroupOptions(NamedTuple):
    """How a route tells. Seconds."""

    group_by: tuple[str, ...] = GROUP_BY
    group_wait: float = GROUP_WAIT
    group_interval: float = GROUP_INTERVAL
    repeat_interval: float = REPEAT_INTERVAL
    escalate_after: float | None = None
    escalate_to: str | None = None
    mute: tuple[MuteTime, ...] = ()
    prompt: bool = False
    """Whether a change is told when it happens, and not at the group's next time."""

    def muted(self, at: float) -> bool:
        """Whether a mute time lasts *at* this time, seconds since the epoch."""
        return bool(self.mute) and is_muted(self.mute, local_time(at))


_DEFAULTS = GroupOptions()


class Target(NamedTuple):
    """A receiver that has to be told of an alert."""

    receiver: str
    group_key: str
    group_labels: Mapping[str, str]
    options: GroupOptions
    cause: str = ""
    """Why the alert is in a group of this receiver: empty: a route says so; escalated; fallback."""
    about: str = ""
    """*cause* in words, such as whom nobody acknowledged it at."""

    def passed_on(self, receiver: str, cause: str, about: str) -> Target:
        """Return the target of *receiver* that alerts of this one join because of *cause*, without waiting."""
        options = self.options._replace(group_wait=0.0, escalate_after=None, escalate_to=None)
        return Target(receiver, f"{self.group_key}!{cause}:{self.receiver}", self.group_labels, options, cause, about)


class Routing(NamedTuple):
    """Who is told: the route tree of all rule files, and the receivers by name."""

    route: Route | None = None
    """None: nobody is told."""
    receivers: Mapping[str, Receiver] = {LOG.name: LOG}


def routing_of(route: Route | None, receivers: Iterable[Receiver]) -> Routing:
    """Return the routing of the files of a service, which have this route tree and these receivers."""
    return Routing(route, {one.name: one for one in (LOG, *receivers)})


def targets_of(routing: Routing, alertname: str, labels: Mapping[str, str]) -> Sequence[Target]:
    """Return who has to be told of an alert with these *labels* (with ``severity``). As Alertmanager: depth first, the
    first route that matches, and the ones after it only where it says ``continue``.
    """
    if routing.route is None:
        return ()
    every = {**labels, "alertname": alertname}
    return [
        _target(path, receiver, _options(routing.receivers.get(receiver), options, every), every)
        for path, receiver, options in _walk(routing.route, every)
    ]


def _walk(
    route: Route, labels: Mapping[str, str], path: str = "", receiver: str = LOG.name, above: GroupOptions = _DEFAULTS
) -> Iterator[tuple[str, str, GroupOptions]]:
    path = f"{path}/{_written(route.match)}" if path else _written(route.match)
    receiver = route.receiver or receiver
    options = GroupOptions(
        above.group_by if route.group_by is None else route.group_by,
        above.group_wait if route.group_wait is None else route.group_wait,
        above.group_interval if route.group_interval is None else route.group_interval,
        above.repeat_interval if route.repeat_interval is None else route.repeat_interval,
        above.escalate_after if route.escalate_after is None else route.escalate_after,
        above.escalate_to if route.escalate_to is None else route.escalate_to,
        route.mute,
    )
    matched = False
    for child in route.routes:
        if LabelMatch(child.match)(labels):
            matched = True
            yield from _walk(child, labels, path, receiver, options)
            if not child.goes_on:
                break
    if not matched:
        yield path, receiver, options


def _options(receiver: Receiver | None, options: GroupOptions, labels: Mapping[str, str]) -> GroupOptions:
    """A running Alertmanager has groups of its own: it is told of each alert alone, at once, and its sender repeats."""
    if receiver is None or not isinstance(receiver.channel, AlertmanagerApi):
        return options
    return options._replace(
        group_by=tuple(sorted(labels.keys() - {"severity"})),
        group_wait=0.0,
        group_interval=STATES_INTERVAL,
        repeat_interval=NEVER,
        prompt=True,
    )


def _target(path: str, receiver: str, options: GroupOptions, labels: Mapping[str, str]) -> Target:
    group = {name: labels[name] for name in sorted(options.group_by) if name in labels}
    return Target(receiver, f"{path}:{_quoted(group)}", group, options)


def _written(match: Sequence[Matcher]) -> str:
    return _quoted({matcher.label: matcher.value for matcher in match})


def _quoted(labels: Mapping[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def routes_of(route: Route, path: str = "", receiver: str = LOG.name) -> Iterator[tuple[str, str]]:
    """Yield the path of each route from *route* down, as group keys begin, and its receiver."""
    path = f"{path}/{_written(route.match)}" if path else _written(route.match)
    receiver = route.receiver or receiver
    yield path, receiver
    for child in route.routes:
        yield from routes_of(child, path, receiver)
