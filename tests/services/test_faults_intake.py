"""Faults between the bus and Prefect: every push that was sent is answered by one run, however often it comes."""

from __future__ import annotations

import os
import random
import signal
import subprocess

import pytest
from fault_site import FaultSite, fill, push, rev_of
from faulty_line import FaultyLine

from distgate.waiting import wait_for
from lab.servers import supervisor

pytestmark = pytest.mark.lab
#: Offered to Prefect within the message's turn, and later from the ledger.
TURNS = pytest.mark.parametrize("settles", ["0", "1"], ids=["offered at once", "offered from the ledger"])


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def accepted(site: FaultSite, count: int = 1) -> None:
    wait_for(
        f"{count} changes to be written down",
        lambda: site.ledger.counts().get("queued", 0) == count,
        90,
        evidence=lambda: site.log("intake"),
    )


@TURNS
def test_an_intake_killed_between_the_record_and_the_event_starts_one_run_when_it_is_back(
    site: FaultSite, settles: str
) -> None:
    one = push()
    with FaultyLine(site.gate.prefect.port, mode="deaf") as line:
        with site.running("intake", PREFECT_API_URL=line.url("/api"), DISTGATE_PUSH_SETTLES=settles) as intake:
            site.send(one)
            accepted(site)
            kill(intake)
        assert site.events_for(rev_of(one)) == []
        with site.running("intake", DISTGATE_PUSH_SETTLES=settles):
            assert site.runs_for(rev_of(one)) == [1]
            site.settle(2)


def test_an_intake_killed_between_the_event_and_its_note_of_it_starts_one_run(site: FaultSite) -> None:
    one = push()
    with FaultyLine(site.gate.prefect.port) as line:
        # 0: offered within the message's turn, so that the message is not acknowledged either.
        with site.running("intake", PREFECT_API_URL=line.url("/api"), DISTGATE_PUSH_SETTLES="0") as intake:
            line.mode = "mute"
            site.send(one)
            wait_for("Prefect to have the event", lambda: site.events_for(rev_of(one)) or None, 60)
            kill(intake)
        with site.running("intake"):
            assert site.runs_for(rev_of(one)) == [1]
            site.settle(2)


def test_an_intake_that_is_killed_again_and_again_loses_no_push(site: FaultSite) -> None:
    pushes = [push() for _ in range(6)]
    with site.running("intake"):
        pass  # its queue keeps what comes while it is away
    for number in range(0, 6, 3):
        site.send(*pushes[number : number + 3])
        with site.running("intake") as intake:
            wait_for(
                "some of them to be written down",
                lambda least=number + 1: site.ledger.counts().get("queued", 0) >= least,
                90,
                interval=0.01,
            )
            kill(intake)
    with site.running("intake"):
        site.settle(6)
        assert site.runs_for(*map(rev_of, pushes)) == [1] * 6


def test_a_push_that_comes_while_prefect_is_away_waits_on_the_bus_and_then_has_one_run(site: FaultSite) -> None:
    one, other = push(), push()
    with site.running("intake") as intake:
        supervisor.kill(site.gate.state, "prefect-server", signal.SIGKILL)
        supervisor.hold(site.gate.state, "prefect-server")
        try:
            site.send(one, other)
            wait_for("the first to be in hand", lambda: site.waiting()[1] > 0, 30)
            assert sum(site.waiting()) == 2
        finally:
            supervisor.release(site.gate.state, "prefect-server")
        supervisor.wait_healthy(site.gate.state, ["prefect-server"], supervisor.Deadline(120))
        site.settle(2)
        assert site.runs_for(rev_of(one), rev_of(other)) == [1, 1]
        assert intake.poll() is None


def test_a_broker_that_is_killed_under_the_intake_costs_no_push_and_starts_none_twice(site: FaultSite) -> None:
    pushes = [push() for _ in range(6)]
    with site.running("intake") as intake:
        site.send(*pushes[:3])
        accepted(site, 3)
        supervisor.kill(site.gate.state, "rabbitmq")
        supervisor.wait_healthy(site.gate.state, ["rabbitmq"], supervisor.Deadline(60))
        site.send(*pushes[3:])
        site.settle(6)
        assert site.runs_for(*map(rev_of, pushes)) == [1] * 6
        assert intake.poll() is None


def test_pushes_that_come_several_times_and_in_any_order_have_one_run_each(site: FaultSite) -> None:
    pushes = [push() for _ in range(5)]
    repeated = pushes * 4
    random.Random(7).shuffle(repeated)
    with site.running("intake"):
        site.send(*repeated)
        site.settle(5)
        assert site.runs_for(*map(rev_of, pushes)) == [1] * 5
    assert site.dead() == {}


def test_a_full_disk_under_the_ledger_leaves_the_push_on_the_bus(full_disk_site: FaultSite) -> None:
    site = full_disk_site
    one = push()
    with site.running("intake") as intake:
        filler = fill(site.directory)
        site.send(one)
        wait_for("the operator to be told", lambda: "is its disk full" in site.log("intake"), 60)
        assert sum(site.waiting()) == 1
        filler.unlink()
        site.settle(1)
        assert site.runs_for(rev_of(one)) == [1]
        assert intake.poll() is None
