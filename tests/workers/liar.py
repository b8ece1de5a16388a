"""A worker that says whatever its caller asks for: each argument of a call is a message to send, in JSON.

``"$id"`` in a message stands for the id of the call. A message that is a text is sent as it stands, in a frame. The
variables LIAR_HELLO and LIAR_READY replace the answers to the handshake; with LIAR_HONEST, a file that counts starts,
only after the first LIAR_AFTER of them.
"""

import json
import os
import pathlib
import socket
import struct

CHANNEL = socket.socket(fileno=int(os.environ["POOL_MONITOR_FD"]))


def receive():
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
        more = CHANNEL.recv(4 if len(data) < 4 else 4 + struct.unpack(">I", data[:4])[0] - len(data))
        if not more:
            raise SystemExit
        data += more
    return json.loads(data[4:])


def send(message):
    body = message.encode() if isinstance(message, str) else json.dumps(message).encode()
    CHANNEL.sendall(struct.pack(">I", len(body)) + body)


def lies():
    """Whether this start is to use the answers that were asked for."""
    counter = os.environ.get("LIAR_HONEST")
    if counter is None:
        return True
    path = pathlib.Path(counter)
    starts = int(path.read_text()) if path.exists() else 0
    path.write_text(str(starts + 1))
    return starts >= int(os.environ["LIAR_AFTER"])


def filled(message, call_id):
    if isinstance(message, list):
        return [filled(part, call_id) for part in message]
    return call_id if message == "$id" else message


def main():
    lying = lies()
    hello = {"type": "hello", "protocol": 1, "codec": "json", "python": "liar"}
    receive()
    send(json.loads(os.environ.get("LIAR_HELLO", "{}")) if lying and "LIAR_HELLO" in os.environ else hello)
    receive()
    operations = {"say": "function", "hum": "generator", "more": "generator"}
    send(json.loads(os.environ["LIAR_READY"]) if lying and "LIAR_READY" in os.environ else ["ready", operations])
    while True:
        kind, *rest = receive()
        if kind == "ping":
            send(["pong", rest[0], None, None])
        elif kind == "stop":
            return
        elif kind == "call":
            call_id, operation, (args, _), _, _ = rest
            for message in args:
                send(filled(message, call_id))
            while operation == "more":  # whatever it is told
                send(["item", call_id, "x" * 100_000])


main()
