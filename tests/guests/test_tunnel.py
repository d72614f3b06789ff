"""A door leads a guest to one address, by the URL that everybody uses, and to nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.guests.base import CommandResult, Guest
from distgate.guests.host import LibvirtGuests
from distgate.guests.tunnel import address_of, reverse_tunnel
from distgate.images.base import BaseImage

#: A URL; where it leads from here; ssh's words; the URL as the guest says it; the name that the guest learns.
ADDRESSES = (
    ("http://127.0.0.1:8123/f41/ostree", "localhost:8123:127.0.0.1:8123", "http://127.0.0.1:8123/f41/ostree", ""),
    ("http://localhost:8123/", "localhost:8123:127.0.0.1:8123", "http://localhost:8123/", ""),
    ("http://trees.example.org/f41", "localhost:80:trees.example.org:80", "http://trees.example.org/f41", "trees"),
    (
        "https://trees.example.org/f41",
        "localhost:443:trees.example.org:443",
        "https://trees.example.org/f41",
        "trees",
    ),
    ("https://host:8443/a?b=c", "localhost:8443:host:8443", "https://host:8443/a?b=c", "host"),
    ("http://192.0.2.7/f41", "localhost:80:192.0.2.7:80", "http://127.0.0.1:80/f41", ""),
    ("http://[2001:db8::7]:81/f41", "localhost:81:[2001:db8::7]:81", "http://127.0.0.1:81/f41", ""),
    ("http://me@192.0.2.7:81/", "localhost:81:192.0.2.7:81", "http://me@127.0.0.1:81/", ""),
)
REFUSED = (
    ("https://192.0.2.7/f41", "certificate"),
    ("file:///srv/ostree", "http and https"),
    ("http:///f41", "http and https"),
    ("http://host:99999/", "no address"),
    ("http://$(id)/", "no host name"),
    ("http://a;b/", "no host name"),
)


@pytest.mark.parametrize(("url", "forwarding", "inside", "name"), ADDRESSES)
def test_a_url_stays_what_it_is_wherever_that_is_possible(url: str, forwarding: str, inside: str, name: str) -> None:
    where = address_of(url)
    assert (where.forwarding, where.url) == (forwarding, inside)
    assert where.name.partition(".")[0] == name


@pytest.mark.parametrize(("url", "words"), REFUSED)
def test_what_cannot_be_opened_is_refused_before_anything_is_tried(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        address_of(url)


SECONDS = 120.0
GET = "python3 -c 'import sys, urllib.request as web; print(web.urlopen(sys.argv[1], timeout=60).read().decode())' "


class Greeter(BaseHTTPRequestHandler):
    """Says which name it was called by."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"hello at {self.headers['Host']}{self.path}".encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(address: str) -> Iterator[int]:
    """The port of a server on one address of this host."""
    server = ThreadingHTTPServer((address, 0), Greeter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """That of a server on this host's loopback interface."""
    with serving("127.0.0.1") as chosen:
        yield chosen


def asked(guest: Guest, url: str) -> CommandResult:
    return guest.run(GET + url, SECONDS)


@pytest.mark.guest
def test_a_guest_reaches_one_address_while_its_door_is_open_also_after_a_restart(
    base_image: BaseImage, tmp_path: Path, port: int
) -> None:
    url = f"http://127.0.0.1:{port}/tree"
    with LibvirtGuests(tmp_path / "state").boot(
        base_image.path, base_image.ssh_key, tmp_path / "w", SECONDS
    ) as guest:
        with reverse_tunnel(guest, url) as inside:
            assert inside == url
            assert f"hello at 127.0.0.1:{port}/tree" in asked(guest, inside).stdout
            assert "refused" in asked(guest, f"http://127.0.0.1:{port + 1}/tree").stderr
            assert "Errno" in asked(guest, f"http://10.0.2.2:{port}/tree").stderr
        assert "refused" in asked(guest, url).stderr

        name = socket.gethostname()
        known = guest.run("cat /etc/hosts", SECONDS).stdout
        with serving(socket.gethostbyname(name)) as other, reverse_tunnel(guest, f"http://{name}:{other}/") as inside:
            assert f"hello at {name}:{other}/" in asked(guest, inside).stdout
        assert guest.run("cat /etc/hosts", SECONDS).stdout == known

        with pytest.raises(InfrastructureError, match="port 22"), reverse_tunnel(guest, "http://127.0.0.1:22/"):
            pass

        boot = guest.run("cat /proc/sys/kernel/random/boot_id", SECONDS).stdout
        with pytest.raises(InfrastructureError, match=r"the guest's tunnel to .* broke"), reverse_tunnel(guest, url):
            again = guest.reboot(SECONDS)
        assert again.run("cat /proc/sys/kernel/random/boot_id", SECONDS).stdout != boot
        assert (again.port, again.name) == (guest.port, guest.name)
        assert again.powered_on > guest.powered_on
        assert again.boot_report(SECONDS).state == "running"
        with reverse_tunnel(again, url) as inside:
            assert "hello" in asked(again, inside).stdout
