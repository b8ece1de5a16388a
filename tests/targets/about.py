"""What a worker finds out about itself. Runs in any Python from 3.8."""

# ruff: noqa: PTH109, PTH115, PTH208 - as plain as a target is, and as old

import os
import random
import signal
import sys
import threading
import time


class About:
    def situation(self):
        """Whatever a worker can see of how it was started, as long as it does not differ from worker to worker."""
        own = {"POOL_MONITOR_" + name for name in ("FD", "OUT", "LIFELINE", "SHARED", "ZYGOTE")}
        return {
            "argv": sys.argv,
            "main": [sys.modules["__main__"].__name__, sys.modules["__main__"].__file__],
            "path": sys.path,
            "directory": os.getcwd(),
            "environment": sorted(set(os.environ) - {"_"}),
            "told": sorted(own & set(os.environ)),
            "leads its group": os.getpgid(0) == os.getpid(),
            "stdin": sys.stdin.read(),
            "descriptors": sorted(kind for kind in map(self.kind, os.listdir("/proc/self/fd")) if "/proc" not in kind),
            "inherited by children": sorted(fd for fd in range(64) if self.inheritable(fd)),
            "printing": [[out.encoding, out.errors, out.line_buffering] for out in (sys.stdout, sys.stderr)],
            "signals": [
                repr(getattr(signal.getsignal(number), "__name__", signal.getsignal(number)))
                for number in sorted(signal.valid_signals())
            ],
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "threads": [thread.name for thread in threading.enumerate()],
            "in the main thread": threading.current_thread() is threading.main_thread(),
        }

    @staticmethod
    def kind(fd):
        try:
            return os.readlink("/proc/self/fd/" + fd).partition(":")[0]
        except OSError:  # what was open for listing them
            return "/proc/self/fd"

    @staticmethod
    def inheritable(fd):
        try:
            return os.get_inheritable(fd)
        except OSError:
            return False

    def parent(self):
        return os.getppid()

    def loaded(self, name):
        return name in sys.modules

    def chance(self):
        numbers = [random.random(), os.urandom(4).hex()]
        if "numpy" in sys.modules:
            numbers.append(sys.modules["numpy"].random.random())
        return numbers

    def leave(self, code):
        os._exit(code)

    def say(self, text):
        print(text)
        sys.stderr.write(text + " on stderr\n")

    def nap(self, seconds):
        time.sleep(seconds)
