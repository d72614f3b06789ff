"""The results of a run as JUnit XML, which every dashboard reads; well-formed whatever the names of the tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from distgate.testing.results import TestOutcome
from distgate.testing.verdict import SuiteVerdict
from distgate.text import printable

#: The element of JUnit for each result; a pass has none.
_ELEMENTS = {"fail": "failure", "error": "error", "warn": "failure", "skip": "skipped", "pending": "skipped"}
_PROLOGUE = '<?xml version="1.0" encoding="UTF-8"?>\n'
# XML has no way to write these; printable() took the other controls and the halves of characters.
_NO_XML = re.compile("[\ufdd0-\ufdef\ufffe\uffff]")


def junit(verdicts: Sequence[SuiteVerdict]) -> str:
    """An XML document with one testsuite per suite and one testcase per test, with its logs' names.

    A suite that is ERROR or NOTHING_RUN has one more testcase, ``the suite itself``, an error whose text is the
    evidence; so has one that is FAIL although no test of it is known to have failed.
    """
    root = ElementTree.Element("testsuites", name="distgate")
    for verdict in verdicts:
        root.append(_suite(verdict))
    _count(root)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join((_PROLOGUE, "\n"))


def _suite(verdict: SuiteVerdict) -> ElementTree.Element:
    name = _text(verdict.suite)
    suite = ElementTree.Element("testsuite", name=name)
    facts = {"verdict": verdict.verdict, "blame": verdict.blame or "", "evidence": verdict.evidence}
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in facts.items():
        ElementTree.SubElement(properties, "property", name=key, value=_text(value))
    for test in verdict.tests:
        suite.append(_case(name, test))
    if verdict.verdict != "PASS" and not _names_failures(verdict):
        suite.append(_case_of_suite(name, verdict))
    _count(suite)
    return suite


def _names_failures(verdict: SuiteVerdict) -> bool:
    return verdict.verdict == "FAIL" and any(test.result in ("fail", "error", "warn") for test in verdict.tests)


def _case(suite: str, test: TestOutcome) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=suite, name=_text(test.name))
    if test.result in _ELEMENTS:
        message = _text(test.note) or test.result
        ElementTree.SubElement(case, _ELEMENTS[test.result], message=message)
    if test.logs:
        ElementTree.SubElement(case, "system-out").text = "\n".join(_text(log) for log in test.logs)
    return case


def _case_of_suite(suite: str, verdict: SuiteVerdict) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=suite, name="the suite itself")
    error = ElementTree.SubElement(case, "failure" if verdict.verdict == "FAIL" else "error")
    error.set("message", _text(verdict.evidence))
    error.text = _NO_XML.sub("", printable(verdict.details)) or None
    return case


def _count(element: ElementTree.Element) -> None:
    counted = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    for key, tag in counted.items():
        element.set(key, str(sum(1 for _ in element.iter(tag))))


def _text(text: str) -> str:
    return _NO_XML.sub("", printable(text, newlines=False))
