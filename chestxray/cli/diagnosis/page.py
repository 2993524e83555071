"""The facts as plain text, to be pasted into a bug report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The lines of the report: what is wrong comes first."""
    found = facts["problems"]
    yield f"{len(found)} problem{'' if len(found) == 1 else 's'} found." if found else "No problem found."
    for problem in found:
        yield f"! {problem['what']}"
        yield f"  {problem['remedy']}"
    yield from _section("Versions", facts["versions"].items())
    yield from _section("Devices", _devices(facts))
    yield from _section("Machine", _machine(facts["machine"]))
    yield from _section("Folders", [(name, _folder(folder)) for name, folder in facts["folders"].items()])
    yield from _section("Plugins", _plugins(facts["plugins"]))
    yield from _section("Extras", [(name, _extra(missing)) for name, missing in facts["extras"].items()])
    yield from _section("Settings", facts["settings"].items())


def _section(title: str, rows: Any) -> Iterator[str]:
    rows = list(rows)
    if not rows:
        return
    width = max(len(name) for name, _ in rows)
    yield ""
    yield title
    for name, value in rows:
        yield f"  {name:<{width}}  {value}".rstrip()


def _devices(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for step in ("tensorflow", "jax", "keras"):
        if (probe := facts["probes"].get(step)) is None:
            continue
        told = ", ".join(probe.get("devices", ())) or f"backend {probe.get('backend', '?')}"
        yield step, probe["error"] or told
    if facts["machine"]["nvidia_devices"]:
        yield "NVIDIA devices", str(facts["machine"]["nvidia_devices"])


def _machine(machine: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "processor", f"{machine['processor']}{' (no AVX)' if machine['avx'] is False else ''}"
    yield "processors", f"{machine['processors_usable']} of {machine['processors']} usable"
    available, limit = _gigabytes(machine["memory_available"]), _gigabytes(machine["memory_limit"])
    yield "memory", f"{available} available of {_gigabytes(machine['memory'])}, limit {limit}"
    limits = {name: "none" if value is None else f"{value:,}" for name, value in machine["limits"].items()}
    yield "limits", ", ".join(f"{name} {value}" for name, value in limits.items()) or "unknown"
    encodings = f"files {machine['encoding']}, output {machine['output_encoding']}"
    yield "text", f"locale {machine['locale']}; {encodings}"
    yield "clock", f"{machine['time']}; chestxray installed {machine['installed']}"


def _folder(folder: Mapping[str, Any]) -> str:
    parts = [folder["path"], folder["filesystem"], "not writable" if folder["trouble"] else "writable"]
    if "free" in folder:
        parts.append(f"{_gigabytes(folder['free'])} free")
    if "files" in folder:
        least = "at least " if folder["files"] == folder["files_counted_at_most"] else ""
        parts.append(f"{least}{folder['files']:,} files of {_gigabytes(folder['bytes'])}")
    return ", ".join(part for part in parts if part)


def _plugins(plugins: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """A line a distribution with the names of its plugins; each broken one is marked, and told among the problems."""
    by: dict[tuple[str, str], list[str]] = {}
    for plugin in plugins:
        name = f"{plugin['name']} (broken)" if plugin["broken"] else plugin["name"]
        by.setdefault((f"{plugin['distribution']} {plugin['version']}".strip(), plugin["kind"]), []).append(name)
    for (distribution, kind), names in by.items():
        yield distribution, f"{kind}: {', '.join(names)}"


def _extra(missing: Sequence[str]) -> str:
    return f"missing: {', '.join(missing)}" if missing else "installed"


def _gigabytes(number: float | None) -> str:
    return "unknown" if number is None else f"{number / 1e9:.1f} GB"
