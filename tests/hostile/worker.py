"""The process of a hostile worker: does what its `Session` says, on a channel it took from an honest one or was given.

There are three doors. ``zygote`` preloads this module, which then waits for each worker where it would begin;
``command`` runs it as a worker of its own; ``exec`` loads the target only. Which session a process plays, or that it is
honest, it draws from the field (`Field`), a directory shared with the driver. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.encoding import decode
from tests.hostile.grammar import Session
from tests.hostile.messages import KINDS, Move

FIELD = "HOSTILE_FIELD"
SERVICE = "HOSTILE_SERVICE"  # the number of its process
DRAWN = "HOSTILE_DRAWN"
RECORD = struct.Struct("=IHHI")  # session, kind, how it was sent (`SENT`), how many
SENT = ("", "*", "~")  # right, twisted, in a flood
DRAW = struct.Struct("=6q")  # seed, next session, sessions left, step to the one after, share of the honest, draws
CHILD = Path(__file__).resolve().parents[2] / "pool_monitor/pool/transport/child/__main__.py"
LIFE_S = 1.5  # no hostile process lives longer, whatever it did to itself
HONEST_S = 0.3  # nor do honest ones in a war: so there is always another
PATIENCE_S = 0.01  # without a message, after which it plays by itself


class Field:
    """Where workers draw what they are, and leave word of what they do. Three files: the draw, who was what, how many
    messages were sent.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.marker = str(self.path / "a program ran here")

    def lay(self, seed: int) -> None:
        for name in ("draw", "roster", "journal", "slips"):
            (self.path / name).touch()
        self.set(seed, 0, 0, 1, 0)

    def set(self, seed: int, first: int, count: int, step: int, honest: int) -> None:
        """War: *count* sessions from *first*, each *step* further, and every *honest*-th process is honest (0: none).
        When no session is left, all are: peace.
        """
        with self._locked() as file:
            file.write(DRAW.pack(seed, first, count, step, honest, 0))

    def left(self) -> int:
        return int(DRAW.unpack((self.path / "draw").read_bytes())[2])

    def draw(self) -> tuple[int, int | None, bool]:
        """The seed, the session to play (None: be honest), and whether there is war."""
        with self._locked() as file:
            seed, number, count, step, honest, draws = DRAW.unpack(file.read())
            if not count:
                return seed, None, False
            file.seek(0)
            draws += 1
            if honest and not draws % honest:
                file.write(DRAW.pack(seed, number, count, step, honest, draws))
                return seed, None, True
            file.write(DRAW.pack(seed, number + step, count - 1, step, honest, draws))
            return seed, number, True

    @contextlib.contextmanager
    def _locked(self) -> Any:
        with (self.path / "draw").open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def sign(self, session: int | None) -> None:
        """This process is that session; -1: honest."""
        self.append("roster", f"{os.getpid()} {-1 if session is None else session}\n".encode())

    def append(self, name: str, data: bytes) -> None:
        fd = os.open(self.path / name, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)


# -- turning hostile ----------------------------------------------------------------------------------------------

_session: Session | None = None  # this process's, unless it is honest
_drawn = _war = False


def draw() -> Session | None:
    """What this process is: drawn once."""
    global _session, _drawn, _war
    if not _drawn:
        _drawn = True
        field = Field(os.environ[FIELD])
        if DRAWN in os.environ:  # before this process ran another program
            seed, number, war = json.loads(os.environ[DRAWN])
        else:
            seed, number, war = field.draw()
            field.sign(number)
            os.environ[DRAWN] = json.dumps([seed, number, war])
        if number is not None:
            limit_life(LIFE_S)
            _session = Session(seed, number, field.marker)
        _war = war
    return _session


