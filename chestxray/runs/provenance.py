"""What a run was made with: versions, devices, data. So that a reviewer finds every number's origin."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from chestxray._version import VERSION
from chestxray.data.index import Index
from chestxray.plugin import ModelPlugin
from chestxray.registry import InstalledPlugin

_PACKAGES = (
    "keras", "tensorflow", "tf-keras-vis", "numpy", "scipy", "scikit-learn", "pandas", "pillow",
    "datasets", "tensorflow-datasets",
)  # fmt: skip

_SETTINGS = ("TF_ENABLE_ONEDNN_OPTS", "TF_DETERMINISTIC_OPS", "NVIDIA_TF32_OVERRIDE", "XLA_FLAGS")


def now() -> str:
    """The time in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def fingerprint(index: Index) -> str:
    """A hash of what was in the data: the pixels, labels and splits, wherever the files lie."""
    columns = ["pixel_hash", "label", "split", "patient", "source"]
    lines = sorted("\0".join(row) for row in index.rows[columns].itertuples(index=False))
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def describe(
    entry: InstalledPlugin, plugin: ModelPlugin, index: Index, model: dict[str, Any], devices: list[str]
) -> dict[str, Any]:
    """The contents of ``environment.json`` but for the times, see docs/run-folder.md."""
    return {
        "chestxray": VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
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
        "data": {
            "name": index.name,
            "images": len(index),
            "fingerprint": fingerprint(index),
            "licence": index.licence,
            "citation": index.citation,
        },
        "model": model,
    }


def settings() -> dict[str, str]:
    """Environment variables of TensorFlow that may change results in their last bits; empty: not set."""
    return {name: os.environ.get(name, "") for name in _SETTINGS}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
