"""A run's results, for dashboards and pages: well-formed and harmless whatever the tests are called."""

from __future__ import annotations

import pytest
from defusedxml import ElementTree

from distgate.testing.junit import junit
from distgate.testing.results import TestOutcome
from distgate.testing.verdict import SuiteVerdict, Verdict

PASSED = TestOutcome("one", "pass", ("one.log", "more.log"))
FAILED = TestOutcome("two", "fail", ("two.log",))
SKIPPED = TestOutcome("three", "skip", (), "not on this architecture")


def verdict(word: Verdict, *tests: TestOutcome, suite: str = "tests/tests.yml", details: str = "") -> SuiteVerdict:
    return SuiteVerdict(suite, word, None if word == "PASS" else "tests", tests, "because", details)


# suite, then tests, failures, errors, skipped
COUNTS = [
    (verdict("PASS", PASSED), (1, 0, 0, 0)),
    (verdict("FAIL", PASSED, FAILED), (2, 1, 0, 0)),
    (verdict("FAIL", TestOutcome("x", "error")), (1, 0, 1, 0)),
    (verdict("FAIL", TestOutcome("x", "warn")), (1, 1, 0, 0)),
    (verdict("FAIL", PASSED), (2, 1, 0, 0)),
    (verdict("PASS", PASSED, SKIPPED), (2, 0, 0, 1)),
    (verdict("ERROR"), (1, 0, 1, 0)),
    (verdict("ERROR", PASSED, TestOutcome("x", "pending")), (3, 0, 1, 1)),
    (verdict("NOTHING_RUN"), (1, 0, 1, 0)),
]


@pytest.mark.parametrize(("suite", "counts"), COUNTS)
def test_what_is_red_for_us_is_red_for_a_dashboard(suite: SuiteVerdict, counts: tuple[int, ...]) -> None:
    root = ElementTree.fromstring(junit([suite]))
    for element in (root, root[0]):
        assert tuple(int(element.get(key)) for key in ("tests", "failures", "errors", "skipped")) == counts
    assert len(list(root.iter("testcase"))) == counts[0]


def test_a_test_names_its_logs_and_a_suite_its_verdict() -> None:
    root = ElementTree.fromstring(
        junit([verdict("FAIL", PASSED, FAILED), verdict("PASS", PASSED, suite="/plans/ci")])
    )
    assert [suite.get("name") for suite in root] == ["tests/tests.yml", "/plans/ci"]
    assert root.findtext(".//testcase[@name='one']/system-out") == "one.log\nmore.log"
    said = {one.get("name"): one.get("value") for one in root[0].iter("property")}
    assert said == {"verdict": "FAIL", "blame": "tests", "evidence": "because"}


def test_no_tests_at_all_are_a_document_too() -> None:
    assert ElementTree.fromstring(junit([])).get("tests") == "0"


HOSTILE = "\x00\x1b[31m]]>&<\ud800\ufffe\uffff\x0b\"'\U0001fffe caf\udce9 \u202e"


def test_any_bytes_make_well_formed_xml_that_no_terminal_obeys() -> None:
    odd = TestOutcome(HOSTILE, "fail", (HOSTILE,), HOSTILE)
    text = junit([SuiteVerdict(HOSTILE, "ERROR", "tests", (odd,), HOSTILE, HOSTILE)])
    root = ElementTree.fromstring(text.encode())
    assert "]]>&<" in root[0].get("name")
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_every_character_of_unicode_survives_or_is_left_out() -> None:
    for start in range(0, 0x110000, 0x1000):
        name = "".join(map(chr, range(start, start + 0x1000)))
        ElementTree.fromstring(junit([verdict("PASS", TestOutcome(name, "fail", (name,), name))]).encode())
