"""What a hostile worker does: sessions, drawn from a seed.

A `Session` is one worker's. It is told what the service sends and gives the `Move`s that follow: the same seed and the
same messages give the same moves. No I/O and no clock. Standard library only.

A *theme* is a way to be hostile. A session has one to three, so that what it does hangs together; between them it is
honest, more or less. It begins with a handshake, which may be hostile already, and has one of the ends at the bottom.
"""

from __future__ import annotations

import random
import signal
import struct
from collections.abc import Callable
from typing import Any

from tests.hostile.encoding import ENDLESS, HALF_A_PAIR, Pairs, Payload, encode
from tests.hostile.messages import ANSWERS, OPERATIONS, OTHERS, PARENTS, Asked, Moment, Move, frame, tag

STAGES = ("hello", "constructor", "operation")
"""When the worker turns hostile: before its first word, while it loads the target, or in the middle of a call."""
AT_ONCE = 12  # messages twisted in one play, at most
FLOOD_BYTES = 24 << 20
OUTBOX, OUTBOX_END = 4096, 65536
AREA_LIMIT = 8 << 20


class Session(Moment):
    """A hostile worker's. *marker* is the file that a program leaves which is run where it may not be."""

    def __init__(self, seed: int, number: int, marker: str = "/nonexistent") -> None:
        super().__init__(seed, number)
        rng = self.rng
        self.marker = marker
        self.stage = rng.choices(STAGES, (6, 2, 2))[0]
        self.themes = rng.sample(sorted(THEMES), rng.randint(1, 3))
        self.plays = rng.randint(1, 8)  # how often it is hostile before it ends
        self.honesty = rng.choice((0.0, 0.3, 0.7))  # share of calls it answers as it should
        self.ending = rng.choices(sorted(ENDINGS), [ENDINGS[name][0] for name in sorted(ENDINGS)])[0]
        self.shared = False  # it makes use of the memory it shares with the service
        self.begun = 0
        self.ended = False

    def hello(self, offer: dict[str, Any], shared: bool) -> list[Move]:
        """The service has said hello. *shared*: there is memory to share."""
        self.offer, self.shared = offer, shared
        codec = self.rng.choice(offer["codecs"])
        hello = {"type": "hello", "protocol": 1, "codec": codec, "python": "hostile 1", "shared": shared}
        if self.rng.random() < 0.3:
            moves = self.rng.choice(GREETINGS)(self, hello)
        else:
            moves = [self.say("hello", hello)]
            self.codec = codec
        return moves

    def took_over(self, codec: str, frame_limit: int, shared: bool) -> None:
        """Another shook hands for it."""
        self.codec, self.offer, self.shared = codec, {"frame_limit": frame_limit}, shared

    def ready(self) -> list[Move]:
        """The service has said what to load."""
        if self.rng.random() < 0.3:
            return self.rng.choice(LOADINGS)(self)
        return [self.say("ready", ["ready", OPERATIONS])]

    def react(self, message: Any) -> list[Move]:
        """The service has said something."""
        self.note(message)
        kind = message[0]
        if kind == "ping" and self.rng.random() < 0.7:
            return [self.say("pong", self.pong())]
        if kind == "call" and self.rng.random() < self.honesty:
            return self._honest_answer(self.open[message[1]])
        return self.play()

    def play(self) -> list[Move]:
        """Nothing was said for a while, or it is time."""
        if self.plays <= 0:
            self.ended = True
            return ENDINGS[self.ending][1](self)
        self.plays -= 1
        return THEMES[self.rng.choice(self.themes)](self)

    def _honest_answer(self, asked: Asked) -> list[Move]:
        self.begun += 1
        moves = [Move("poke", "memory", False, struct.pack("=Q", self.begun))] if self.shared else []
        if asked.stream:
            moves += [self.say("item", self.item(asked)) for _ in range(3)]
        self.done(asked.id)
        return [*moves, self.say("end" if asked.stream else "reply", self.answer(asked))]

    @property
    def area(self) -> int:
        return (min(self.offer["frame_limit"], AREA_LIMIT) + 4095) // 4096 * 4096


# -- themes -------------------------------------------------------------------------------------------------------

Theme = Callable[[Session], list[Move]]
THEMES: dict[str, Theme] = {}


def theme(function: Theme) -> Theme:
    THEMES[function.__name__] = function
    return function


@theme
def twisted_messages(session: Session) -> list[Move]:
    """Every kind there is, each with one thing changed."""
    moves = []
    for _ in range(session.rng.randint(1, AT_ONCE)):
        kind = session.rng.choice((*ANSWERS, *ANSWERS, *OTHERS, "unknown"))
        moves.append(session.say(kind, session.twist(session.right(kind)), twisted=True))
    return session.together(moves)


