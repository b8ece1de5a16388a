"""The advisor: what could be better in a pool, with the evidence, the change and the effect that is to be expected.

Theory of operation: `journal` takes the events of calls, workers and resources, and keeps a bounded history of each
pool. In each pass, `look` gives the `PoolHistory` of each pool to the functions of `patterns`, which return detections.
`core` judges them: `multiplicity` leaves out what chance explains, `causes` what follows from something else that was
found, and `persistence` what has not lasted. What remains is a recommendation: `priority` gives it its score, and
`lifecycle` says what may become of it.
"""
