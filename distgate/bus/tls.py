"""The files with which a broker that speaks TLS is trusted, and with which we log in there, as at Fedora's.

Both libraries get the same ones: fedora-messaging, which publishes and consumes, and pika, which reads queues.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pika
from pika.credentials import ExternalCredentials

from distgate.errors import ConfigurationError
from distgate.settings import settings

_HINT = "DISTGATE_AMQP_CA, DISTGATE_AMQP_CERT and DISTGATE_AMQP_KEY are paths of PEM files; the last two go together"


def fedora_messaging_tls() -> dict[str, str | None]:
    """The section tls of fedora-messaging's configuration. Raises ConfigurationError for half a login."""
    config = settings()
    if (config.amqp_cert is None) != (config.amqp_key is None):
        raise ConfigurationError(
            "a client certificate for the broker needs its key, and a key its certificate", hint=_HINT
        )
    return {"ca_cert": _text(config.amqp_ca), "certfile": _text(config.amqp_cert), "keyfile": _text(config.amqp_key)}


def secure(parameters: pika.URLParameters) -> None:
    """Give pika's parameters our files, if they are for an amqps URL; with a certificate it is who we are.

    Raises ConfigurationError for files that are not there or no certificates.
    """
    if parameters.ssl_options is None:
        return
    section = fedora_messaging_tls()
    try:
        context = ssl.create_default_context(cafile=section["ca_cert"])
        if section["certfile"]:
            context.load_cert_chain(section["certfile"], section["keyfile"])
            parameters.credentials = ExternalCredentials()
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"the broker's certificates cannot be read: {error}", hint=_HINT) from error
    parameters.ssl_options = pika.SSLOptions(context, parameters.host)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
