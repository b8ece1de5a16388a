"""Routes, receivers and inhibitions, as they stand in a file.

A value of a receiver may be a secret. No message here repeats one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pool_monitor.alerts.channels.address_guard import URL_MAX, host_problem, is_loopback, url_problem
from pool_monitor.alerts.routing import (
    LOG,
    AlertmanagerApi,
    AppriseChannel,
    Channel,
    Email,
    FileChannel,
    LogChannel,
    Receiver,
    Route,
    Secret,
    Webhook,
)
from pool_monitor.alerts.rule import Inhibition
from pool_monitor.alerts.rule_file.fields import Either, Entry, Fields, Later, ListOf, MapOf, Section
from pool_monitor.alerts.rule_file.nodes import Node, Problems
from pool_monitor.alerts.rule_file.rules import MATCH, MUTE, matchers
from pool_monitor.alerts.rule_file.scalars import DURATION, ENVIRONMENT, FLAG, LABEL_NAME, LENGTH, NAME, choice, text

RECEIVERS_MAX = 200


def _url(value: str) -> None:
    if problem := url_problem(value):
        raise ValueError(problem)


URL = text("a URL, such as https://hooks.example/alerts", most=URL_MAX, check=_url)
_HEADER_VALUE = text(
    "a text in one line, without characters that cannot be printed", r"[ -~\u00a1-\u00ff]+", most=2048, secret=True
)
SECRET_FILE = text("an absolute path, such as /run/secrets/hook", r"/.*", most=1024, secret=True)
HEADER = Section(
    "header_variable",
    "an environment variable or a file",
    (
        Entry("env", ENVIRONMENT, "The environment variable that has the value."),
        Entry("file", SECRET_FILE, "The file that has the value. It is read for each message."),
    ),
    lambda fields: Secret(variable=fields.get("env"), file=fields.get("file")),
    one_of=("env", "file"),
    kinds="secret",
    secret=True,
)
_HEADER = Either(_HEADER_VALUE, HEADER)


class _Header:
    """A value, ``{env: NAME}`` or ``{file: PATH}``."""

    words = "a text, {env: NAME} or {file: PATH}"

    def read(self, node: Node, place: str, problems: Problems) -> Secret:
        value = _HEADER.read(node, place, problems)
        return value if isinstance(value, Secret) else Secret(value)

    def schema(self, definitions: dict[str, Any]) -> dict[str, Any]:
        return _HEADER.schema(definitions)


HEADERS = MapOf(
    text("the name of a header", r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", most=100, secret=True),
    _Header(),
    "a mapping of headers, such as {Authorization: {env: OPS_TOKEN}}",
    secret=True,
)
_URL_KEYS = (
    Entry("url", URL, "Where messages go. It is never shown."),
    Entry("url_env", ENVIRONMENT, "The environment variable that has the URL."),
    Entry("url_file", SECRET_FILE, "The file that has the URL. It is read for each message."),
)
_URL_NAMES = tuple(key.name for key in _URL_KEYS)
_HEADERS_KEY = Entry("headers", HEADERS, "More headers; a value is a text, `{env: NAME}` or `{file: PATH}`.")


def _secret_url(fields: Fields) -> Secret:
    return Secret(fields.get("url"), fields.get("url_env"), fields.get("url_file"))


def _webhook(fields: Fields) -> Webhook:
    keys = [name for name in ("secret_env", "secret_file") if name in fields]
    if len(keys) > 1:
        fields.wrong(keys[1], "stands beside secret_env; needs one of the two")
    if fields.get("format") == "pagerduty" and not keys:
        fields.wrong("", "has no secret_env with the routing key, which PagerDuty asks for", warning=True)
    return Webhook(
        url=_secret_url(fields),
        format=fields.get("format", "native"),
        secret_env=fields.get("secret_env"),
        secret_file=fields.get("secret_file"),
        headers=fields.get("headers", ()),
    )


WEBHOOK = Section(
    "webhook",
    "a webhook",
    (
        *_URL_KEYS,
        Entry(
            "format",
            choice(("native", "alertmanager", "slack", "pagerduty"), secret=True),
            "The body: `native` (default), `alertmanager`, `slack` or `pagerduty`.",
        ),
        Entry(
            "secret_env",
            ENVIRONMENT,
            "The environment variable that has the key which signs the body; for `pagerduty` the routing key.",
        ),
        Entry("secret_file", SECRET_FILE, "The file that has this key. It is read for each message."),
        _HEADERS_KEY,
    ),
    _webhook,
    one_of=_URL_NAMES,
    kinds="webhook",
    secret=True,
)
ALERTMANAGER = Section(
    "alertmanager",
    "a running Alertmanager",
    (*_URL_KEYS, _HEADERS_KEY),
    lambda fields: AlertmanagerApi(url=_secret_url(fields), headers=fields.get("headers", ())),
    one_of=_URL_NAMES,
    kinds="receiver of this kind",
    secret=True,
)
_ADDRESS = text("an address of e-mail, such as ops@example.org", r"[^@\s]+@[^@\s]+", most=254, secret=True)
_SERVER = text("a host and a port, such as smtp.example.org:587", r"[^\s:@/]+:[0-9]{1,5}", most=260, secret=True)


def _email(fields: Fields) -> Email:
    host, _, port = fields.get("smtp", "localhost:25").rpartition(":")
    if not 1 <= int(port) <= 65_535:
        fields.wrong("smtp", "has a port that does not exist; needs 1 to 65535")
    passwords = [name for name in ("password_env", "password_file") if name in fields]
    if len(passwords) != ("user_env" in fields):
        fields.wrong("", "needs user_env and one of password_env and password_file, or none of them")
    if fields.get("tls") == "none" and passwords and not is_loopback(host):
        fields.wrong("tls", "is none, and without TLS a password is never sent to another machine")
    if problem := host_problem(host):
        fields.wrong("smtp", problem)
    return Email(
        to=fields.get("to", ()),
        host=host,
        port=int(port),
        sender=fields.get("from"),
        user_env=fields.get("user_env"),
        password_env=fields.get("password_env"),
        password_file=fields.get("password_file"),
        tls=fields.get("tls"),
    )


EMAIL = Section(
    "email",
    "an e-mail",
    (
        Entry("to", ListOf(_ADDRESS, "a list of addresses", at_least=1, at_most=50), "Who gets it.", required=True),
        Entry("smtp", _SERVER, "The server: its host and port.", required=True),
        Entry("from", _ADDRESS, "The sender. Default: the first of `to`."),
        Entry("user_env", ENVIRONMENT, "The environment variable that has the user of the server."),
        Entry("password_env", ENVIRONMENT, "The environment variable that has its password."),
        Entry("password_file", SECRET_FILE, "The file that has its password. It is read for each message."),
        Entry(
            "tls",
            choice(("starttls", "implicit", "none"), secret=True),
            "`starttls` (needs the server to offer it), `implicit` (from the first byte on) or `none`. Default: "
            "`implicit` on port 465; on others STARTTLS where the server offers it.",
        ),
    ),
    _email,
    secret=True,
)


def _service_url(value: str) -> None:
    if "://" not in value or not value.isprintable():
        raise ValueError("is not a URL of apprise; needs one such as mailtos://user:password@example.org")


APPRISE = Section(
    "apprise",
    "a service that apprise knows",
    (
        Entry(
            "url",
            text("a URL of apprise, such as tgram://TOKEN/CHAT", most=2048, check=_service_url),
            "The service, as apprise writes it. It is never shown.",
        ),
        *_URL_KEYS[1:],
    ),
    lambda fields: AppriseChannel(url=_secret_url(fields)),
    one_of=_URL_NAMES,
    kinds="receiver of this kind",
    secret=True,
)
CHANNELS = ("webhook", "email", "alertmanager", "apprise", "file", "log")


def _receiver(fields: Fields) -> Receiver:
    channel: Channel = next((fields.get(name) for name in CHANNELS[:4] if fields.get(name) is not None), LogChannel())
    if "file" in fields:
        channel = FileChannel(path=fields.get("file", ""))
    if fields.get("log") is False:
        fields.wrong("log", "is false; leave it out, and name another channel")
    if fields.get("name") == LOG.name:
        fields.wrong("name", "log is the receiver that is always there; choose another name")
    return Receiver(
        name=fields.get("name", ""),
        channel=channel,
        fallback=fields.get("fallback", ()),
        page=fields.get("page", False),
    )


_NAMES = ListOf(NAME, "a list of receivers, such as [log]", at_most=10, single=True)
RECEIVER = Section(
    "receiver",
    "a receiver",
    (
        Entry("name", NAME, "Its name for routes. `log` is always there.", required=True),
        Entry("webhook", WEBHOOK, "Messages go to a URL."),
        Entry("email", EMAIL, "Messages go by e-mail."),
        Entry("alertmanager", ALERTMANAGER, "Alerts go to a running Alertmanager."),
        Entry("apprise", APPRISE, "Messages go to a service that apprise knows. Needs the extra `notify`."),
        Entry(
            "file", text("the path of a file", most=1024), "Messages are appended to a file, one JSON object a line."
        ),
        Entry("log", FLAG, "Messages go to the log of the service."),
        Entry("fallback", _NAMES, "The receivers that are told when this one cannot be."),
        Entry("page", FLAG, "Its messages are never put together to a digest. Default: `false`."),
    ),
    _receiver,
    one_of=CHANNELS,
    kinds="receiver",
    secret=True,
)
RECEIVERS = ListOf(RECEIVER, "a list of receivers", at_most=RECEIVERS_MAX, named=True)


def _route(fields: Fields) -> Route:
    if ("escalate_after" in fields) is not ("escalate_to" in fields):
        fields.wrong("", "has one of escalate_after and escalate_to; needs both, or none")
    return Route(
        receiver=fields.get("receiver"),
        match=matchers(fields.get("match", ())),
        group_by=fields.get("group_by"),
        group_wait=fields.get("group_wait"),
        group_interval=fields.get("group_interval"),
        repeat_interval=fields.get("repeat_interval"),
        escalate_after=fields.get("escalate_after"),
        escalate_to=fields.get("escalate_to"),
        mute=fields.get("mute", ()),
        goes_on=fields.get("continue", False),
        routes=fields.get("routes", ()),
    )


_ROUTES = ListOf(Later("a route", lambda: ROUTE), "a list of routes", at_most=200, named=True)
_GROUP_BY = ListOf(LABEL_NAME, "a list of labels, such as [alertname]", at_most=20)
ROUTE: Section = Section(
    "route",
    "a route",
    (
        Entry("receiver", NAME, "Who is told. Default: the receiver of the route above."),
        Entry("match", MATCH, "Shell patterns for labels: the alerts that it is for. The first route has none."),
        Entry("group_by", _GROUP_BY, "Alerts with the same values of these labels are told together."),
        Entry("group_wait", DURATION, "How long the first message waits for more alerts. Default: `30s`."),
        Entry("group_interval", LENGTH, "Least time between two messages about changes. Default: `5m`."),
        Entry("repeat_interval", LENGTH, "After how long it is told again. Default: `4h`."),
        Entry("escalate_after", LENGTH, "After how long without an acknowledgement another receiver is told."),
        Entry("escalate_to", NAME, "That receiver."),
        Entry("mute", MUTE, "Times of the week in which nothing is told."),
        Entry("continue", FLAG, "Whether the routes after it are tried too. Default: `false`."),
        Entry("routes", _ROUTES, "Routes for some of the alerts. The first that matches is taken."),
    ),
    _route,
)


def _inhibition(fields: Fields) -> Inhibition:
    return Inhibition(
        one=matchers(fields.get("source", ())),
        target=matchers(fields.get("target", ())),
        equal=fields.get("equal", ()),
    )


_SOME = MapOf(MATCH.key, MATCH.of, "a mapping of labels and patterns, such as {severity: critical}", at_least=1)
INHIBITION = Section(
    "inhibition",
    "an inhibition",
    (
        Entry("source", _SOME, "An alert that fires and matches this inhibits others.", required=True),
        Entry("target", _SOME, "Those that match this are inhibited.", required=True),
        Entry("equal", _GROUP_BY, "Labels whose values must agree. One that both do not have agrees."),
    ),
    _inhibition,
)
INHIBIT = ListOf(INHIBITION, "a list of inhibitions", at_most=200)


def misdirected(
    route: Route | None, receivers: tuple[Receiver | None, ...], known: frozenset[str]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each name of a receiver that does not exist, with its place: under ``route`` or ``receivers``.

    *known* has the names of all receivers of the service. What could not be read is None.
    """
    missing = 'there is no receiver "{}"; the receivers are ' + ", ".join(sorted(known))
    if route is not None and route.receiver is None:
        yield ("route",), "has no receiver; the first route needs one"
    if route is not None and route.match:
        yield ("route", "match"), "the first route is for every alert and has no match; put it into one of its routes"
    for path, one in _every(("route",), route):
        for key, name in (("receiver", one.receiver), ("escalate_to", one.escalate_to)):
            if name is not None and name not in known:
                yield (*path, key), missing.format(name)
    for index, receiver in enumerate(receivers):
        for number, name in enumerate(receiver.fallback if receiver is not None else ()):
            assert receiver is not None
            if name not in known:
                yield ("receivers", index, "fallback", number), missing.format(name)
            elif name == receiver.name:
                yield ("receivers", index, "fallback", number), "is the receiver itself; name another one"


