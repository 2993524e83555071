"""What the suites of metrics, losses, augmentations, explanations and segmenters have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chestxray.testing.fresh_process import FreshProcess
from chestxray.testing.import_checks import module_of, require_light_import
from chestxray.testing.results import CheckFailed, CheckSkipped


@dataclass(frozen=True)
class Method:
    """A plugin under test: its ``function``, its ``name`` as users give it, ``""`` if unknown, and its ``module``.

    ``reserved`` are the names of chestxray's own methods of that kind.
    """

    plugin: Any
    function: Callable[..., Any]
    name: str
    module: str
    reserved: tuple[str, ...]


def check_fields(method: Method) -> None:
    """The fields have the right types."""
    if not callable(method.function):
        raise CheckFailed(f"a {type(method.plugin).__name__} needs a function", "see its fields in chestxray.plugin")


def check_metadata(method: Method) -> None:
    """Reference and licence are given, and what a report needs."""
    wanted = {"reference": "the paper, or who made it", "licence": "the licence of the code"}
    if hasattr(method.plugin, "meaning"):
        wanted |= {"title": "its name in tables", "meaning": "what it says, in a sentence"}
    missing = [
        f"{name} is empty ({meaning})"
        for name, meaning in wanted.items()
        if not isinstance(getattr(method.plugin, name), str) or not getattr(method.plugin, name).strip()
    ]
    if missing:
        raise CheckFailed("; ".join(missing))


def check_name(method: Method) -> None:
    """The name is not one of chestxray's own."""
    if not method.name:
        raise CheckSkipped("the name of the entry point is not known here")
    if method.name in method.reserved:
        raise CheckFailed(f"{method.name} is the name of one of chestxray's own", "choose another entry point name")


def check_import(method: Method) -> None:
    """Importing the plugin takes under a second, imports neither keras nor other heavy libraries, uses no network."""
    module = method.module or module_of(method.function)
    with FreshProcess(("chestxray.plugin", "chestxray.registry", "numpy")) as light:
        require_light_import(light, module, "chestxray.plugin")
