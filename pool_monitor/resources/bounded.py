"""Calls that may hang in the kernel or in a driver: run in a thread that can be left behind."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from pool_monitor.log import logger


class BoundedCalls:
    """Runs functions in one thread of its own, each for at most *timeout* seconds.

    While a function hangs, no other one is run: at most one thread is stuck, for as long as the kernel keeps it. When
    the function returns after all, its late result is dropped, and the next call works again. The thread starts at the
    first call, and is a daemon, so that it does not keep the program from ending.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self._name, self._timeout = name, timeout
        self._asked: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._began: float | None = None  # of a call without an answer
        self._thread: threading.Thread | None = None
        self.cpu_ns = 0
        """Processor time of the thread, as of its last call."""

    def run(self, function: Callable[[], Any]) -> Any:
        """Return what *function* returns, or raise what it raises. Raises TimeoutError, with a text for a person, when
        it takes too long, and at once while an earlier function has not returned. Call from one thread only.
        """
        if self._began is not None and not self._answered(0):
            raise TimeoutError(f"no answer for {time.monotonic() - self._began:.0f} s")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"pool_monitor {self._name}", daemon=True)
            self._thread.start()
        self._began = time.monotonic()
        self._asked.put(function)
        answer = self._answered(self._timeout)
        if answer is None:
            raise TimeoutError(f"no answer within {self._timeout:g} s")
        value, error = answer
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """End the thread once its function has returned. Does not wait."""
        self._asked.put(None)

    def _answered(self, timeout: float) -> tuple[Any, BaseException | None] | None:
        """Wait for the answer to the latest call. There is no other: the next call is made only after it."""
        try:
            answer = self._answers.get(timeout=timeout) if timeout else self._answers.get_nowait()
        except queue.Empty:
            return None
        self._began = None
        return answer

    def _work(self) -> None:
        while (function := self._asked.get()) is not None:
            answer: tuple[Any, BaseException | None]
            try:
                answer = function(), None
            except Exception as error:  # noqa: BLE001 - handed to the caller
                answer = None, error.with_traceback(None)
            except BaseException as error:  # of a driver or of the interpreter's end: the thread ends, not the service
                logger("resources").error("a thread of the monitor has ended", thread=self._name, error=repr(error))
                raise
            self.cpu_ns = time.thread_time_ns()
            self._answers.put(answer)
