"""What the reports say of the way a heat map is made: no method is said to show more than it does."""

import json

import pytest

from chestxray.recipe import EXPLANATIONS
from chestxray.report import html_report
from chestxray.report.heatmap_wording import marks, method_and_scale
from made_runs import Page, write_run


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("gradcam", "raised that score"),
        ("gradcam++", "raised that score"),
        ("layercam", "raised that score"),
        ("hirescam", "raised that score"),
        ("scorecam", "left visible alone"),
        ("saliency", "up or down alike"),
        ("smoothgrad", "up or down alike"),
        ("integrated-gradients", "compared with black, raised that score"),
        ("occlusion", "when they are covered"),
        ("attention-rollout", "the same for every class, and does not say what raised that score"),
    ],
)
def test_each_method_is_described_by_what_it_computes(method, said):
    assert said in marks(method) and said in method_and_scale({"method": method, "images": []})


def test_every_own_method_is_described_and_a_plugins_is_its_own():
    assert all("plugin" not in marks(method) for method in EXPLANATIONS)
    assert "raised" not in marks("rays:mine") and "for the plugin of the method rays:mine to say" in marks("rays:mine")
    assert "raised that score" in method_and_scale({"images": []}), "runs that name no method have Grad-CAM's maps"


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_the_page_says_what_its_own_maps_mark(method, tmp_path):
    folder = write_run(tmp_path)
    path = folder / "heatmaps" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"method": method}))
    text = Page(html_report.write(folder)).text
    assert f"for the score of the class that the model named. {marks(method)}" in text
    assert ("raised" in text.split("What a heat map is.")[1].split("What it is not.")[0]) == (method == "gradcam")