def limit_life(seconds: float) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def begin(honest: Callable[[], Any]) -> None:
    """A worker's program, from its beginning."""
    session = draw()
    if session is None or session.stage != "hello":
        honest()
        return
    reads, lifeline = (int(os.environ[name]) for name in ("POOL_MONITOR_FD", "POOL_MONITOR_LIFELINE"))
    writes = int(os.environ.get("POOL_MONITOR_OUT", reads))
    tie_life_to(lifeline)
    shared = os.environ.get("POOL_MONITOR_SHARED")
    hostile = Hostile(session, (reads, writes), lifeline, None if shared is None else int(shared))
    hostile.run(hostile.greet)


def turn(stage: str) -> None:
    """An honest worker's own code has come this far. Does not return if this is where it turns."""
    session = draw()
    if session is None and _war and stage == "constructor":
        limit_life(HONEST_S)
    if session is None or (session.stage != stage and not (stage == "constructor" and session.stage == "hello")):
        return
    worker = _worker_above()
    link = worker.channel.link
    os.set_blocking(link.writes, True)
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    hostile = Hostile(session, (os.dup(link.reads), os.dup(link.writes)), -1, None)
    hostile.memory = None if worker.shared is None else worker.shared.map
    hostile.unread = b"".join(struct.pack(">I", len(body)) + bytes(body) for body in worker.channel.frames)
    session.took_over(worker.codec.name, worker.channel.limit, hostile.memory is not None)
    hostile.run(hostile.load if stage == "constructor" else hostile.serve)


def _worker_above() -> Any:
    """The worker whose code runs further down the stack."""
    frame = sys._getframe()
    while frame is not None:
        worker = frame.f_locals.get("self")
        if hasattr(worker, "channel") and hasattr(worker, "codec"):
            return worker
        frame = frame.f_back
    raise LookupError("no worker")


