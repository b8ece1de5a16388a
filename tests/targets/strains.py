"""Operations after which the worker misuses a resource, while it is idle."""

import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time

MB = 1_000_000


class Strains:
    def __init__(self):
        self.kept = []
        self.over = threading.Event()

    def echo(self, value=None):
        return value

    def stop(self):
        """End what the operations below have started."""
        self.over.set()
        self.kept.clear()
        while True:
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break

    def spin(self):
        self._go_on(lambda _passed: None, 0)

    def leak(self, rate):
        """Keep *rate* bytes more each second."""
        self._keep(lambda passed: rate * passed)

    def warm_up(self, size, seconds):
        """Fill a cache of *size* bytes, ever more slowly."""
        self._keep(lambda passed: size * (1 - math.exp(-passed / seconds)))

    def leak_fds(self, rate, limit):
        """Open *rate* descriptors more each second."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

        def more(passed):
            while len(self.kept) < rate * passed:
                self.kept.append(open(os.devnull))  # noqa: PTH123, SIM115

        self._go_on(more, 0.01)

    def zombie(self):
        if not os.fork():
            os._exit(0)

    def child(self):
        self.kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return self.kept[-1].pid

    def _keep(self, size):
        def more(passed):
            missing = int(size(passed)) - sum(map(len, self.kept))
            if missing > 0:
                self.kept.append(bytearray(b"x") * missing)

        self._go_on(more, 0.01)

    def _go_on(self, act, pause):
        began = time.monotonic()
        self.over.clear()

        def run():
            while not self.over.is_set():
                act(time.monotonic() - began)
                if pause:
                    time.sleep(pause)

        threading.Thread(target=run, daemon=True).start()

    def leave_behind(self, path):
        """Start a process that outlives the worker and its group; write its pid to *path*."""
        if os.fork():
            os.wait()
            return
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        command = f"import os, time; open({path!r}, 'w').write(str(os.getpid())); time.sleep(600)"
        subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.DEVNULL, close_fds=True)
        os._exit(0)
