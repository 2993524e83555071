"""What a run knows of the heat maps that its model gives wherever it is used."""

from __future__ import annotations

from typing import cast

from chestxray.inference.heat_maps import Badge, HeatMaps, Reason
from chestxray.recipe import GRADCAM
from chestxray.report import map_checks_wording
from chestxray.runs.run_folder import Run


def of_run(run: Run, method: str = GRADCAM) -> HeatMaps | None:
    """Return the scale and the badge of the maps of `run` by `method`; None where it has no layer for those of
    Grad-CAM, or states no scale.

    Raises:
        DataError: a file of the run's heat maps is damaged.
    """
    scale = run.map_scale(method)
    if scale is None or (method == GRADCAM and run.cam_layer[0] is None):
        return None
    beyond = "1 goes" if scale["beyond"] == 1 else f"{scale['beyond'] or 'none'} go"
    films = "drawn chest phantoms" if run.published else "test images of the run"
    badge, sentence = judged(run, method)
    return HeatMaps(
        method=method,
        unit=scale["unit"],
        highest=scale["highest"],
        scale=f"Of the maps of {scale['images']} {films}, {beyond} beyond the end of the scale.",
        badge=badge,
        sentence=sentence,
        reasons=cast(tuple[Reason, ...], tuple(map_checks_wording.reasons(run.map_checks.get(method, {})))),
    )


def judged(run: Run, method: str) -> tuple[Badge, str]:
    """Return the badge of a method's maps for the model of `run`, and a sentence on it."""
    badge = run.map_checks.get(method, {}).get("badge") or "not checked"
    return cast(Badge, badge), map_checks_wording.sentence(run, method)
