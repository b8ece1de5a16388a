"""Ways to a running monitor from outside its process: the ASGI app, the local socket, the client."""

AGAIN = "again"
"""The event that a stream ends with while the monitor goes on: whoever watches is to attach again."""
