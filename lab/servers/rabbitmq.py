"""RabbitMQ from the distribution's package, as a node of the lab's own: no system service, loopback only.

The package's wrapper in /usr/sbin insists on the user rabbitmq and on /var/lib; the scripts behind it do not.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgate.errors import ConfigurationError
from distgate.process import on_path, run
from lab.servers.ports import free_ports
from lab.servers.service import Health, Service, read_json, write_json

#: Debian, Fedora and the project's generic tarball keep the scripts in one of these.
SCRIPTS = ("/usr/lib/rabbitmq/lib", "/usr/lib64/rabbitmq/lib", "/usr/local/lib/rabbitmq/lib", "/opt")
EXCHANGE = "amq.topic"
USER = "distgate"
NODE = "distgate@localhost"

# One scheduler that sleeps at once when idle: a broker for a few messages a minute must not cost a core.
_ERLANG = "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
log.console = false
log.file.level = info
default_user = {user}
default_pass = {password}
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 50MB
"""


@dataclass(frozen=True)
class Broker:
    """Where a broker of the lab lives and listens; ``port`` speaks AMQP, the two others are Erlang's own."""

    directory: Path
    port: int
    distribution_port: int
    epmd_port: int
    password: str

    @property
    def url(self) -> str:
        """The AMQP URL with user and password, of the default virtual host."""
        return f"amqp://{USER}:{self.password}@127.0.0.1:{self.port}/%2F"

    def services(self) -> list[Service]:
        """Erlang's port mapper and the node itself."""
        epmd = Service(
            "rabbitmq-epmd",
            ("epmd", "-address", "127.0.0.1", "-port", str(self.epmd_port)),
            environment={"PATH": _PATH},
            health=Health("tcp", f"127.0.0.1:{self.epmd_port}"),
        )
        node = Service(
            "rabbitmq",
            (str(scripts() / "rabbitmq-server"), "-noinput"),
            environment=self._environment(),
            health=Health("amqp", f"127.0.0.1:{self.port}"),
            after=(epmd.name,),
            grace=20,
        )
        return [epmd, node]

    def control(self, *arguments: str) -> str:
        """The output of ``rabbitmqctl`` with these arguments; takes a second, for it starts an Erlang machine."""
        argv = [str(scripts() / "rabbitmqctl"), "-n", NODE, *arguments]
        environment = {**self._environment(), "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"}
        return run(argv, timeout=60, env=environment).output

    def _environment(self) -> Mapping[str, str]:
        return {
            "PATH": _PATH,
            "HOME": str(self.directory / "home"),  # with an Erlang cookie of its own
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.distribution_port),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # not /etc/rabbitmq/rabbitmq-env.conf
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq"),  # the script appends .conf
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(self.directory / "rabbitmq.pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _ERLANG,
            # The script then becomes the Erlang machine instead of waiting for it: our pid is the broker's.
            "RABBITMQ_ALLOW_INPUT": "1",
        }


# epmd and erl are in /usr/bin; the scripts also call tools that ordinary users lack on their PATH.
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


def scripts() -> Path:
    """The directory with RabbitMQ's own scripts, the newest where there are several.

    Raises ConfigurationError when RabbitMQ is not installed.
    """
    directories = [path for base in SCRIPTS for path in sorted(Path(base).glob("rabbitmq_server-*/sbin"))]
    directories = [path for path in directories if (path / "rabbitmq-server").exists()]
    if not directories or not on_path("epmd"):
        raise ConfigurationError("RabbitMQ is not installed", hint="install the package rabbitmq-server")
    return directories[-1]


def prepare(directory: Path) -> Broker:
    """The broker that lives in ``directory``, made on the first call and the same on every later one."""
    record = directory / "broker.json"
    fields: dict[str, Any] | None = read_json(record)
    if fields is None:
        port, distribution, epmd = free_ports(3)
        fields = {
            "port": port,
            "distribution_port": distribution,
            "epmd_port": epmd,
            "password": secrets.token_hex(16),
        }
    broker = Broker(directory, **fields)
    for name in ("mnesia", "log", "home"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    configuration = directory / "rabbitmq.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(_CONFIGURATION.format(port=broker.port, user=USER, password=broker.password))
    (directory / "enabled_plugins").write_text("[].\n")
    write_json(record, fields)
    return broker
