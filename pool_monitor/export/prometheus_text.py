"""Prometheus text: exposition format 0.0.4, and OpenMetrics 1.0.0."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pool_monitor.export.family import BOUNDS, Family, Histograms, Labels

# The lines of a series come from a template, made once per metric. Labels replace the marks, and the % operator inserts
# the numbers. This takes 60 % of the time of writing line by line.
_MARK = "\0"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "%": "%%"})


def encode(families: Iterable[Family | Histograms], *, openmetrics: bool = False) -> bytes:
    """The whole page."""
    texts = _LabelTexts()
    parts: list[str] = []
    for family in families:
        if isinstance(family, Histograms):
            kind, lines = "histogram", "".join(_histograms(family, texts))
        else:
            kind, lines = "counter" if family.is_counter else "gauge", "".join(_samples(family, texts))
        if lines:
            name = family.name.removesuffix("_total") if openmetrics else family.name
            unit = f"# UNIT {name} {family.unit}\n" if openmetrics and family.unit else ""
            parts.append(f"# HELP {name} {family.help}\n# TYPE {name} {kind}\n{unit}{lines}")
    if openmetrics:
        parts.append("# EOF\n")
    return "".join(parts).encode()


class _LabelTexts(dict[Labels, str]):
    """Caches the text of labels: most labels are used by several metrics."""

    def __missing__(self, labels: Labels) -> str:
        text = self[labels] = ",".join(_label(name, value) for name, value in labels)
        return text


def _label(name: str, value: str) -> str:
    return f'{name}="{value.translate(_ESCAPES)}"'


def _samples(family: Family, texts: dict[Labels, str]) -> Iterator[str]:
    lines = [f"{family.name}{{{_MARK}}} %r\n"]
    if family.label:
        lines = [f"{family.name}{{{_MARK},{_label(family.label, value)}}} %r\n" for value in family.values]
    whole = "".join(lines).split(_MARK)
    for labels, numbers in family.series:
        template, known = whole, tuple(numbers)
        if None in known:
            template = "".join(line for line, number in zip(lines, known, strict=True) if number is not None).split(
                _MARK
            )
            known = tuple(number for number in known if number is not None)
        text = texts[labels].join(template) % known
        yield text if labels else _unlabelled(text)


def _histograms(family: Histograms, texts: dict[Labels, str]) -> Iterator[str]:
    name = family.name
    buckets = "".join(f'{name}_bucket{{{_MARK},le="{bound}"}} %d\n' for bound in (*BOUNDS, "+Inf"))
    template = f"{buckets}{name}_sum{{{_MARK}}} %r\n{name}_count{{{_MARK}}} %d\n".split(_MARK)
    sizes, cumulative = family.sizes(), family.cumulative()
    for labels, counts, total, size in zip(family.labels, cumulative, family.sums, sizes, strict=True):
        text = texts[labels].join(template) % (*counts, size, total, size)
        yield text if labels else _unlabelled(text)


def _unlabelled(text: str) -> str:
    """*text* without the empty place of the labels of a series that has none."""
    return text.replace("{,", "{").replace("{}", "")
