"""A worker that answers every call with the call itself, as it came. Says in its hello what its arguments say."""

import json
import os
import socket
import struct
import sys

channel = socket.socket(fileno=int(os.environ["POOL_MONITOR_FD"]))


def receive():
    (length,) = struct.unpack(">I", channel.recv(4, socket.MSG_WAITALL))
    return json.loads(channel.recv(length, socket.MSG_WAITALL))


def send(message):
    body = json.dumps(message).encode()
    channel.sendall(struct.pack(">I", len(body)) + body)


receive()
send({"type": "hello", "protocol": 1, "codec": "json", "python": "3", **json.loads(sys.argv[1])})
init = receive()
send(["ready", {"echo": "function"}])
while True:
    kind, *rest = receive()
    if kind == "stop":
        break
    if kind == "call":
        send(["reply", rest[0], [init[4], kind, *rest[1:]], None, [0, 0, None]])
    elif kind == "ping":
        send(["pong", rest[0], None, None])
