"""Both pipelines behind one intake: each decides about a push for itself, and says so in its own words."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fault_site import TOPIC, FaultSite, push, rev_of
from faulty_line import FaultyLine
from fedora_messaging.message import Message

from distgate.changes.change import MalformedMessage
from distgate.errors import InfrastructureError
from distgate.ledger.ledger import Ledger
from distgate.ledger.rejections import rejections
from distgate.operations.ledger_queries import change_reports
from distgate.prefect_api import PrefectApi
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.servers.prefect_server import PrefectServer
from services.intake import Intake

pytestmark = pytest.mark.lab
BOTH = ("allpackages", "atomic")
#: Packages whose names begin like this are in the list of f41.
LISTED = "listed-"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    directory = tmp_path / "lists"
    directory.mkdir()
    (directory / "f41.txt").write_text(f"{LISTED}*\n")
    return directory


@pytest.fixture
def both(lists: Path) -> dict[str, str]:
    """What makes an intake ask both pipelines."""
    return {"DISTGATE_PIPELINES": '["allpackages", "atomic"]', "DISTGATE_PACKAGE_LISTS": str(lists)}


def listed_push() -> dict[str, Any]:
    made = push()
    made["commit"]["repo"] = LISTED + made["commit"]["repo"]
    return made


def labels_of(site: FaultSite, rev: str, expected: int) -> list[str]:
    """The pipelines of the events about a commit, once there are as many as expected."""
    found = wait_for(
        f"{expected} events",
        lambda: found if len(found := site.events_for(rev)) >= expected else None,
        90,
        evidence=lambda: site.log("intake"),
    )
    assert len({event["id"] for event in found}) == len(found)
    assert {event["resource"]["distgate.rev"] for event in found} == {rev}
    return sorted(event["resource"]["distgate.pipeline"] for event in found)


def decisions(ledger: Ledger, body: dict[str, Any]) -> dict[str, tuple[str, str, int]]:
    """Decision, rule and count of messages of each pipeline."""
    found = change_reports(ledger, body["commit"]["repo"], rev_of(body))
    return {one.pipeline: (one.decision, one.rule, one.seen) for one in found}


def test_one_push_is_an_event_of_each_pipeline_and_its_copies_are_none(site: FaultSite, both: dict[str, str]) -> None:
    one, later = listed_push(), listed_push()
    with site.running("intake", **both):
        site.send(one, one, one)
        assert labels_of(site, rev_of(one), 2) == list(BOTH)
        site.send(later)
        assert labels_of(site, rev_of(later), 2) == list(BOTH)
        assert labels_of(site, rev_of(one), 2) == list(BOTH)
        site.settle(4)
        assert decisions(site.ledger, one) == dict.fromkeys(BOTH, ("queued", "accepted", 3))
        # The automation of All Packages takes its own event alone.
        assert site.runs_for(rev_of(one), rev_of(later)) == [1, 1]
        site.settle(5)


def test_a_package_that_atomic_host_has_not_is_tested_by_one_and_ignored_by_the_other(
    site: FaultSite, both: dict[str, str]
) -> None:
    one = push()
    with site.running("intake", **both):
        site.send(one, one)
        assert labels_of(site, rev_of(one), 1) == ["allpackages"]
        site.settle(1)
    assert decisions(site.ledger, one) == {
        "allpackages": ("queued", "accepted", 2),
        "atomic": ("ignored", "package", 2),
    }
    (message,) = site.ledger.unsent()
    assert message.topic == "org.centos.prod.ci.pipeline.package.ignored"
    assert message.body["ref"] == "fedora/f41/x86_64/atomic-host"
    assert message.body["rev"] == rev_of(one)


def test_what_both_ignore_is_said_by_each_on_its_own_topic(site: FaultSite, both: dict[str, str]) -> None:
    one, later = push(branch="epel9"), listed_push()
    with site.running("intake", **both):
        site.send(one, one, later)
        site.settle(2)
    messages = [message for message in site.ledger.unsent() if message.body["rev"] == rev_of(one)]
    assert sorted(message.topic for message in messages) == [
        "org.centos.prod.ci.pipeline.allpackages.package.ignored",
        "org.centos.prod.ci.pipeline.package.ignored",
    ]
    assert len({message.body["build_id"] for message in messages}) == 2


def test_an_intake_killed_before_prefect_heard_of_either_tells_it_of_both_when_it_is_back(
    site: FaultSite, both: dict[str, str]
) -> None:
    one = listed_push()
    with FaultyLine(site.gate.prefect.port, mode="deaf") as line:
        with site.running("intake", PREFECT_API_URL=line.url("/api"), DISTGATE_PUSH_SETTLES="0", **both) as intake:
            site.send(one)
            wait_for("it to be written down", lambda: decisions(site.ledger, one), 90)
            kill(intake)
        assert site.events_for(rev_of(one)) == []
    with site.running("intake", DISTGATE_PUSH_SETTLES="0", **both):
        assert labels_of(site, rev_of(one), 2) == list(BOTH)
        site.settle(2)


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def opened(directory: Path, api: str, **settings: Any) -> tuple[Ledger, Intake]:
    ledger = Ledger(f"sqlite:///{directory}/ledger.db")
    own = Settings(**({"pipelines": BOTH, "package_lists": directory / "lists", "push_settles": 0} | settings))
    return ledger, Intake(ledger, PrefectApi(api, patience=0), own)


def message(body: dict[str, Any]) -> Message:
    return Message(topic=TOPIC, body=body)


def test_a_push_that_is_tried_again_is_counted_once_for_each_pipeline(
    tmp_path: Path, lists: Path, prefect_server: PrefectServer
) -> None:
    ledger, intake = opened(tmp_path, "http://127.0.0.1:9/api")
    one = listed_push()
    sent = message(one)
    for _ in range(2):
        with pytest.raises(InfrastructureError):
            intake.handle(sent)
    assert decisions(ledger, one) == {"allpackages": ("queued", "accepted", 1)}
    ledger, intake = opened(tmp_path, prefect_server.api_url)
    for _ in range(2):
        intake.handle(message(one))
    assert decisions(ledger, one) == {"allpackages": ("queued", "accepted", 3), "atomic": ("queued", "accepted", 2)}


def test_a_list_that_cannot_be_read_keeps_the_push_on_the_bus_and_all_packages_at_work(
    tmp_path: Path, lists: Path, prefect_server: PrefectServer
) -> None:
    ledger, intake = opened(tmp_path, prefect_server.api_url)
    (lists / "f41.txt").write_bytes(b"\xff\xfe")
    one = listed_push()
    sent = message(one)
    for _ in range(3):
        with pytest.raises(InfrastructureError, match="cannot read the package list"):
            intake.handle(sent)
    assert decisions(ledger, one) == {"allpackages": ("queued", "accepted", 1)}
    (lists / "f41.txt").write_text(f"{LISTED}*\n")
    intake.handle(sent)
    assert decisions(ledger, one) == dict.fromkeys(BOTH, ("queued", "accepted", 1))


def test_what_cannot_be_read_is_rejected_once_whatever_the_number_of_pipelines(
    tmp_path: Path, lists: Path, prefect_server: PrefectServer
) -> None:
    ledger, intake = opened(tmp_path, prefect_server.api_url)
    with pytest.raises(MalformedMessage):
        intake.handle(message({"commit": {"repo": "../x"}}))
    assert [one.seen for one in rejections(ledger)] == [1]


def test_the_caps_of_one_pipeline_are_not_those_of_the_other(
    tmp_path: Path, lists: Path, prefect_server: PrefectServer
) -> None:
    ledger, intake = opened(tmp_path, prefect_server.api_url, hourly_cap=2)
    pushes = [push(), listed_push(), listed_push(), listed_push()]
    for body in pushes:
        intake.handle(message(body))
    found = [{name: one[0] for name, one in decisions(ledger, body).items()} for body in pushes]
    assert [one["allpackages"] for one in found] == ["queued", "queued", "shed", "shed"]
    assert [one["atomic"] for one in found] == ["ignored", "queued", "queued", "shed"]


def test_a_push_settles_for_each_pipeline(tmp_path: Path, lists: Path, prefect_server: PrefectServer) -> None:
    ledger, intake = opened(tmp_path, prefect_server.api_url, push_settles=0.001)
    bodies = [listed_push(), listed_push()]
    bodies[1]["commit"]["repo"] = bodies[0]["commit"]["repo"]
    for body in bodies:
        intake.handle(message(body))
    wait_for(
        "both to be decided about",
        lambda: intake.act_on_settled() == 0 and "settling" not in str([decisions(ledger, body) for body in bodies]),
        30,
        interval=0.05,
    )
    # Within the same moment, or one after the other: either way the same for both.
    for body in bodies:
        assert len(set(decisions(ledger, body).values())) == 1
    assert decisions(ledger, bodies[1])["atomic"] == ("queued", "accepted", 1)
