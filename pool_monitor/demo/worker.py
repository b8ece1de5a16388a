"""The target of the demo's workers: the text tools of examples/, with faults on request."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from pool_monitor.demo.text_tools import TextTools

WORKER_FAULTS = {
    "crash": "a worker sometimes dies during an operation",
    "slow": "an operation sometimes takes a second or two",
    "error": "an operation sometimes raises, in one of three ways and with numbers of its own",
    "leak": "an operation sometimes keeps half a megabyte",
    "hot": "a worker sometimes computes for 30 s after an operation has ended",
}
_CHANCE = {"crash": 0.006, "slow": 0.01, "error": 0.03, "leak": 0.1, "hot": 0.01}
_HOT_S = 30.0
_LEAK_LIMIT = 512  # pieces of half a megabyte, so that the demo does not exhaust the memory


class DemoTools(TextTools):
    """The text tools; each operation may fail in the ways that *faults* names."""

    def __init__(self, faults: list[str]) -> None:
        self._faults = faults
        self._kept: list[bytearray] = []
        self._random = random.Random()  # noqa: S311
        self._computing: threading.Thread | None = None

    def keywords(self, text: str, limit: int = 5) -> list[list[Any]]:
        self._misbehave()
        return super().keywords(text, limit)

    def summary(self, text: str, sentences: int = 3) -> str:
        self._misbehave()
        return super().summary(text, sentences)

    def generate(self, prompt: str, words: int = 40, pause: float = 0.02) -> Iterator[str]:
        self._misbehave()
        yield from super().generate(prompt, words, pause)

    def chat(self, text: str, session: Any = None) -> str:
        self._misbehave()
        return super().chat(text, session=session)

    def _misbehave(self) -> None:
        for fault in self._faults:
            if self._random.random() < _CHANCE[fault]:
                getattr(self, f"_{fault}")()

    def _crash(self) -> None:
        sys.stderr.write("demo: the fault 'crash' ends this worker\n")
        sys.stderr.flush()
        os._exit(70)

    def _slow(self) -> None:
        time.sleep(self._random.uniform(1.0, 2.0))

    def _error(self) -> None:
        self._random.choice((self._refused, self._not_found, self._unreadable))()

    def _refused(self) -> None:
        request = uuid.UUID(int=self._random.getrandbits(128))
        raise RuntimeError(f"request {request} was refused: the fault 'error' was requested")

    def _not_found(self) -> None:
        raise LookupError(f"no document {self._random.randrange(10**6)} in /srv/documents/{self._random.randrange(99)}")

    def _unreadable(self) -> None:
        place = self._random.randrange(80_000)
        raise ValueError(f"unreadable at {place} after {self._random.random():.3f} s")

    def _hot(self) -> None:
        if self._computing is None or not self._computing.is_alive():
            self._computing = threading.Thread(target=_compute, args=(_HOT_S,), daemon=True)
            self._computing.start()

    def _leak(self) -> None:
        if len(self._kept) < _LEAK_LIMIT:
            self._kept.append(bytearray(512 * 1024))


def _compute(seconds: float) -> None:
    end, number = time.monotonic() + seconds, 1
    while time.monotonic() < end:
        number = number * 31 % 1_000_003
