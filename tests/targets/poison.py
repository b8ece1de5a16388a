"""A worker that dies of what it reads: of a call with "POISON" in it, before it has begun it."""

import os
import sys

_Worker = sys.modules["_pool_monitor_child.worker"].Worker
_decode = _Worker.decode


def decode(self, body):
    codec, plain = self.codec, self.codec.decode
    codec.decode = lambda body: os._exit(7) if b"POISON" in bytes(body) else plain(body)
    try:
        return _decode(self, body)
    finally:
        codec.decode = plain


_Worker.decode = decode


def echo(value):
    return value
