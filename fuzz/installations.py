"""What `chestxray doctor` reads: metadata of installed packages, settings in the environment, folders."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from chestxray.cli import plugin_listing
from chestxray.cli.diagnosis import SETTINGS, examine, page, probes
from fuzz.mutation import mutated

_METADATA = (
    b"Metadata-Version: 2.1\nName: strange-net\nVersion: 1.0\nRequires-Python: >=3.11\nProvides-Extra: more\n"
    b"Requires-Dist: numpy>=2\nRequires-Dist: scipy<2; extra == 'more'\nRequires-Dist: nowhere; python_version < '3'\n"
)
_POINTS = b"[chestxray.models]\nstrange = strange_net:plugin\n[chestxray.sources]\nodd = strange_net:source\n"
_WORDS = (
    "",
    "0",
    "1",
    "tensorflow",
    "jax",
    "torch",
    "\udcff",
    "a\nb",
    "9" * 5000,
    "/dev/null",
    "../..",
    "s3://k:v@b/c",
)


def prepare(folder: Path, stack: contextlib.ExitStack) -> Callable[[random.Random], None]:
    """A case that examines one changed installation; plugins and probes run in processes of their own, and are left
    out of it.
    """
    info = folder / "site" / "strange_net-1.0.dist-info"
    info.mkdir(parents=True)
    sys.path.insert(0, str(info.parent))
    probes.PROBES = {}
    plugin_listing.survey = _unasked  # type: ignore[assignment]
    before = dict(os.environ)

    def case(rng: random.Random) -> None:
        (info / "METADATA").write_bytes(mutated(rng, _METADATA) if rng.random() < 0.8 else _METADATA)
        (info / "entry_points.txt").write_bytes(mutated(rng, _POINTS) if rng.random() < 0.5 else _POINTS)
        importlib.invalidate_caches()
        for name in rng.sample(SETTINGS, 3):
            os.environ[name] = rng.choice(_WORDS)
        cache = rng.choice((folder / "cache", folder / "site" / "a" / "b", info / "METADATA", "s3://key:word@b/c"))
        try:
            facts = examine(cache, rng.choice((None, folder / "out", info / "METADATA" / "x")), 1.0)  # type: ignore[arg-type]
            text = "\n".join(page.lines(facts)) + json.dumps(facts)
            assert "key:word" not in text, "a secret is told"
        finally:
            os.environ.clear()
            os.environ.update(before)
            shutil.rmtree(folder / "cache", ignore_errors=True)

    return case


def _unasked(group: str, seconds: float = 1.0) -> list[plugin_listing.Listed]:
    from chestxray import registry

    return [plugin_listing.Listed(entry, None, "") for entry in registry.entries(group)]
