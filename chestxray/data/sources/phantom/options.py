"""The options of a set of phantoms, given in the address of the source `phantom`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from chestxray.data.sources.phantom.findings import COEXISTING, FINDINGS
from chestxray.errors import InputError, nearest
from chestxray.plugin import SourceOptions

LICENCE = "Procedurally drawn; no rights reserved (CC0-1.0)"
#: Splits of patients in turn: 9 training, 2 validation and 4 test of 15, and one of each among the first 3.
SPLIT_CYCLE = tuple({"R": "train", "V": "validation", "T": "test"}[letter] for letter in "RTVRRTRRTRVRRTR")
#: The findings that the labels of each set of chests with several findings speak of. Two of them are sets of two
#: hospitals, which have effusions in common.
LABELLED = {
    "findings": tuple(COEXISTING),
    "findings-a": ("Cardiomegaly", "Consolidation", "Effusion"),
    "findings-b": ("Cavity", "Effusion", "Nodule", "Pneumothorax"),
}

OptionsT = TypeVar("OptionsT", "Options", "FindingsOptions")


def _option(default: Any, help: str, low: float = 0, high: float = 100_000) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a set of phantoms. Planted flaws are added to the set without flaws, whose films
    do not change.

    Raises:
        InputError: a value is out of its range, or two values contradict each other.
    """

    images: int = _option(880, "Images in all, before flaws are planted.", low=1)
    patients: int = _option(0, "Patients in all, in place of images.", low=0)
    size: int = _option(128, "Width in pixels; the height differs a little by image.", low=32, high=1024)
    findings: tuple[str, ...] = _option((), "What each class shows; default: the first of the four.")
    classes: tuple[str, ...] = _option((), "Names of the classes, 2 to 4; default: the findings'.")
    splits: str = _option("official", "official: 60/13/27 by patient; none: left to the run.")
    seed: int = _option(0, "Fixes every film.", high=2**63)
    marker: float = _option(0.0, "Share of the marked class's images with a lead letter L.", high=1)
    marked: str = _option("", "The class that the marker goes with; default: the second.")
    marker_elsewhere: float = _option(0.0, "Share of the other classes' images with the letter.", high=1)
    duplicates: int = _option(0, "Exact copies, each in the split of its original.")
    duplicates_across: int = _option(0, "Exact copies of training images, in test, as new patients.")
    straddlers: int = _option(0, "Training patients with one further image in test.")
    unreadable: int = _option(0, "Files that are cut short, no image, or empty.")

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_classes(self)
        if self.splits == "none" and (self.straddlers or self.duplicates_across):
            raise InputError("phantom: straddlers and duplicates_across need splits=official. Received: splits=none.")

    @classmethod
    def parse(cls, address: str, options: SourceOptions) -> Options:
        """Return the options in ``name=value,name=value`` and in the run's options for this source.

        Raises:
            InputError: an unknown, repeated or invalid option.
        """
        return _read(cls, address, options)


@dataclass(frozen=True, kw_only=True)
class FindingsOptions:
    """The options of a set of chests with several findings.

    Raises:
        InputError: a value is out of its range.
    """

    images: int = _option(880, "Images in all.", low=1)
    patients: int = _option(0, "Patients in all, in place of images.", low=0)
    size: int = _option(128, "Width in pixels; the height differs a little by image.", low=32, high=1024)
    splits: str = _option("official", "official: 60/13/27 by patient; none: left to the run.")
    seed: int = _option(0, "Fixes every film.", high=2**63)
    uncertain: float = _option(0.1, "Share of the findings that are drawn faintly and labelled uncertain.", high=1)
    unlabelled: float = _option(0.1, "Share of the labels that are missing.", high=1)
    complete: bool = _option(False, "true: every finding that is drawn is labelled, in each hospital.")
    marker: float = _option(0.0, "Share of the images with the marked finding that have a lead letter L.", high=1)
    marked: str = _option("", "The finding that the marker goes with; default: the first.")
    marker_elsewhere: float = _option(0.0, "Share of the other images with the letter.", high=1)

    def __post_init__(self) -> None:
        _check_ranges(self)
        marked = self.marked or next(iter(COEXISTING))
        if marked not in COEXISTING:
            raise InputError(f"phantom: marked must be one of {', '.join(COEXISTING)}. Received: {marked}.")
        object.__setattr__(self, "marked", marked)

    @classmethod
    def parse(cls, address: str, options: SourceOptions) -> FindingsOptions:
        """Return the options as `Options.parse` does, with the same errors."""
        return _read(cls, address, options)


