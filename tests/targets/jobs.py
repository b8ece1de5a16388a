"""Operations that leave a trace in the file named by JOBS_LOG, so that tests can see what was run, and how often."""

import os
import time
from pathlib import Path


class Jobs:
    def note(self, value, pause=0.0):
        self._log(value)
        time.sleep(pause)
        return value

    def wait_for(self, path, value=None):
        """Return *value* once a file of that path exists."""
        self._log(value)
        while not Path(path).exists():
            time.sleep(0.005)
        return value

    def pair(self, left, right="none"):
        return [left, right]

    def count(self, stop):
        yield from range(stop)

    def turn(self, word, session, pause=0.0):
        words = session.data.setdefault("words", [])
        time.sleep(pause)
        words.append(word)
        return "".join(words)

    def die(self, value):
        os._exit(3)

    def fail(self, value):
        raise ValueError(f"no {value} today")

    def thing(self, value):
        return object()

    def odd(self, value):
        return {(1, 2): value}

    def big(self, size):
        return "x" * size

    def chatter(self, value):
        print("on stdout", value, flush=True)
        return value

    def at_first(self, value, times=1):
        """Fail so often with a ValueError, by value, and then not any more."""
        self._log(value)
        if Path(os.environ["JOBS_LOG"]).read_text().split().count(str(value)) <= times:
            raise ValueError(f"not yet {value}")
        return value

    def _log(self, value):
        path = os.environ.get("JOBS_LOG")
        if path:
            with Path(path).open("a") as log:
                log.write(f"{value}\n")
