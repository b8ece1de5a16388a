"""The demo: real workers doing real work on the text that ships with Python, under a load that comes and goes."""
