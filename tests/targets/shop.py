"""A target whose operations fail."""

import os
import signal
import time
import uuid


class Shop:
    def order(self, number):
        self.check(number)

    def check(self, number):
        raise ValueError(f"order {uuid.uuid4()} has {number} items")

    def find(self, key):
        return {}[key]

    def sleep(self, seconds):
        time.sleep(seconds)

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)
