"""What a doctor's observations mean, and how its report reads; the command beside broken servers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from distgate.doctor.report import (
    CheckResult,
    Confinement,
    Finding,
    Reading,
    Report,
    Space,
    judge_accelerator,
    judge_bases,
    judge_clock,
    judge_compose,
    judge_disk,
    judge_prefect,
    judge_sandbox,
)
from distgate.process import Completed, run

GIB = 1024**3
GUESTFS = ("guestfs", False, "not installed: supermin")

#: What was seen and judged, whether it is fit, a part of what is said.
CASES: list[tuple[CheckResult, bool, str]] = [
    (judge_accelerator("kvm", "KVM ran a boot sector in 0.1 s", 1), True, "KVM ran"),
    (judge_accelerator("tcg", "/dev/kvm cannot be opened", 5), True, "emulation only, guests are given 5 times"),
    (judge_disk([Space("images", Path("/i"), 6 * GIB, True)], 5 * GIB), True, "6.0 GiB free for images in /i"),
    (judge_disk([Space("images", Path("/i"), 4 * GIB, True)], 5 * GIB), False, "4.0 GiB free of 5.0 GiB needed"),
    (judge_disk([Space("images", Path("/i"), 6 * GIB, False)], 5 * GIB), False, "images in /i: not writable"),
    (judge_disk([Space("images", Path("/i"), None, False, "Stale handle")], 0), False, "Stale handle"),
    (judge_compose([("loop", True, ""), GUESTFS], "auto"), True, "usable: loop (not guestfs: not installed"),
    (judge_compose([("loop", True, ""), GUESTFS], "guestfs"), False, "guestfs is not usable"),
    (judge_compose([GUESTFS], "auto"), False, "no image can be mounted here"),
    (judge_sandbox(Confinement(61184, 0, 0, False)), True, "ran as user 61184"),
    (judge_sandbox(Confinement(0, 0, 0, False)), False, "runs as user 0"),
    (judge_sandbox(Confinement(61184, 0x200000, 0, False)), False, "capabilities 0x200000"),
    (judge_sandbox(Confinement(61184, 0, 1, False)), False, "reaches a network"),
    (judge_sandbox(Confinement(61184, 0, 0, True)), False, "reaches ports of this host"),
    (judge_bases(["f41"], ["f4[12]"], 0), True, "a qualified base image for f41"),
    (judge_bases(["f41"], ["rawhide", "f4[12]"], 0), True, "none for rawhide"),
    (judge_bases([], ["rawhide"], 2), True, "for no branch; none for rawhide; 2 unreadable"),
    (judge_prefect("3.8.8", "3.8.8"), True, "Prefect 3.8.8 answers"),
    (judge_prefect("3.8.1", "3.8.8"), True, "this worker has 3.8.8"),
    (judge_prefect("3.10.0", "3.9.2"), True, "3.10.0"),
    (judge_prefect("3.9.2", "3.10.0"), False, "the server has Prefect 3.9.2, this worker 3.10.0"),
    (judge_prefect("4.0.0", "3.8.8"), False, "the server has Prefect 4.0.0"),
    (judge_prefect("<html>", "3.8.8"), False, "is no version"),
    (judge_clock([Reading("Koji", 100, 100.2, 100)], {}), True, "within 5 s of Koji"),
    (judge_clock([Reading("Koji", 100, 100.2, 100)], {"Prefect": "away"}), True, "Prefect was not asked: away"),
    (judge_clock([Reading("Koji", 100, 100, 110)], {}), False, "Koji is 11 s ahead of this host"),
    (judge_clock([Reading("Koji", 100, 100, 90)], {}), False, "Koji is 9 s behind this host"),
    # An answer that took twenty seconds says nothing about eight.
    (judge_clock([Reading("Koji", 100, 120, 118)], {}), True, "within 5 s"),
    (judge_clock([Reading("a", 100, 100, 100), Reading("b", 100, 100, 200)], {}), False, "b is 101 s ahead"),
    (judge_clock([], {"Prefect": "away"}), False, "no clock to compare with: Prefect was not asked: away"),
]


@pytest.mark.parametrize(("seen", "fit", "said"), CASES, ids=[case[2] for case in CASES])
def test_what_was_seen_is_fit_or_not_in_words(seen: CheckResult, fit: bool, said: str) -> None:
    assert seen.ok is fit
    assert said in seen.detail
    assert seen.ok or seen.hint


def test_a_report_is_ok_when_every_finding_is() -> None:
    good, bad = Finding("qemu", True, "7.2"), Finding("koji", False, "away", "is it up?")
    assert Report((good,)).ok
    assert "all 1 checks passed" in Report((good,)).sentence()
    report = Report((good, bad))
    assert report.sentence() == "1 of 2 checks failed: koji"
    assert report.rows() == [("qemu", "ok", "7.2"), ("koji", "FAILED", "away"), ("", "", "hint: is it up?")]
    assert report.as_json() == {
        "ok": False,
        "checks": [
            {"name": "qemu", "ok": True, "detail": "7.2", "hint": ""},
            {"name": "koji", "ok": False, "detail": "away", "hint": "is it up?"},
        ],
    }


def test_what_servers_say_is_one_harmless_line() -> None:
    found = Finding.of("koji", CheckResult(False, "\x1b[31mred\nlines", "look\nthere"))
    assert (found.detail, found.hint) == ("red lines", "look there")


def doctor(where: Path, *words: str) -> Completed:
    own = f"from distgate.cli.main import main; main({['doctor', *words]!r})"
    env = {
        "DISTGATE_AMQP_URL": "amqp://jane:s3cret@127.0.0.1:1/",
        "DISTGATE_PREFECT_API_URL": "http://127.0.0.1:1/api",
        "DISTGATE_LEDGER_URL": f"sqlite:///{where}/none/ledger.db",
        "DISTGATE_ARTIFACTS_DIR": str(where / "artifacts"),
        "DISTGATE_IMAGE_STORE": str(where / "images"),
        "DISTGATE_GUESTS_DIR": str(where / "guests"),
    }
    return run([sys.executable, "-c", own, *words], timeout=300, env=env, allowed=range(256), split_errors=True)


def test_the_command_tells_every_check_though_most_servers_are_away(tmp_path: Path) -> None:
    told = doctor(tmp_path, "--json")
    assert told.returncode == 1, told.errors
    said = json.loads(told.output)
    assert not said["ok"]
    found = {one["name"]: one for one in said["checks"]}
    assert list(found) == [
        *("kvm", "qemu", "libvirt", "sandbox", "compose", "disk", "images", "ansible", "tmt"),
        *("koji", "artifacts", "broker", "prefect", "ledger", "clock"),
    ]
    servers = ("images", "koji", "artifacts", "broker", "prefect", "ledger", "clock")
    away = {name for name in servers if not found[name]["ok"]}
    assert len(away) == 7, found
    assert all(found[name]["hint"] for name in away)
    for name in ("kvm", "qemu", "libvirt", "ansible", "tmt"):
        assert found[name]["ok"], found[name]
    assert "s3cret" not in told.output + told.errors
    assert "Traceback" not in told.errors
    assert not (tmp_path / "none").exists()


def test_a_size_that_is_none_is_a_wrong_call(tmp_path: Path) -> None:
    told = doctor(tmp_path, "--free", "much")
    assert (told.returncode, told.output) == (2, "")
    assert "'much' is no size" in told.errors
