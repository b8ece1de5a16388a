"""Workers that lie, and a service that has to bear them.

`grammar` makes what a hostile worker says and does, from a seed, out of `messages`; `encoding` writes these down;
`worker` is the process that does it; `target` holds the operations of the honest workers beside it; `driver` is the
service, and the judge.

    python -m tests.hostile --seed 1 --sessions 2000        a run
    python -m tests.hostile --seed 1 --session 1234         one session of it, again and again
"""
