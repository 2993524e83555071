"""Ready models: published weights with their publisher's own head, used without training anything.

``torchxrayvision:densenet121-res224-all`` names one: the plugin (by its distribution, with or without ``chestxray-``,
or by the model's registered name) and its weights. `folder_of` writes it to the cache once, in the form of a run's
folder with what a model needs to answer: recipe, network, thresholds, environment. What only a training leaves,
images, predictions and figures, is not there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chestxray import registry
from chestxray._version import VERSION
from chestxray.data import findings as states
from chestxray.data.sources.phantom import samples
from chestxray.errors import InputError, PluginError, nearest
from chestxray.evaluation.decision import rule
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.rule import NOT_CHOSEN, PUBLISHED, Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.models import published_weights, startup
from chestxray.plugin import ModelPlugin, PublishedWeights
from chestxray.recipe import Recipe
from chestxray.report import published_model
from chestxray.runs import provenance, run_folder
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.storage import cache_use, checksums
from chestxray.storage.files import write_json, write_text

if TYPE_CHECKING:
    import keras

    from chestxray.models.assembly import Built

log = logging.getLogger(__name__)

#: The kind of the entries in the cache.
KIND = "ready"
_PREFIX = "chestxray-"
#: Drawn phantoms whose heat maps give a ready model the scale of its own.
FILMS = 16


@dataclass(frozen=True)
class ReadyModel:
    """Published ``weights`` with findings, offered by a plugin under ``name``."""

    name: str
    entry: registry.InstalledPlugin
    plugin: ModelPlugin
    weights: PublishedWeights

    @property
    def findings(self) -> dict[str, int]:
        """The findings that the head was trained on, each with the number of its output."""
        return {name: number for number, name in enumerate(self.weights.findings) if name}


def find(name: str) -> ReadyModel:
    """Return the ready model ``PLUGIN:WEIGHTS``.

    Raises:
        InputError: no such plugin or weights, or weights without a head for findings; the message lists what there is.
        PluginError: the plugin is broken.
    """
    prefix, _, weights = name.rpartition(":")
    entries = registry.entries(registry.MODELS)
    for entry in entries:
        if prefix not in _names_of(entry):
            continue
        plugin: ModelPlugin = registry.load_entry(registry.MODELS, entry)
        for ready in _offered(entry, plugin):
            if ready.name.rpartition(":")[2] == weights:
                return ready
        if weights in plugin.weights:
            raise InputError(
                f"The weights {weights} of {entry.name} have no published head for findings, so that there is nothing "
                f"to predict before it is trained: chestxray run --model {entry.name} --weights {weights}."
            )
    known = [ready.name for ready in installed()]
    listing = f"Allowed: {', '.join(known)}" if known else "No installed plugin offers one"
    raise InputError(
        f"{name!r} is neither a file or folder nor a ready model, PLUGIN:WEIGHTS.{nearest(name, known)} {listing}."
    )


def installed() -> Iterator[ReadyModel]:
    """Yield the ready models of all installed plugins; a broken plugin is passed over."""
    for entry in registry.entries(registry.MODELS):
        try:
            plugin = registry.load_entry(registry.MODELS, entry)
        except PluginError:
            continue
        yield from _offered(entry, plugin)


def _names_of(entry: registry.InstalledPlugin) -> tuple[str, ...]:
    return entry.name, entry.qualified, entry.distribution, entry.distribution.removeprefix(_PREFIX)


def _offered(entry: registry.InstalledPlugin, plugin: ModelPlugin) -> Iterator[ReadyModel]:
    short = entry.distribution.removeprefix(_PREFIX) or entry.name
    for name, weights in plugin.published.items():
        if any(weights.findings):
            yield ReadyModel(f"{short}:{name}", entry, plugin, weights)


def folder_of(name: str, cache: str | Path | None = None) -> Path:
    """Return the folder of the ready model `name` in the cache, where it is written if it is not there.

    The weights are fetched at the first use, unless they are in Keras's folder of models.

    Raises:
        InputError: as `find`; TensorFlow is not installed.
        PluginError: the plugin is broken.
        WeightsError: the weights cannot be fetched, are not those published, or do not fit, head included.
        OutputError: the cache cannot be written.
    """
    ready, root = find(name), caches.root(cache)
    startup.require_tensorflow("A ready model")
    sha256, built = published_weights.known_sha256(ready.weights), None
    if not sha256:  # known once the file has been loaded
        built = _build(ready)
        sha256 = built.weights_sha256
    folder = root / KIND / f"{ready.name.rpartition(':')[2]}-{_digest(ready, sha256)}"
    with cache_use.held(folder):
        if not folder.is_dir() or not checksums.all_match(folder):
            _write(ready, built or _build(ready), folder)
    log.info("%s", published_model.caution(Run(folder)).text)
    return folder


def _digest(ready: ReadyModel, sha256: str) -> str:
    """Return 8 hexadecimal digits of all that the folder's content depends on."""
    entry, weights = ready.entry, ready.weights
    facts = [weights.findings, weights.thresholds, weights.fit, weights.trained_on, ready.plugin.weights_licence]
    versions = [VERSION, version("keras"), entry.qualified, entry.version]
    identity = json.dumps([ready.name, sha256, *versions, *facts])
    return hashlib.blake2b(identity.encode(), digest_size=4).hexdigest()


