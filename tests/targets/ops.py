"""Operations that behave well, and ones that do not. Runs in any Python from 3.8."""

# ruff: noqa: PTH109, PTH110, PTH123, SIM105, UP028, UP031, PLW1510 - as plain as a target is, and as old

import asyncio
import atexit
import collections
import itertools
import os
import signal
import struct
import subprocess
import sys
import time


class Unpicklable(Exception):
    """Pickles, and cannot be rebuilt: its constructor needs two arguments."""

    def __init__(self, one, two):
        super().__init__(one)


class Ops:
    # well-behaved

    def echo(self, value=None):
        return value

    def add(self, left, right=1):
        return left + right

    def pid(self):
        return os.getpid()

    def python(self):
        return "%d.%d" % sys.version_info[:2]

    def environment(self, name):
        return os.environ.get(name)

    def directory(self):
        return os.getcwd()

    def text(self, size):
        return "x" * size

    async def later(self, value, seconds=0.0):
        await asyncio.sleep(seconds)
        return value

    def count(self, stop):
        for number in range(stop):
            yield number

    async def count_later(self, stop):
        for number in range(stop):
            await asyncio.sleep(0)
            yield number

    async def pause_after(self, stop, seconds):
        for number in range(stop):
            yield number
        await asyncio.sleep(seconds)

    async def meet(self, others):
        """Return once that many calls are here at the same time."""
        self.here = getattr(self, "here", 0) + 1
        while self.here < others:
            await asyncio.sleep(0.001)
        return self.here

    def tell(self, number, telemetry):
        telemetry.execute(("ops", "told"), {"number": number}, {"what": "a number"})
        telemetry.log("warning", "told a number", number=number)

    def tell_much(self, times, telemetry):
        for _ in range(times):
            telemetry.log("info", "x" * 4000)

    def hold(self, size):
        """Keep that many bytes of memory for good."""
        self.held = [*getattr(self, "held", []), bytearray(os.urandom(1)) * size]

    def list_iterator(self, stop):
        return iter(range(stop))

    # sessions

    def remember(self, word, session):
        session.data.setdefault("words", []).append(word)
        return list(session.data["words"])

    def bump(self, pause=0.0, *, session):
        """Read, wait, write: loses updates when two of one session overlap."""
        number = session.data.get("number", 0)
        time.sleep(pause)
        session.data["number"] = number + 1
        return session.data["number"]

    def hoard(self, size, session):
        session.data["hoard"] = "x" * size

    def ruin(self, session):
        session.data = [1]

    def whose(self, session=None):
        return None if session is None else session.id

    # slow and stubborn

    def sleep(self, seconds):
        time.sleep(seconds)
        return seconds

    def spin(self):
        while True:
            pass

    def stuck_in_c(self):
        collections.deque(itertools.repeat(None), maxlen=0)  # for ever, and no bytecode between

    def stubborn(self, seconds, value):
        """Lets nobody interrupt it, and answers late."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                time.sleep(end - time.monotonic())
            except BaseException:
                pass
        return value

    def until_exists(self, path, value=None):
        while not os.path.exists(path):
            time.sleep(0.005)
        return value

    def count_forever(self, path=None, pause=0.0, size=0):
        """Endless; leaves a file at *path* when it is closed."""
        try:
            for number in itertools.count():
                time.sleep(pause)
                yield number if not size else "x" * size
        finally:
            if path is not None:
                open(path, "w").close()

    async def count_forever_later(self, path):
        try:
            for number in itertools.count():
                await asyncio.sleep(0)
                yield number
        finally:
            open(path, "w").close()

    def count_then_fail(self, stop):
        for number in range(stop):
            yield number
        raise ValueError("no more")

    def count_and_die_once(self, stop, marker):
        for number in range(stop):
            yield number
        if not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

    def count_then_die(self, stop):
        for number in range(stop):
            yield number
        time.sleep(0.1)
        os._exit(3)

    # failures

    def fail(self, text="as asked"):
        raise ValueError(text)

    def fail_with_surrogate(self):
        raise ValueError("half a \ud83d pair")

    def fail_at_length(self, size):
        raise ValueError("\U0001f600" * size)

    def fail_without_words(self):
        class Wordless(Exception):
            def __str__(self):
                raise RuntimeError("no words")

        raise Wordless

    def surrogate(self):
        return "\ud83d"

    def unserialisable(self):
        return object()

    def poison(self):
        return Unpicklable("one", "two")

    def poison_error(self):
        raise Unpicklable("one", "two")

    def leave(self, code=3):
        sys.exit(code)

    def die(self, code=3):
        sys.stderr.write("last words\n")
        sys.stderr.flush()
        os._exit(code)

    def fail_once(self, path):
        if not os.path.exists(path):
            open(path, "w").close()
            raise KeyError("the first time")
        return "done"

    def die_once(self, path):
        """Dies the first time it is run."""
        if not os.path.exists(path):
            open(path, "w").close()
            os._exit(3)
        return "survived"

    def kill_self(self, number=signal.SIGKILL):
        os.kill(os.getpid(), number)
        time.sleep(60)

    def reply_and_die(self, value):
        """Its answer is on the way when the process ends."""
        worker = signal.getsignal(signal.SIGURG).__self__
        worker.channel.send(
            worker.codec.encode(["reply", worker.call_id, worker.codec.pack(value), None, [1, 1, None]])
        )
        os._exit(0)

    def burst(self, stop):
        """A generator whose items and end arrive all at once."""
        worker = signal.getsignal(signal.SIGURG).__self__
        messages = [["item", worker.call_id, number] for number in range(stop)]
        messages.append(["end", worker.call_id, None, None, [1, 1, None]])
        bodies = [worker.codec.encode(message) for message in messages]
        self._say(b"".join(struct.pack(">I", len(body)) + body for body in bodies))
        worker.transmit = lambda _end: delattr(worker, "transmit")  # which has been sent
        return
        yield

    # nonsense on the wire

    def _say(self, data):
        signal.getsignal(signal.SIGURG).__self__.channel._write(data)

    def send_oversized(self):
        self._say(struct.pack(">I", 2**32 - 1) + b"x" * 100000)
        time.sleep(60)

    def send_empty(self):
        self._say(struct.pack(">I", 0))
        time.sleep(60)

    def send_garbage(self):
        self._say(struct.pack(">I", 5) + b"\xc1{{{{")
        time.sleep(60)

    def send_unknown(self):
        worker = signal.getsignal(signal.SIGURG).__self__
        worker.channel.send(worker.codec.encode(["gossip", 1]))
        time.sleep(60)

    def send_truncated(self):
        self._say(struct.pack(">I", 100) + b"x")
        os._exit(0)

    def send_stranger(self):
        """An answer to a call nobody made, then the right one."""
        worker = signal.getsignal(signal.SIGURG).__self__
        worker.channel.send(worker.codec.encode(["reply", 1 << 40, worker.codec.pack("wrong"), None, [1, 1, None]]))
        return "right"

    def nonsense_when_idle(self):
        import threading

        def later():
            time.sleep(0.05)
            self._say(struct.pack(">I", 0))

        threading.Thread(target=later, daemon=True).start()

    def close_everything(self):
        signal.signal(signal.SIGURG, signal.SIG_IGN)  # a ping would find the channel closed, and end the worker first
        os.closerange(3, 256)
        time.sleep(60)

    # noise and company

    def noise(self):
        print("printed")
        os.write(1, b"written\n")
        subprocess.run([sys.executable, "-c", "print('from a child')"])
        sys.stderr.write("complained\n")
        os.write(1, b"\xff\xfe\n")
        return "done"

    def noise_without_end(self, size):
        os.write(1, b"y" * size)
        return "done"

    def flood(self, lines):
        for number in range(lines):
            print("line", number)
        return lines

    def company(self):
        """Starts a process that would outlive this one."""
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid

    def tidy_up_at_exit(self, path, seconds):
        def tidy():
            time.sleep(seconds)
            open(path, "w").close()

        atexit.register(tidy)

    def ignore_sigterm(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
