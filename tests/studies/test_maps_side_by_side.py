import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from chestxray.cli.main import group
from chestxray.runs.run_folder import Run
from chestxray.studies.candidates import Candidate
from chestxray.studies.maps_side_by_side import side_by_side
from made_runs import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with the same test images; the second has other maps, in another order, and one image more and less."""
    root = tmp_path_factory.mktemp("runs")
    first = write_run(root / "first")
    second = shutil.copytree(first, root / "second")
    index = json.loads((second / "heatmaps" / "index.json").read_text())
    for item in index["images"]:
        file = second / "heatmaps" / item["file"]
        Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    index["images"].reverse()
    index["images"][0]["kinds"] = ["most certain"]
    (second / "heatmaps" / "index.json").write_text(json.dumps(index))
    return first, second


def candidates(*folders):
    return {folder.name: Candidate((), (Run(folder),), None, None, None, {}) for folder in folders}


def test_the_same_images_stand_beside_each_other(runs):
    first, second = (json.loads((run / "heatmaps" / "index.json").read_text())["images"] for run in runs)
    found = side_by_side(candidates(*runs))
    assert len(found) == len(first) - 1, "one is no random image of the second"
    for image, item in zip(found, first, strict=False):
        assert (image.group, image.label) == (item["group"], item["label"])
        assert list(image.maps) == ["first", "second"]
        one, two = image.maps.values()
        assert one.path == two.path
        assert one.picture.uri != two.picture.uri != image.radiograph.uri
        assert (one.picture.width, image.radiograph.width) == (32, 32), "half of the file each"
        assert one.probability == item["probability"]
    assert {item["path"] for item in second} == {item["path"] for item in first}


def test_one_model_alone_has_nothing_beside_it(runs, tmp_path):
    none = write_run(tmp_path / "none", heatmaps={"layer": None, "reason": "none", "method": "gradcam", "images": []})
    assert side_by_side(candidates(runs[0])) == []
    assert side_by_side(candidates(runs[0], none)) == []


def test_the_page_of_a_comparison_shows_them(runs, tmp_path):
    result = CliRunner().invoke(
        group, ["compare", *map(str, runs), "--output", str(tmp_path / "c"), "--replicates", "100"]
    )
    assert result.exit_code == 0, result.output
    page = (tmp_path / "c" / "comparison.html").read_text(encoding="utf-8")
    assert '<a href="#heatmaps">Heat maps of the same images</a>' in page
    assert page.count('alt="Heat map of a test image') == 2 * len(side_by_side(candidates(*runs)))
