"""What the report says of the way its heat maps were drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chestxray.recipe import EXPLANATIONS, PIXEL_EXPLANATIONS


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
        drawn = f"Drawn by {method or 'Grad-CAM'}{at}."
    if not scale:
        return f"{drawn} Each map is scaled to its own maximum."
    if not scale["highest"]:
        return f"{drawn} All maps are empty."
    return f"{drawn} All maps share one scale: the hottest colour is {scale['highest']:.3g} ({scale['unit']})."
