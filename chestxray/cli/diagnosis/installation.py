"""Which packages, extras and plugins are installed, and which of the versions that they ask for are not."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from chestxray import distributions, registry
from chestxray._version import VERSION
from chestxray.cli import plugin_listing

#: Distributions whose versions are told, in the order in which a bug report is read.
TOLD = (
    "tensorflow", "tensorflow-cpu", "keras", "jax", "jaxlib", "torch", "tf-keras-vis", "numpy", "scipy", "scikit-learn",
    "pandas", "pyarrow", "pillow", "pydicom", "h5py", "protobuf", "onnx", "onnxruntime", "onnxruntime-gpu", "tf2onnx",
    "ai-edge-litert", "matplotlib", "datasets", "tensorflow-datasets", "kagglehub", "huggingface-hub", "flask",
    "waitress", "joblib", "ray", "tensorboard", "mlflow", "mlflow-skinny", "wandb",
)  # fmt: skip
#: Extras that gather others, or serve developers.
_GATHERED = ("all", "test", "browser")


def versions() -> dict[str, str]:
    """Return the version of each of `TOLD` that is installed, after those of chestxray, Python and the system."""
    bits = 64 if sys.maxsize > 2**32 else 32
    found = {
        "chestxray": VERSION,
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {bits} bit)",
        "system": platform.platform(),
    }
    return found | {name: version for name in TOLD if (version := _version(name)) is not None}


def extras() -> dict[str, Any]:
    """Return for each extra of chestxray what is missing of it: names and versions as they are asked for.

    Empty where chestxray itself was not installed, but is run from its sources.
    """
    own = distributions.find("chestxray")
    if own is None:
        return {}
    names = [name for name in own.metadata.get_all("Provides-Extra") or [] if name not in _GATHERED]
    return {name: _missing(own, name) for name in sorted(names)}


def _missing(own: Distribution, extra: str) -> list[str]:
    found = []
    for needed in _requirements(own, extra):
        if needed.name == "chestxray":
            found += [item for inner in sorted(needed.extras) for item in _missing(own, inner)]
        elif needed.marker is not None and "extra" in str(needed.marker) and _unmet(needed):
            found.append(str(_bare(needed)))
    return list(dict.fromkeys(found))


def unmet() -> list[dict[str, str]]:
    """Return what chestxray, its plugins and whatever they stand on ask for and is installed in another version: a
    list of ``by``, ``asked`` and ``found``. What an extra asks for counts where it is installed.
    """
    wrong, seen = [], set()
    left = ["chestxray", *(entry.distribution for group in registry.KIND for entry in registry.entries(group))]
    while left:
        name = distributions.normal(left.pop())
        if not name or name in seen:
            continue
        seen.add(name)
        if (asking := distributions.find(name)) is None:
            continue
        wanted = list(_requirements(asking, *(_own_extras(asking) if name == "chestxray" else ())))
        for needed in wanted:
            found = _version(needed.name)
            if found is not None and not _fits(needed, found) and needed.name != "chestxray":
                wrong.append({"by": f"{name} {asking.version}", "asked": str(_bare(needed)), "found": found})
            elif found is None and needed.marker is None:
                wrong.append({"by": f"{name} {asking.version}", "asked": str(_bare(needed)), "found": ""})
            left.append(needed.name)
    own, python = distributions.find("chestxray"), platform.python_version()
    allowed = own.metadata.json.get("requires_python") if own is not None else None
    if own is not None and isinstance(allowed, str) and python not in SpecifierSet(allowed, prereleases=True):
        wrong.append({"by": f"chestxray {own.version}", "asked": f"Python {allowed}", "found": python})
    return sorted({tuple(item.items()): item for item in wrong}.values(), key=lambda item: (item["by"], item["asked"]))


def plugins(seconds: float) -> list[dict[str, str]]:
    """Return each plugin's ``kind``, ``name``, ``distribution``, ``version`` and ``broken``: why, ``""`` if it is not.

    Each is imported in another process, which may take `seconds` for it.
    """
    return [
        {
            "kind": registry.KIND[group],
            "name": listed.entry.name,
            "distribution": listed.entry.distribution,
            "version": listed.entry.version,
            "broken": listed.reason,
        }
        for group in registry.KIND
        for listed in plugin_listing.survey(group, seconds)
    ]


def _own_extras(own: Distribution) -> list[str]:
    return list(own.metadata.get_all("Provides-Extra") or [])


def _requirements(asking: Distribution, *extras: str) -> Iterator[Requirement]:
    """The requirements of a distribution that hold here, those of `extras` too."""
    for line in asking.requires or ():
        try:
            needed = Requirement(line)
            holds = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        except (ValueError, InvalidSpecifier):  # of another's metadata, which we cannot mend
            continue
        if holds:
            yield needed


def _unmet(needed: Requirement) -> bool:
    found = _version(needed.name)
    return found is None or not _fits(needed, found)


def _fits(needed: Requirement, found: str) -> bool:
    try:
        return needed.specifier.contains(Version(found), prereleases=True)
    except InvalidVersion:
        return True


def _bare(needed: Requirement) -> str:
    return f"{needed.name}{needed.specifier}"


def _version(name: str) -> str | None:
    found = distributions.find(name)
    return None if found is None else found.version