@theme
def strange_ids(session: Session) -> list[Move]:
    """Right messages about calls that cannot be meant; and the right ones once more."""
    moves = []
    for _ in range(session.rng.randint(1, AT_ONCE)):
        kind = session.rng.choice(ANSWERS)
        message = session.right(kind)
        if session.rng.random() < 0.8:
            message[1] = session.wrong_id()
            if kind in ("reply", "item"):
                message[2] = Payload(session.value(message[1]))
        else:
            moves.append(session.say(kind, message))
            session.done(message[1])
        moves.append(session.say(kind, message, twisted=True))
    return session.together(moves)


@theme
def untimely_messages(session: Session) -> list[Move]:
    """Right, at some other moment, or from the other side."""
    kinds = session.rng.choices(("hello", "ready", "unknown", *PARENTS), k=session.rng.randint(1, AT_ONCE))
    return session.together([session.say(kind, session.right(kind), twisted=True) for kind in kinds])


@theme
def wild_payloads(session: Session) -> list[Move]:
    """Well-formed answers whose values are anything; each for another call, as long as there are any."""
    moves = []
    for call in [*session.open.values()][:AT_ONCE] or [Asked(session.an_open(), -1, False, None)]:
        value = Payload([*tag(call.number, session.number), session.odd()])
        if call.stream:
            moves.append(session.say("item", ["item", call.id, value], twisted=True))
            continue
        data = None if session.rng.random() < 0.8 else Payload({"of": call.session, "odd": session.odd()})
        moves.append(session.say("reply", ["reply", call.id, value, data, session.times()], twisted=True))
        session.done(call.id)
    return session.together(moves)


@theme
def other_codecs(session: Session) -> list[Move]:
    """A body in another codec; or one that, were it unpickled, would run a program. In codec pickle a worker is trusted
    so far, and there are none.
    """
    kind = session.rng.choice((*ANSWERS, *OTHERS))
    codec = session.rng.choice([name for name in ("json", "msgpack", "pickle") if name != session.codec])
    bodies = [encode(codec, session.right(kind))]
    if session.codec != "pickle":
        explosive = bomb(session.marker)
        bodies += [explosive, encode(session.codec, ["reply", session.an_open(), explosive, explosive, [1, 1, 0]])]
    return [Move("write", kind, True, frame(session.rng.choice(bodies)))]


@theme
def broken_bytes(session: Session) -> list[Move]:
    """Frames that are none."""
    rng = session.rng
    body = encode(session.codec, session.right(rng.choice((*ANSWERS, *OTHERS))))
    whole = frame(body)
    limit = session.offer["frame_limit"]
    ways: list[Callable[[], bytes]] = [
        lambda: frame(b""),
        lambda: struct.pack(">I", rng.choice((limit + 1, 2**31, 2**32 - 1))) + body,
        lambda: whole[: rng.randrange(len(whole))] + whole,
        lambda: struct.pack(">I", len(body) + 1) + body,
        lambda: struct.pack(">I", len(body) - 1) + body,
        lambda: whole[: rng.randrange(1, len(whole))],  # and then nothing, until something else comes
        lambda: frame(rng.randbytes(rng.choice((1, 4, 100, 60_000)))),
        lambda: rng.randbytes(rng.choice((1, 3, 5, 1000))),
    ]
    if session.codec != "pickle":  # a pickle with a bit changed may ask for any amount of memory
        ways += [lambda: flipped(rng, whole), lambda: frame(flipped(rng, body))] * 3
    data = rng.choice(ways)()
    if rng.random() < 0.3:  # in pieces
        at = sorted(rng.sample(range(len(data) + 1), min(3, len(data) + 1)))
        pieces = [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]
        return [Move("write", "bytes", True, piece, count=not number) for number, piece in enumerate(pieces)]
    return [Move("write", "bytes", True, data)]


