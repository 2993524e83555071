"""Plugins by name, from entry points. Listing them imports none; loading one imports only that one."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import FrameType, ModuleType
from typing import Any

from chestxray import distributions
from chestxray import recipe as recipes
from chestxray.errors import InputError, PluginError, Terminated, nearest
from chestxray.recipe import Recipe

MODELS = "chestxray.models"
SOURCES = "chestxray.sources"
METRICS = "chestxray.metrics"
LOSSES = "chestxray.losses"
AUGMENTATIONS = "chestxray.augmentations"
EXPLANATIONS = "chestxray.explanations"
SEGMENTERS = "chestxray.segmenters"
#: Comma-separated names that are treated as not installed.
DISABLED = "CHESTXRAY_DISABLE_PLUGINS"

#: The groups by the word of the command line.
GROUPS = {
    "model": MODELS,
    "source": SOURCES,
    "metric": METRICS,
    "loss": LOSSES,
    "augmentation": AUGMENTATIONS,
    "explanation": EXPLANATIONS,
    "segmenter": SEGMENTERS,
}
#: What a plugin of each group is called, and the class in `chestxray.plugin` that its object is of.
KIND = {group: "data source" if word == "source" else word for word, group in GROUPS.items()}
CONTRACTS = {group: f"{word.capitalize()}Plugin" for word, group in GROUPS.items()}


@dataclass(frozen=True)
class InstalledPlugin:
    """An installed plugin, not yet imported."""

    name: str
    distribution: str
    version: str
    point: EntryPoint

    @property
    def qualified(self) -> str:
        return f"{self.distribution}:{self.name}"


def entries(group: str) -> list[InstalledPlugin]:
    """Return all plugins installed in `group`, sorted by name and distribution, without importing them."""
    off = {name.strip() for name in os.environ.get(DISABLED, "").split(",")}
    found = {
        (point.name, name): InstalledPlugin(name=point.name, distribution=name, version=version, point=point)
        for point, name, version in distributions.points(group)
        if point.name not in off
    }
    return [found[key] for key in sorted(found)]


def find(group: str, name: str, own: Sequence[str] = ()) -> InstalledPlugin:
    """Return the plugin of that name. ``distribution:name`` chooses between two of one name.

    `own` are the names of chestxray's own methods of that kind, which are no plugins and could have been meant.

    Raises:
        InputError: no plugin has that name, and `own` are given.
        PluginError: no plugin has that name, or two distributions claim it.
    """
    known = entries(group)
    matches = [entry for entry in known if name in (entry.name, entry.qualified)]
    if len(matches) == 1:
        return matches[0]
    kind = KIND[group]
    if matches:
        both = " and ".join(f"{entry.qualified} {entry.version}" for entry in matches)
        raise PluginError(
            f"The {kind} {name!r} is claimed by {both}. "
            f"Choose one by its full name ({matches[0].qualified}) or uninstall the other."
        )
    installed = sorted({entry.name for entry in known})
    names = [*own, *installed]
    listing = "Installed: " + ", ".join(installed) if installed else f"No {kind} plugin is installed"
    if own:
        raise InputError(f"Unknown {kind} {name!r}.{nearest(name, names)} Allowed: {', '.join(own)}. {listing}.")
    raise PluginError(f"Unknown {kind} {name!r}.{nearest(name, names)} {listing}.")


def methods_of(recipe: Recipe) -> list[tuple[str, InstalledPlugin]]:
    """Return the group and the plugin of every method that `recipe` names and that is not one of chestxray's own.

    Raises as `find`.
    """
    named: list[tuple[str, str, tuple[str, ...]]] = [(METRICS, name, ()) for name in recipe.metric]
    if recipe.loss not in recipes.LOSSES:
        named.append((LOSSES, recipe.loss, recipes.LOSSES))
    if recipe.augment not in recipes.AUGMENTATIONS:
        named.append((AUGMENTATIONS, recipe.augment, recipes.AUGMENTATIONS))
    if recipe.explain not in recipes.EXPLANATIONS:
        named.append((EXPLANATIONS, recipe.explain, recipes.EXPLANATIONS))
    return [(group, find(group, name, own)) for group, name, own in named]


def load_plugin(group: str, name: str) -> Any:
    """Import the plugin of that name and return its object.

    Raises:
        PluginError: as `find`; also if the plugin cannot be imported or is not a plugin object.
    """
    return load_entry(group, find(group, name))


def load_entry(group: str, entry: InstalledPlugin) -> Any:
    """Import the plugin of `entry` and return its object. Raises as `load_plugin`.

    The plugin's module is imported, so that a broken plugin is reported here; keras is imported only
    when the plugin first uses it, so that models can be listed and options checked without it.
    """
    from chestxray import plugin as contracts

    wanted = getattr(contracts, CONTRACTS[group])
    # A plugin is third-party code: whatever its import raises is a defect of the plugin, not of the
    # user or of chestxray, and must not affect the other plugins.
    try:
        # What a plugin prints must not appear among the lines of a result.
        with deferred("keras"), redirect_stdout(sys.stderr), _interrupts() as pressed:
            plugin = entry.point.load()
    except BaseException as error:
        if isinstance(error, Terminated) or (pressed and isinstance(error, KeyboardInterrupt)):
            raise
        raise PluginError(
            f"The {KIND[group]} plugin {entry.qualified} {entry.version} is broken: "
            f"importing {entry.point.value} failed with {type(error).__name__}: {error}"
        ) from error
    if not isinstance(plugin, wanted):
        raise PluginError(
            f"The {KIND[group]} plugin {entry.qualified} {entry.version} is broken: "
            f"{entry.point.value} must be a {wanted.__name__}. Received: {type(plugin).__name__}."
        )
    if plugin.api not in range(1, contracts.API + 1):
        raise PluginError(
            f"The {KIND[group]} plugin {entry.qualified} {entry.version} is written for version {plugin.api} of the "
            f"contract of plugins. This chestxray knows versions up to {contracts.API}: upgrade chestxray, or install "
            "an older version of the plugin."
        )
    return plugin


#: The modules of keras that authors import by ``from keras import layers``.
_KERAS_PARTS = frozenset(
    {"activations", "applications", "constraints", "initializers", "layers", "models", "ops", "random", "regularizers"}
)


class _Deferred(ModuleType):
    """Stand-in for a module, which imports the module when one of its attributes is first used.

    importlib's LazyLoader is not suitable: a second `import` of its module already executes the module.
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            if self.__name__ == "keras" and name in _KERAS_PARTS:
                return _DeferredPart(self, name)
            # ``from keras import layers`` asks whether keras is a package. No is an answer that costs nothing.
            if name == "__path__" and sys._getframe(1).f_code.co_filename != "<frozen importlib._bootstrap>":
                raise AttributeError(name)
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _DeferredPart(ModuleType):
    """Stand-in for a module within a deferred one."""

    def __init__(self, whole: _Deferred, name: str) -> None:
        super().__init__(f"{whole.__name__}.{name}")
        self.__dict__["_whole"] = whole.__name__

    def __getattr__(self, name: str) -> Any:
        whole = self.__dict__["_whole"]
        if isinstance(sys.modules.get(whole), _Deferred):
            del sys.modules[whole]
        return getattr(getattr(importlib.import_module(whole), self.__name__.rpartition(".")[2]), name)


@contextmanager
def deferred(name: str) -> Iterator[None]:
    """Defer ``import name`` within the block. Afterwards only modules that imported it there hold the stand-in."""
    stand_in = _Deferred(name)
    if sys.modules.setdefault(name, stand_in) is not stand_in:
        yield
        return
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Yield a list that receives an item when Ctrl-C is pressed within the block: a plugin may also raise
    KeyboardInterrupt by itself.
    """
    pressed: list[int] = []
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        # With another handler, or outside the main thread, Ctrl-C raises no KeyboardInterrupt here.
        yield pressed
        return

    def note(number: int, _: FrameType | None) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        # A handler that the plugin installed is removed after its import.
        signal.signal(signal.SIGINT, signal.default_int_handler)
