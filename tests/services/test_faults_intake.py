"""Faults between the bus and Prefect: every push that was sent is answered by one run, however often it comes."""

from __future__ import annotations

import os
import random
import signal
import subprocess

import pytest
from faulty_line import FaultyLine
from rooms import Room, fill, push, rev_of

from distgate.waiting import wait_for
from lab.servers import supervisor

pytestmark = pytest.mark.lab
#: Offered to Prefect within the message's turn, and later from the ledger.
TURNS = pytest.mark.parametrize("settles", ["0", "1"], ids=["offered at once", "offered from the ledger"])


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def accepted(room: Room, count: int = 1) -> None:
    wait_for(
        f"{count} changes to be written down",
        lambda: room.ledger.counts().get("queued", 0) == count,
        90,
        evidence=lambda: room.log("intake"),
    )


@TURNS
def test_an_intake_killed_between_the_record_and_the_event_starts_one_run_when_it_is_back(
    room: Room, settles: str
) -> None:
    one = push()
    with FaultyLine(room.gate.prefect.port, mode="deaf") as line:
        with room.running("intake", PREFECT_API_URL=line.url("/api"), DISTGATE_PUSH_SETTLES=settles) as intake:
            room.send(one)
            accepted(room)
            kill(intake)
        assert room.events_for(rev_of(one)) == []
        with room.running("intake", DISTGATE_PUSH_SETTLES=settles):
            assert room.runs_for(rev_of(one)) == [1]
            room.settle(2)


def test_an_intake_killed_between_the_event_and_its_note_of_it_starts_one_run(room: Room) -> None:
    one = push()
    with FaultyLine(room.gate.prefect.port) as line:
        # 0: offered within the message's turn, so that the message is not acknowledged either.
        with room.running("intake", PREFECT_API_URL=line.url("/api"), DISTGATE_PUSH_SETTLES="0") as intake:
            line.mode = "mute"
            room.send(one)
            wait_for("Prefect to have the event", lambda: room.events_for(rev_of(one)) or None, 60)
            kill(intake)
        with room.running("intake"):
            assert room.runs_for(rev_of(one)) == [1]
            room.settle(2)


def test_an_intake_that_is_killed_again_and_again_loses_no_push(room: Room) -> None:
    pushes = [push() for _ in range(6)]
    with room.running("intake"):
        pass  # its queue keeps what comes while it is away
    for number in range(0, 6, 3):
        room.send(*pushes[number : number + 3])
        with room.running("intake") as intake:
            wait_for(
                "some of them to be written down",
                lambda least=number + 1: room.ledger.counts().get("queued", 0) >= least,
                90,
                interval=0.01,
            )
            kill(intake)
    with room.running("intake"):
        room.settle(6)
        assert room.runs_for(*map(rev_of, pushes)) == [1] * 6


def test_a_push_that_comes_while_prefect_is_away_waits_on_the_bus_and_then_has_one_run(room: Room) -> None:
    one, other = push(), push()
    with room.running("intake") as intake:
        supervisor.kill(room.gate.state, "prefect-server", signal.SIGKILL)
        supervisor.hold(room.gate.state, "prefect-server")
        try:
            room.send(one, other)
            wait_for("the first to be in hand", lambda: room.waiting()[1] > 0, 30)
            assert sum(room.waiting()) == 2
        finally:
            supervisor.release(room.gate.state, "prefect-server")
        supervisor.wait_healthy(room.gate.state, ["prefect-server"], supervisor.Deadline(120))
        room.settle(2)
        assert room.runs_for(rev_of(one), rev_of(other)) == [1, 1]
        assert intake.poll() is None


def test_a_broker_that_is_killed_under_the_intake_costs_no_push_and_starts_none_twice(room: Room) -> None:
    pushes = [push() for _ in range(6)]
    with room.running("intake") as intake:
        room.send(*pushes[:3])
        accepted(room, 3)
        supervisor.kill(room.gate.state, "rabbitmq")
        supervisor.wait_healthy(room.gate.state, ["rabbitmq"], supervisor.Deadline(60))
        room.send(*pushes[3:])
        room.settle(6)
        assert room.runs_for(*map(rev_of, pushes)) == [1] * 6
        assert intake.poll() is None


def test_pushes_that_come_several_times_and_in_any_order_have_one_run_each(room: Room) -> None:
    pushes = [push() for _ in range(5)]
    repeated = pushes * 4
    random.Random(7).shuffle(repeated)
    with room.running("intake"):
        room.send(*repeated)
        room.settle(5)
        assert room.runs_for(*map(rev_of, pushes)) == [1] * 5
    assert room.dead() == {}


def test_a_full_disk_under_the_ledger_leaves_the_push_on_the_bus(narrow_room: Room) -> None:
    room = narrow_room
    one = push()
    with room.running("intake") as intake:
        filler = fill(room.directory)
        room.send(one)
        wait_for("the operator to be told", lambda: "is its disk full" in room.log("intake"), 60)
        assert sum(room.waiting()) == 1
        filler.unlink()
        room.settle(1)
        assert room.runs_for(rev_of(one)) == [1]
        assert intake.poll() is None
