"""Access to a running monitor from outside its process: the ASGI app, the local socket, the client."""

AGAIN = "again"
"""The last event of a stream that ends while the monitor keeps running: the viewer should attach again."""
TRANSITIONS_MAX = 10_000
"""The most changes of alerts in an answer."""
