"""Results of tests in the XML of JUnit, which CI systems read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from xml.etree import ElementTree as Xml

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class JUnitCase(NamedTuple):
    name: str
    seconds: float
    failures: tuple[str, ...]
    error: bool = False
    """Whether it could not be run at all."""


class JUnitSuite(NamedTuple):
    name: str
    cases: tuple[JUnitCase, ...]


def junit_xml(suites: Iterable[JUnitSuite]) -> bytes:
    """Return the report of *suites*. Characters that XML does not have are replaced."""
    root = Xml.Element("testsuites")
    total = [0, 0, 0]
    for suite in suites:
        made = Xml.SubElement(root, "testsuite", name=_clean(suite.name))
        counts = [
            len(suite.cases),
            sum(bool(one.failures) and not one.error for one in suite.cases),
            sum(one.error for one in suite.cases),
        ]
        _count(made, counts)
        made.set("time", f"{sum(one.seconds for one in suite.cases):.3f}")
        total = [a + b for a, b in zip(total, counts, strict=True)]
        for one in suite.cases:
            case = Xml.SubElement(
                made, "testcase", name=_clean(one.name), classname=_clean(suite.name), time=f"{one.seconds:.3f}"
            )
            if one.failures:
                text = _clean("\n".join(one.failures))
                kind = "error" if one.error else "failure"
                Xml.SubElement(case, kind, message=text.splitlines()[0]).text = text
    _count(root, total)
    Xml.indent(root)
    body: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return body + b"\n"


def _count(element: Xml.Element, counts: list[int]) -> None:
    for name, number in zip(("tests", "failures", "errors"), counts, strict=True):
        element.set(name, str(number))


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
