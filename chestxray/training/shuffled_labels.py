"""A second model trained as the first was, but on labels that were dealt to the images at random.

What it shows in a heat map does not come from the labels (the data randomisation of Adebayo et al. 2018, who train
until the shuffled labels are fitted; here the training is that of the recipe, with its epochs and patience).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from chestxray.data import findings
from chestxray.data.grouping import dependent_groups
from chestxray.data.index import Index
from chestxray.errors import TrainingError
from chestxray.models.assembly import Built
from chestxray.recipe import Recipe
from chestxray.training import fit

if TYPE_CHECKING:
    import tensorflow as tf

    from chestxray.models.jax_devices import Replicas

log = logging.getLogger(__name__)

#: Random deals of the labels, of which one is taken.
DEALS = 100
#: What is said while it is trained, and where a run keeps its checkpoints.
DOING, FOLDER = "Training on shuffled labels, to check the maps", "shuffled-labels"


def shuffled(index: Index, seed: int) -> Index:
    """Return `index` with the labels of its training rows dealt anew among them, and those of validation among those.

    The labels go from patient to patient, and from copies to copies: the rows of each take the next labels of the
    patients in random order, and of a patient in random order. So each class keeps its number of images, the images of
    a patient remain more alike in label than those of two, and all findings of an image go together, the unknown ones
    too. Of `DEALS` deals the one counts whose labels go least with the true ones (rerandomisation, Morgan and Rubin
    2012): where all images differ in little but their class, a chance excess of true labels would teach it.
    """
    rows = index.rows.copy()
    columns = findings.columns(index.classes) if index.task == "findings" else ["label"]
    at = rows.columns.get_indexer(columns)
    generator = np.random.default_rng(seed)
    for split in ("train", "validation"):
        places = np.flatnonzero((rows["split"] == split).to_numpy())
        if len(places):
            into, out_of = _dealt(dependent_groups(rows.iloc[places]), _present(index, places), generator)
            rows.iloc[places[into], at] = index.rows.iloc[places[out_of], at].to_numpy()
    return index.replace(rows)


def _present(index: Index, places: np.ndarray) -> np.ndarray:
    """Return which classes or findings the rows `places` have, float64 (rows, classes)."""
    if index.task == "findings":
        return (index.states[places] == findings.PRESENT).astype(np.float64)
    return np.asarray(index.rows["label"].to_numpy()[places, np.newaxis] == np.array(index.classes), np.float64)


def _dealt(groups: np.ndarray, present: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that are given a label and, in the same order, those whose label it is."""
    into, apart = np.argsort(groups, kind="stable"), present - present.mean(axis=0)
    deals = []
    for _ in range(DEALS):
        rank = generator.permutation(int(groups.max()) + 1)[groups]
        out_of = np.lexsort((generator.permutation(len(groups)), rank))
        deals.append((float(((apart[into].T @ apart[out_of]) ** 2).sum()), out_of))
    return into, min(deals, key=lambda deal: deal[0])[1]


def train(
    build: Callable[[], Built],
    pixels: np.ndarray,
    index: Index,
    recipe: Recipe,
    folder: Path,
    strategy: tf.distribute.Strategy | Replicas,
    cache: Path,
) -> keras.Model | None:
    """Return the model that `build` makes, trained by `fit.train` on `shuffled` labels of `index` with the seed of the
    recipe; None where such a training has no finite end, which the log says.

    Its checkpoints are kept in `folder`, from which an interrupted training goes on; the caller removes it. Other
    arguments, and errors, as of `fit.train`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with strategy.scope():
        built = build()
    try:
        fit.train(built, pixels, shuffled(index, recipe.seed), recipe, folder, strategy, cache)
    except TrainingError as error:
        log.warning("Heat maps are not checked against a model trained on shuffled labels. %s", error)
        return None
    return built.model
