"""Tables from what the benchmark of the peers measured. Nothing here measures."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from benchmarks.load import WORKERS
from benchmarks.peers import BASE
from benchmarks.runner import Orphans, Trouble
from benchmarks.scenarios import PATIENCE_S, Loss, Served
from benchmarks.tables import Table

MORE_WORKERS = 6
NONE = "-"

Result = TypeVar("Result")
Results = dict[str, list[Result | Trouble]]


def milliseconds(values: Sequence[float | str]) -> str:
    """Return the median. If some results are words, return the words and how often they occurred."""
    numbers = [value for value in values if not isinstance(value, str)]
    words = Counter(value for value in values if isinstance(value, str))
    found = ", ".join(f"{word} {count} of {len(values)}" for word, count in words.items())
    if not numbers:
        return next(iter(words)) if len(words) == 1 else found
    middle = statistics.median(numbers)
    figure = f"{middle:.1f}" if middle < 100 else f"{middle:,.0f}"
    return f"{figure} ({found})" if found else figure


def reached(result: Served | Trouble, ms: float | None) -> float | str:
    if isinstance(result, Trouble):
        return result
    if ms is not None:
        return ms
    return "hangs" if result.silent else "never"


def first(result: Served | Trouble) -> float | str:
    return reached(result, None if isinstance(result, Trouble) else result.first_ms)


def full(result: Served | Trouble) -> float | str:
    return reached(result, None if isinstance(result, Trouble) else result.full_ms)


def times(value: float | str, base: float | str) -> str:
    """Return *value* as a multiple of *base*, if both are numbers."""
    return NONE if isinstance(value, str) or isinstance(base, str) else f"{value / base:.2f}"


def middle(values: Iterable[float | str]) -> float | str:
    numbers = [value for value in values if not isinstance(value, str)]
    return statistics.median(numbers) if numbers else NONE


def share(count: int, total: int) -> str:
    return {0: "no", total: "yes"}.get(count, f"{count} of {total}")


def most(words: Iterable[str]) -> str:
    """Return the most frequent item."""
    return Counter(words).most_common(1)[0][0]


def complaints(results: list[Served | Trouble]) -> str:
    """Return what callers got instead of answers while a pool recovered."""
    found = []
    for result in results:
        if isinstance(result, Trouble):
            found.append(str(result))
            continue
        names = ", ".join(result.errors)
        if result.first_ms is None and result.errors:
            found.append(f"{names} at every call")
        elif result.silent:
            found.append("no answer")
        else:
            count = sum(result.errors.values())
            found.append(f"{count} x {names}" if count else "nothing")
    return most(found)


# -- tables -----------------------------------------------------------------------------------------------------------


def cold_table(few: Results[Served], more: Results[Served], missing: Iterable[str]) -> Table:
    rows = []
    base = middle(map(first, few[BASE]))
    for label, results in few.items():
        two, six = middle(map(full, results)), middle(map(full, more[label]))
        each: list[float | str] = [NONE]
        if not isinstance(two, str) and not isinstance(six, str):
            each = [(six - two) / (MORE_WORKERS - WORKERS)]
        firsts = [first(result) for result in results]
        figures = [milliseconds(firsts), times(middle(firsts), base), milliseconds([full(one) for one in results])]
        rows.append([label, *figures, milliseconds(each)])
    head = ["", "first answer ms", "ratio", f"{WORKERS} workers ms", "each further worker ms"]
    about = (
        f"From making the pool to the first answer, and to an answer of each of {WORKERS} workers. Each further worker:"
        f" the additional time for {MORE_WORKERS} workers, divided by {MORE_WORKERS - WORKERS}. Without the import of"
        f" the pool's package. Median of {len(few[BASE])}. Ratio: the first answer; less is better."
    )
    return with_missing(Table("cold start", about, head, rows), missing)


def idle_table(results: Results[Served], missing: Iterable[str]) -> Table:
    rows = [
        [
            label,
            milliseconds([first(result) for result in served]),
            milliseconds([full(result) for result in served]),
            complaints(served),
            share(sum(not isinstance(full(result), str) for result in served), len(served)),
        ]
        for label, served in results.items()
    ]
    head = ["", "next answer ms", "both workers answer ms", "callers meanwhile get", "survives"]
    about = (
        f"{WORKERS} callers keep calling from the moment of the kill. Median of {len(results[BASE])}. Never and hangs:"
        f" not within {PATIENCE_S:g} s. No ratios: ProcessPoolExecutor does not recover."
    )
    return with_missing(Table("kill -9 of an idle worker", about, head, rows), missing)


def busy_table(results: Results[Loss], missing: Iterable[str]) -> Table:
    rows = []
    for label, losses in results.items():
        losses_known = [loss for loss in losses if isinstance(loss, Loss)]
        if not losses_known:
            rows.append([label, str(losses[0]), *[NONE] * 3])
            continue
        loss = losses_known[0]
        gets = "no answer" if loss.error is None else loss.error or "its result: it ran again"
        seen = NONE if loss.seen_ms is None else milliseconds([loss.seen_ms])
        after = full(loss.after)
        afterwards = "serves" if not isinstance(after, str) else "hangs" if loss.after.silent else "broken"
        rows.append([label, gets, seen, f"{loss.others_lost} of {loss.others}", afterwards])
    about = (
        f"Both workers are busy and {2 * WORKERS} calls wait. No answer: none within {PATIENCE_S:g} s. Afterwards:"
        f" whether both workers answer. No ratios: ProcessPoolExecutor does not recover."
    )
    head = ["", "its caller gets", "after ms", "other calls lost", "afterwards"]
    return with_missing(Table("kill -9 of a busy worker", about, head, rows), missing)


def cancel_table(results: Results[Served], missing: Iterable[str]) -> Table:
    def again(result: Served | Trouble) -> float | str:
        return full(result) if isinstance(result, Trouble) or result.full_ms is not None else "no"

    rows = [[label, milliseconds([again(result) for result in served])] for label, served in results.items()]
    about = (
        "The task that awaits an endless Python loop is cancelled. The time until its worker, or a new one, answers."
        f" Median of {len(results[BASE])}. No ratios: ProcessPoolExecutor lets it run on."
    )
    return with_missing(Table("cancel of a busy loop", about, ["", "both workers answer ms"], rows), missing)


def orphan_table(results: Results[Orphans], missing: Iterable[str]) -> Table:
    rows = []
    for label, (result, *_) in results.items():
        if isinstance(result, Trouble):
            rows.append([label, str(result), NONE, NONE])
            continue
        others = f"{result.others_left} of {result.others}" if result.others else NONE
        gone = NONE if result.gone_ms is None else milliseconds([result.gone_ms])
        rows.append([label, f"{result.workers_left} of {result.workers}", others, gone])
    about = "One worker in an endless Python loop, the other idle; what is still there 1 s after the kill."
    head = ["", "workers left", "helpers left", "all gone after ms"]
    return with_missing(Table("kill -9 of the parent", about, head, rows), missing)


def with_missing(table: Table, missing: Iterable[str]) -> Table:
    blank = [NONE] * (len(table.head) - 2)
    return table._replace(rows=[*table.rows, *([label, "not installed", *blank] for label in missing)])
