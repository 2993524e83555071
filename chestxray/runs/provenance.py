"""What a run was made with (versions, devices, data), so that a reviewer can trace the origin of every number."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import UTC, datetime
from typing import Any

from chestxray import distributions, registry
from chestxray._version import VERSION
from chestxray.data.index import Index
from chestxray.models import backend, lung_segmenter
from chestxray.plugin import ModelPlugin
from chestxray.recipe import Recipe
from chestxray.registry import InstalledPlugin

_PACKAGES = (
    "keras", "tensorflow", "jax", "tf-keras-vis", "numpy", "scipy", "scikit-learn", "pandas", "pillow",
    "datasets", "tensorflow-datasets",
)  # fmt: skip

_SETTINGS = ("TF_ENABLE_ONEDNN_OPTS", "TF_DETERMINISTIC_OPS", "NVIDIA_TF32_OVERRIDE", "XLA_FLAGS")


def now() -> str:
    """Return the current time in UTC in ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def fingerprint(index: Index) -> str:
    """Return a hash of the pixels, labels, splits, patients and sources, which does not depend on the files' paths."""
    columns = ["pixel_hash", "label", "split", "patient", "source"]
    lines = sorted("\0".join(row) for row in index.rows[columns].itertuples(index=False))
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def describe(
    entry: InstalledPlugin, plugin: ModelPlugin, data: dict[str, Any], model: dict[str, Any], devices: list[str]
) -> dict[str, Any]:
    """Return the contents of ``environment.json`` except for the times, see docs/run-folder.md. `data` is as `data_of`
    returns it.
    """
    return {
        "chestxray": VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "backend": backend.chosen(),
        "devices": devices,
        "settings": settings(),
        "plugin": {
            "name": entry.name,
            "distribution": entry.distribution,
            "version": entry.version,
            "reference": plugin.reference,
            "licence": plugin.licence,
            "weights_licence": plugin.weights_licence,
        },
        "data": data,
        "model": model,
    }


def methods(recipe: Recipe) -> list[dict[str, str]]:
    """Return origin, reference and licence of the metrics and other methods that plugins add to a run, the segmenter
    that its images are cut by among them.
    """
    found = []
    for group, entry in registry.methods_of(recipe):
        plugin = registry.load_entry(group, entry)
        found.append(
            {
                "kind": registry.KIND[group],
                "name": entry.name,
                "distribution": entry.distribution,
                "version": entry.version,
                "reference": plugin.reference,
                "licence": plugin.licence,
            }
        )
    if (segmenter := lung_segmenter.of_recipe(recipe)) is not None:
        found.append(segmenter.record())
    return found


def data_of(index: Index) -> dict[str, Any]:
    """Return name, number of images, fingerprint, licence and citation of the data."""
    return {
        "name": index.name,
        "images": len(index),
        "fingerprint": fingerprint(index),
        "licence": index.licence,
        "citation": index.citation,
    }


def settings() -> dict[str, str]:
    """Return the environment variables of TensorFlow that may change results in their last bits; ``""``: not set."""
    return {name: os.environ.get(name, "") for name in _SETTINGS}


def _version(name: str) -> str:
    found = distributions.find(name)
    return "" if found is None else found.version
