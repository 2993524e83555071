"""What is wrong with the facts of an installation and a machine, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

#: Bytes below which a folder is too full for a run, or shared memory too small for processes that share arrays.
LITTLE_DISK, LITTLE_SHARED = 1_000_000_000, 64_000_000
#: Bytes of memory that TensorFlow and a small network take, and files that a run with its libraries may hold open.
LITTLE_MEMORY, FEW_FILES = 2_000_000_000, 256
#: Files that a folder must have room for.
FEW_FREE = 1_000


def find(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what is wrong, each with ``what`` and ``remedy``; `facts` are those of `chestxray.cli.diagnosis`."""
    found = [
        *_packages(facts), *_plugins(facts["plugins"]), *_backends(facts), *_machine(facts["machine"]),
        *_folders(facts["folders"]),
    ]  # fmt: skip
    return [{"what": what, "remedy": remedy} for what, remedy in found]


_Found = Iterator[tuple[str, str]]


def _packages(facts: Mapping[str, Any]) -> _Found:
    for item in facts["damaged"]:
        yield (
            f"The metadata in {item['path']} cannot be read: {item['why']}.",
            "Install that package anew; if it is no longer used, delete that folder.",
        )
    for item in facts["requirements"]:
        found = f"{item['found']} is installed" if item["found"] else "it is not installed"
        yield f"{item['by']} needs {item['asked']}, and {found}.", f"pip install '{item['asked']}'"
    for name, why in (facts["probes"].get("packages", {}).get("broken") or {}).items():
        yield f"{name} cannot be imported: {why}.", f"pip install --force-reinstall the package of {name}"
    if why := facts["probes"].get("packages", {}).get("error"):
        yield f"Importing the compiled packages failed: {why}.", "Install them anew, for this processor."
    if {"tensorflow", "tensorflow-cpu"} <= set(facts["versions"]):
        yield (
            "tensorflow and tensorflow-cpu are both installed, in the same folder.",
            "pip uninstall tensorflow tensorflow-cpu, then install one of them",
        )
    if not facts["extras"]:
        yield (
            "chestxray runs from its sources and is not installed, so that its plugins and extras are unknown.",
            "pip install -e .",
        )


def _plugins(plugins: list[dict[str, str]]) -> _Found:
    for plugin in plugins:
        if plugin["broken"]:
            yield plugin["broken"], f"pip install --upgrade {plugin['distribution']}, or uninstall it"
    claimed = Counter((plugin["kind"], plugin["name"]) for plugin in plugins)
    for (kind, name), times in claimed.items():
        if times > 1:
            by = [p["distribution"] for p in plugins if (p["kind"], p["name"]) == (kind, name)]
            yield (
                f"The {kind} {name} is claimed by {' and '.join(by)}.",
                f"Uninstall one of them, or choose by the full name: {by[0]}:{name}.",
            )


def _backends(facts: Mapping[str, Any]) -> _Found:
    probes, chosen = facts["probes"], facts["settings"].get("KERAS_BACKEND", "")
    for step, title in (("tensorflow", "TensorFlow"), ("jax", "JAX"), ("keras", "Keras")):
        probe = probes.get(step)
        if probe is None or (step == "tensorflow" and probe["error"] and probe["error"] == _error_of_keras(facts)):
            continue
        if probe["error"]:
            with_backend = f" with KERAS_BACKEND={chosen}" if step == "keras" and chosen else ""
            remedy = "unset KERAS_BACKEND" if with_backend else f"Install {title} anew, or mend the driver."
            if facts["machine"]["avx"] is False:
                remedy = f"{title}'s packages need a processor with AVX; use another machine."
            yield f"{title} does not work{with_backend}: {probe['error']}.", remedy
        elif not probe["computes"]:
            yield f"{title} computes a wrong sum.", f"Install {title} anew, or mend the driver."
    if chosen and chosen not in ("tensorflow", "jax"):
        yield f"KERAS_BACKEND is {chosen!r}; chestxray works with tensorflow and jax.", "unset KERAS_BACKEND"
    if facts["settings"].get("TF_USE_LEGACY_KERAS") not in (None, "", "0", "False", "false"):
        yield "TF_USE_LEGACY_KERAS turns on Keras 2; chestxray needs Keras 3.", "unset TF_USE_LEGACY_KERAS"
    yield from _gpus(facts)


def _error_of_keras(facts: Mapping[str, Any]) -> str:
    """TensorFlow imports Keras, whose error it then has as well."""
    return facts["probes"].get("keras", {}).get("error", "")


def _gpus(facts: Mapping[str, Any]) -> _Found:
    present, hidden = facts["machine"]["nvidia_devices"], facts["settings"].get("CUDA_VISIBLE_DEVICES")
    if not present or hidden in ("", "-1"):
        return
    seen = [
        device
        for step in ("tensorflow", "jax")
        for device in facts["probes"].get(step, {}).get("devices", ())
        if not device.lower().startswith("cpu")
    ]
    if not seen and ("tensorflow" in facts["probes"] or "jax" in facts["probes"]):
        yield (
            f"This machine has {present} NVIDIA device{'s' * (present > 1)}, and neither TensorFlow nor JAX sees one.",
            "pip install 'tensorflow[and-cuda]', and a driver that is new enough",
        )


def _machine(machine: Mapping[str, Any]) -> _Found:
    if machine["avx"] is False:
        yield "The processor has no AVX, which TensorFlow's packages need.", "Use another machine."
    memory = [machine[name] for name in ("memory_available", "memory_limit") if machine[name] is not None]
    if memory and min(memory) < LITTLE_MEMORY:
        yield f"Only {_amount(min(memory))} of memory can be used.", "Close other programs, or raise the limit."
    files = machine["limits"].get("open files")
    if files is not None and files < FEW_FILES:
        yield f"Only {files} files may be open at once.", "ulimit -n 4096"
    if machine["encoding"].lower().replace("-", "") != "utf8":
        yield f"File names are read as {machine['encoding']}, not UTF-8: others cannot be read.", "export PYTHONUTF8=1"
    # Both are ISO 8601 in UTC, which sorts as time does.
    if machine["time"][:10] < machine["installed"][:10]:
        yield (
            f"The clock says {machine['time']}, which is before chestxray was installed ({machine['installed']}).",
            "Set the clock: certificates of downloads are refused, and what was used last is not known.",
        )


def _folders(folders: Mapping[str, Any]) -> _Found:
    for name, folder in folders.items():
        if folder["trouble"]:
            option = f", or choose another with --{name}" if name in ("cache", "output") else ""
            yield (
                f"Nothing can be written to the {name} folder {folder['path']}: {folder['trouble'].rstrip('.')}.",
                f"Change its rights{option}.",
            )
            continue
        free, files = folder.get("free"), folder.get("files_free")
        if name == "shared memory":
            if free is not None and free < LITTLE_SHARED:
                yield (
                    f"Shared memory ({folder['path']}) has {_amount(free)} left.",
                    "In a container: docker run --shm-size 1g",
                )
        elif free is not None and free < LITTLE_DISK:
            yield f"The disk of the {name} folder {folder['path']} has {_amount(free)} left.", "Make room there."
        elif files is not None and files < FEW_FREE:
            yield f"The disk of the {name} folder {folder['path']} takes only {files} more files.", "Make room there."


def _amount(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
