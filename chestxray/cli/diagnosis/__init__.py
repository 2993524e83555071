"""What `chestxray doctor` reports: facts of the installation and the machine, in JSON types, and what is wrong.

`installation` has the packages, extras and plugins, `machine` the processors, memory and folders, `probes` what only
another process may ask (broken drivers end it), `problems` what is wrong, `privacy` what is left out, `page` the text.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from chestxray import distributions
from chestxray.cli.diagnosis import installation, machine, privacy, probes, problems
from chestxray.storage import cache

#: Environment variables that change how chestxray or its libraries work, and hold neither a path nor a secret.
SETTINGS = (
    "KERAS_BACKEND", "TF_USE_LEGACY_KERAS", "TF_ENABLE_ONEDNN_OPTS", "TF_DETERMINISTIC_OPS", "TF_XLA_FLAGS",
    "TF_FORCE_GPU_ALLOW_GROWTH", "TF_CPP_MIN_LOG_LEVEL", "XLA_FLAGS", "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_MEM_FRACTION", "JAX_PLATFORMS", "JAX_ENABLE_X64", "CUDA_VISIBLE_DEVICES",
    "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "CHESTXRAY_DISABLE_PLUGINS", "PYTHONHASHSEED", "PYTHONUTF8", "LANG",
    "LC_ALL", "MPLBACKEND",
)  # fmt: skip


def examine(cache_folder: str | Path | None, output: str | Path | None, seconds: float) -> dict[str, Any]:
    """Return every fact and, by the key ``problems``, what is wrong: a list of ``what`` and ``remedy``.

    `cache_folder` and `output` are the folders that a run would use, by default its own defaults. A probe of
    TensorFlow, JAX or the other compiled packages may take `seconds`. User names and the home folder are removed
    from all texts.
    """
    with probes.started(seconds) as answers:
        facts: dict[str, Any] = {
            "versions": installation.versions(),
            "damaged": distributions.damaged(),
            "requirements": installation.unmet(),
            "extras": installation.extras(),
            "plugins": installation.plugins(seconds),
            "machine": machine.facts(),
            "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
            "folders": machine.folders(cache_folder or os.environ.get(cache.ENVIRONMENT), output),
        }
        facts["probes"] = answers()
    facts["problems"] = problems.find(facts)
    return privacy.without_user(facts)
