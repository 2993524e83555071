"""The metadata of installed packages, of which any may be damaged: by a full disk, an interrupted pip, another tool."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, distributions, entry_points

#: What importlib.metadata raises for damaged files: bytes that are no UTF-8 (a ValueError), entry points without a
#: value (TypeError), fields that are missing (KeyError), folders where files should be (OSError).
_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, OSError)


def points(group: str) -> list[tuple[EntryPoint, str, str]]:
    """Return the entry points of `group`, each with the name and version of its distribution; ``""`` if unknown.

    A distribution whose metadata cannot be read has none: `damaged` tells of it.
    """
    try:
        return [(point, *_identity(point)) for point in entry_points(group=group)]
    except _DAMAGE:
        return list(_readable_points(group))


def damaged() -> list[dict[str, str]]:
    """Return the ``path`` of every installed distribution whose metadata cannot be read, and ``why``."""
    found = {}
    for installed in distributions():
        try:
            _read(installed)
            list(installed.entry_points)
        except _DAMAGE as error:
            # importlib.metadata has no public name for the folder of a distribution.
            path = str(getattr(installed, "_path", "a package without a folder"))
            found[path] = f"{type(error).__name__}: {error}"
    return [{"path": path, "why": found[path]} for path in sorted(found)]


def find(name: str) -> Distribution | None:
    """Return the installed distribution of that name, None if there is none or its metadata cannot be read."""
    try:
        found = distribution(name)
        _read(found)
    except (PackageNotFoundError, *_DAMAGE):
        return None
    return found


def normal(name: str) -> str:
    """Return the name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _readable_points(group: str) -> Iterator[tuple[EntryPoint, str, str]]:
    """`points`, distribution by distribution. The first of a name on the path counts, as `entry_points` has it."""
    seen = set()
    for installed in distributions():
        try:
            name = normal(_read(installed)[0])
            found = [(point, *_identity(point)) for point in installed.entry_points.select(group=group)]
        except _DAMAGE:
            continue
        if name not in seen:
            seen.add(name)
            yield from found


def _identity(point: EntryPoint) -> tuple[str, str]:
    return _read(point.dist) if point.dist else ("", "")


def _read(installed: Distribution) -> tuple[str, str]:
    """Return the name and version, ``""`` where the metadata have none."""
    fields = installed.metadata
    return (fields["Name"] or "") if "Name" in fields else "", (fields["Version"] or "") if "Version" in fields else ""
