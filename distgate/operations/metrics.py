"""What Prometheus reads: the figures of distgate as metric families. The names are held on to by dashboards."""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from distgate.operations.figures import LedgerFigures, StageEnd
from distgate.pipelines import PIPELINES

#: Upper ends of the histogram of stages, in seconds: from a boot to a build that waited for hours.
BUCKETS = (5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200)
#: Values by their labels' values.
Values = Mapping[Any, float]


@dataclass(frozen=True)
class ChannelFigures:
    """A channel of reports; ``oldest`` is since when its oldest report waits (epoch seconds)."""

    name: str
    delivered: int
    pending: int
    refused: int
    oldest: float | None


@dataclass(frozen=True)
class BaseFigures:
    """The base image that serves a branch: when it was made, and when it was last found to be up to date."""

    branch: str
    image: str
    created: float
    confirmed: float


@dataclass
class StageHistogram:
    """How long stages took, in BUCKETS."""

    _counts: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(_empty))
    _sums: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))

    def add(self, ends: Iterable[StageEnd]) -> None:
        """Count more stages."""
        for end in ends:
            self._counts[end.pipeline, end.stage][bisect_left(BUCKETS, end.seconds)] += 1
            self._sums[end.pipeline, end.stage] += end.seconds

    def family(self) -> Metric:
        """The histogram as it is exposed."""
        family = HistogramMetricFamily(
            "distgate_stage_duration_seconds",
            "Seconds from a stage's running to its complete message",
            labels=("pipeline", "stage"),
        )
        for key, counts in sorted(self._counts.items()):
            family.add_metric(key, list(_cumulated(counts)), self._sums[key])
        return family


def _empty() -> list[int]:
    return [0] * (len(BUCKETS) + 1)


def _cumulated(counts: Sequence[int]) -> Iterator[tuple[str, float]]:
    total = 0
    for end, count in zip((*map(float, BUCKETS), float("inf")), counts, strict=True):
        total += count
        yield ("+Inf" if end == float("inf") else str(end)), total


def about_build() -> Metric:
    """The versions of distgate and of Python."""
    family = GaugeMetricFamily(
        "distgate_build_info", "Version of distgate and of Python", labels=("version", "python")
    )
    family.add_metric((metadata.version("distgate"), platform.python_version()), 1)
    return family


def about_up(up: bool) -> Metric:
    """Whether the ledger could be read; without it there are no other figures of it."""
    return GaugeMetricFamily("distgate_up", "Whether the ledger could be read", value=float(up))


def about_ledger(seen: LedgerFigures, now: float) -> Iterator[Metric]:
    """Runs, triggers, the queue and the outbox.

    Runs and changes are gauges: a retry opens a run again, a decision may be taken anew, and Prometheus takes a
    counter that falls for one that began again at 0.
    """
    ended = "Runs that ended, in the whole ledger"
    yield _gauge("distgate_runs_ended", ended, ("pipeline", "verdict", "blame"), seen.ended)
    running = {(pipeline,): seen.running.get(pipeline, 0) for pipeline in PIPELINES}
    yield _gauge("distgate_runs_running", "Runs without a last message", ("pipeline",), running)
    yield _gauge("distgate_changes", "Changes that were decided about", ("pipeline", "decision"), seen.decided)
    waiting = {(pipeline,): seen.waiting.get(pipeline, (0, now)) for pipeline in PIPELINES}
    lengths = {key: count for key, (count, _) in waiting.items()}
    ages = {key: now - since for key, (_, since) in waiting.items()}
    yield _gauge("distgate_queue_length", "Accepted changes that no run has claimed", ("pipeline",), lengths)
    yield _gauge("distgate_queue_oldest_age_seconds", "Age of the oldest of these", ("pipeline",), ages)
    last = seen.last_trigger or 0.0
    yield _plain("distgate_last_trigger_timestamp_seconds", "When the last change was decided about; 0: never", last)
    yield _plain("distgate_outbox_messages", "Messages that the broker has not confirmed", seen.unsent)
    oldest = now - seen.oldest_unsent if seen.oldest_unsent else 0.0
    yield _plain("distgate_outbox_oldest_age_seconds", "Age of the oldest of these", oldest)
    yield _plain("distgate_dead_letters", "Messages that were refused and not put back", seen.dead_letters)
    text = "Runs of the last six hours that ended with the same error on our side"
    yield _gauge("distgate_same_error_runs", text, ("blame", "error"), seen.same_errors)


def about_reports(channels: Sequence[ChannelFigures], now: float) -> Iterator[Metric]:
    """The channels that runs are reported to."""
    by = ("channel",)
    delivered = {(channel.name,): channel.delivered for channel in channels}
    yield _counter("distgate_reports_delivered", "Reports that a channel took", by, delivered)
    pending = {(channel.name,): channel.pending for channel in channels}
    yield _gauge("distgate_reports_pending", "Reports that wait", by, pending)
    refused = {(channel.name,): channel.refused for channel in channels}
    yield _gauge("distgate_reports_refused", "Reports refused for good", by, refused)
    ages = {(channel.name,): now - channel.oldest if channel.oldest else 0.0 for channel in channels}
    yield _gauge("distgate_reports_oldest_age_seconds", "Age of the oldest report that waits", by, ages)


def about_bases(bases: Sequence[BaseFigures], now: float) -> Iterator[Metric]:
    """The base images that runs are composed on, here."""
    by = ("branch", "image")
    ages = {(base.branch, base.image): now - base.created for base in bases}
    yield _gauge("distgate_base_age_seconds", "Age of the base image that serves a branch", by, ages)
    confirmed = {(base.branch, base.image): now - base.confirmed for base in bases}
    yield _gauge("distgate_base_confirmed_age_seconds", "Since it was last found to be up to date", by, confirmed)


def about_guests(running: int, reserved: int) -> Iterator[Metric]:
    """The guests of this host."""
    counts = {("running",): running, ("held",): reserved}
    yield _gauge("distgate_guests", "Guests that run here: for a run, or held for people", ("state",), counts)


def about_slots(slots: Mapping[str, tuple[int, int]]) -> Iterator[Metric]:
    """The limits that runs wait for: how many slots each has, and how many are held."""
    by = ("limit",)
    yield _gauge("distgate_slots", "Slots of a limit", by, {(name,): all_ for name, (all_, _) in slots.items()})
    in_use = {(name,): count for name, (_, count) in slots.items()}
    yield _gauge("distgate_slots_taken", "Slots of a limit that runs hold", by, in_use)


def _plain(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], values: Values) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family
