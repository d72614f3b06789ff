"""Free TCP ports on loopback, outside the range from which the kernel hands out the other end of connections."""

from __future__ import annotations

import random
import socket

from distgate.errors import InfrastructureError

# Linux takes ephemeral ports from 32768 upwards (net.ipv4.ip_local_port_range): a port below cannot be lost to
# an outgoing connection between our look and the service's bind.
LOWEST, HIGHEST = 20000, 32000


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> tuple[int, ...]:
    """``count`` different free ports; raises InfrastructureError when there are not enough."""
    ports: list[int] = []
    for port in random.sample(range(LOWEST, HIGHEST), 2000):
        if is_free(port):
            ports.append(port)
        if len(ports) == count:
            return tuple(ports)
    raise InfrastructureError(f"no {count} free ports on loopback between {LOWEST} and {HIGHEST}")