def _check_ranges(options: Options | FindingsOptions) -> None:
    for f in dataclasses.fields(options):
        value, low, high = getattr(options, f.name), f.metadata["low"], f.metadata["high"]
        if isinstance(value, int | float) and not low <= value <= high:
            raise InputError(f"phantom: {f.name} must be from {low:g} to {high:g}. Received: {value:g}.")
    if options.splits not in ("official", "none"):
        raise InputError(f"phantom: splits must be official or none. Received: {options.splits}.")


def _read(kind: type[OptionsT], address: str, options: SourceOptions) -> OptionsT:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for name, text in [*_pairs(address), *options.extra.items()]:
        if name not in fields:
            hint = nearest(name, fields)
            raise InputError(f"phantom: unknown option.{hint} Allowed: {', '.join(fields)}. Received: {name}.")
        if name in values:
            raise InputError(f"phantom: {name} may be given once. Received: {name} twice.")
        values[name] = _parsed(name, text, fields[name].default)
    if "images" in values and "patients" in values:
        raise InputError("phantom: images or patients may be given. Received: both.")
    return kind(**{"seed": options.seed, **values})


def _pairs(address: str) -> Iterator[tuple[str, str]]:
    for item in filter(None, (part.strip() for part in address.split(","))):
        name, equals, value = (piece.strip() for piece in item.partition("="))
        if not (name and equals and value):
            raise InputError(f"phantom: options are name=value, separated by commas. Received: {item}.")
        yield name, value


def _parsed(name: str, text: str, default: Any) -> Any:
    """Return `text` converted to the type of `default`; names of classes and findings are separated by ``+``."""
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split("+"))
    kind = type(default)
    if kind is bool:
        if text not in ("true", "false"):
            raise InputError(f"phantom: {name} must be true or false. Received: {text}.")
        return text == "true"
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise InputError(f"phantom: {name} must be {wanted}. Received: {text}.") from None


def _check_classes(options: Options) -> None:
    """Fill in the default classes and findings, and raise `InputError` if they cannot be drawn or name a folder."""
    findings = options.findings or tuple(FINDINGS)[: len(options.classes) or None]
    classes = options.classes or findings
    if stray := [name for name in findings if name not in FINDINGS]:
        raise InputError(f"phantom: findings must be of {', '.join(FINDINGS)}. Received: {', '.join(stray)}.")
    if not 2 <= len(classes) <= len(FINDINGS) or len({name.casefold() for name in classes}) < len(classes):
        raise InputError(f"phantom: classes must be 2 to 4 different names. Received: {'+'.join(classes)}.")
    if len(findings) != len(classes) or len(set(findings)) < len(findings):
        raise InputError(
            f"phantom: findings must be as many as classes ({len(classes)}), and different. "
            f"Received: {'+'.join(findings)}."
        )
    if odd := [name for name in classes if not re.fullmatch(r"\w[\w .()-]*(?<![ .])", name)]:
        raise InputError(f"phantom: names of classes may have letters, digits, spaces and _-.(). Received: {odd[0]}.")
    marked = options.marked or classes[1]
    if marked not in classes:
        raise InputError(f"phantom: marked must be one of {', '.join(classes)}. Received: {marked}.")
    for name, value in (("findings", findings), ("classes", classes), ("marked", marked)):
        object.__setattr__(options, name, value)
