"""JUnit XML from a suite's artifacts, read with suspicion: no entity is expanded, no link followed, size is bounded.

Tools write different things under this name: one suite or several, suites within suites, counts that do not add up.
Only the test cases are believed, each by its own elements.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from distgate.errors import TestsError
from distgate.files import open_plain, walk
from distgate.testing.results import Result, TestOutcome

#: Bytes of all files together. A whole conformance run with its output writes some ten million.
LIMIT = 64 << 20
#: Test cases of all files together; most of a conformance suite's are skipped ones.
MOST_TESTS = 50_000
_MOST_FILES = 200
#: So deep below the artifacts such files are looked for.
_DEEPEST = 4
_DEEPEST_ELEMENT = 20
_LONGEST = 300  # characters of a name, and of what a failure says
_ROOTS = ("testsuites", "testsuite")
#: Elements within a test case that say how it went, the worst first.
_RESULTS: tuple[tuple[str, Result], ...] = (("error", "error"), ("failure", "fail"), ("skipped", "skip"))
_RESULT_TAGS = tuple(tag for tag, _ in _RESULTS)
#: What is refused in XML, by the name of the error.
_FORBIDDEN = {"DTDForbidden": "a document type", "EntitiesForbidden": "entities"}


@dataclass(frozen=True)
class JunitTests:
    """The test cases of all ``files`` (paths relative to the directory), in their order."""

    tests: tuple[TestOutcome, ...]
    files: tuple[str, ...]


def read_junit(directory: Path) -> JunitTests:
    """The test cases of the JUnit files at or below ``directory``: each ``*.xml`` whose root is a test suite.

    Raises TestsError, with the file's name, for XML that is malformed, brings entities or a document type, is too
    large or too deep, or is a link.
    """
    outcomes: list[TestOutcome] = []
    files: list[str] = []
    remaining = LIMIT
    for path in _xml_files(directory):
        name = str(path.relative_to(directory))
        with _open(path, name) as stream:
            remaining -= os.fstat(stream.fileno()).st_size
            if remaining < 0:
                raise TestsError(f"{name}: all JUnit files together are longer than {LIMIT} bytes")
            tests = _tests_of(stream, name)
        if tests is not None:
            files.append(name)
            outcomes += (replace(test, logs=(name,)) for test in tests)
            if len(outcomes) > MOST_TESTS:
                raise TestsError(f"{name}: there are more than {MOST_TESTS} test cases")
    return JunitTests(tuple(outcomes), tuple(files))


def _xml_files(directory: Path) -> list[Path]:
    entries = walk(directory, lambda entry: len(entry.above) < _DEEPEST)
    paths = [directory / entry.path for entry in entries if entry.name.endswith(".xml") and not entry.is_directory]
    if len(paths) > _MOST_FILES:
        raise TestsError(f"there are {len(paths)} files *.xml, more than the {_MOST_FILES} that are read")
    return paths


def _open(path: Path, name: str) -> BinaryIO:
    try:
        stream = open_plain(path)
    except OSError as error:
        raise TestsError(f"{name} is a link or cannot be read") from error
    if stream is None:
        raise TestsError(f"{name} is no plain file")
    return stream


def _tests_of(stream: BinaryIO, name: str) -> list[TestOutcome] | None:
    """The test cases of one file; None when it is XML of another kind."""
    try:
        return _walk(ElementTree.iterparse(stream, events=("start", "end"), forbid_dtd=True), name)
    except ElementTree.ParseError as error:
        raise TestsError(f"{name} is no well-formed XML: {error}") from error
    except DefusedXmlException as error:
        raise TestsError(
            f"{name} is refused: it has {_FORBIDDEN.get(type(error).__name__, 'what no JUnit has')}"
        ) from error
    except (ValueError, LookupError) as error:  # an unknown encoding
        raise TestsError(f"{name} is no XML that can be read: {error}") from error


def _walk(events: Iterator[tuple[str, Element]], name: str) -> list[TestOutcome] | None:
    """A file may be large: what has been read of it is dropped at the end of each test case."""
    tests: list[TestOutcome] = []
    path: list[Element] = []
    for event, element in events:
        if event == "start":
            path.append(element)
            if len(path) == 1 and _tag(element) not in _ROOTS:
                return None
            if len(path) > _DEEPEST_ELEMENT:
                raise TestsError(f"{name}: elements are nested more than {_DEEPEST_ELEMENT} deep")
            continue
        path.pop()
        if _tag(element) == "testcase":
            tests.append(_outcome(element, path, len(tests) + 1))
        if path and _tag(element) not in _RESULT_TAGS:
            path[-1].remove(element)  # output, properties, a case that was read, a whole suite
    return tests


def _outcome(case: Element, above: list[Element], number: int) -> TestOutcome:
    inside = {_tag(child): child for child in reversed(case)}
    element_tag, result = next(((tag, result) for tag, result in _RESULTS if tag in inside), ("", "pass"))
    note = _note(inside[element_tag]) if element_tag else ""
    suite = case.get("classname") or next(filter(None, (element.get("name") for element in reversed(above))), "")
    return TestOutcome(_named(suite, case.get("name", ""), number), result, (), note)


def _named(suite: str, name: str, number: int) -> str:
    name = " ".join(name.split())
    # Of Kubernetes, a case's own name says all, and its class only which binary it comes from.
    full = f"{suite}: {name}" if suite and name and suite not in name and not name.startswith("[") else name
    return (f"{full[:_LONGEST]}..." if len(full) > _LONGEST else full) or f"test case {number}"


def _note(element: Element) -> str:
    text = " ".join((element.get("message") or element.text or element.get("type") or "").split())
    return f"{text[:_LONGEST]}..." if len(text) > _LONGEST else text


def _tag(element: Element) -> str:
    """The name of an element, whatever namespace a tool puts it into."""
    tag: str = element.tag
    return tag.rpartition("}")[2]
