"""JUnit of any tool is read as its test cases; what is no honest JUnit is refused by name, and quickly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distgate.errors import TestsError
from distgate.testing import junit_reader
from distgate.testing.junit_reader import read_junit

CASES: list[tuple[str, list[tuple[str, str, str]]]] = [
    ("<testsuite/>", []),
    ("<testsuites/>", []),
    ("<?xml version='1.0'?><testsuite name='s'><testcase name='a'/></testsuite>", [("s: a", "pass", "")]),
    (
        "<testsuites><testsuite name='s'><testcase classname='c' name='a'/></testsuite>"
        "<testsuite name='t'><testcase name='b'><failure message='no  way'>trace</failure></testcase></testsuite>"
        "</testsuites>",
        [("c: a", "pass", ""), ("t: b", "fail", "no way")],
    ),
    (
        "<testsuite name='outer'><testsuite name='inner'><testcase name='a'><skipped/></testcase></testsuite>"
        "<testcase name='b'><error type='Oops'/></testcase></testsuite>",
        [("inner: a", "skip", ""), ("outer: b", "error", "Oops")],
    ),
    # Both: it was skipped after it had failed.
    (
        "<testsuite><testcase name='a'><skipped/><failure>said so</failure></testcase></testsuite>",
        [("a", "fail", "said so")],
    ),
    # The words of Kubernetes, and output that looks like a result.
    (
        "<testsuite tests='9' failures='9'><testcase name='[sig-apps] Deployment [Conformance]' classname='e2e'>"
        "<system-out>&lt;failure/&gt;</system-out><properties><property name='failure'/></properties></testcase>"
        "</testsuite>",
        [("[sig-apps] Deployment [Conformance]", "pass", "")],
    ),
    (
        "<x:testsuite xmlns:x='urn:junit'><x:testcase name='a'><x:failure/></x:testcase></x:testsuite>",
        [("a", "fail", "")],
    ),
    (
        "<testsuite><testcase/><testcase name=' '/></testsuite>",
        [("test case 1", "pass", ""), ("test case 2", "pass", "")],
    ),
    ("<html><testcase name='no'/></html>", []),
]


@pytest.mark.parametrize(("text", "wanted"), CASES)
def test_each_test_case_counts_by_what_lies_in_it(
    text: str, wanted: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "junit_01.xml").write_text(text)
    found = read_junit(tmp_path)
    assert [(test.name, test.result, test.note) for test in found.tests] == wanted
    assert found.files == (() if text.startswith("<html") else ("junit_01.xml",))


def test_several_files_are_one_list_each_with_its_file_as_the_log(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "a.xml").write_text("<testsuite><testcase name='first'/></testsuite>")
    (tmp_path / "b" / "c" / "junit.xml").write_text("<testsuite><testcase name='second'/></testsuite>")
    (tmp_path / "notes.txt").write_text("<testsuite>")
    found = read_junit(tmp_path)
    assert [(test.name, test.logs) for test in found.tests] == [("first", ("a.xml",)), ("second", ("b/c/junit.xml",))]


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
BAD = [
    ("", "no well-formed XML"),
    ("<testsuite>", "no well-formed XML"),
    ("<testsuite></testsuites>", "no well-formed XML"),
    ("<testsuite><testcase name='a'/></testsuite>trailing", "no well-formed XML"),
    (f'<!DOCTYPE t [<!ENTITY l0 "ha">{LAUGHS}]><testsuite name="&l11;"/>', "a document type"),
    ("<!DOCTYPE t SYSTEM 'file:///etc/passwd'><testsuite/>", "a document type"),
    ("<!DOCTYPE t [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><testsuite name='&x;'/>", "a document type"),
    ("<?xml version='1.0' encoding='nonsense'?><testsuite/>", "XML"),
    ("<testsuite>" * 30 + "</testsuite>" * 30, "nested more than 20 deep"),
    ("<testsuite>" + "<testcase/>" * 50_001 + "</testsuite>", "more than 50000 test cases"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=range(len(BAD)))
def test_what_is_no_honest_junit_is_refused_with_the_name_of_its_file(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(text)
    with pytest.raises(TestsError, match=f"junit.xml.*{words}"):
        read_junit(tmp_path)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.xml").open("wb") as stream:
        stream.write(b"<testsuite>")
        os.ftruncate(stream.fileno(), junit_reader.LIMIT + 1)
    with pytest.raises(TestsError, match=r"huge.xml: all JUnit files together are longer than"):
        read_junit(tmp_path)


def test_links_and_pipes_are_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    (tmp_path / "link.xml").symlink_to("/etc/passwd")
    with pytest.raises(TestsError, match=r"link.xml is a link"):
        read_junit(tmp_path)
    (tmp_path / "link.xml").unlink()
    os.mkfifo(tmp_path / "pipe.xml")
    with pytest.raises(TestsError, match=r"pipe.xml is no plain file"):
        read_junit(tmp_path)


def test_names_and_notes_are_no_longer_than_people_read(tmp_path: Path) -> None:
    (tmp_path / "j.xml").write_text(
        f"<testsuite><testcase name='{'n' * 9000}'><failure message='{'m' * 9000}'/></testcase></testsuite>"
    )
    (test,) = read_junit(tmp_path).tests
    assert len(test.name) < 310
    assert len(test.note) < 310


def test_without_any_file_there_is_nothing(tmp_path: Path) -> None:
    assert read_junit(tmp_path) == junit_reader.JunitTests((), ())
