"""One real boot: a plan with a test of every kind, from its tree to its verdict; and what a guest may do without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from distgate.guests.base import Guest
from distgate.guests.host import LibvirtGuests
from distgate.images.base import BaseImage
from distgate.runners.tmt import TmtSuites, context_of
from distgate.testing.verdict import judge

pytestmark = pytest.mark.guest

TREE = {
    ".fmf/version": "1\n",
    "plans/ci.fmf": "discover: {how: fmf}\nexecute: {how: tmt}\nadjust: {when: arch != x86_64, enabled: false}\n",
    "tests/main.fmf": """\
/pass: {test: 'echo "in $0 on $(hostname)"; test -f here'}
/fail: {test: 'printf "\\\\377\\\\033[31m bad\\\\n"; false'}
/error: {test: exit 99}
/skip: {test: 'echo "- {name: /, result: skip}" > "$TMT_TEST_DATA/results.yaml"', result: custom}
""",
    "tests/here": "",
}


@pytest.fixture(scope="module")
def guest(base_image: BaseImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A running guest on the base image, which reaches no repository."""
    work = tmp_path_factory.mktemp("guest")
    with LibvirtGuests(work).boot(base_image.path, base_image.ssh_key, work, 120) as running:
        yield running


def plans(tmp_path: Path, files: Mapping[str, str]) -> TmtSuites:
    for name, text in files.items():
        (tmp_path / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "checkout" / name).write_text(text)
    return TmtSuites(tmp_path / "checkout", context_of("f44"))


def test_a_plan_runs_in_the_guest_and_each_of_its_tests_is_told(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "hunter2")
    artifacts, suites = tmp_path / "artifacts", plans(tmp_path, TREE)
    run = suites.run("/plans/ci", guest, artifacts, {"TOLD": "you"}, 600)
    left = guest.run("rpm -q --qf '%{NAME}\\n' util-linux; command -v dnf >&2; ls /var/log/dnf.log", 120)
    seen = judge(run)
    assert (seen.verdict, seen.blame) == ("FAIL", "package"), seen.evidence
    assert [(test.name, test.result) for test in seen.tests] == [
        ("/tests/error", "error"),
        ("/tests/fail", "fail"),
        ("/tests/pass", "pass"),
        ("/tests/skip", "skip"),
    ]
    said = (artifacts / seen.tests[2].logs[0]).read_text()
    assert "lab-guest" in said
    assert "dnf.log" not in left.stdout  # no package manager was called for a plan that requires nothing
    texts = [path.read_bytes() for path in artifacts.rglob("*") if path.is_file()]
    assert not any(b"hunter2" in text or b"PRIVATE KEY" in text for text in texts)
    assert not list((tmp_path / "checkout").rglob("*.sh-*"))  # the checkout itself is untouched


WISHES = [("recommend", "PASS", None), ("require", "ERROR", "tests")]


@pytest.mark.parametrize(("key", "verdict", "blame"), WISHES)
def test_a_plan_does_without_recommended_packages_and_names_required_ones_that_are_missing(
    key: str, verdict: str, blame: str | None, guest: Guest, tmp_path: Path
) -> None:
    wish = {**TREE, "tests/main.fmf": f"test: 'true'\n{key}: [bash, nosuch-package]\n"}
    seen = judge(plans(tmp_path, wish).run("/plans/ci", guest, tmp_path / "artifacts", {}, 600))
    assert (seen.verdict, seen.blame, seen.retryable) == (verdict, blame, False), seen.evidence
    told = seen.evidence if blame else (tmp_path / "artifacts" / "tmt.txt").read_text()
    assert "nosuch-package" in told
