"""Recipe: every choice of a run, and the only place where its defaults are defined.

The command line makes its options from the fields below, so each field is an option, a key of a
TOML file and an attribute at once.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from chestxray import recipe_files
from chestxray.errors import InputError, nearest

#: The recipe of a run that names neither data nor a recipe.
DEMONSTRATION = "demonstration"
#: The methods of chestxray itself; a recipe may also name a plugin's.
LOSSES = ("crossentropy", "focal", "soft_f1", "asymmetric")
AUGMENTATIONS = ("none", "light", "heavy", "crop")
GRADCAM = "gradcam"
EXPLANATIONS = (
    GRADCAM, "gradcam++", "layercam", "scorecam", "hirescam", "saliency", "smoothgrad", "integrated-gradients",
    "occlusion", "attention-rollout",
)  # fmt: skip
#: Those that need no layer of feature maps.
PIXEL_EXPLANATIONS = ("saliency", "smoothgrad", "integrated-gradients", "occlusion")
#: Maximum side of a network's input in pixels, and maximum of any other whole number.
LARGEST_SIDE, LARGEST = 8192, 2**31 - 1


def _field(default: Any, help: str, *, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice of a run. ``Recipe(model="vgg16", data=("folder:xrays",))``.

    Raises:
        InputError: a value is out of its range or of the wrong type; the message says what is allowed.
    """

    # Model and data
    model: str = _field("", "Architecture, as listed by `chestxray models`.")
    data: tuple[str, ...] = _field(
        (), "Data as KIND:ADDRESS, such as folder:PATH, or a name of the catalogue; repeated: merged."
    )
    test_data: tuple[str, ...] = _field((), "Data to test on, as --data; --data then trains and validates only.")
    path: tuple[str, ...] = _field(
        (), "Folder with a copy of a set of --data, as DIR, or as DATA=DIR with several sets."
    )
    data_option: tuple[str, ...] = _field((), "Option of a data source, as NAME=VALUE or DATA:NAME=VALUE.")
    patient_pattern: str | None = _field(
        None, "Regular expression searched in an image's path below the folder; its groups are the patient."
    )
    label_pattern: str | None = _field(
        None,
        "Regular expression searched in an image's path below the folder; its groups are the class "
        "(of a named group, the name), instead of the folder.",
    )
    masks: tuple[str, ...] = _field(
        (),
        "Folder of masks for the checks of heat maps: PNG files named as their images, of where the finding is; of one "
        "class, as CLASS=FOLDER; of the lungs, as lungs=FOLDER.",
    )
    classes: tuple[str, ...] = _field((), "Classes in the order of the model's outputs, as A,B,C.")
    map: tuple[str, ...] = _field((), "Rename or join classes, as FROM=TO; of one set of several, as DATA:FROM=TO.")
    drop: tuple[str, ...] = _field((), "Class whose images are left out; of one set of several, as DATA:CLASS.")
    uncertain: tuple[str, ...] = _field(
        (),
        "What is done with uncertain findings: ignore (default), positive, negative or soft; of one finding, as "
        "FINDING=CHOICE.",
    )
    view: tuple[str, ...] = _field(
        (), "Views to use, as PA,AP; any: all; default: those that the data do not call lateral."
    )
    # Images
    image_size: tuple[int, int] | None = _field(
        None, "Size as N or HEIGHTxWIDTH in pixels; default: the architecture's own.", low=1
    )
    fit: Literal["stretch", "pad", "crop"] = _field("stretch", "How an image is fitted to the size.")
    crop: Literal["none", "lungs"] = _field(
        "none",
        "What of each image is used: none: all of it; lungs: the box around its lungs, found by the segmenter that is "
        "installed.",
    )
    max_pixels: int = _field(
        100_000_000, "Maximum number of pixels of an image; larger ones count as unreadable.", low=1
    )
    max_unreadable: float = _field(0.05, "Maximum share of unreadable images; with more, the run stops.", low=0, high=1)
    # Splits
    split: Literal["auto", "official", "random", "stratified", "grouped", "source"] = _field(
        "auto",
        "How rows are split; auto: official where there is one, else stratified by patient; source: "
        "leave one source out.",
    )
    folds: int = _field(0, "Folds of cross-validation, drawn as --split says; 0: none.", low=0, high=100)
    fold: int | None = _field(None, "The one fold to hold out, from 0; default: each in turn.", low=0)
    held_out: str | None = _field(None, "The one source to hold out with --split source; default: each in turn.")
    validation_share: float = _field(0.1, "Share of the images for validation.", low=0.01, high=0.5)
    test_share: float = _field(0.1, "Share of the images for the test.", low=0.01, high=0.8)
    keep_validation: bool = _field(
        False, "Keep an official validation split of under 50 images instead of redrawing it."
    )
    on_leak: Literal["stop", "drop", "ignore"] = _field(
        "stop", "What to do where an image or a patient stands on both sides of a split."
    )
    split_seed: int | None = _field(None, "Seed of the splits alone; default: --seed.", low=0)
    # Model
    weights: str = _field(
        "auto", "none, a name that the architecture offers, or a file; auto: the first name offered, else none."
    )
    normalisation: Literal["plugin", "pixel", "image"] = _field(
        "plugin",
        "plugin: as the architecture was trained; pixel: standardised by pixel over the training "
        "images; image: standardised image by image.",
    )
    mixed_precision: bool = _field(
        False, "Compute in float16 on any device; intended for GPUs. Weights and logits stay float32."
    )
    batch_norm_momentum: float | None = _field(
        0.9,
        "Momentum of batch normalisation in trained layers (Keras's .99 needs thousands of steps).",
        low=0,
        high=1,
    )
    finetune_from: str | None = _field(
        None,
        "First layer of the backbone trained after the head, with pretrained weights only, or all; default: the "
        "architecture's own.",
    )
    pooling: Literal["mean", "attention"] = _field(
        "mean",
        "How the default head sums up the places of the feature map: their mean, or weighed by learned attention (Ilse "
        "2018).",
    )
    # Training
    probe: bool = _field(
        False,
        "Fit the head as a logistic regression on features of the frozen backbone, in the place of --head-epochs, with "
        "pretrained weights only; --epochs follow where --finetune-from says from which layer on.",
    )
    head_epochs: int = _field(3, "Epochs of the head alone, with pretrained weights only.", low=0)
    epochs: int = _field(10, "Epochs of the whole network, or from its fine-tuning layer on.", low=0)
    batch_size: int = _field(32, "Images a step, over all devices together.", low=1)
    sync_batch_norm: bool = _field(
        False,
        "On several devices, normalise batches by the images of all of them; default: each device by its own.",
    )
    optimizer: Literal["adamw", "adam", "sgd"] = _field("adamw", "Optimiser; sgd has momentum .9.")
    learning_rate: float = _field(1e-3, "Peak learning rate of the head and from scratch.", low=0)
    finetune_learning_rate: float = _field(1e-4, "Peak learning rate of fine-tuning.", low=0)
    learning_rate_batch: int | None = _field(
        None,
        "Batch size that the learning rates are meant for; with another --batch-size they are scaled, linearly for sgd "
        "(Goyal 2017), by the square root for adam and adamw (Malladi 2022); default: they are taken as they are.",
        low=1,
    )
    schedule: Literal["cosine", "constant", "plateau"] = _field(
        "cosine", "Learning rate: warm-up and cosine decay, constant, or cut on a plateau."
    )
    warmup_share: float = _field(0.1, "Share of a phase's steps that warm up.", low=0, high=1)
    weight_decay: float = _field(1e-4, "Decoupled weight decay (adamw).", low=0)
    loss: str = _field(
        "crossentropy",
        "Loss: crossentropy, focal, soft_f1, asymmetric (Ridnik 2021; for findings alone), or the name of a plugin's.",
    )
    label_smoothing: float = _field(
        0.0, "Label smoothing of cross-entropy, focal loss and plugins' losses.", low=0, high=0.5
    )
    class_weights: bool = _field(
        True,
        "Weight classes by the inverse of their frequency, in training (soft_f1 weighs them alike by itself) and, with "
        "more than two classes, in the decision.",
    )
    augment: str = _field(
        "light",
        "Augmentation of training images: none, light, heavy, crop, or the name of a plugin's; heavy and crop also "
        "mirror them.",
    )
    mix: Literal["none", "mixup", "cutmix"] = _field("none", "Mixing of training images in pairs.")
    sampling: Literal["uniform", "rarity"] = _field(
        "uniform",
        "How often each training image is seen: uniform: once an epoch; rarity: the more often, the rarer a class or "
        "finding it shows (repeat factors, Gupta 2019).",
    )
    monitor: Literal["loss", "auroc"] = _field(
        "loss", "What the best epoch and the patience go by on validation: the loss, or the mean AUROC."
    )
    patience: int = _field(
        5, "Epochs in which validation does not improve before a phase stops, see --monitor; 0: never.", low=0
    )
    seed: int = _field(0, "Seed of splits, initial weights, shuffling and augmentation.", low=0)
    devices: str = _field("auto", "auto (all GPUs, else CPU), cpu, gpu, or such as gpu:0,1.")
    jit_compile: Literal["auto", "on", "off"] = _field(
        "auto",
        "Compile with XLA, never on several devices; auto: never on a CPU, on a GPU as a few timed steps say, where "
        "there is enough work to pay for them.",
    )
    deterministic: bool = _field(
        False,
        "Use deterministic algorithms alone, at a cost of speed: the same recipe, data, machine and versions give the "
        "same weights to the bit, also where the run was interrupted and resumed.",
    )
    cached_views: int | None = _field(
        None,
        "Views of each augmented image that frozen layers see once and that are trained on in turn; 0: frozen "
        "layers run in every epoch; default: 1 where nothing is augmented, else 0.",
        low=0,
    )
    cache_precision: Literal["float32", "float16"] = _field(
        "float32", "Precision of the cached outputs of frozen layers."
    )
    cache_gigabytes: float = _field(
        20.0, "Maximum size of the cached outputs of frozen layers in a phase, in gigabytes.", low=0
    )
    # Evaluation and explanation
    predict_batch_size: int = _field(32, "Images predicted at once, of validation and test after training.", low=1)
    calibrate: bool = _field(
        True,
        "Calibrate the probabilities on validation, inside the saved model: a temperature, the shift of class weights "
        "and sampling undone, offsets of classes where they help.",
    )
    sensitivity: float | None = _field(
        None,
        "With two classes, the sensitivity that the deciding threshold must have for other patients, promised with "
        "--confidence; default: Youden's threshold.",
        low=0.01,
        high=1,
    )
    confidence: float | None = _field(
        None,
        "Confidence with which --sensitivity is promised for patients like those of validation; 0: it is required on "
        "validation alone, and nothing is promised; default: 0.95.",
        low=0,
        high=0.9999,
    )
    abstain: float | None = _field(
        None,
        "Coverage of the conformal sets; the model abstains where the set is anything but the class decided on.",
        low=0.5,
        high=0.999,
    )
    refuse: float = _field(
        0.01,
        "Share of validation radiographs that may be refused as unlike those of training; 0: nothing is refused.",
        low=0,
        high=0.5,
    )
    by: tuple[str, ...] = _field(
        (), "Column of the data, by its heading (such as sex, age or view); each of its groups is also evaluated."
    )
    controls: bool = _field(
        True, "Train controls beside the model: cheap models that see nothing of the lungs, or almost nothing."
    )
    positive: str | None = _field(
        None, "With two classes, the one to which sensitivity refers; default: the abnormal one."
    )
    prevalence: float | None = _field(
        None,
        "With two classes, the prevalence of the positive one where the model is to be used: predictive values and "
        "net benefit are also given for it; default: that of the test alone.",
        low=0.0001,
        high=0.9999,
    )
    replicates: int = _field(2000, "Bootstrap replicates for every interval.", low=100)
    metric: tuple[str, ...] = _field((), "Further figure of the test, by the name of its plugin.")
    explain: str = _field(
        GRADCAM,
        "How the run's heat maps are drawn: one of the methods of `chestxray explain`, or the name of a plugin's.",
    )
    heatmaps: int = _field(
        2,
        "Number of test images of each class and kind (random, right, wrong, most and least certain) with a heat map; "
        "0: none is drawn, and none checked.",
        low=0,
    )
    map_checks: Literal["none", "quick", "all"] = _field(
        "quick",
        "Checks of what the heat maps mean: quick makes weights random, asks for another label, moves the image, and "
        "looks where masks or boxes are known; all also removes the pixels that a map marks and trains a second model "
        "on shuffled labels, which takes as long as the training.",
    )

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            value = _coerce(f.name, getattr(self, f.name), hints[f.name])
            _check_range(f.name, value, f.metadata["low"], f.metadata["high"])
            object.__setattr__(self, f.name, value)
        if not self.probe and not self.epochs + self.head_epochs:
            raise InputError("epochs and head_epochs are both 0: nothing would be trained.")
        if self.masks and (self.map_checks == "none" or not self.heatmaps):
            raise InputError(
                "masks are for the checks of heat maps: map_checks must be quick or all, and heatmaps 1 or more. "
                f"Received: map_checks {self.map_checks}, heatmaps {self.heatmaps}."
            )
        self._check_probe()
        self._check_folds()
        if self.confidence is not None and self.sensitivity is None:
            raise InputError(
                f"confidence is that of a sensitivity: give both. Received: confidence {self.confidence:g}."
            )

    def require_heat_maps(self) -> None:
        """Raise `InputError` where the maps are to be checked and none is to be drawn."""
        if self.map_checks != "none" and not self.heatmaps:
            raise InputError(
                f"map_checks {self.map_checks} is of heat maps, of which heatmaps 0 draws none. Allowed: heatmaps 1 or "
                f"more, or map_checks none. Received: map_checks {self.map_checks}, heatmaps 0."
            )

    def _check_probe(self) -> None:
        if not self.probe:
            return
        if self.loss != "crossentropy":
            raise InputError(f"probe minimises cross-entropy: loss must be crossentropy. Received: {self.loss!r}.")
        if self.label_smoothing:
            raise InputError(f"probe takes no smoothed labels. Received: label_smoothing {self.label_smoothing:g}.")
        if self.mix != "none":
            raise InputError(f"probe takes images as they are, or augmented, not mixed. Received: mix {self.mix!r}.")
        if self.pooling != "mean":
            raise InputError(f"probe fits a head on means of feature maps. Received: pooling {self.pooling!r}.")
        if self.finetune_from is None and self.epochs not in (0, type(self).epochs):
            raise InputError(
                "epochs follow a probe only where finetune_from says from which layer on. Allowed: epochs 0, or "
                f"finetune_from. Received: epochs {self.epochs}."
            )

    def _check_folds(self) -> None:
        if self.folds == 1:
            raise InputError("folds must be 0 (none) or at least 2. Received: 1.")
        if self.fold is not None and self.fold >= self.folds:
            allowed = f"from 0 to {self.folds - 1}" if self.folds else "absent where folds is 0"
            raise InputError(f"fold must be {allowed}. Received: {self.fold}.")
        if self.split == "source" and self.folds:
            raise InputError("split 'source' holds out one source at a time; it takes no folds.")
        if self.held_out is not None and self.split != "source":
            raise InputError(f"held_out needs split 'source'. Received: split {self.split!r}.")

    @property
    def epochs_follow_probe(self) -> bool:
        """Whether the network is trained after the probe of its head."""
        return self.finetune_from is not None and self.epochs > 0

    @property
    def parts(self) -> bool:
        """Whether this recipe describes several trainings: every fold or every source in turn."""
        return (self.folds > 0 and self.fold is None) or (self.split == "source" and self.held_out is None)

    @property
    def confident(self) -> float:
        """The confidence (0 to 1) with which the sensitivity is guaranteed; 0: no guarantee."""
        return 0.95 if self.confidence is None else self.confidence

    @property
    def weighs_findings(self) -> bool:
        """Whether, with findings, the loss makes present and absent of each count alike."""
        return self.class_weights and self.loss in ("crossentropy", "focal")

    @property
    def splits_by(self) -> int:
        """The seed of the splits."""
        return self.seed if self.split_seed is None else self.split_seed

    def replace(self, **changes: Any) -> Recipe:
        """Return the recipe with some fields changed. Raises `InputError` for unknown names."""
        _check_names(changes)
        return dataclasses.replace(self, **changes)

    def to_toml(self) -> str:
        """Return all fields as TOML; fields that are None are left out."""
        import tomli_w

        fields = dataclasses.asdict(self)
        return tomli_w.dumps({k: list(v) if isinstance(v, tuple) else v for k, v in fields.items() if v is not None})

    @classmethod
    def read(cls, name_or_path: str | Path) -> Recipe:
        """Read a recipe that ships with chestxray, by name, or a TOML file, by path.

        A recipe of several models (`recipe_files.read` returns their names) is read without a model.

        Raises:
            InputError: neither a shipped name nor a file; not TOML; unknown keys or invalid values.
        """
        values, _ = recipe_files.read(name_or_path)
        return cls().replace(**values)


