"""The health of a worker's host: what a report amounts to, and the file that it stands in."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.doctor.health import (
    Health,
    health_file,
    health_of,
    host_of,
    needed_of,
    queue_of,
    read_health,
    write_health,
)
from distgate.doctor.report import Finding, Report

GOOD, BAD = Finding("disk", True, "much"), Finding("koji", False, "the hub is away")

CASES: list[tuple[tuple[str, ...], bool, str]] = [
    ((), False, "1 of 2 checks failed: koji: the hub is away"),
    (("disk",), True, "all 1 checks passed: this worker can take runs"),
    (("disk", "koji"), False, "1 of 2 checks failed: koji: the hub is away"),
]


@pytest.mark.parametrize(("needed", "fit", "said"), CASES)
def test_a_host_is_fit_when_the_checks_that_its_workers_need_pass(
    needed: tuple[str, ...], fit: bool, said: str
) -> None:
    assert health_of(needed_of(Report((GOOD, BAD)), needed), 7.0) == Health(fit, said, 7.0)


def test_what_is_written_is_read_and_anything_else_is_no_health(tmp_path: Path) -> None:
    file = health_file(tmp_path / "new", "host/1 %")
    assert read_health(file) is None
    write_health(file, Health(True, "fine", 5.0))
    assert read_health(file) == Health(True, "fine", 5.0)
    for broken in ("", "[]", '{"fit": true}', "\0"):
        file.write_text(broken)
        assert read_health(file) is None


def test_a_host_has_a_queue_that_prefect_takes() -> None:
    assert queue_of("kvm01.example.org") == "host-kvm01.example.org"
    assert queue_of("a/b %") == "host-a-b--"
    assert host_of("host-kvm01") == "kvm01"
    assert host_of("default") is None
