"""Faults between the outbox and the broker: nothing is lost, nothing changes its place, a copy keeps its ID."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest
from faulty_line import FaultyLine
from rooms import LETTERS, Room, as_sent, everything, fill

from distgate.waiting import wait_for
from lab.servers import supervisor
from lab.servers.rabbitmq import EXCHANGE

pytestmark = pytest.mark.lab


def tried(room: Room, times: int = 1) -> None:
    wait_for(
        f"the first message to be tried {times} times",
        lambda: room.ledger.unsent()[0].tries >= times,
        90,
        evidence=lambda: room.log("relay"),
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_the_outbox_waits_while_the_broker_is_away_and_arrives_whole_when_it_is_back(room: Room) -> None:
    with room.bus() as bus:
        supervisor.hold(room.gate.state, "rabbitmq")
        try:
            letters = room.write_runs("a", "b")
            with room.running("relay"):
                tried(room, 2)
                supervisor.release(room.gate.state, "rabbitmq")
                room.delivered()
        finally:
            supervisor.release(room.gate.state, "rabbitmq")
        assert everything(bus) == as_sent(letters)
    assert "cannot be reached" in room.log("relay")


def test_a_broker_that_is_killed_while_it_is_sent_to_loses_nothing_and_copies_keep_their_ids(room: Room) -> None:
    with room.bus() as bus:
        letters = room.write_runs(*(f"r{n}" for n in range(30)))
        with room.running("relay"):
            wait_for("some to be sent", lambda: room.ledger.counts()["sent"] > 20, 60, interval=0.01)
            supervisor.kill(room.gate.state, "rabbitmq")
            room.delivered()
        supervisor.wait_healthy(room.gate.state, ["rabbitmq"], supervisor.Deadline(60))
        read = everything(bus)
    assert list(dict.fromkeys(read)) == as_sent(letters)


def test_a_memory_alarm_holds_messages_back_and_makes_no_copies(room: Room) -> None:
    with room.bus() as bus:
        room.gate.broker.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            letters = room.write_runs("a")
            with room.running("relay"):
                tried(room, 2)
                room.gate.broker.control("set_vm_memory_high_watermark", "absolute", "512MB")
                room.delivered()
        finally:
            room.gate.broker.control("set_vm_memory_high_watermark", "absolute", "512MB")
        assert everything(bus) == as_sent(letters)
    assert "memory or disk alarm" in room.log("relay")


def test_what_we_may_not_publish_waits_until_we_may(room: Room) -> None:
    control = room.gate.broker.control
    control("add_user", room.queue, "secret")
    control("set_permissions", room.queue, "", "", ".*")
    url = room.url.replace(f"distgate:{room.gate.broker.password}", f"{room.queue}:secret")
    with room.bus() as bus:
        letters = room.write_runs("a")
        with room.running("relay", DISTGATE_AMQP_URL=url):
            tried(room)
            assert "forbids" in (room.ledger.unsent()[0].error or "")
            control("set_permissions", room.queue, "", ".*", ".*")
            room.delivered()
        assert everything(bus) == as_sent(letters)
    assert "the user needs the right to write this topic" in room.log("relay")


def test_a_missing_exchange_is_told_at_the_start_and_waited_for(room: Room) -> None:
    missing = f"exchange.{room.queue}"
    with room.running("relay", DISTGATE_EXCHANGE=missing):
        wait_for("the relay to say so", lambda: f"no exchange {missing}" in room.log("relay"), 60)
        assert "DISTGATE_EXCHANGE names the exchange" in room.log("relay")
        letters = room.write_runs("a")
        tried(room)
        with room.bus() as bus:
            room.gate.declare_exchange(missing, to=EXCHANGE)
            room.delivered()
            assert everything(bus) == as_sent(letters)


def test_a_relay_killed_between_the_confirmation_and_its_mark_sends_that_message_again_with_its_id(
    room: Room,
) -> None:
    letters = room.write_runs(*(f"r{n}" for n in range(7)))  # not more than the relay reads at once
    with room.bus() as bus:
        other = sqlite3.connect(room.directory / "ledger.db", isolation_level=None)
        with room.running("relay") as relay, closing(other):
            wait_for("a message to be marked", lambda: room.ledger.counts()["sent"] > 0, 60, interval=0.001)
            # Whoever writes to the ledger now keeps the relay from marking what the broker confirmed.
            other.execute("BEGIN IMMEDIATE")
            marked = other.execute("SELECT count(sent_at) FROM outbox").fetchone()[0]
            confirmed = everything(bus)
            kill(relay)
        with room.running("relay"):
            room.delivered()
        again = everything(bus)
    assert confirmed == as_sent(letters)[: marked + 1]
    assert again == as_sent(letters)[marked:]


def test_a_message_whose_confirmation_never_came_is_sent_again_with_its_id(room: Room) -> None:
    letters = room.write_runs("a")
    with room.bus() as bus, FaultyLine(room.gate.broker.port) as line:
        url = room.url.replace(f":{room.gate.broker.port}/", f":{line.port}/")
        with room.running("relay", DISTGATE_AMQP_URL=url) as relay:
            first = wait_for("the first message", lambda: bus.receive(1), 60)
            line.mode = "mute"
            kill(relay)
        with room.running("relay"):
            room.delivered()
        read = [(first.topic, first.message_id), *everything(bus)]
    assert list(dict.fromkeys(read)) == as_sent(letters)


def test_a_relay_that_is_killed_again_and_again_delivers_everything_in_order(room: Room) -> None:
    letters = room.write_runs(*(f"r{n}" for n in range(20)))
    kills = 4
    with room.bus() as bus:
        for number in range(1, kills + 1):
            with room.running("relay") as relay:
                aim = number * len(letters) // (kills + 2)
                wait_for(f"{aim} to be sent", lambda aim=aim: room.ledger.counts()["sent"] >= aim, 60, interval=0.005)
                kill(relay)
        with room.running("relay"):
            room.delivered()
        read = everything(bus)
    assert list(dict.fromkeys(read)) == as_sent(letters)
    assert len(read) - len(letters) <= kills


def test_a_message_that_lost_its_mark_is_sent_again_with_the_same_id_and_content(room: Room) -> None:
    letters = room.write_runs("a")
    with room.bus() as bus:
        with room.running("relay"):
            room.delivered()
        first = [bus.receive(5) for _ in letters][-1]
        with sqlite3.connect(room.directory / "ledger.db") as raw:  # what a power cut may leave
            raw.execute("UPDATE outbox SET sent_at = NULL WHERE seq = ?", (letters[-1].seq,))
        with room.running("relay"):
            room.delivered()
        second = bus.receive(5)
        assert first is not None
        assert second is not None
        assert (second.topic, second.message_id, second.body) == (first.topic, first.message_id, first.body)
        assert bus.receive(0.5) is None


def test_a_full_disk_under_the_ledger_repeats_no_message_and_the_rest_follows(narrow_room: Room) -> None:
    room = narrow_room
    letters = room.write_runs("a")
    with room.bus() as bus:
        filler = fill(room.directory)
        with room.running("relay"):
            wait_for(
                "the operator to be told",
                lambda: room.log("relay").count("was sent and cannot be marked") >= 2,
                60,
                evidence=lambda: room.log("relay"),
            )
            filler.unlink()
            room.delivered()
        assert everything(bus) == as_sent(letters)
    assert "is its disk full" in room.log("relay")
    assert len(letters) == LETTERS


def test_a_message_that_can_never_be_sent_holds_up_its_own_run_alone(room: Room) -> None:
    letters = room.write_runs("a", "b")
    first = letters[1]
    whole = json.dumps(first.body)

    def put(body: str) -> None:
        with closing(sqlite3.connect(room.directory / "ledger.db")) as raw, raw:
            raw.execute("UPDATE outbox SET body = ? WHERE seq = ?", (body, first.seq))

    put(json.dumps(first.body | {"status": 7}))
    with room.bus() as bus:
        with room.running("relay"):
            wait_for("the other run to be sent", lambda: len(room.ledger.unsent()) == LETTERS - 1, 60)
            assert everything(bus) == as_sent([letters[0], *letters[LETTERS:]])
            put(whole)
            room.delivered()
        assert everything(bus) == as_sent(letters[1:LETTERS])
    assert "does not fit its schema" in room.log("relay")
