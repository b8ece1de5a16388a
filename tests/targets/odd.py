"""Operations that give back odd things, or interfere with their process. Runs in any Python from 3.8."""

# ruff: noqa: PTH110, PTH115, PTH123, UP031 - as plain as a target is, and as old

import asyncio
import collections
import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import time


@dataclasses.dataclass(frozen=True)
class Point:
    x: int = 1


def nested(depth):
    inner = []
    for _ in range(depth - 1):
        inner = [inner]
    return inner


def echo(value=None, **_more):
    return value


def pid():
    return os.getpid()


async def later(seconds, value=None):
    await asyncio.sleep(seconds)
    return value


# results without a form on the other side


def by_point(more=None):
    return [{Point(): 1}, more]


def nest(depth):
    return nested(depth)


def points(before):
    yield from range(before)
    yield {Point(): 1}
    yield "never"


def keep_point(*, session):
    session.data["points"] = {Point(): 1}


def keep(depth, *, session):
    session.data["kept"] = nested(depth)


def kept(*, session):
    return session.data


# its own process


def cut_memory():
    """Make every file it has open 0 bytes long."""
    cut = 0
    for fd in range(3, 300):
        try:
            os.ftruncate(fd, 0)
            cut += 1
        except OSError:
            pass
    return cut


def leave_group(where, path):
    """Join another process group, then stay in C code that nothing can interrupt."""
    os.setpgid(0, os.getpgid(os.getppid()) if where == "parent" else 0)
    open(path, "w").close()
    collections.deque(itertools.repeat(None), maxlen=0)


def company():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]).pid


def blocked_signals():
    return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))


def nap(seconds):
    time.sleep(seconds)


def terminate_child():
    """How long a process of its own takes to end when it is asked to: its exit code."""
    process = subprocess.Popen(["sleep", "30"])
    process.terminate()
    return process.wait(5)


# copies


def fork(how):
    """Fork; the copy ends in the way that *how* says. Its exit code."""
    copy = os.fork()
    if copy:
        return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    return _end(how)


def _end(how):
    if how == "raise":
        raise ValueError("in the copy")
    if how == "exit":
        sys.exit(3)
    if how == "exit with words":
        sys.exit("words of the copy")
    if how == "_exit":
        os._exit(4)
    return "of the copy"


def _fork_in_c():
    import ctypes

    return ctypes.PyDLL(None).fork()


def fork_in_c(how):
    """The same, of which Python knows nothing."""
    copy = _fork_in_c()
    if copy:
        return os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
    return _end(how)


def fork_in_c_between():
    copy = _fork_in_c()
    if not copy:
        yield "of the copy"
        return
    yield os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


async def fork_later(how):
    copy = os.fork()
    if copy:
        while True:
            done, status = os.waitpid(copy, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            await asyncio.sleep(0.005)
    if how == "await":
        await asyncio.sleep(0)
    return _end(how)


def fork_between(how):
    copy = os.fork()
    if not copy:
        yield "of the copy"
        _end(how)
        return
    yield os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])


# things to iterate over, and to wait for


class Chunks:
    """As clients of language models have them: neither a generator nor closed with aclose."""

    def __init__(self, count):
        self.left = count

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        await asyncio.sleep(0)
        return self.left


class Countdown:
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(range(self.count - 1, -1, -1))


async def chunks(count):
    return Chunks(count)


def chunks_now(count):
    return Chunks(count)


def countdown(count):
    return Countdown(count)


def iterator(count):
    return iter(range(count - 1, -1, -1))


def container(count):
    return list(range(count))


class Promise:
    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.value


def promise(value):
    return Promise(value)


def stop_iteration():
    raise StopIteration("enough")


def run_a_loop(how):
    coroutine = asyncio.sleep(0, 5)
    try:
        if how == "run":
            return asyncio.run(coroutine)
        loop = asyncio.get_event_loop() if how == "running" else asyncio.new_event_loop()
        return loop.run_until_complete(coroutine)
    finally:
        coroutine.close()


def close_all_descriptors():
    os.closerange(3, 4096)


# what happens beside an operation


def note(path, number):
    with open(path, "a") as file:
        file.write(f"{number}\n")


class Forking(Exception):
    forked = False

    def __str__(self):
        if not Forking.forked:
            Forking.forked = True
            os.fork()
        return "from whichever process this is"


def raise_and_fork():
    raise Forking


async def cancel_all_tasks():
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()


# the channel


def _link():
    return signal.getsignal(signal.SIGURG).__self__.channel.link


def kinds_of_descriptors():
    """What the worker speaks through: the kinds of what it reads from and writes to, and whether that is the same."""
    kinds = [os.readlink("/proc/self/fd/%d" % fd).partition(":")[0] for fd in (_link().reads, _link().writes)]
    return kinds, os.path.sameopenfile(_link().reads, _link().writes)


def close_channel(*sides):
    for side in sides:
        os.close(getattr(_link(), side))


def close_channel_and_stay(path, *sides):
    close_channel(*sides)
    open(path, "w").close()
    time.sleep(60)


def replace_channel(path, *sides):
    """Have a file under the numbers that the channel had, as who closes everything and then opens files."""
    with open(path, "r+b") as file:
        for side in sides:
            os.dup2(file.fileno(), getattr(_link(), side))
    return "x" * 1000


def until_exists(path, data=None):
    while not os.path.exists(path):
        time.sleep(0.002)
    return len(data or "")


def make(count, size):
    for _ in range(count):
        yield "x" * size
