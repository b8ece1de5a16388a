"""The demo: real workers process the text that ships with Python, under a load that rises and falls."""
