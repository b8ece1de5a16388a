"""One operation that is quick until it is told to go wrong, in every way known; and ordinary work for a long run.

That `act` is one operation matters: whatever a pool has learned of it (that it is quick, say) it has learned before.
Little is imported here: a worker has to find what it needs when things are bad already, and many are started.
"""

# ruff: noqa: PTH123, PTH208, SIM105, SIM115 - as plain as a target is

import collections
import fcntl
import itertools
import os
import re
import resource
import signal
import stat
import sys
import threading
import time
from pathlib import Path


class TwoArguments(Exception):
    """Pickles, and cannot be rebuilt: its constructor needs two arguments."""

    def __init__(self, one, two):
        super().__init__(one)


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class RudelyWordless(Exception):
    def __str__(self):
        raise SystemExit("no words, and no manners")


class _NamelessType(type):
    @property
    def __name__(cls):
        raise RuntimeError("no name")


class Nameless(Exception, metaclass=_NamelessType):
    pass


class Bomb:
    """Goes off where it is unpickled."""

    def __init__(self, program):
        self.program = program

    def __reduce__(self):
        return exec, (self.program,)


class Stdout:
    """What a careless target puts in the place of sys.stdout."""

    def write(self, text):
        return len(text)

    def flush(self):
        raise RuntimeError("not today")


def leave(path, number):
    """Have a file *path* with the number; there is never half of it."""
    new = Path(path + ".new")
    new.write_text(f"{number}\n")
    new.rename(path)


