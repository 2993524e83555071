"""Checks that a plugin's fields are valid and its metadata complete."""

from __future__ import annotations

from chestxray.plugin import ModelPlugin
from chestxray.testing.model_under_test import Subject
from chestxray.testing.results import CheckFailed


def check_fields(subject: Subject) -> None:
    """The fields have the right types and are consistent with each other."""
    if wrong := _wrong_kinds(subject.plugin):
        raise CheckFailed("; ".join(wrong), "see the fields of chestxray.plugin.ModelPlugin")


def check_metadata(subject: Subject) -> None:
    """Reference, licences and, for a plugin without Grad-CAM, the reason for it are given."""
    if missing := _missing_words(subject.plugin):
        raise CheckFailed("; ".join(missing))


def _wrong_kinds(plugin: ModelPlugin) -> list[str]:
    wrong = [f"{name} is not a function" for name in ("build", "scale", "head") if not callable(getattr(plugin, name))]
    if plugin.convert is not None and not callable(plugin.convert):
        wrong.append("convert is not a function")
    if not isinstance(plugin.weights, tuple) or not all(isinstance(name, str) for name in plugin.weights):
        wrong.append(f"weights must be a tuple of names, not {plugin.weights!r}")
    if not isinstance(plugin.finetune, tuple) or not all(isinstance(one, str) and one for one in plugin.finetune):
        wrong.append(f"finetune must be a tuple of patterns, not {plugin.finetune!r}")
    for name in ("cam_layer", "finetune_from"):
        value = getattr(plugin, name)
        if value is not None and (not isinstance(value, str) or not value):
            wrong.append(f"{name} must be the name of a layer or None, not {value!r}")
    if any(low > own for low, own in zip(plugin.minimum_size, plugin.image_size, strict=True)):
        wrong.append(f"minimum_size {plugin.minimum_size} is above image_size {plugin.image_size}")
    return wrong


def _missing_words(plugin: ModelPlugin) -> list[str]:
    wanted = {
        "reference": "the paper, or who made it",
        "licence": "the licence of the code",
    }
    if plugin.weights:
        wanted["weights_licence"] = "the licence of the pretrained weights, and what they were trained on"
    if plugin.cam_layer is None:
        wanted["cam_reason"] = "why there is no cam_layer"
    return [
        f"{name} is empty ({meaning})"
        for name, meaning in wanted.items()
        if not isinstance(getattr(plugin, name), str) or not getattr(plugin, name).strip()
    ]
