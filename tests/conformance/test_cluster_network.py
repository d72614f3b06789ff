"""The switch between the guests of a cluster: frames go where they are meant, and nobody else is on the line."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from distgate.conformance.switch import addresses, switched
from distgate.guests.domain_xml import DomainSpec, Wire, domain_xml

EVERYBODY = b"\xff" * 6


def mac(number: int) -> bytes:
    return bytes([0x52, 0x54, 0, 0, 0, number])


def frame(to: bytes, sender: int, text: bytes = b"hello") -> bytes:
    return to + mac(sender) + b"\x08\x00" + text


def hears_nothing(one: socket.socket) -> bool:
    one.settimeout(0.2)
    with pytest.raises(TimeoutError):
        one.recv(100)
    one.settimeout(5)
    return True


def received(one: socket.socket) -> bytes:
    return one.recv(1 << 17)


@contextmanager
def listening(wire: Wire) -> Iterator[socket.socket]:
    """A network card as the emulator makes it: what it sends comes from the path that it listens at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(os.fspath(wire.ours))
        one.settimeout(5)
        yield one


def test_what_is_for_everybody_reaches_all_others_and_an_answer_only_the_asker(tmp_path: Path) -> None:
    with switched(tmp_path, 3) as wires, listening(wires[0]) as a, listening(wires[1]) as b, listening(wires[2]) as c:
        switch = os.fspath(wires[0].switch)
        a.sendto(frame(EVERYBODY, 1, b"who is there"), switch)
        assert received(b) == received(c) == frame(EVERYBODY, 1, b"who is there")
        assert hears_nothing(a)
        b.sendto(frame(mac(1), 2, b"me"), switch)
        assert received(a) == frame(mac(1), 2, b"me")
        a.sendto(frame(mac(2), 1, b"a secret"), switch)
        assert received(b) == frame(mac(2), 1, b"a secret")
        assert hears_nothing(c)


def test_clusters_do_not_hear_each_other_and_neither_does_another_user(tmp_path: Path) -> None:
    with (
        switched(tmp_path, 2) as one,
        switched(tmp_path, 2) as two,
        listening(one[1]) as b,
        listening(two[1]) as other,
    ):
        with listening(one[0]) as a:
            a.sendto(frame(EVERYBODY, 1), os.fspath(one[0].switch))
        assert received(b)
        assert hears_nothing(other)
        assert stat.S_IMODE(one[0].switch.parent.stat().st_mode) == 0o700


def test_what_comes_from_no_wire_is_dropped(tmp_path: Path) -> None:
    with switched(tmp_path, 2) as wires, listening(wires[1]) as b:
        switch = os.fspath(wires[0].switch)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            for data in (frame(EVERYBODY, 9), b""):
                nameless.sendto(data, switch)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            stranger.bind(os.fspath(tmp_path / "stranger"))
            stranger.sendto(frame(EVERYBODY, 9), switch)
        with listening(wires[0]) as a:
            a.sendto(b"short", switch)
        assert hears_nothing(b)


def test_a_guest_that_does_not_read_holds_up_no_other_and_ends_nothing(tmp_path: Path) -> None:
    with switched(tmp_path, 3) as wires, listening(wires[0]) as a, listening(wires[1]), listening(wires[2]) as c:
        for number in range(3000):
            a.sendto(frame(EVERYBODY, 1, b"%d" % number), os.fspath(wires[0].switch))
            assert received(c).endswith(b"%d" % number)


def test_its_sockets_are_gone_afterwards(tmp_path: Path) -> None:
    with switched(tmp_path, 2) as wires, listening(wires[0]):
        assert wires[0].switch.is_socket()
    assert not list(tmp_path.iterdir())


def test_nodes_get_addresses_of_the_network_from_its_tenth_on() -> None:
    assert addresses("192.168.211.0/24", 2) == ("192.168.211.10/24", "192.168.211.11/24")


def test_a_wire_is_a_second_card_between_two_sockets_and_its_path_is_quoted() -> None:
    wire = Wire(Path("/r/a <'\"b"), Path("/r/switch"), "52:54:00:c1:00:01")
    text = domain_xml(DomainSpec("g", Path("/d"), Path("/c"), "/q", "kvm", wire=wire))
    arguments = ElementTree.fromstring(text).iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg")
    words = [argument.get("value", "") for argument in arguments]
    assert any('"path": "/r/a <\'\\"b"' in word and '"type": "dgram"' in word for word in words)
    assert any("mac=52:54:00:c1:00:01" in word for word in words)
    assert "restrict=on" in text
