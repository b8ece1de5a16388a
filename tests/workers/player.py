"""A worker that plays its part of an exchange as it is written down. Keeps what came in the file its arguments name."""

import os
import socket
import sys
from pathlib import Path

record, *exchange = sys.argv[1:]  # then by turns: how many bytes come, and which are sent
channel = socket.socket(fileno=int(os.environ["POOL_MONITOR_FD"]))
with Path(record).open("wb") as file:
    for count, answer in zip(exchange[::2], exchange[1::2], strict=True):
        file.write(channel.recv(int(count), socket.MSG_WAITALL))
        file.flush()
        channel.sendall(bytes.fromhex(answer))
channel.recv(1)
