"""Ways to a running monitor from outside its process: the ASGI app, the local socket, the client."""
