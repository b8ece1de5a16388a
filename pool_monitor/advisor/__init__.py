"""The advisor: what could be better in a pool, with the evidence, the change and the effect that is to be expected.

Theory of operation: `journal` takes the events of calls, workers and resources, and keeps a bounded history of each
pool. Each pattern in `patterns` is a pure function of that `History` that returns detections. `persistence` lets a
detection through when it lasts, `priority` orders them, and `advice` keeps their lives.
"""
