"""What the report says of the way its heat maps were drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chestxray.recipe import EXPLANATIONS, GRADCAM, PIXEL_EXPLANATIONS

_TITLES = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "layercam": "LayerCAM",
    "scorecam": "Score-CAM",
    "hirescam": "HiResCAM",
    "saliency": "the gradient (saliency)",
    "smoothgrad": "SmoothGrad",
    "integrated-gradients": "integrated gradients",
    "occlusion": "occlusion",
    "attention-rollout": "attention rollout",
}

#: What is marked, by method, after "It".
_RAISED = "marks the places that raised that score"
_SLOPE = "marks the places where a small change of grey would change that score most, up or down alike"
_MARKS = {
    "gradcam": _RAISED,
    "gradcam++": _RAISED,
    "layercam": _RAISED,
    "hirescam": _RAISED,
    "scorecam": "marks the places that, left visible alone, keep the probability high",
    "saliency": _SLOPE,
    "smoothgrad": _SLOPE,
    "integrated-gradients": "marks the places whose grey, compared with black, raised that score",
    "occlusion": "marks the places that lower the probability when they are covered",
    "attention-rollout": "marks the places that the attention of the network went to: it is the same for every class, "
    "and does not say what raised that score",
}


def title(method: str) -> str:
    """Return a method as its paper writes it, or the name of a plugin's."""
    return _TITLES.get(method, method)


def marks(method: str) -> str:
    """Return a sentence, after one that names the score that a map is drawn for, on what a method's map marks."""
    if (known := _MARKS.get(method)) is None:
        return f"What it marks is for the plugin of the method {method} to say. Hotter colours mark more."
    return f"It {known}. Hotter colours mark more."


def method_and_scale(index: Mapping[str, Any]) -> str:
    """Return sentences on what the maps of ``heatmaps/index.json`` mark, and on their method, layer and scale."""
    return f"{marks(index.get('method') or GRADCAM)} {_drawn(index)}"


def _drawn(index: Mapping[str, Any]) -> str:
    method, layer, scale = index.get("method", ""), index.get("layer"), index.get("scale")
    own = method in ("", *EXPLANATIONS)
    if not own:
        drawn = f"Drawn by the method {method} of a plugin."
    else:
        at = (
            f" at the layer {layer}; a map is as coarse as that layer"
            if layer and method not in PIXEL_EXPLANATIONS
            else ""
        )
        drawn = f"Drawn by {title(method or GRADCAM)}{at}."
    if not scale:
        return f"{drawn} Each map is scaled to its own maximum."
    if not scale["highest"]:
        return f"{drawn} All maps are empty."
    end, beyond, count = f"{scale['highest']:.3g}", scale["beyond"], len(index["images"])
    reached = f"{end} and more, as {beyond} of {count} maps have" if beyond else end
    return f"{drawn} All maps share one scale: the hottest colour is {reached} ({scale['unit']})."
