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


def title(method: str) -> str:
    """Return a method as its paper writes it, or the name of a plugin's."""
    return _TITLES.get(method, method)


def method_and_scale(index: Mapping[str, Any]) -> str:
    """Return sentences on the method, the layer and the scale of the maps of ``heatmaps/index.json``."""
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
