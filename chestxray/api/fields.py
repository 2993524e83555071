"""The fields of `Recipe` as typed keyword arguments, for completion in editors and for type checkers.

The defaults and the explanations of the fields are in `Recipe`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from chestxray.errors import InputError, nearest
from chestxray.recipe import Recipe

#: One name, or several.
Names = str | Sequence[str]
#: N, ``"HEIGHTxWIDTH"`` or (height, width), in pixels.
Size = int | str | tuple[int, int]


class DataFields(TypedDict, total=False):
    """The fields that define how data are read, resized and split, without ``data`` itself."""

    test_data: Names
    path: Names
    data_option: Names
    patient_pattern: str | None
    label_pattern: str | None
    masks: Names
    classes: Names
    map: Names
    drop: Names
    uncertain: Names
    view: Names
    image_size: Size | None
    fit: Literal["stretch", "pad", "crop"]
    max_pixels: int
    max_unreadable: float
    split: Literal["auto", "official", "random", "stratified", "grouped", "source"]
    folds: int
    fold: int | None
    held_out: str | None
    validation_share: float
    test_share: float
    keep_validation: bool
    on_leak: Literal["stop", "drop", "ignore"]
    split_seed: int | None
    seed: int
    by: Names


class RecipeFields(DataFields, total=False):
    """All fields of `Recipe`."""

    model: str
    data: Names
    crop: Literal["none", "lungs"]
    weights: str
    normalisation: Literal["plugin", "pixel", "image"]
    pooling: Literal["mean", "attention"]
    mixed_precision: bool
    batch_norm_momentum: float | None
    finetune_from: str | None
    probe: bool
    head_epochs: int
    epochs: int
    batch_size: int
    sync_batch_norm: bool
    optimizer: Literal["adamw", "adam", "sgd"]
    learning_rate: float
    finetune_learning_rate: float
    learning_rate_batch: int | None
    schedule: Literal["cosine", "constant", "plateau"]
    warmup_share: float
    weight_decay: float
    loss: str
    label_smoothing: float
    class_weights: bool
    augment: str
    mix: Literal["none", "mixup", "cutmix"]
    sampling: Literal["uniform", "rarity"]
    monitor: Literal["loss", "auroc"]
    patience: int
    devices: str
    jit_compile: Literal["auto", "on", "off"]
    deterministic: bool
    cached_views: int | None
    cache_precision: Literal["float32", "float16"]
    cache_gigabytes: float
    predict_batch_size: int
    calibrate: bool
    sensitivity: float | None
    confidence: float | None
    abstain: float | None
    refuse: float
    controls: bool
    positive: str | None
    prevalence: float | None
    replicates: int
    metric: Names
    explain: str
    heatmaps: int
    map_checks: Literal["none", "quick", "all"]


#: The names of `DataFields`, in the order of `Recipe`.
OF_DATA = tuple(field.name for field in dataclasses.fields(Recipe) if field.name in DataFields.__annotations__)


def check_data_fields(given: Mapping[str, Any]) -> None:
    """Raise `InputError` if `given` has a name that is not one of `OF_DATA`."""
    for name in given:
        if name not in OF_DATA:
            raise InputError(
                f"{name[:100]!r} is no field of a recipe's data.{nearest(name[:100], OF_DATA)} Allowed: "
                f"{', '.join(OF_DATA)}."
            )