def channels():
    """What the pool is spoken to by, whatever it is called: pipes that are written here and read elsewhere, and are
    neither stdout nor stderr.
    """
    here, written = set(), {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            kind, mode = os.fstat(fd), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:
            continue  # the descriptor of the listing itself
        if stat.S_ISFIFO(kind.st_mode) and mode == os.O_RDONLY:
            here.add(kind.st_ino)
        elif stat.S_ISFIFO(kind.st_mode) and fd > 2:
            written[fd] = kind.st_ino
    found = [fd for fd, pipe in written.items() if pipe not in here]
    assert found, "no channel"
    return found


class Faults:
    def act(self, value, fault="", *more):
        return getattr(self, "_" + fault)(value, *more) if fault else value

    async def act_later(self, value, fault="", *more):
        """The same as a coroutine; ``await`` sleeps in it, ``await_on`` lets nobody cancel it."""
        import asyncio

        if not fault.startswith("await"):
            return self.act(value, fault, *more)
        leave(more[0], os.getpid())
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                if fault == "await":
                    raise

    def items(self, stop, fault="", *more):
        """The numbers below *stop*; then the fault."""
        yield from range(stop)
        if fault:
            yield self.act(stop, fault, *more)

    async def items_later(self, stop, fault="", *more):
        import asyncio

        for number in range(stop):
            await asyncio.sleep(0)
            yield number
        if fault:
            yield await self.act_later(stop, fault, *more)

    def turn(self, fault="", *more, session):
        """Counts in its session; then the fault."""
        session.data["number"] = session.data.get("number", 0) + 1
        return self.act(session.data["number"], fault, *more)

    def _begun(self, value, path, fault, *more):
        """Leaves this process's number in the file *path*; then the fault."""
        if fault == "hash_in_c":
            import hashlib  # noqa: F401 - an import can be interrupted
        leave(path, os.getpid())
        return self.act(value, fault, *more)

    def _until(self, value, path):
        """Takes until there is a file *path*."""
        while not Path(path).exists():
            time.sleep(0.002)
        return value

    # ends of the process

    def _exit(self, value, code):
        sys.stderr.write("last words\n")
        sys.stderr.flush()
        os._exit(code)

    def _abort(self, value):
        os.abort()

    def _signal(self, value, number):
        os.kill(os.getpid(), number)
        time.sleep(600)

    def _segfault(self, value):
        import ctypes

        ctypes.string_at(0)

    # exceptions

    def _system_exit(self, value):
        sys.exit(3)

    def _interrupt(self, value):
        raise KeyboardInterrupt

    def _two_arguments(self, value):
        raise TwoArguments("one", "two")

    def _wordless(self, value):
        raise Wordless

    def _rudely_wordless(self, value):
        raise RudelyWordless

    def _nameless(self, value):
        raise Nameless("no name")

    def _recurse(self, value):
        return self._recurse(value)

    def _no_memory(self, value):
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, hard))
        try:
            return bytearray(1 << 34)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    def _no_descriptors(self, value):
        """Runs out of descriptors, and holds on to them while its exception goes out."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        self.held = []
        while True:
            self.held.append(open("/dev/null"))

    def _ask_stdin(self, value):
        return input()

    # results

    def _thing(self, value):
        return threading.Lock()

    def _too_large(self, value, size):
        return "x" * size

    def _circle(self, value):
        circle = []
        circle.append(circle)
        return circle

    def _half_a_pair(self, value):
        return "\ud83d"

    def _two_arguments_result(self, value):
        return TwoArguments("one", "two")

    def _bomb(self, value, program):
        return Bomb(program)

    def _deep(self, value, depth):
        """Nested so deep that it can be packed here and not be unpacked there."""
        sys.setrecursionlimit(100_000)
        deep = []
        for _ in range(depth):
            deep = [deep]
        return deep

    # that which does not end

    def _sleep(self, value, seconds=600):
        time.sleep(seconds)
        return value

    def _spin(self, value):
        while True:
            pass

    def _stuck_in_c(self, value):
        collections.deque(itertools.repeat(None), maxlen=0)  # no bytecode, and the interpreter lock held

    def _hash_in_c(self, value):
        import hashlib

        hashlib.pbkdf2_hmac("sha256", b"p", b"s", 2**31 - 1)  # no bytecode, and the interpreter lock free

    def _power(self, value):
        return 3 ** (10**9) % 7

    def _match(self, value):
        return bool(re.match(r"(a+)+$", "a" * 60 + "b"))

    def _stubborn(self, value, seconds=600):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                time.sleep(end - time.monotonic())
            except BaseException:
                pass
        return value

    def _stop(self, value):
        os.kill(os.getpid(), signal.SIGSTOP)

    # bytes on the pool's own channel

    def _say(self, value, data, then="sleep", *more):
        for fd in channels():
            os.write(fd, bytes.fromhex(data))
        self.act(value, then, *more)

    def _close_all(self, value):
        signal.signal(signal.SIGURG, signal.SIG_IGN)  # a ping would find the channel closed, and end the worker first
        os.closerange(3, 4096)
        time.sleep(600)

    # the process's furniture

    def _close_standard(self, value):
        for fd in range(3):
            os.close(fd)
        return value

    def _flush_fails(self, value):
        sys.stdout = Stdout()
        return value

    def _noise(self, value):
        """Writes to stdout and stderr in every way, a process of its own included."""
        import subprocess

        print("printed")
        os.write(1, b"\x00\x00\x00\x05\xc1{{{{\n")
        os.write(2, b"\xff\xfe\n")
        subprocess.run([sys.executable, "-S", "-c", "print('inherited')"], check=True)
        return value

    def _no_stdout(self, value):
        del sys.stdout, sys.stderr
        return value

    def _deaf(self, value, then="", *more):
        """Hears no signal from now on that can be ignored; then the fault."""
        for number in (signal.SIGURG, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        return self.act(value, then, *more)

    def _thread(self, value):
        """Leaves a thread behind that the interpreter would wait for."""
        threading.Thread(target=time.sleep, args=(600,)).start()
        return value

    def _lose_the_way(self, value, then="", *more):
        """Takes away all that a process finds its files by; then the fault."""
        os.environ.clear()
        sys.path.clear()
        sys.path_importer_cache.clear()
        os.chdir("/")
        return self.act(value, then, *more)

    def _error(self, value, text):
        raise ValueError(text)

    def _fork(self, value):
        """Two processes return from here."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the second
        os.fork()
        return value

    def _company(self, value, path, then="", *more):
        """Starts a process that would outlive this one, leaves its number in the file *path*; then the fault."""
        import subprocess

        pid = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid
        leave(path, pid)
        return self.act(value, then, *more)


class Work:
    """Ordinary operations, of a few milliseconds at most."""

    def quick(self, value):
        return value

    def nap(self, value, seconds):
        time.sleep(seconds)
        return value

    def burn(self, value, seconds):
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return value

    async def later(self, value, seconds):
        import asyncio

        await asyncio.sleep(seconds)
        return value

    def items(self, stop):
        yield from range(stop)

    def bump(self, seconds=0.0, *, session):
        """Reads, waits, writes: two of one session at once would lose one."""
        number = session.data.get("number", 0)
        time.sleep(seconds)
        session.data["number"] = number + 1
        return number + 1
