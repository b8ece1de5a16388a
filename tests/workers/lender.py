"""A worker in plain Python that makes use of the shared memory: it echoes its first argument, and lends what is large.

It lends one message at a time, from the beginning of its area, and reads no other. With LENDER_OFFSETS it says that it
reads them anywhere, and lends its own at the end of its area.
"""

import json
import mmap
import os
import socket
import struct

CHANNEL = socket.socket(fileno=int(os.environ["POOL_MONITOR_FD"]))
OFFSETS = "LENDER_OFFSETS" in os.environ
LARGE = 128 * 1024


def read(count):
    data = b""
    while len(data) < count:
        more = CHANNEL.recv(count - len(data))
        if not more:
            raise SystemExit
        data += more
    return data


def receive():
    return json.loads(read(*struct.unpack(">I", read(4))))


def send(body):
    CHANNEL.sendall(struct.pack(">I", len(body)) + body)


def say(*message):
    send(json.dumps(message).encode())


class Lender:
    def __init__(self, area):
        self.memory = mmap.mmap(int(os.environ["POOL_MONITOR_SHARED"]), 65536 + 2 * area)
        self.area, self.end = area, 65536 + 2 * area
        self.begun = 0
        self.lent = False
        self.seen = []  # of each message it was lent, where it lay

    def serve(self):
        while True:
            kind, *rest = receive()
            if kind == "lent":
                length, start = rest if OFFSETS else (*rest, 0)  # whatever else there is, is an error
                self.seen.append(start)
                kind, *rest = json.loads(self.memory[65536 + start : 65536 + start + length])
                say("returned")
            if kind == "call":
                self.call(*rest)
            elif kind == "ping":
                say("pong", rest[0], None, None)
            elif kind == "returned":
                self.lent = False
            elif kind == "stop":
                return

    def call(self, call_id, operation, arguments, _stream, _session):
        self.begun += 1
        self.memory[:8] = struct.pack("=Q", self.begun)
        value = arguments[0][0] if operation == "echo" else self.seen
        body = json.dumps(["reply", call_id, value, None, [1, None, None]]).encode()
        if len(body) < LARGE or self.lent:
            send(body)
            return
        self.lent = True
        at = self.end - len(body) if OFFSETS else self.end - self.area
        self.memory[at : at + len(body)] = body
        say("lent", len(body), *([at - (self.end - self.area)] if OFFSETS else []))


def main():
    area = min(receive()["frame_limit"], 8 << 20)
    hello = {"type": "hello", "protocol": 1, "codec": "json", "python": "lender", "shared": True}
    send(json.dumps({**hello, "offsets": True} if OFFSETS else hello).encode())
    receive()
    say("ready", {"echo": "function", "seen": "function"})
    Lender(area).serve()


main()