def _check_names(values: Mapping[str, Any]) -> None:
    names = [f.name for f in dataclasses.fields(Recipe)]
    for name in values:
        if name not in names:
            raise InputError(
                f"Unknown recipe field {name[:100]!r}.{nearest(name[:100], names)} Allowed: {', '.join(names)}."
            )


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """Return `value` converted to the type `hint`: TOML has lists for tuples and whole numbers for floats."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    kind = next(option for option in options if option is not type(None))
    origin = typing.get_origin(kind)
    if origin is Literal:
        allowed = typing.get_args(kind)
        if value in allowed:
            return value
        raise InputError(f"{name} must be one of {', '.join(allowed)}. Received: {_received(value)}.")
    if name == "image_size":
        return parse_image_size(value)
    if origin is tuple:
        if isinstance(value, str):
            return (value,)
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise InputError(f"{name} must be a list of strings. Received: {_received(value)}.")
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name} must be of kind {kind.__name__}. Received: {_received(value)}.")
    return value


def parse_image_size(value: object) -> tuple[int, int]:
    """Return (height, width) in pixels from ``96``, ``"96"``, ``"96x128"`` or a pair of whole numbers.

    Raises:
        InputError: anything else, or a side that is not from 1 to `LARGEST_SIDE`.
    """
    parts = value.lower().split("x") if isinstance(value, str) else value
    if isinstance(parts, int):
        parts = [parts]
    if isinstance(parts, (list, tuple)) and len(parts) in (1, 2):
        # Reject 1.5 and true, which int() would accept.
        whole = [type(part) is int or (isinstance(part, str) and len(part) < 10) for part in parts]
        try:
            numbers = [int(part) for part in parts] if all(whole) else []
        except ValueError:
            numbers = []
        if numbers and all(0 < n <= LARGEST_SIDE for n in numbers):
            return (numbers[0], numbers[-1])
    raise InputError(
        f"image_size must be N or HEIGHTxWIDTH in whole pixels from 1 to {LARGEST_SIDE}. Received: {_received(value)}."
    )


def _check_range(name: str, value: Any, low: float | None, high: float | None) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if not (low is None or value >= low) or not (high is None or value <= high):
        limits = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
        raise InputError(f"{name} must be {limits}. Received: {_received(value)}.")
    if isinstance(value, int) and value > LARGEST:
        raise InputError(f"{name} must be at most {LARGEST}. Received: {_received(value)}.")
    if not math.isfinite(value):
        raise InputError(f"{name} must be a finite number. Received: {value:g}.")


def _received(value: object) -> str:
    """Return `value` as it was received, shortened if it is long."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:197]}..."