def _build(ready: ReadyModel) -> Built:
    """Return the network with the published weights and a head of the trained findings alone."""
    log.info("Building %s ...", ready.name)
    startup.start()
    from chestxray.models import assembly

    size, name = ready.plugin.image_size, ready.name
    built = assembly.build(
        ready.plugin,
        len(ready.weights.findings),
        size,
        task="findings",
        name=ready.entry.name,
        weights=name.rpartition(":")[2],
        published_head=True,
    )
    kept = list(ready.findings.values())
    if len(kept) == len(ready.weights.findings):
        return built
    # Outputs that were not trained say nothing.
    part = assembly.build(ready.plugin, len(kept), size, task="findings", name=ready.entry.name)
    for variable, whole in zip(part.model.variables, built.model.variables, strict=True):
        same = tuple(variable.shape) == tuple(whole.shape)
        variable.assign(whole.numpy() if same else whole.numpy()[..., kept])
    return dataclasses.replace(part, weights_sha256=built.weights_sha256)


def _write(ready: ReadyModel, built: Built, folder: Path) -> None:
    """Write the folder, which is there only once it is whole."""
    from chestxray.models import devices
    from chestxray.models.assembly import save

    partial = folder.with_name(folder.name + caches.PARTIAL)
    for old in (partial, folder):
        shutil.rmtree(old, ignore_errors=True)
    (partial / "heatmaps").mkdir(parents=True)
    weights, plugin, name = ready.weights, ready.plugin, ready.name.rpartition(":")[2]
    recipe = Recipe(
        model=ready.entry.name, weights=name, image_size=plugin.image_size, fit=weights.fit,
        class_weights=False, calibrate=False, refuse=0.0, controls=False,
    )  # fmt: skip
    write_text(partial / run_folder.RECIPE, recipe.to_toml())
    save(built.model, partial / run_folder.MODEL)
    write_json(partial / rule.FILE, decision_of(ready).to_json())
    maps: dict[str, Any] = {"layer": plugin.cam_layer, "reason": plugin.cam_reason}
    if plugin.cam_layer is not None:
        maps["gradcam"] = _scale(built.model, plugin.cam_layer, plugin.image_size)
    write_json(partial / run_folder.HEATMAPS, maps)
    model: dict[str, Any] = {
        "parameters": built.model.count_params(),
        "trained_parameters": 0,
        "image_size": list(plugin.image_size),
        "published_weights": {
            "name": name, "url": weights.url, "sha256": built.weights_sha256, "trained_on": list(weights.trained_on),
        },
        "published_head": {"name": ready.name, "features": built.backbone[-1] if built.backbone else ""},
    }  # fmt: skip
    data = {"name": ", ".join(weights.trained_on), "licence": plugin.weights_licence}
    record = provenance.describe(ready.entry, plugin, data, model, devices.chosen("auto"))
    write_json(partial / run_folder.ENVIRONMENT, record)
    published_model.write_card(Run(partial))
    checksums.write(partial, (run_folder.RECIPE, run_folder.MODEL, rule.FILE))
    partial.replace(folder)


def _scale(model: keras.Model, layer: str, size: tuple[int, int]) -> dict[str, Any]:
    """Return the scale of the heat maps of the most probable findings of phantoms: the images on which the network was
    trained are its publisher's.
    """
    from chestxray.explanation.panel import gradcam_scale

    films = samples.drawn(FILMS, size)
    probable = model.predict(films[..., np.newaxis].astype(np.float32), batch_size=FILMS, verbose=0).argmax(axis=1)
    return gradcam_scale(model, layer, films, probable)


def decision_of(ready: ReadyModel) -> FindingDecision:
    """Return the rule of a ready model: each finding by its published operating point, 0.5 where none is published."""
    thresholds = ready.weights.thresholds or (None,) * len(ready.weights.findings)
    found = {}
    for name, number in ready.findings.items():
        threshold = thresholds[number]
        why = PUBLISHED if threshold is not None else f"{NOT_CHOSEN}: its publisher states no operating point"
        cut = 0.5 if threshold is None else threshold
        found[name] = Decision((states.absent(name), name), name, Calibration(), {name: cut}, why)
    return FindingDecision(found)
