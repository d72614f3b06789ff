"""A broker that speaks TLS alone and lets in whom a certificate names, as Fedora's does: a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.bus.amqp import Publisher, Subscription
from distgate.bus.queues import consumers_of
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.process import run
from distgate.settings import settings
from distgate.waiting import Deadline
from lab import teardown
from lab.servers import rabbitmq, supervisor
from lab.servers.ports import free_ports
from lab.servers.service import save_service

SOON = 90.0
TLS = """\
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {room}/ca.pem
ssl_options.certfile = {room}/broker.pem
ssl_options.keyfile = {room}/broker.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
auth_mechanisms.1 = EXTERNAL
ssl_cert_login_from = common_name
"""


def openssl(room: Path, words: str) -> None:
    """Run openssl with ``words``, in which * stands for the directory."""
    run(["openssl", *(word.replace("*", str(room)) for word in words.split())], timeout=60)


def certify(room: Path, name: str, common_name: str, extension: str) -> None:
    """A key and a certificate from the authority in ``room``."""
    openssl(room, f"req -newkey rsa:2048 -nodes -subj /CN={common_name} -keyout */{name}.key -out */{name}.csr")
    (room / f"{name}.ext").write_text(extension)
    signed = f"x509 -req -days 2 -CA */ca.pem -CAkey */ca.key -CAcreateserial -in */{name}.csr -out */{name}.pem"
    openssl(room, f"{signed} -extfile */{name}.ext")


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority, the broker's certificate and ours."""
    made = tmp_path_factory.mktemp("certificates")
    openssl(made, "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout */ca.key -out */ca.pem")
    certify(made, "broker", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    certify(made, "client", rabbitmq.USER, "extendedKeyUsage=clientAuth\n")
    return made


@pytest.fixture(scope="module")
def url(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running broker's amqps URL, without user and password."""
    state = tmp_path_factory.mktemp("broker")
    broker = rabbitmq.prepare(state / "rabbitmq")
    (port,) = free_ports(1)
    with (broker.directory / "rabbitmq.conf").open("a") as configuration:
        configuration.write(TLS.format(port=port, room=room))
    (broker.directory / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
    for one in broker.services():
        save_service(state, one)
    supervisor.start_supervisor(state)
    supervisor.wait_healthy(state, ["rabbitmq"], Deadline(SOON))
    yield f"amqps://localhost:{port}/%2F"
    teardown.down(state, print)


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def certified(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in (("CA", "ca.pem"), ("CERT", "client.pem"), ("KEY", "client.key")):
        monkeypatch.setenv(f"DISTGATE_AMQP_{name}", str(room / file))


@pytest.mark.usefixtures("certified")
def test_a_certificate_is_our_login_for_both_directions(url: str) -> None:
    with Subscription(url, rabbitmq.EXCHANGE, ["test.tls"], queue="reader") as bus:
        with Publisher(url, rabbitmq.EXCHANGE) as publisher:
            publisher.check()
            publisher.publish_plain("test.tls", {"n": 1})
        delivery = bus.receive(SOON)
    assert delivery
    assert delivery.body == {"n": 1}
    assert consumers_of(url, "reader") == 0


def test_a_broker_of_an_unknown_authority_is_not_believed(url: str) -> None:
    with pytest.raises(InfrastructureError):
        consumers_of(url, "reader")


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"DISTGATE_AMQP_CERT": "/etc/hostname"}, "needs its key"),
        ({"DISTGATE_AMQP_CA": "/nowhere.pem"}, "cannot be read"),
        ({"DISTGATE_AMQP_CERT": "/etc/passwd", "DISTGATE_AMQP_KEY": "/etc/passwd"}, "cannot be read"),
    ],
)
def test_wrong_files_are_a_mistake_of_the_site(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=said) as caught:
        consumers_of("amqps://localhost:1/%2F", "reader")
    assert isinstance(caught.value, DistgateError)
    assert "DISTGATE_AMQP_CERT" in caught.value.hint
