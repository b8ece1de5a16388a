"""The messages of a worker: right ones, for the moment they are sent in, and the same twisted.

No I/O and no clock; all that is random comes from the session's seed. Standard library only.
"""

from __future__ import annotations

import random
import struct
import zlib
from typing import Any, NamedTuple

from tests.hostile.encoding import (
    BAD_TEXT,
    ENDLESS,
    HALF_A_PAIR,
    INFINITY,
    NAN,
    UNFINISHED,
    Ext,
    Pairs,
    Payload,
    encode,
    nested,
    nested_dicts,
    payload,
)

OPERATIONS = {"echo": "function", "items": "generator", "later": "function", "turn": "function"}
"""What the honest workers beside it can do."""
ANSWERS = ("reply", "end", "item", "error", "recalled")
OTHERS = ("pong", "event", "log", "dropped", "lent", "returned")
PARENTS = ("init", "call", "recall", "cancel", "pause", "resume", "ping", "stop")
KINDS = (*ANSWERS, *OTHERS, *PARENTS, "hello", "ready", "unknown", "bytes", "outbox", "memory", "process", "print")


class Move(NamedTuple):
    """One thing a worker does. *act* names a method of `worker.Hostile`; *count* is how many messages it is."""

    act: str
    kind: str = ""
    twisted: bool = False
    data: bytes = b""
    number: float = 0
    count: int = 1


class Asked(NamedTuple):
    """A call that the session has received. *number* is the caller's own."""

    id: int
    number: int
    stream: bool
    session: str | None


def odd_values(rng: random.Random) -> list[Any]:
    """Values that nobody expects, wherever they stand."""
    return [
        *(None, True, False, 0, -1, 1.5, -0.0, 1e308, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1),
        *(-(2**63), ENDLESS, NAN, INFINITY, 10**30),
        *("", "x", "\0", "a\r\n\x1b[2J\u202e", "1", "reply", BAD_TEXT, HALF_A_PAIR),
        "\u00e9" * rng.choice((1, 4096, 100_000)),
        *([], [[]], [1, 2, 3], [None] * 1000, {}, {"a": 1}, {"": None}, b"", b"bytes"),
        *(Pairs(((["key"], 1),)), Pairs((({}, 1),)), Pairs((("a", 1), ("a", 2))), Pairs(((1, 1), (None, 2)))),
        *(Ext(5, b"x"), Ext(-1, b"bad time"), Ext(-1, b"\xff" * 12), UNFINISHED),
        nested(rng.choice((50, 500, rng.randint(900, 1100), 20_000))),
        nested_dicts(rng.choice((50, 500, rng.randint(900, 1100)))),
    ]  # fmt: skip


