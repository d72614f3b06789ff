"""The metrics: what Prometheus reads over HTTP, looked up when it asks. Nothing is kept here but stage durations.

One process per ledger shows the ledger's figures; one on each host shows that host's guests and base images too.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.registry import Collector

from distgate.base_images.entries import list_store
from distgate.base_images.site import read_site
from distgate.errors import ConfigurationError, DistgateError
from distgate.guests.registry import GuestRegistry
from distgate.ledger.ledger import Ledger
from distgate.operations.figures import StageEnds, figures
from distgate.operations.metrics import (
    BaseFigures,
    ChannelFigures,
    StageHistogram,
    about_bases,
    about_build,
    about_guests,
    about_ledger,
    about_reports,
    about_slots,
    about_up,
)
from distgate.pipelines import LIMITS
from distgate.prefect_api import PrefectApi
from distgate.reports.outbox import channel_states
from distgate.settings import Settings, settings
from services.service import serve

log = logging.getLogger(__name__)

#: Refused reports that are counted.
MOST_REFUSED = 1000
#: Seconds for which the list of the store's bases is reused: listing measures their disks.
BASES_SECONDS = 60.0


class LedgerCollector(Collector):
    """All figures, read anew for each scrape. What cannot be read is left out; without the ledger ``distgate_up``
    is 0."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ledger: Ledger | None = None
        self._ends, self._stages = StageEnds(), StageHistogram()
        self._bases: tuple[float, list[BaseFigures]] = (0.0, [])
        # Scrapes may overlap; a stage is counted once.
        self._lock = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: registering must not read the ledger."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All families that can be had now."""
        with self._lock:
            yield about_build()
            ledger = self._or_none(self._of_ledger)
            yield about_up(ledger is not None)
            yield from ledger or ()
            yield from self._or_none(self._of_slots) or ()
            yield from self._or_none(self._of_guests) or ()
            yield from self._or_none(self._of_bases) or ()

    def _or_none(self, read: Callable[[], list[Metric]]) -> list[Metric] | None:
        try:
            return read()
        except (DistgateError, OSError) as error:
            log.warning("a scrape goes without some figures: %s", error)
        except Exception:  # the ladder's last rung: the other figures are worth showing
            log.exception("a scrape failed on an unexpected error")
        return None

    def _of_ledger(self) -> list[Metric]:
        ledger = self._ledger = self._ledger or Ledger(self._settings.ledger_url)
        self._stages.add(self._ends.read(ledger))
        now = time.time()
        channels = [
            ChannelFigures(state.name, state.delivered, state.pending, len(state.refused), state.oldest)
            for state in channel_states(ledger, MOST_REFUSED)
        ]
        return [*about_ledger(figures(ledger), now), self._stages.family(), *about_reports(channels, now)]

    def _of_slots(self) -> list[Metric]:
        with PrefectApi(self._settings.prefect_api_url, patience=0) as prefect:
            slots = {
                limit.name: (limit.slots, limit.used) for limit in prefect.limits() if limit.name.startswith(LIMITS)
            }
        return list(about_slots(slots))

    def _of_guests(self) -> list[Metric]:
        guests = GuestRegistry(read_site(self._settings).guests.directory).visible()
        reserved = sum(guest.held for guest in guests)
        return list(about_guests(len(guests) - reserved, reserved))

    def _of_bases(self) -> list[Metric]:
        read_at, bases = self._bases
        if time.monotonic() - read_at > BASES_SECONDS or not read_at:
            bases = bases_in(read_site(self._settings).images.directory)
            self._bases = (time.monotonic(), bases)
        return list(about_bases(bases, time.time()))


def bases_in(store: Path) -> list[BaseFigures]:
    """The base images that serve runs in a store; none when there is no store here."""
    if not (store / "bases").is_dir():
        return []
    current = list_store(store / "bases").current
    return [
        BaseFigures(branch, image, entry.facts.created, entry.confirmed) for (branch, image), entry in current.items()
    ]


def listen(settings: Settings) -> tuple[str, int]:
    """The address and port of DISTGATE_METRICS_LISTEN. Raises ConfigurationError."""
    host, _, port = settings.metrics_listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(
            f"DISTGATE_METRICS_LISTEN is not ADDRESS:PORT: {settings.metrics_listen!r}", hint="such as 127.0.0.1:9840"
        )
    return host.strip("[]"), int(port)


def main(stopping: threading.Event) -> None:
    config = settings()
    host, port = listen(config)
    registry = CollectorRegistry()
    registry.register(LedgerCollector(config))
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {config.metrics_listen}: {error.strerror}", hint="DISTGATE_METRICS_LISTEN says where"
        ) from error
    log.info("metrics are at http://%s:%d/metrics", host, server.server_port)
    stopping.wait()
    server.shutdown()


if __name__ == "__main__":
    sys.exit(serve("metrics", main))
