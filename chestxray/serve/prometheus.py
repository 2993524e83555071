"""The content of ``/metrics`` in the text format of Prometheus, without data on images or clients."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Measures:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "chestxray_requests", "Requests answered.", ("route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "chestxray_request_seconds", "Seconds to an answer.", ("route",), buckets=_SECONDS, registry=self._registry
        )
        self._answers = Counter(
            "chestxray_answers", "Answers of a model.", ("model", "outcome"), registry=self._registry
        )
        self._busy = Gauge("chestxray_images_in_progress", "Images being answered or waiting.", registry=self._registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the pattern of the route, never the path that a client sent."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answer(self, fields: dict[str, Any]) -> None:
        """Count the answer of a model, an item of ``answers``; one of findings as abstained where all of them are."""
        abstained = (
            fields["abstained"]
            if "abstained" in fields
            else all(one["abstained"] for one in fields["findings"].values())
        )
        outcome = "refused" if fields["refused"] else "abstained" if abstained else "decided"
        self._answers.labels(fields["model"], outcome).inc()

    @property
    def busy(self) -> Gauge:
        """Images being answered or waiting."""
        return self._busy

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)