def tie_life_to(fd: int) -> None:
    """As an honest worker does."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)


# -- being hostile ------------------------------------------------------------------------------------------------


class Gone(Exception):
    """The service is, or does not listen any more."""


class Hostile:
    """Reads messages, asks the session for moves, and makes them: each move's *act* is a method here."""

    def __init__(self, session: Session, channel: tuple[int, int], lifeline: int, shared: int | None) -> None:
        self.session, self.lifeline, self.shared = session, lifeline, shared
        self.reads, self.writes = channel  # the same where it is a socket
        self.memory: mmap.mmap | None = None
        self.unread = b""
        self.gathered: list[bytes] = []
        self.field = Field(os.environ[FIELD])

    def run(self, part: Callable[[], None]) -> None:
        """Play from *part* on, to the end of the process."""
        try:
            part()
        except (Gone, OSError):
            pass
        except BaseException:  # it is to be hostile, not wrong
            slip = f"session {self.session.number}: {traceback.format_exc()}"
            self.field.append("slips", slip.encode(errors="replace"))
        os._exit(0)

    def greet(self) -> None:
        offer = self.receive(None, "json")
        if self.shared is not None:
            with contextlib.suppress(OSError, ValueError):
                self.memory = mmap.mmap(self.shared, 0)
        self.play(self.session.hello(offer, self.memory is not None))
        self.load()

    def load(self) -> None:
        if self.session.stage == "hello" and self.receive(1.0, self.session.codec) is None:
            os._exit(0)
        self.play(self.session.ready())
        self.serve()

    def serve(self) -> None:
        while True:
            message = self.receive(PATIENCE_S, self.session.codec)
            self.play(self.session.play() if message is None else self.session.react(message))

    def play(self, moves: list[Move]) -> None:
        for move in moves:
            if move.kind:
                sent = SENT.index("~" if move.act == "flood" else "*" if move.twisted else "")
                record = RECORD.pack(self.session.number, KINDS.index(move.kind), sent, move.count)
                self.field.append("journal", record)
            getattr(self, move.act)(move)

    def receive(self, patience: float | None, codec: str) -> Any:
        """The next message; None when none has come in time."""
        while True:
            if len(self.unread) >= 4:
                (length,) = struct.unpack_from(">I", self.unread)
                if len(self.unread) >= 4 + length:
                    body, self.unread = self.unread[4 : 4 + length], self.unread[4 + length :]
                    message = self.read(codec, body)
                    if message[0] != "lent" if isinstance(message, list) else True:
                        return message
                    return self.borrow(message[1], codec)
            if not select.select([self.reads], [], [], patience)[0]:  # OSError where it has closed it
                return None
            data = os.read(self.reads, 1 << 20)
            if not data:
                raise Gone
            self.unread += data

    @staticmethod
    def read(codec: str, body: bytes) -> Any:
        """A message. The service may have understood another codec than was meant."""
        try:
            return decode(codec, body)
        except Exception:
            raise Gone from None

    def borrow(self, length: int, codec: str) -> Any:
        if self.memory is None:
            raise Gone
        message = self.read(codec, self.memory[65536 : 65536 + length])
        self.play([self.session.say("returned", ["returned"])])
        return message

    # moves

    def gather(self, move: Move) -> None:
        self.gathered.append(move.data)

    def write(self, move: Move) -> None:
        self.send(b"".join([*self.gathered, move.data]))
        self.gathered.clear()

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.writes, data) :]

    def flood(self, move: Move) -> None:
        """As fast as the channel takes it; a quarter of its life at most."""
        end = time.monotonic() + LIFE_S / 4
        at_once = move.data * max(1, min(move.count, 65536 // len(move.data)))
        for _ in range(max(1, move.count * len(move.data) // len(at_once))):
            if time.monotonic() > end:
                break
            self.send(at_once)

    def poke(self, move: Move) -> None:
        if self.memory is not None:
            with contextlib.suppress(IndexError, ValueError):
                self.memory[int(move.number) : int(move.number) + len(move.data)] = move.data

    def resize(self, move: Move) -> None:
        if self.shared is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self.shared, int(move.number))

    def seal(self, move: Move) -> None:
        if self.shared is not None:
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.shared, fcntl.F_ADD_SEALS, 0x1F)

    def punch(self, move: Move) -> None:
        if self.memory is not None:
            with contextlib.suppress(OSError, ValueError):
                self.memory.madvise(9, 0, 65536)  # MADV_REMOVE

    def print(self, move: Move) -> None:
        os.set_blocking(int(move.number), False)
        with contextlib.suppress(OSError):
            os.write(int(move.number), move.data)

    def sleep(self, move: Move) -> None:
        time.sleep(move.number)

    def deafen(self, move: Move) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGURG, signal.SIGCHLD, signal.SIGIO):
            signal.signal(number, signal.SIG_IGN)

    def join(self, move: Move) -> None:
        """Leave its process group: for its parent's, the service's, or a worker's that has died."""
        service = int(os.environ[SERVICE])
        with contextlib.suppress(OSError):
            os.setpgid(0, os.getpgid((os.getppid(), service, service)[int(move.number)]))

    def fork(self, move: Move) -> None:
        """Leave a process with all its descriptors behind."""
        if not os.fork():
            time.sleep(move.number)
            os._exit(0)

    def close(self, move: Move) -> None:
        """The channel, the life-line, everything, or the channel one way."""
        if move.number == 2:
            os.closerange(0, 256)
        for fd in ({self.reads, self.writes}, {self.lifeline}, (), {self.reads}, {self.writes})[int(move.number)]:
            os.close(fd)

    def stop(self, move: Move) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def leave(self, move: Move) -> None:
        os._exit(int(move.number))

    def kill(self, move: Move) -> None:
        signal.signal(int(move.number), signal.SIG_DFL) if move.number != signal.SIGKILL else None
        os.kill(os.getpid(), int(move.number))
        time.sleep(60)


def lie_in_wait() -> None:
    """In a zygote that preloads this: be there when a worker begins."""
    process = sys.modules.get("_pool_monitor_child.process")
    if process is not None:
        honest = process.main
        process.main = lambda: begin(honest)


if __name__ == "__main__":
    from tests.hostile import worker  # the module that the target finds too

    worker.begin(lambda: os.execv(sys.executable, [sys.executable, str(CHILD)]))
else:
    lie_in_wait()
