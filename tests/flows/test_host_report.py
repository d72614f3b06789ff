"""What the summary of an Atomic Host run says: the verdict of its stages, what was left out and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.atomic.upgrade_test import UpgradeReport
from distgate.changes.change import Change
from distgate.conformance.verdict import ConformanceReport
from distgate.errors import PackageError
from distgate.ostree.base import ComposedTree
from distgate.rpm.diff import package_diff
from distgate.rpm.nevra import Nevra
from distgate.runners.session import JudgedSuite
from distgate.runs.directory import RunDirectory
from distgate.testing.discovery import Suite
from distgate.testing.results import TestOutcome
from distgate.testing.verdict import SuiteVerdict
from tasks.conformance import NO_PROFILE
from tasks.functional import TestReport
from tasks.host_image import NOT_DUE
from tasks.integration import IntegrationReport
from tasks.page.atomic_host import MOST_LINES, HostReport
from tasks.run.job import Job

REV, PARENT = "ab" * 32, "cd" * 32
NEW, OLD = (Nevra("tiny", 0, version, "1", "noarch") for version in ("2", "1"))
TREE = ComposedTree(
    ref="fedora/f42/x86_64/atomic-host",
    rev=REV,
    version="42.7",
    parent=PARENT,
    installed=(NEW,),
    changes=package_diff((OLD,), (NEW,)),
    requested=(NEW,),
    driver="dnf",
    size=1,
)
UPGRADE = UpgradeReport(REV, "42.7", PARENT, upgraded=True, rolled_back=True)
PASS = SuiteVerdict("host.yml", "PASS", None, (TestOutcome("host.yml", "pass"),), "all 3 tasks passed")
FAIL = SuiteVerdict("host.yml", "FAIL", "package", (), "task 'Look': | no [x](http://evil)")


@pytest.fixture
def report(tmp_path: Path) -> HostReport:
    change = Change(namespace="rpms", repo="tiny", rev="a" * 40, branch="f42")
    job = Job("run-1", 1, change, "lab", RunDirectory(tmp_path / "run-1", "http://artifacts"), pipeline="atomic")
    tests = TestReport("SUCCESS", (JudgedSuite(Suite("tests/tests.yml"), PASS, tmp_path),), before="built")
    return HostReport(job, tree=TREE, verdict=tests, no_image=NOT_DUE)


def integrated(report: HostReport, status: str, verdict: SuiteVerdict) -> IntegrationReport:
    place = report.job.run_dir.root / "integration/suites/host"
    return IntegrationReport(status, UPGRADE, (JudgedSuite(Suite("host.yml", kind="playbook"), verdict, place),))


def test_a_run_that_passed_says_what_was_found_and_what_was_left_out(report: HostReport) -> None:
    report.integration = integrated(report, "SUCCESS", PASS)
    assert report.status == "SUCCESS"
    said = report.sentence()
    assert "its tests passed: 1 in 1 suite" in said
    assert "upgrades to abababababab (42.7), restarts into it, and rolls back; integration tests: 1 passed" in said
    assert NOT_DUE in said


def test_a_failing_integration_suite_makes_the_run_unstable_and_is_named_with_its_blame(report: HostReport) -> None:
    report.integration = integrated(report, "UNSTABLE", FAIL)
    assert report.status == "UNSTABLE"
    assert report.sentence().endswith("host.yml: task 'Look': | no [x](http://evil) (blame: package)")
    page = "\n".join(report.sections())
    assert "](http://evil)" not in page
    assert "- **host.yml**: FAIL (blame: package)." in page
    assert report.blame == "package"
    assert report.record().blame == "package"


def test_an_error_counts_more_than_what_did_not_pass_before(report: HostReport) -> None:
    report.integration = integrated(report, "UNSTABLE", FAIL)
    report.error = PackageError("the image does not boot")
    assert report.status == "FAILURE"
    assert report.sentence().endswith("the image does not boot (blame: package)")


def test_conformance_is_shown_by_test_or_its_absence_is_said(report: HostReport) -> None:
    report.no_e2e = NO_PROFILE
    assert ("e2e conformance", "not configured \\(block Host tests\\)") in list(report.rows())
    suite = SuiteVerdict("mini", "FAIL", "package", (TestOutcome("dns", "fail"), TestOutcome("pods", "pass")), "dns")
    report.conformance = ConformanceReport("UNSTABLE", "mini on 2 nodes: UNSTABLE", "conformance", suite)
    assert report.status == "UNSTABLE"
    page = "\n".join(report.sections())
    assert "| dns | fail |" in page
    assert "| pods | pass |" in page


def test_the_packages_that_changed_are_shown_and_a_flood_of_them_is_cut(report: HostReport) -> None:
    assert any("tiny" in part and "Packages beside `cdcdcdcdcdcd`" in part for part in report.sections())
    many = [Nevra(f"p{number}", 0, "1", "1", "noarch") for number in range(MOST_LINES + 5)]
    report.tree = ComposedTree(**{**vars(TREE), "changes": package_diff((), many)})
    assert "... and 5 more" in "\n".join(report.sections())