@theme
def stream_games(session: Session) -> list[Move]:
    """Floods of items, whoever reads; items after the end; an end without a stream."""
    rng = session.rng
    item = session.item()
    if rng.random() < 0.05:
        item[2] = Payload([*session.value(item[1]), "x" * rng.choice((100, 10_000, 60_000))])
        one = frame(encode(session.codec, item))
        return [Move("flood", "item", True, one, count=max(1, FLOOD_BYTES // len(one)))]
    moves = [session.say("item", item) for _ in range(rng.choice((1, 5, 200)))]
    if rng.random() < 0.5:
        moves.append(session.say("end", ["end", item[1], None, None, session.times()]))
        session.done(item[1])
        moves += [session.say("item", item, twisted=True), session.say("reply", session.reply(), twisted=True)]
    return session.together(moves)


@theme
def session_data(session: Session) -> list[Move]:
    """Answers with what is no session's data, or too much of it."""
    calls = [call for call in session.open.values() if call.session] or [Asked(session.an_open(), -1, False, "s")]
    call = session.rng.choice(calls)
    odd = session.odd()
    big = "x" * session.rng.choice((1000, 70_000, 250_000))
    data = session.rng.choice(
        [odd, {"of": call.session, "odd": odd}, {"of": call.session, "big": big}, [], "", 0, False]
    )
    tree = ["reply", call.id, Payload(tag(call.number, session.number)), Payload(data), session.times()]
    session.done(call.id)
    return [session.say("reply", tree, twisted=True)]


@theme
def shared_memory(session: Session) -> list[Move]:
    """What lies in the memory that both sides have mapped."""
    rng = session.rng
    if not session.shared:
        return [session.say("lent", ["lent", rng.choice((1, 200_000))], twisted=True)]
    return rng.choice((_counters, _outbox, _lend, _lend, _scribble, _resize))(session)


def _counters(session: Session) -> list[Move]:
    word = session.rng.choice((0, 1, 2**32, 2**63, 2**64 - 1, session.rng.randrange(100)))
    return [Move("poke", "memory", True, struct.pack("=Q", word), session.rng.choice((0, 8)))]


def _outbox(session: Session) -> list[Move]:
    """Held-back answers, right and wrong; they are found when it dies."""
    rng = session.rng
    frames = []
    for _ in range(rng.randint(1, AT_ONCE)):
        message = session.right(rng.choice((*ANSWERS, "pong", "event", "lent", "unknown")))
        if rng.random() < 0.6:
            message = session.twist(message)
        if rng.random() < 0.3:
            message = ["reply", session.wrong_id(), Payload(1), None, session.times()]
        frames.append(frame(encode(session.codec, message)))
    data = b"".join(frames)[: OUTBOX_END - OUTBOX]
    if rng.random() < 0.2:
        data = rng.randbytes(200)
    if rng.random() < 0.2 and session.codec != "pickle":
        data = flipped(rng, data)
    length = len(data) if rng.random() < 0.7 else rng.choice((0, 3, len(data) - 1, 2**32, 2**64 - 1, OUTBOX_END))
    moves = [
        Move("poke", "outbox", True, data, OUTBOX, count=len(frames)),
        Move("poke", "memory", True, struct.pack("=Q", length), 8),
    ]
    if rng.random() < 0.5:
        moves.append(Move("leave", "process", True, number=0))
    return moves


def _lend(session: Session) -> list[Move]:
    """Messages in its area, as many as it likes, of any length; or it takes back what is lent while it is read."""
    rng = session.rng
    message = session.right(rng.choice((*ANSWERS, *OTHERS)))
    body = encode(session.codec, session.twist(message) if rng.random() < 0.5 else message)
    length = rng.choice((len(body), len(body), len(body), 0, 1, -1, len(body) - 1, 2**31, 2**64 - 1, session.area))
    moves = [Move("poke", "memory", True, body[: session.area], OUTBOX_END + session.area)]
    offset = rng.choice(
        ([], [], [0], [1], [-1], [session.area], [session.area - len(body)], [2**64 - 1], ["0"], [True])
    )
    moves += [session.say("lent", ["lent", length, *offset], twisted=True)] * rng.choice((1, 1, 2, 50))
    if rng.random() < 0.3:
        moves.append(Move("poke", "memory", True, rng.randbytes(len(body[: session.area])), OUTBOX_END + session.area))
    return moves


def _scribble(session: Session) -> list[Move]:
    """Over everything that is mapped, and what was lent is returned, whether it was or not."""
    rng = session.rng
    at = rng.choice((0, 16, OUTBOX, OUTBOX_END, OUTBOX_END + session.area))
    moves = [Move("poke", "memory", True, rng.randbytes(rng.choice((8, 4096))), at)]
    return [*moves, session.say("returned", ["returned"], twisted=True)]


def _resize(session: Session) -> list[Move]:
    """The file itself shrinks, grows, or can no longer change."""
    rng = session.rng
    number = rng.choice((0, 4096, OUTBOX_END, 1 << 30))
    moves = [Move(rng.choice(("resize", "resize", "seal", "punch")), "memory", True, number=number)]
    return [*moves, session.say("lent", ["lent", rng.choice((1, 200_000))], twisted=True)]


@theme
def telling(session: Session) -> list[Move]:
    """Events, lines and signs of life nobody asked for: with extreme values, and very many."""
    rng = session.rng
    kind = rng.choice(("event", "log", "dropped", "pong"))
    message = session.right(kind)
    wild = {
        "event": lambda: ["event", ["hostile", *["x" * 1000] * 3], {"n": session.odd()}, {"pool": session.odd()}],
        "log": lambda: [
            "log",
            "critical",
            rng.choice(("\x1b]0;x\x07", "x" * 200_000, HALF_A_PAIR)),
            {"a": session.odd()},
        ],
        "dropped": lambda: ["dropped", rng.choice((2**31, 2**63 - 1, 2**64 - 1, ENDLESS, True, 0, -5))],
        "pong": lambda: ["pong", rng.choice((session.token, 2**63)), session.wrong_id(), rng.choice((-5, 2**64 - 1))],
    }
    if rng.random() < 0.7:
        return [session.say(kind, wild[kind](), twisted=True)]
    one = frame(encode(session.codec, message))
    return [Move("flood", kind, True, one, count=rng.choice((100, 3000)))]


@theme
def large_errors(session: Session) -> list[Move]:
    """Exceptions with very much to say."""
    room = min(session.offer["frame_limit"] // 4, 2 << 20)
    text = "x" * session.rng.choice((100_000, room))
    message = ["error", session.an_open(), session.rng.choice(("operation", "nothing known", "")), text, text, text]
    session.done(message[1])
    return [session.say("error", [*message, session.times()], twisted=True)]


@theme
def process_games(session: Session) -> list[Move]:
    """What a process can do to itself."""
    rng = session.rng
    games = [
        Move("deafen"),
        Move("join", number=rng.randrange(3)),
        Move("fork", number=rng.choice((0.05, 0.5, 2.0))),
        Move("close", number=rng.randrange(5)),
        Move("stop"),
        Move("leave", number=rng.choice((0, 1, 3, 255))),
        Move("kill", number=rng.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT))),
        Move("sleep", number=rng.choice((0.01, 0.1, 1.0))),
    ]
    weights = (4, 4, 2, 2, 1, 2, 2, 2)
    move = rng.choices(games, weights)[0]._replace(kind="process", twisted=True)
    if move.act in ("deafen", "join", "fork"):  # and goes on
        return [move, *THEMES[rng.choice(sorted(THEMES))](session)]
    return [move]


@theme
def printing(session: Session) -> list[Move]:
    """On stdout and stderr, which are the service's to read."""
    rng = session.rng
    text = rng.choice(
        (b"\xff\xfe\0\n", b"x" * 300_000, b"\n" * 10_000, b"\x1b[2J\x9b\r", frame(b'["reply",1,1,null,[1,1,0]]'))
    )
    return [Move("print", "print", True, text, rng.choice((1, 2)))]  # fmt: skip


def flipped(rng: random.Random, data: bytes) -> bytes:
    """Some bits of it changed."""
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 3, 10))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def bomb(marker: str) -> bytes:
    """A pickle that leaves a file where it is unpickled."""
    return b"cbuiltins\nexec\n(Vopen(%r, 'w').close()\ntR." % marker


