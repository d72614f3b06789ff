"""Faults between the outbox and the broker: nothing is lost, nothing changes its place, a copy keeps its ID."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from contextlib import closing

import pytest
from fault_site import MESSAGES_OF_RUN, FaultSite, as_sent, everything, fill
from faulty_line import FaultyLine

from distgate.waiting import wait_for
from lab.servers import supervisor
from lab.servers.rabbitmq import EXCHANGE

pytestmark = pytest.mark.lab


def tried(site: FaultSite, times: int = 1) -> None:
    wait_for(
        f"the first message to be tried {times} times",
        lambda: site.ledger.unsent()[0].tries >= times,
        90,
        evidence=lambda: site.log("relay"),
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_the_outbox_waits_while_the_broker_is_away_and_arrives_whole_when_it_is_back(site: FaultSite) -> None:
    with site.bus() as bus:
        supervisor.hold(site.gate.state, "rabbitmq")
        try:
            messages = site.write_runs("a", "b")
            with site.running("relay"):
                tried(site, 2)
                supervisor.release(site.gate.state, "rabbitmq")
                site.delivered()
        finally:
            supervisor.release(site.gate.state, "rabbitmq")
        assert everything(bus) == as_sent(messages)
    assert "cannot be reached" in site.log("relay")


def test_a_broker_that_is_killed_while_it_is_sent_to_loses_nothing_and_copies_keep_their_ids(site: FaultSite) -> None:
    with site.bus() as bus:
        messages = site.write_runs(*(f"r{n}" for n in range(30)))
        with site.running("relay"):
            wait_for("some to be sent", lambda: site.ledger.counts()["sent"] > 20, 60, interval=0.01)
            supervisor.kill(site.gate.state, "rabbitmq")
            site.delivered()
        supervisor.wait_healthy(site.gate.state, ["rabbitmq"], supervisor.Deadline(60))
        read = everything(bus)
    assert list(dict.fromkeys(read)) == as_sent(messages)


def test_a_memory_alarm_holds_messages_back_and_makes_no_copies(site: FaultSite) -> None:
    with site.bus() as bus:
        site.gate.broker.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            messages = site.write_runs("a")
            with site.running("relay"):
                tried(site, 2)
                site.gate.broker.control("set_vm_memory_high_watermark", "absolute", "512MB")
                site.delivered()
        finally:
            site.gate.broker.control("set_vm_memory_high_watermark", "absolute", "512MB")
        assert everything(bus) == as_sent(messages)
    assert "memory or disk alarm" in site.log("relay")


def test_what_we_may_not_publish_waits_until_we_may(site: FaultSite) -> None:
    control = site.gate.broker.control
    control("add_user", site.queue, "secret")
    control("set_permissions", site.queue, "", "", ".*")
    url = site.url.replace(f"distgate:{site.gate.broker.password}", f"{site.queue}:secret")
    with site.bus() as bus:
        messages = site.write_runs("a")
        with site.running("relay", DISTGATE_AMQP_URL=url):
            tried(site)
            assert "forbids" in (site.ledger.unsent()[0].error or "")
            control("set_permissions", site.queue, "", ".*", ".*")
            site.delivered()
        assert everything(bus) == as_sent(messages)
    assert "the user needs the right to write this topic" in site.log("relay")


def test_a_missing_exchange_is_told_at_the_start_and_waited_for(site: FaultSite) -> None:
    missing = f"exchange.{site.queue}"
    with site.running("relay", DISTGATE_EXCHANGE=missing):
        wait_for("the relay to say so", lambda: f"no exchange {missing}" in site.log("relay"), 60)
        assert "DISTGATE_EXCHANGE names the exchange" in site.log("relay")
        messages = site.write_runs("a")
        tried(site)
        with site.bus() as bus:
            site.gate.declare_exchange(missing, to=EXCHANGE)
            site.delivered()
            assert everything(bus) == as_sent(messages)


def test_a_relay_killed_between_the_confirmation_and_its_mark_sends_that_message_again_with_its_id(
    site: FaultSite,
) -> None:
    messages = site.write_runs(*(f"r{n}" for n in range(7)))  # not more than the relay reads at once
    with site.bus() as bus:
        other = sqlite3.connect(site.directory / "ledger.db", isolation_level=None)
        with site.running("relay") as relay, closing(other):
            wait_for("a message to be marked", lambda: site.ledger.counts()["sent"] > 0, 60, interval=0.001)
            # Whoever writes to the ledger now keeps the relay from marking what the broker confirmed.
            other.execute("BEGIN IMMEDIATE")
            marked = other.execute("SELECT count(sent_at) FROM outbox").fetchone()[0]
            confirmed = everything(bus)
            kill(relay)
        with site.running("relay"):
            site.delivered()
        again = everything(bus)
    assert confirmed == as_sent(messages)[: marked + 1]
    assert again == as_sent(messages)[marked:]


def test_a_message_whose_confirmation_never_came_is_sent_again_with_its_id(site: FaultSite) -> None:
    messages = site.write_runs("a")
    with site.bus() as bus, FaultyLine(site.gate.broker.port) as line:
        url = site.url.replace(f":{site.gate.broker.port}/", f":{line.port}/")
        with site.running("relay", DISTGATE_AMQP_URL=url) as relay:
            first = wait_for("the first message", lambda: bus.receive(1), 60)
            line.mode = "mute"
            kill(relay)
        with site.running("relay"):
            site.delivered()
        read = [(first.topic, first.message_id), *everything(bus)]
    assert list(dict.fromkeys(read)) == as_sent(messages)


def test_a_relay_that_is_killed_again_and_again_delivers_everything_in_order(site: FaultSite) -> None:
    messages = site.write_runs(*(f"r{n}" for n in range(20)))
    kills = 4
    with site.bus() as bus:
        for number in range(1, kills + 1):
            with site.running("relay") as relay:
                aim = number * len(messages) // (kills + 2)
                wait_for(f"{aim} to be sent", lambda aim=aim: site.ledger.counts()["sent"] >= aim, 60, interval=0.005)
                kill(relay)
        with site.running("relay"):
            site.delivered()
        read = everything(bus)
    assert list(dict.fromkeys(read)) == as_sent(messages)
    assert len(read) - len(messages) <= kills


def test_a_message_that_lost_its_mark_is_sent_again_with_the_same_id_and_content(site: FaultSite) -> None:
    messages = site.write_runs("a")
    with site.bus() as bus:
        with site.running("relay"):
            site.delivered()
        first = [bus.receive(5) for _ in messages][-1]
        with sqlite3.connect(site.directory / "ledger.db") as raw:  # what a power cut may leave
            raw.execute("UPDATE outbox SET sent_at = NULL WHERE seq = ?", (messages[-1].seq,))
        with site.running("relay"):
            site.delivered()
        second = bus.receive(5)
        assert first is not None
        assert second is not None
        assert (second.topic, second.message_id, second.body) == (first.topic, first.message_id, first.body)
        assert bus.receive(0.5) is None


def test_a_full_disk_under_the_ledger_repeats_no_message_and_the_rest_follows(full_disk_site: FaultSite) -> None:
    site = full_disk_site
    messages = site.write_runs("a")
    with site.bus() as bus:
        filler = fill(site.directory)
        with site.running("relay"):
            wait_for(
                "the operator to be told",
                lambda: site.log("relay").count("was sent and cannot be marked") >= 2,
                60,
                evidence=lambda: site.log("relay"),
            )
            filler.unlink()
            site.delivered()
        assert everything(bus) == as_sent(messages)
    assert "is its disk full" in site.log("relay")
    assert len(messages) == MESSAGES_OF_RUN


def test_a_message_that_can_never_be_sent_holds_up_its_own_run_alone(site: FaultSite) -> None:
    messages = site.write_runs("a", "b")
    first = messages[1]
    whole = json.dumps(first.body)

    def put(body: str) -> None:
        with closing(sqlite3.connect(site.directory / "ledger.db")) as raw, raw:
            raw.execute("UPDATE outbox SET body = ? WHERE seq = ?", (body, first.seq))

    put(json.dumps(first.body | {"status": 7}))
    with site.bus() as bus:
        with site.running("relay"):
            wait_for("the other run to be sent", lambda: len(site.ledger.unsent()) == MESSAGES_OF_RUN - 1, 60)
            assert everything(bus) == as_sent([messages[0], *messages[MESSAGES_OF_RUN:]])
            put(whole)
            site.delivered()
        assert everything(bus) == as_sent(messages[1:MESSAGES_OF_RUN])
    assert "does not fit its schema" in site.log("relay")
