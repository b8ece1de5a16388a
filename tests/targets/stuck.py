"""Operations that get stuck, each in a place of its own. Runs in any Python from 3.8."""

# ruff: noqa: PTH115, PTH123, PTH208, SIM105 - as plain as a target is, and as old

import asyncio
import concurrent.futures
import ctypes
import faulthandler
import os
import re
import threading
import time
from signal import SIG_BLOCK, SIG_DFL, pthread_sigmask, signal

taken = []


class Stuck:
    def ok(self, value=None):
        return value

    def pid(self):
        return os.getpid()

    def spin(self):
        while True:
            sum(range(1000))  # spin

    def regex(self):
        return re.match(r"(a+)+$", "a" * 60 + "b")  # regex

    def c_code(self):
        return sum(range(10**12))  # c_code

    def sleep(self, seconds=60.0):
        time.sleep(seconds)  # sleep
        return "slept"

    def lock(self):
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()  # lock

    async def wait_inside(self):
        await asyncio.sleep(60)  # inner

    async def wait(self):
        await self.wait_inside()  # wait

    async def gather(self):
        await asyncio.gather(self.wait_inside(), self.wait_inside())  # gather

    async def blocked(self):
        time.sleep(60)  # blocked

    def in_thread(self):
        with concurrent.futures.ThreadPoolExecutor(1, "helper") as threads:
            return threads.submit(self.sleep, 60).result()  # in_thread

    def deep(self, depth=300):
        return self.deep(depth - 1) if depth else time.sleep(60)  # deep

    def stubborn(self, seconds=60.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                time.sleep(60)  # stubborn
            except BaseException:  # it is stubborn
                pass

    def churn(self, rounds):
        """Return a number that depends on every round, with threads, generators and exceptions on the way."""
        total = 0

        def numbers(count):
            yield from range(count)

        for one in range(rounds):
            total = (total * 31 + sum(numbers(50)) + one) % 1000003
            try:
                raise ValueError(total)
            except ValueError as error:
                total += error.args[0] % 7
        return total

    # what interferes with stacks

    def take_signal(self, number):
        signal(number, lambda *_: taken.append(number))
        self.spin()

    def take_in_c(self, number):
        """Take the signal as C code does, without Python's knowledge. Returns how often it came."""
        libc = ctypes.CDLL(None)
        os.dup2(os.open(os.devnull, os.O_RDONLY), number)  # each `dup(number)`, which the signal calls, makes one more
        before = len(os.listdir("/proc/self/fd"))
        libc.signal(number, ctypes.cast(libc.dup, ctypes.c_void_p))  # a Python function is not safe in a signal
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            sum(range(1000))  # take_in_c
        return len(os.listdir("/proc/self/fd")) - before

    def reset_signals(self, number):
        signal(number, SIG_DFL)
        self.spin()

    def unregister(self, number):
        faulthandler.unregister(number)
        self.spin()

    def block_signal(self, number):
        pthread_sigmask(SIG_BLOCK, [number])
        self.spin()

    def replace_file(self, path):
        for name in os.listdir("/proc/self/fd"):
            try:
                if "pool_monitor stack" in os.readlink("/proc/self/fd/" + name):
                    os.dup2(os.open(path, os.O_RDWR), int(name))
            except OSError:
                pass
        self.spin()


def line_of(comment):
    """Return the number of the line that ends with *comment*."""
    with open(__file__.replace(".pyc", ".py")) as file:
        for number, line in enumerate(file, 1):
            if line.rstrip().endswith("# " + comment):
                return number
    raise LookupError(comment)