# -- handshakes ---------------------------------------------------------------------------------------------------


def _no_such_codec(session: Session, hello: dict[str, Any]) -> list[Move]:
    """Chooses what was not offered; what follows would go off, were it believed."""
    hello["codec"] = session.rng.choice(("pickle", "yaml", "", None, [], {}, 1, True, "JSON", ["json"]))
    moves = [session.say("hello", hello, twisted=True)]
    if "pickle" not in session.offer["codecs"]:
        moves += [Move("write", "bytes", True, frame(bomb(session.marker)))] * 2
    return moves


def _no_hello(session: Session, hello: dict[str, Any]) -> list[Move]:
    move = session.say("hello", session.twist(hello), twisted=True)
    session.codec = hello["codec"]  # should it be believed
    return [move]


def _hello_twice(session: Session, hello: dict[str, Any]) -> list[Move]:
    return [session.say("hello", hello, twisted=True)] * session.rng.choice((2, 100))


def _ready_before(session: Session, hello: dict[str, Any]) -> list[Move]:
    """It is ready before it knows for what."""
    session.codec = hello["codec"]
    early = session.say("ready", ["ready", OPERATIONS], twisted=True)
    session.codec = "json"
    first = session.say("hello", hello)
    session.codec = hello["codec"]
    return session.rng.choice(([early, first], [first, early], [first, early, early]))


