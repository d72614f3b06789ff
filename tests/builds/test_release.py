"""The commit goes into each Release of a spec file, before the distribution's tag, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.builds.release import mark_of, original, uses_autorelease, version_of, with_commit
from distgate.errors import ConfigurationError, PackageError
from distgate.process import run

SHA = "35fdde9c0ffee0000000000000000000000000aa"
MARK = ".816.35fdde9"
SPEC = "{before}Name: mesa\nVersion: 17.1.5\n{release}\nSummary: x\nLicense: MIT\n%description\nx\n"

# what comes before the tags, the Release line, that line afterwards, and the release that rpm makes of it in .fc26
FORMS = [
    ("", "Release: 1%{?dist}.2", f"Release: 1{MARK}%{{?dist}}.2", f"1{MARK}.fc26.2"),
    ("", "Release: 1%{?dist}", f"Release: 1{MARK}%{{?dist}}", f"1{MARK}.fc26"),
    ("", "Release: 1%{dist}", f"Release: 1{MARK}%{{dist}}", f"1{MARK}.fc26"),
    ("", "Release: 1%dist", f"Release: 1{MARK}%dist", f"1{MARK}.fc26"),
    ("", "Release: 1%?dist", f"Release: 1{MARK}%?dist", f"1{MARK}.fc26"),
    ("", "Release: 1%{?dist:%{dist}}", f"Release: 1{MARK}%{{?dist:%{{dist}}}}", f"1{MARK}.fc26"),
    ("", "Release: 1", f"Release: 1{MARK}", f"1{MARK}"),
    ("", "Release:\t\t1%{?dist}", f"Release:\t\t1{MARK}%{{?dist}}", f"1{MARK}.fc26"),
    ("", "Release:1%{?dist}", f"Release:1{MARK}%{{?dist}}", f"1{MARK}.fc26"),
    ("", "RELEASE :  1%{?dist}  ", f"RELEASE :  1{MARK}%{{?dist}}  ", f"1{MARK}.fc26"),
    ("", "Release: 0.3.rc1%{?dist}", f"Release: 0.3.rc1{MARK}%{{?dist}}", f"0.3.rc1{MARK}.fc26"),
    (
        "%global baserelease 4\n",
        "Release: %{baserelease}%{?dist}",
        f"Release: %{{baserelease}}{MARK}%{{?dist}}",
        f"4{MARK}.fc26",
    ),
    ("%global rel 4\n", "Release: %{rel}", f"Release: %{{rel}}{MARK}", f"4{MARK}"),
    (
        "",
        "Release: %{?beta:0.%{beta}.}5%{?snap:.%{snap}}%{?dist}",
        f"Release: %{{?beta:0.%{{beta}}.}}5%{{?snap:.%{{snap}}}}{MARK}%{{?dist}}",
        f"5{MARK}.fc26",
    ),
    ("", "Release: 1%{!?x:.y%{?dist}}", f"Release: 1%{{!?x:.y%{{?dist}}}}{MARK}", f"1.y.fc26{MARK}"),
    ("", "Release: 1%(echo .7)%{?dist}", f"Release: 1%(echo .7){MARK}%{{?dist}}", f"1.7{MARK}.fc26"),
]


def released(spec: str, room: Path, query: str = "%{RELEASE}\n", *, all_packages: bool = False) -> list[str]:
    """What rpm makes of the Release of a spec file (ours: nobody else's is read outside of a sandbox)."""
    path = room / "mesa.spec"
    path.write_bytes(spec.encode("utf-8", "surrogateescape"))
    which = [] if all_packages else ["--srpm"]
    words = ["rpmspec", "-q", *which, "--qf", query, "--define", "dist .fc26", str(path)]
    return run(words, timeout=30, split_errors=True).output.split()


@pytest.mark.parametrize(("before", "line", "expected", "release"), FORMS)
def test_the_commit_stands_before_the_distribution(
    before: str, line: str, expected: str, release: str, tmp_path: Path
) -> None:
    text = SPEC.format(before=before, release=line)
    changed = with_commit(text, 816, SHA)
    assert changed == SPEC.format(before=before, release=expected)
    assert released(changed, tmp_path) == [release]
    (own,) = released(text, tmp_path)
    assert original(f"mesa-17.1.5-{release}", SHA) == f"mesa-17.1.5-{own}"


# definitions, and what becomes of them; the release is that of `Release: %{rel}`
HOLDERS = [
    ("%global rel 3%{?dist}\n", f"%global rel 3{MARK}%{{?dist}}\n", f"3{MARK}.fc26"),
    ("%define   rel\t3%{?dist}.1\n", f"%define   rel\t3{MARK}%{{?dist}}.1\n", f"3{MARK}.fc26.1"),
    (
        "%global inner 3%{?dist}\n%global rel %{inner}\n",
        f"%global inner 3{MARK}%{{?dist}}\n%global rel %{{inner}}\n",
        f"3{MARK}.fc26",
    ),
    (
        "%if 0%{?nope}\n%global rel 2\n%else\n%global rel 3%{?dist}\n%endif\n",
        f"%if 0%{{?nope}}\n%global rel 2{MARK}\n%else\n%global rel 3{MARK}%{{?dist}}\n%endif\n",
        f"3{MARK}.fc26",
    ),
    (
        "%global rel 3%{?dist}\n%global rel %{rel}.1\n",
        f"%global rel 3{MARK}%{{?dist}}\n%global rel %{{rel}}.1\n",
        f"3{MARK}.fc26.1",
    ),
    ("%{!?rel:%global rel 3%{?dist}}\n", "%{!?rel:%global rel 3%{?dist}}\n", f"3.fc26{MARK}"),
]


@pytest.mark.parametrize(("before", "expected", "release"), HOLDERS)
def test_a_macro_that_holds_the_distribution_gets_the_commit(
    before: str, expected: str, release: str, tmp_path: Path
) -> None:
    changed = with_commit(SPEC.format(before=before, release="Release: %{rel}"), 816, SHA)
    assert changed.startswith(expected)
    assert released(changed, tmp_path) == [release]
    assert original(f"a-b-1-{release}", SHA) == f"a-b-1-{release.replace(MARK, '')}"


# options of %autorelease, the number of the release, what rpm makes of it
AUTORELEASES = [
    ("%autorelease", 12, f"12{MARK}.fc26"),
    ("%{autorelease}", 12, f"12{MARK}.fc26"),
    ("%{?autorelease}", 12, f"12{MARK}.fc26"),
    ("%autorelease -b 5", 3, f"7{MARK}.fc26"),
    ("%autorelease -p -e rc1", 1, f"0.1.rc1{MARK}.fc26"),
    ("%{autorelease -e rc1 -s 2026git}", 1, f"1.rc1.2026git{MARK}.fc26"),
    ("%autorelease -n", 4, f"4{MARK}"),
]


@pytest.mark.parametrize(("value", "number", "release"), AUTORELEASES)
def test_an_automatic_release_is_set_as_rpmautospec_would_and_names_the_commit(
    value: str, number: int, release: str, tmp_path: Path
) -> None:
    text = SPEC.format(before="", release=f"Release: {value}") + "%changelog\n%autochangelog\n"
    assert uses_autorelease(text)
    changed = with_commit(text, 816, SHA, autorelease=number)
    assert changed.endswith(text)
    assert released(changed, tmp_path) == [release]


def test_a_definition_of_rpmautospecs_own_is_given_the_commit(tmp_path: Path) -> None:
    own = (
        "%define autorelease(e:s:pb:n) %{?-p:0.}%{lua:\n    print(2)\n}%{?-e:.%{-e*}}%{?-s:.%{-s*}}%{!?-n:%{?dist}}\n"
    )
    changed = with_commit(SPEC.format(before=own, release="Release: %autorelease"), 816, SHA)
    assert released(changed, tmp_path) == [f"2{MARK}.fc26"]
    assert changed.count("%define autorelease") == 1


def test_every_release_among_the_tags_is_changed_and_none_elsewhere(tmp_path: Path) -> None:
    text = (
        "%global own 9%{?dist}\n#Release: 7\n"
        + SPEC.format(before="", release="%if 0\nRelease: 1\n%else\nRelease: 2%{?dist}\n%endif")
        + "Release: 3\n%package tools\nSummary: x\nRelease: %{release}\n%description tools\nx\n"
        + "%package libs\nSummary: x\nRelease: %{own}\n%description libs\nx\n"
        + "%install\ncat >x.pc <<END\nRelease: 4\nEND\n%files\n%files libs\n%files tools\n%changelog\n"
        + "* Mon Jan 01 2024 A <a@b.c> - 1\n- Release: 5\n"
    )
    changed = with_commit(text, 816, SHA)
    assert changed == (
        text.replace("Release: 1\n%else", f"Release: 1{MARK}\n%else")
        .replace("Release: 2%", f"Release: 2{MARK}%")
        .replace("own 9%", f"own 9{MARK}%")
    )
    names = released(changed, tmp_path, "%{NAME}-%{RELEASE}\n", all_packages=True)
    assert names == [f"mesa-2{MARK}.fc26", f"mesa-tools-2{MARK}.fc26", f"mesa-libs-9{MARK}.fc26"]


@pytest.mark.parametrize(
    "text",
    [
        SPEC.format(before="", release="Release: 1%{?dist}").replace("\n", "\r\n"),
        SPEC.format(before="# M\udcfcller\n", release="Release: 1%{?dist}"),
        SPEC.format(before="# a\x0cRelease: 3\n", release="Release: 1%{?dist}"),
        SPEC.format(before="", release="Release: 1%{?dist}").rstrip("\n"),
    ],
    ids=["CRLF", "no UTF-8", "form feed", "no last line ending"],
)
def test_all_else_is_kept_as_it_was(text: str) -> None:
    assert with_commit(text, 816, SHA) == text.replace("Release: 1%", f"Release: 1{MARK}%")


# the Release line, a part of the message, the evidence
REFUSED = [
    ("", "has no Release", ""),
    ("%{?x:Release: 1}", "has no Release", ""),
    ("Release:", "cannot be added", "Release:"),
    ("Release: %{lua:", "cannot be added", "Release: %{lua:"),
    ("Release: 1\\", "cannot be added", "Release: 1\\"),
    ("%define autorelease() 7\nRelease: %autorelease", "cannot be added", "%define autorelease() 7"),
]


@pytest.mark.parametrize(("line", "message", "evidence"), REFUSED)
def test_what_cannot_be_edited_is_the_packages_fault_and_the_line_is_shown(
    line: str, message: str, evidence: str
) -> None:
    with pytest.raises(PackageError, match=message) as refused:
        with_commit(SPEC.format(before="", release=line), 816, SHA)
    assert refused.value.evidence == evidence


@pytest.mark.parametrize(("count", "sha"), [(0, SHA), (1, "35fdde"), (1, "not a commit")])
def test_what_is_no_history_is_a_wrong_call(count: int, sha: str) -> None:
    with pytest.raises(ConfigurationError, match="are no history"):
        mark_of(count, sha)


@pytest.mark.parametrize("release", ["1.fc26", f"1{MARK}{MARK}.fc26", "1.816.35fdde9a.fc26", "1.35fdde9.fc26"])
def test_a_release_that_does_not_show_the_commit_once_has_no_original(release: str) -> None:
    with pytest.raises(PackageError, match="not once"):
        original(f"mesa-17.1.5-{release}", SHA)


def test_the_legends_own_example() -> None:
    assert original("mesa-17.1.5-1.816.35fdde9.fc26.2", SHA) == "mesa-17.1.5-1.fc26.2"


# one spec and another, and whether both have the same version
VERSIONS = [
    ("Version: 1\nRelease: 1\n", "Version: 1 \nRelease: 2\n", True),
    ("Version: 1\nRelease: 1\n", "Version: 1\nRelease: 2\n# Version: 2\n", True),
    ("Version: 1\n", "Version: 2\n", False),
    ("Version: 1\n", "Version: 1\nEpoch: 1\n", False),
    ("%global v 1\nVersion: %{v}\n", "%global v 2\nVersion: %{v}\n", False),
    ("%global a 1\n%global v %{a}.2\nVersion: %v\n", "%global a 2\n%global v %{a}.2\nVersion: %v\n", False),
    ("%global w 1\nVersion: 1\n", "%global w 2\nVersion: 1\n", True),
    ("%global v %{v}.1\nVersion: %{v}\n", "%global v %{v}.1\nVersion: %{v}\n", True),
    ("Version: 1\n%description\nVersion: 2\n", "Version: 1\n%description\nVersion: 3\n", True),
]


@pytest.mark.parametrize(("one", "other", "same"), VERSIONS)
def test_a_version_changes_with_what_it_is_made_of(one: str, other: str, same: bool) -> None:
    assert (version_of(one) == version_of(other)) is same
