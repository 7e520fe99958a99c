"""Counts of what a replier did: for its log, and for Prometheus.

Plain numbers, because they change with every message; `prometheus_client` is loaded only to serve them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from imagebus.errors import BadMessage, CommitFailed, ConfigError
from imagebus.observer import Observer

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from imagebus.transports.base import Member
    from imagebus.wire.message import Message

# Upper bounds in seconds: a prediction of one package takes 0.2 ms, of a full batch on a slow core 1 s.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
REQUESTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class Histogram:
    """Observations counted by upper bound, as Prometheus wants them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, observations at or below it), the last bound being +Inf."""
        total, buckets = 0, []
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets


class Metrics(Observer):
    """One worker's counts since its start. `counts` is its member, which has the bus's counts."""

    def __init__(self, counts: Member | None = None) -> None:
        self.requests = 0
        self.images = 0
        self.errors: Counter[str] = Counter()  # error replies by code
        self.dead_letters: Counter[str] = Counter()  # by code
        self.failed_commits = 0
        self.in_flight = 0  # requests of the batches at hand
        self.batch_size = Histogram(REQUESTS)
        self.inference_seconds = Histogram(SECONDS)
        self._counts = counts

    @property
    def lost(self) -> int:
        """Requests that retention deleted before they were answered."""
        return self._counts.lost if self._counts else 0

    @property
    def redelivered(self) -> int:
        """Requests redelivered although they were answered."""
        return self._counts.redelivered if self._counts else 0

    @property
    def unconfirmed(self) -> int:
        """Outcomes that the bus does not confirm for long."""
        return self._counts.unconfirmed if self._counts else 0

    def received(self, messages: Sequence[Message]) -> None:
        """See `Observer.received`."""
        self.in_flight += len(messages)
        self.batch_size.observe(len(messages))

    def predicted(self, images: int, seconds: float) -> None:
        """See `Observer.predicted`."""
        self.images += images
        self.inference_seconds.observe(seconds)

    def refused(self, _: Message, error: BadMessage) -> None:
        """See `Observer.refused`."""
        (self.dead_letters if error.envelope is None else self.errors)[error.code] += 1

    def committed(self, messages: Sequence[Message]) -> None:
        """See `Observer.committed`."""
        self.requests += len(messages)
        self.in_flight -= len(messages)

    def commit_failed(self, _: CommitFailed) -> None:
        """See `Observer.commit_failed`."""
        self.failed_commits += 1
        self.in_flight = 0

    def __str__(self) -> str:
        """One line for the log."""
        errors = sum(self.errors.values())
        dead = sum(self.dead_letters.values())
        lost = f", {self.lost} LOST TO RETENTION" if self.lost else ""
        return f"{self.requests} requests, {self.images} images, {errors} errors, {dead} dead letters{lost}"

    def collect(self) -> Iterator[Metric]:
        """The metrics by their Prometheus names; `prometheus_client` calls this at each scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        yield CounterMetricFamily("imagebus_requests", "Requests with an outcome.", value=self.requests)
        yield CounterMetricFamily("imagebus_images", "Images classified.", value=self.images)
        for name, text, counts in (
            ("imagebus_errors", "Error replies.", self.errors),
            ("imagebus_dead_letters", "Messages that could not be answered.", self.dead_letters),
        ):
            family = CounterMetricFamily(name, text, labels=["code"])
            for code, count in list(counts.items()):
                family.add_metric([code], count)
            yield family
        yield CounterMetricFamily(
            "imagebus_failed_commits", "Batches to be done again.", value=self.failed_commits
        )
        yield CounterMetricFamily(
            "imagebus_lost", "Requests that retention deleted before they were answered.", value=self.lost
        )
        yield CounterMetricFamily(
            "imagebus_redelivered",
            "Answered requests that came again.",
            value=self.redelivered,
        )
        yield GaugeMetricFamily(
            "imagebus_unconfirmed", "Outcomes that the bus does not confirm for long.", value=self.unconfirmed
        )
        yield GaugeMetricFamily("imagebus_in_flight", "Requests of the batch at hand.", value=self.in_flight)
        for name, text, histogram in (
            ("imagebus_batch_size", "Requests in one batch.", self.batch_size),
            ("imagebus_inference_seconds", "Time of one batch in the model.", self.inference_seconds),
        ):
            yield HistogramMetricFamily(name, text, buckets=histogram.buckets(), sum_value=histogram.sum)


def serve_metrics(metrics: Metrics, port: int, address: str = "127.0.0.1") -> None:
    """Serve `metrics` on http://address:port/metrics from a daemon thread.

    Raises `ConfigError` when the port is taken.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        raise ConfigError(f"{address}:{port} cannot be used: {error.strerror}") from None
