"""Operations for what passes between a worker and its parent. Runs in any Python from 3.8."""

# ruff: noqa: PTH110, PTH123, SIM105 - as plain as a target is, and as old

import asyncio
import os
import signal
import threading
import time

KEPT = []


class Wire:
    def echo(self, value=None):
        return value

    def sleep(self, seconds):
        time.sleep(seconds)

    def until_exists(self, path, data=None):
        while not os.path.exists(path):
            time.sleep(0.002)
        return path

    def quick(self, seconds=0):
        if seconds:
            time.sleep(seconds)

    def touch(self, path):
        open(path, "w").close()

    def fail(self):
        raise ValueError("as asked")

    def perhaps(self, what=None, data=None):
        """Quick nearly always; may be the end of the process."""
        if what == "exit":
            os._exit(3)
        elif what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "wait":
            time.sleep(60)
        return what

    def grow(self, size):
        KEPT.append(b"x" * size)

    def surge(self, size):
        """Takes memory and gives it back."""
        return len(b"x" * size)

    def fill(self, size, mark="x"):
        return mark * size

    def bytes(self, size):
        return b"\x07" * size

    def produce(self, count, size=1):
        for _ in range(count):
            yield "x" * size

    def produce_bytes(self, count, size):
        for number in range(count):
            yield bytes([number]) * size

    produced = 0

    def produce_and_count(self, count, size):
        for _ in range(count):
            self.produced += 1
            yield "x" * size

    def note_produced(self, path):
        with open(path, "w") as file:
            file.write(str(self.produced))

    # for asyncio

    async def produce_at_once(self, path):
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0.05)
            open(path, "w").close()

    async def later(self, value=None, seconds=0.0):
        await asyncio.sleep(seconds)
        return value

    async def wait_for(self, path):
        while not os.path.exists(path):
            await asyncio.sleep(0.002)
        return path

    async def produce_later(self, count, path=None):
        try:
            for number in range(count):
                await asyncio.sleep(0)
                yield number
        finally:
            if path is not None:
                open(path, "w").close()

    async def deaf(self, seconds):
        """Does not let itself be cancelled."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                await asyncio.sleep(end - time.monotonic())
            except asyncio.CancelledError:
                pass
        return "finished"

    async def order(self, number):
        KEPT.append(number)
        await asyncio.sleep(0)
        return list(KEPT)

    def order_now(self, number):
        KEPT.append(number)
        return list(KEPT)

    async def whose(self, seconds=0.0, *, session):
        session.data["seen"] = session.data.get("seen", 0) + 1
        await asyncio.sleep(seconds)
        return session.id


class Telling:
    """Tells of itself, from where it is made on."""

    def __init__(self, name="telling", *, telemetry):
        self.telemetry = telemetry
        telemetry.execute("made.here", {"count": 1}, {"name": name})

    def tell(self, event, measurements, metadata=None, *, telemetry):
        telemetry.execute(event, measurements, metadata)
        return "told"

    def write(self, level, text, telemetry, **fields):
        telemetry.log(level, text, **fields)

    def tell_and_wait(self, path, *, telemetry):
        telemetry.log("info", "waiting", path=path)
        while not os.path.exists(path):
            time.sleep(0.002)

    def tell_much(self, count, size, path):
        for number in range(count):
            self.telemetry.execute(("much",), {"number": number}, {"text": "x" * size})
        open(path, "w").close()

    def tell_from_threads(self, threads, count):
        def tell(thread):
            for number in range(count):
                self.telemetry.execute("threads.tell", {"thread": thread, "number": number})

        running = [threading.Thread(target=tell, args=(thread,)) for thread in range(threads)]
        for thread in running:
            thread.start()
        for number in range(count):
            self.telemetry.log("debug", "mine", number=number)
        for thread in running:
            thread.join()

    def tell_for_ever(self):
        while True:
            self.telemetry.execute("ever", {"count": 1})

    async def tell_later(self, seconds, *, telemetry):
        telemetry.execute("later", {"before": 1})
        await asyncio.sleep(seconds)
        telemetry.execute("later", {"after": 1})

    def echo(self, value=None):
        return value

    def send_raw(self, message):
        """What no worker should say."""
        worker = signal.getsignal(signal.SIGURG).__self__
        worker.channel.send(worker.codec.encode(message))
        time.sleep(60)