def _lies_about_memory(session: Session, hello: dict[str, Any]) -> list[Move]:
    hello["shared"] = session.rng.choice((True, False, 1, "yes", None, []))
    move = session.say("hello", hello, twisted=True)
    session.codec = hello["codec"]
    return [move]


def _answers_first(session: Session, hello: dict[str, Any]) -> list[Move]:
    kind = session.rng.choice((*ANSWERS, *OTHERS))
    moves = [session.say(kind, session.right(kind), twisted=True), session.say("hello", hello)]
    session.codec = hello["codec"]
    return moves


def _long_hello(session: Session, hello: dict[str, Any]) -> list[Move]:
    hello["python"] = session.rng.choice(("x" * 200_000, HALF_A_PAIR, ["3"], None, "\x1b[2J\0"))
    move = session.say("hello", hello, twisted=True)
    session.codec = hello["codec"]
    return [move]


GREETINGS = (_no_such_codec, _no_hello, _hello_twice, _ready_before, _lies_about_memory, _answers_first, _long_hello)


def _odd_kinds(session: Session) -> list[Move]:
    kinds = {**OPERATIONS, session.rng.choice(("echo", "more")): session.odd()}
    return [session.say("ready", ["ready", kinds], twisted=True)]


def _odd_names(session: Session) -> list[Move]:
    names = Pairs((*OPERATIONS.items(), (session.odd(), "function"), ("x" * 100_000, "function")))
    return [session.say("ready", ["ready", names], twisted=True)]


def _very_many(session: Session) -> list[Move]:
    room = min(100_000, session.offer["frame_limit"] // 32)
    names = {**OPERATIONS, **{f"operation {number}": "generator" for number in range(room)}}
    return [session.say("ready", ["ready", names], twisted=True)]


def _none_or_others(session: Session) -> list[Move]:
    return [
        session.say(
            "ready", ["ready", session.rng.choice(({}, {"echo": "generator"}, {"x": "function"}))], twisted=True
        )
    ]


def _not_ready(session: Session) -> list[Move]:
    kind = session.rng.choice(("ready", "error", "hello", *ANSWERS))
    return [session.say(kind, session.twist(session.right(kind)), twisted=True)]


def _cannot_load(session: Session) -> list[Move]:
    text = session.rng.choice(("", "x" * 50_000, session.odd()))
    message = ["error", session.rng.choice((0, 0, 0, 1, None)), "operation", "ImportError", text, text, [0, 0, None]]
    return [session.say("error", message, twisted=True)]


def _plays_while_it_loads(session: Session) -> list[Move]:
    return [*session.play(), session.say("ready", ["ready", OPERATIONS])]


def _ready_again(session: Session) -> list[Move]:
    return [session.say("ready", ["ready", OPERATIONS], twisted=True)] * 2


LOADINGS = (
    _odd_kinds,
    _odd_names,
    _very_many,
    _none_or_others,
    _not_ready,
    _cannot_load,
    _plays_while_it_loads,
    _plays_while_it_loads,
    _ready_again,
)


# -- ends ---------------------------------------------------------------------------------------------------------


def _leave(session: Session) -> list[Move]:
    return [Move("leave", "process", True, number=session.rng.choice((0, 0, 1, 3)))]


def _half_a_frame(session: Session) -> list[Move]:
    """And then it ends, or is silent."""
    data = frame(encode(session.codec, session.right("reply")))
    half = Move("write", "bytes", True, data[: session.rng.randrange(1, len(data))])
    return [half, *session.rng.choice((_leave, _fall_silent))(session)]


def _fall_silent(session: Session) -> list[Move]:
    return [Move("sleep", "process", True, number=60)]


def _close_the_channel(session: Session) -> list[Move]:
    return [Move("close", "process", True, number=session.rng.choice((0, 3, 4))), *_fall_silent(session)]


def _close_all(session: Session) -> list[Move]:
    return [Move("close", "process", True, number=2), *_fall_silent(session)]


def _stop(session: Session) -> list[Move]:
    return [Move("stop", "process", True)]


def _die(session: Session) -> list[Move]:
    return [Move("kill", "process", True, number=signal.SIGKILL)]


def _break_off(session: Session) -> list[Move]:
    """With something the service cannot bear."""
    return [Move("write", "bytes", True, frame(b"")), Move("sleep", "process", True, number=60)]


ENDINGS: dict[str, tuple[int, Theme]] = {
    "leave": (6, _leave),
    "half a frame": (3, _half_a_frame),
    "silence": (1, _fall_silent),
    "close": (2, _close_the_channel),
    "close all": (1, _close_all),
    "stop": (1, _stop),
    "die": (4, _die),
    "break off": (6, _break_off),
}
