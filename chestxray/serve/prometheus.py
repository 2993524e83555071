"""The content of ``/metrics`` in the text format of Prometheus, without data on images or clients.

Where ``PROMETHEUS_MULTIPROC_DIR`` is set before this module is imported, as `workers` does, the processes of a server
count into files of that folder, and the page of each tells the numbers of all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

if TYPE_CHECKING:
    from chestxray.serve.loading import Served

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Measures:
    """The counters of one server, or of one of its processes."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._several = "PROMETHEUS_MULTIPROC_DIR" in os.environ
        if not self._several:
            # What it reads is of one process.
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
        self._busy = self._gauge("chestxray_images_in_progress", "Images being answered or waiting.")
        self._served = self._gauge("chestxray_model_workers", "Processes that serve a model.", "model", "fingerprint")
        self._memory = Gauge(
            "chestxray_worker_resident_memory_bytes",
            "Resident memory of a process, without those that decode.",
            registry=self._registry if self._several else None,
            multiprocess_mode="liveall",
        )

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode="livesum")

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

    def models(self, models: Sequence[Served]) -> None:
        """Say which models this process serves."""
        for model in models:
            self._served.labels(model.key, model.fingerprint).set(1)

    def memory(self) -> None:
        """Note the resident memory of this process, where the operating system tells it (Linux)."""
        statistics = Path("/proc/self/statm")
        if statistics.exists():
            pages = int(statistics.read_text(encoding="ascii").split()[1])
            self._memory.set(pages * os.sysconf("SC_PAGE_SIZE"))

    @property
    def busy(self) -> Gauge:
        """Images being answered or waiting."""
        return self._busy

    def text(self) -> bytes:
        """Return all metrics as text."""
        if not self._several:
            return generate_latest(self._registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)