def named_receivers(route: Route | None, receivers: tuple[Receiver | None, ...]) -> set[str]:
    """Return the names of the receivers that are told of anything."""
    names = {name for _, one in _every((), route) for name in (one.receiver, one.escalate_to) if name is not None}
    return names | {name for receiver in receivers if receiver is not None for name in receiver.fallback}


def labels_named(route: Route | None, inhibit: tuple[Inhibition, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each label that is matched, grouped by or compared, with its place: under ``route`` or ``inhibit``."""
    for path, one in _every(("route",), route):
        yield from (((*path, "match", matcher.label), matcher.label) for matcher in one.match)
        yield from (((*path, "group_by", number), label) for number, label in enumerate(one.group_by or ()))
    for index, inhibition in enumerate(inhibit):
        for key, some in (("source", inhibition.one), ("target", inhibition.target)):
            yield from ((("inhibit", index, key, matcher.label), matcher.label) for matcher in some)
        yield from ((("inhibit", index, "equal", number), label) for number, label in enumerate(inhibition.equal))


def _every(path: tuple[str | int, ...], route: Route | None) -> Iterator[tuple[tuple[str | int, ...], Route]]:
    if route is not None:
        yield path, route
        for index, one in enumerate(route.routes):
            yield from _every((*path, "routes", index), one)