class Moment:
    """What a worker knows of its calls, and the messages it can make of that. *codec* is what it has chosen, *offer*
    the service's hello.
    """

    def __init__(self, seed: int, number: int) -> None:
        self.number = number
        self.rng = random.Random(f"{seed} {number}")
        self.codec = "json"
        self.offer: dict[str, Any] = {}
        self.open: dict[int, Asked] = {}
        self.answered: list[int] = []
        self.cancelled: list[int] = []
        self.recalled: list[int] = []
        self.token = 0

    def note(self, message: Any) -> None:
        kind = message[0]
        if kind == "call":
            _, call_id, _, packed, stream, session = message
            (number, *_), _ = payload(self.codec, packed)
            self.open[call_id] = Asked(call_id, number, stream, session[0] if session else None)
        elif kind == "cancel":
            self.cancelled.append(message[1])
        elif kind == "recall":
            self.recalled += message[1]
        elif kind == "ping":
            self.token = message[1]

    def done(self, call_id: int) -> None:
        if self.open.pop(call_id, None) is not None:
            self.answered.append(call_id)

    # -- right messages -------------------------------------------------------------------------------------------

    def value(self, call_id: Any) -> list[Any]:
        """What tells whose answer it is: the caller's number, or -1 where it was not asked."""
        asked = self.open.get(call_id) if type(call_id) is int else None
        return tag(-1 if asked is None else asked.number, self.number)

    def an_open(self) -> int:
        return self.rng.choice([*self.open] or [1])

    def answer(self, asked: Asked | None = None) -> list[Any]:
        call_id = self.an_open() if asked is None else asked.id
        asked = asked or self.open.get(call_id)
        if asked is not None and asked.stream:
            return ["end", call_id, None, None, self.times()]
        data = None if asked is None or asked.session is None else Payload({"of": asked.session})
        value = self.value(call_id) if asked is None else tag(asked.number, self.number)
        return ["reply", call_id, Payload(value), data, self.times()]

    def reply(self) -> list[Any]:
        call_id = self.an_open()
        return ["reply", call_id, Payload(self.value(call_id)), None, self.times()]

    def end(self) -> list[Any]:
        return ["end", self.an_open(), None, None, self.times()]

    def item(self, asked: Asked | None = None) -> list[Any]:
        streams = [call for call in self.open.values() if call.stream]
        call_id = asked.id if asked is not None else self.rng.choice(streams).id if streams else self.an_open()
        return ["item", call_id, Payload([*self.value(call_id), self.rng.randrange(10)])]

    def error(self) -> list[Any]:
        kind = self.rng.choice(("operation", "payload", "cancelled"))
        return ["error", self.an_open(), kind, "Hostility", "as I like", "", self.times()]

    def times(self) -> list[Any]:
        return [self.rng.choice((0, 1000, 10**9)), self.rng.choice((None, 0)), None]

    def pong(self) -> list[Any]:
        return ["pong", self.token, self.rng.choice([None, *self.open]), self.rng.choice((None, 10_000_000))]

    def right(self, kind: str) -> list[Any]:
        """A message of that kind, as it could be right now."""
        own = {"reply": self.reply, "end": self.end, "item": self.item, "error": self.error, "pong": self.pong}
        if kind in own:
            return own[kind]()
        return {
            "recalled": lambda: ["recalled", self.an_open()],
            "event": lambda: ["event", ["hostile", "event"], {"count": 1}, {"session": self.number}],
            "log": lambda: ["log", self.rng.choice(("debug", "info", "critical")), "a line", {"a": 1}],
            "dropped": lambda: ["dropped", self.rng.randint(1, 9)],
            "lent": lambda: ["lent", self.rng.choice((1, 200_000))],
            "returned": lambda: ["returned"],
            "init": lambda: ["init", "module", [], Payload([[], {}]), {"concurrency": 1}],
            "call": lambda: ["call", self.an_open(), "echo", Payload([[1], {}]), False, None],
            "recall": lambda: ["recall", [self.an_open()]],
            "hello": lambda: {"type": "hello", "protocol": 1, "codec": self.codec, "python": "3.11.7"},
            "ready": lambda: ["ready", OPERATIONS],
            "unknown": lambda: [self.rng.choice(("", "REPLY", "reply ", "exit", "eval")), 1, 2, 3],
        }.get(kind, lambda: [kind, self.an_open()])()

    # -- twisting -------------------------------------------------------------------------------------------------

    def odd(self) -> Any:
        return self.rng.choice(odd_values(self.rng))

    def twist(self, tree: Any) -> Any:
        """The tree with one thing changed, somewhere."""
        rng = self.rng
        if isinstance(tree, Payload):
            return Payload(self.twist(tree.value)) if rng.random() < 0.9 else self.odd()
        if isinstance(tree, dict) and tree and rng.random() < 0.9:
            changed = dict(tree)
            key = rng.choice([*tree])
            if rng.random() < 0.3:
                del changed[key]
            elif rng.random() < 0.3:
                return Pairs((*tree.items(), (self.odd(), 1)))
            else:
                changed[key] = self.twist(tree[key])
            return changed
        if type(tree) is not list or not tree or rng.random() < 0.05:
            return self.odd()
        changed = list(tree)
        at = rng.randrange(len(tree))
        way = rng.random()
        if way < 0.1:
            del changed[at]
        elif way < 0.2:
            changed.insert(at, self.odd())
        elif way < 0.25:
            rng.shuffle(changed)
        elif way < 0.3:
            changed = changed * 2
        else:
            changed[at] = self.twist(tree[at]) if rng.random() < 0.6 else self.odd()
        return changed

    def wrong_id(self) -> Any:
        """The id of no call that could be answered now; it may not even be one."""
        known = [*self.answered, *self.cancelled, *self.recalled]
        highest = max([*self.open, *self.answered, 1])
        near = [highest + self.rng.randint(-20, 20) for _ in range(4)]  # of other workers, perhaps
        odd = [0, -1, True, 1.0, str(highest), None, [highest], [], {}, Ext(5, b""), 2**63, 2**64 - 1, ENDLESS]
        return self.rng.choice(self.rng.choice([known or near, near, near, odd]))

    # -- into moves -----------------------------------------------------------------------------------------------

    def say(self, kind: str, tree: Any, *, twisted: bool = False) -> Move:
        return Move("write", kind, twisted, frame(encode(self.codec, tree)))

    def together(self, moves: list[Move]) -> list[Move]:
        """The same, mostly as few large writes; the counts stay each kind's."""
        if len(moves) < 2 or any(move.act != "write" for move in moves) or self.rng.random() < 0.2:
            return moves
        *before, last = moves
        return [*(move._replace(act="gather") for move in before), last]


def tag(number: int, session: int) -> list[Any]:
    """A value that says which call it is for, by the caller's number, and which session it is from; and that it is
    whole, since it may be twisted on its way.
    """
    return ["hostile", number, session, zlib.crc32(f"{number} {session}".encode())]


def is_tag(value: Any) -> bool:
    return type(value) is list and len(value) >= 4 and value[:4] == tag(value[1], value[2])


def frame(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body
