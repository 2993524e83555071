"""Controls: what they see, when they fire, and that they keep to their time."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chestxray import control_inputs
from chestxray.decoded import decode, readable
from chestxray.index import Index
from chestxray.intervals import Figure
from chestxray.plugin import SourceOptions
from chestxray.sources.phantom import load
from chestxray.trust import LIMIT, controls, widened_low

MODEL = {"value": 0.95, "low": 0.92, "high": 0.97}
SEEDS = range(2)


def metrics(positive="consolidation"):
    return {"test": {"auroc": MODEL, "accuracy": MODEL}, "positive": positive}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """A function that gives the index and the pixels of a set, drawn once for all tests."""
    cache = tmp_path_factory.mktemp("phantoms")

    def drawn(seed, more="", images=180):
        options = f"size=48,images={images},classes=clear+consolidation{more}"
        index = load(options, SourceOptions(cache=cache, seed=seed))
        decoded = decode(index, (48, 48), "stretch", cache, processes=1)
        return readable(index, decoded, 0.0), decoded.pixels

    return drawn


def by_name(found):
    return {item["name"]: item for item in found["controls"]}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_marker_fires_the_border_and_nothing_fires_without(phantoms, seed):
    marked = controls(*phantoms(seed, ",marker=1"), metrics(), seconds=20, replicates=200, seed=seed)
    assert "border" in marked["fires"]
    assert by_name(marked)["border"]["auroc"]["value"] > 0.75
    assert "file_facts" not in marked["fires"]
    assert not marked["verdict"].endswith("No control explains the score.")
    clean = controls(*phantoms(seed), metrics(), seconds=20, replicates=200, seed=seed)
    assert clean["fires"] == []
    assert clean["verdict"].endswith("No control explains the score.")
    assert clean["left_out"][0]["name"] == "predict_the_source"


def test_file_facts_fire_where_formats_go_with_classes(phantoms):
    index, pixels = phantoms(0)
    rows = index.rows.assign(mode=np.where(index.rows["label"] == "clear", "L", "RGB"))
    found = controls(index.replace(rows), pixels, metrics(), seconds=20, replicates=200)
    facts = by_name(found)["file_facts"]
    assert facts["fires"] and facts["auroc"]["value"] > 0.99
    assert facts["says"].endswith("this score cannot be taken for disease.")
    assert found["verdict"].endswith("This score cannot be taken for disease.")
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("confounded", [True, False])
def test_the_source_fires_only_where_it_goes_with_the_class(phantoms, confounded):
    index, pixels = phantoms(1)
    patients = pd.factorize(index.rows["patient"])[0]
    other = index.rows["label"] == "clear" if confounded else patients % 2 == 0
    rows = index.rows.assign(source=np.where(other, "here", "there"))
    bright = np.clip(pixels.astype(int) + 60 * np.asarray(other)[:, None, None], 0, 255).astype(np.uint8)
    found = by_name(controls(index.replace(rows), bright, metrics(), seconds=20, replicates=200))
    assert found["source"]["fires"] == confounded
    assert found["predict_the_source"]["auroc"]["value"] > 0.9
    assert found["predict_the_source"]["fires"] == confounded
    assert ("hardly tells the class" in found["predict_the_source"]["says"]) != confounded


def test_short_of_time_there_are_fewer_rows_and_none_is_skipped(phantoms):
    index, pixels = phantoms(0, images=500)
    found = controls(index, pixels, metrics(), seconds=0.01)
    assert set(by_name(found)) == {"border", "file_facts", "blanked_centre", "thumbnail"}
    for item in found["controls"]:
        assert 200 <= item["rows"]["train"] < (index.rows["split"] == "train").sum()
    assert found["replicates"] == 200
    assert found["seconds"] > 0


def test_the_same_seed_gives_the_same_figures(phantoms):
    index, pixels = phantoms(0)
    first, second = (controls(index, pixels, metrics(), seconds=20, replicates=200, seed=3) for _ in range(2))
    assert [item["auroc"] for item in first["controls"]] == [item["auroc"] for item in second["controls"]]


def test_no_control_sees_what_it_must_not():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 100, 90), dtype=np.uint8)
    pixels[1] = pixels[0]
    pixels[1, 20:80, 20:70] = 255
    seen = control_inputs.grids(pd.DataFrame(index=range(2)), pixels, np.arange(2), "stretch", masked=False)
    edge, blank, whole = (
        view(seen) for view in (control_inputs.border, control_inputs.blanked, control_inputs.thumbnail)
    )
    np.testing.assert_array_equal(edge[0], edge[1])
    np.testing.assert_array_equal(blank[0], blank[1])
    assert not np.array_equal(whole[0], whole[1])
    assert whole.shape == (2, 64)


def test_lungs_of_a_mask_are_blanked_with_the_fit_of_the_pixels(tmp_path):
    # The mask is twice as wide as high; padded, its right half lies in the middle band alone.
    mask = np.zeros((40, 80), np.uint8)
    mask[:, 40:] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    rows = pd.DataFrame({"lung_mask": [str(tmp_path / "mask.png")]})
    pixels = np.full((1, 64, 64), 7, np.uint8)
    padded, stretched = (
        control_inputs.grids(rows, pixels, np.arange(1), fit, masked=True).lungs[0] for fit in ("pad", "stretch")
    )
    assert stretched[:, 16:].all() and not stretched[:, :14].any()
    assert padded[8:24, 16:].all() and not padded[:6].any() and not padded[26:].any()


def test_masks_of_some_rows_only_are_not_used():
    rows = pd.DataFrame({"lung_mask": ["/x.png", ""]})
    assert not control_inputs.has_masks(rows)
    assert control_inputs.has_masks(rows.head(1))


def test_a_spoilt_mask_is_said_and_the_centre_blanked_instead(phantoms, tmp_path):
    index, pixels = phantoms(0)
    assert (
        "lungs of the mask"
        in by_name(controls(index, pixels, metrics(), seconds=5, replicates=200))["blanked_centre"]["sees"]
    )
    spoilt = index.replace(index.rows.assign(lung_mask=str(tmp_path / "missing.png")))
    found = controls(spoilt, pixels, metrics(), seconds=5, replicates=200)
    assert "the centre" in by_name(found)["blanked_centre"]["sees"]
    assert "lung masks" in [item["name"] for item in found["left_out"]]


def test_an_interval_widens_with_the_figures_looked_at():
    figure = Figure(0.8, 0.7, 0.87)
    lows = [widened_low(figure, 50, figures) for figures in (1, 2, 10)]
    assert lows[0] == pytest.approx(0.7)
    assert lows[0] > lows[1] > lows[2] > LIMIT
    assert widened_low(Figure(1.0, 0.9, 1.0), 30, 10) < 0.9
    assert widened_low(Figure(0.5, None, None), 30, 10) is None


def test_index_without_decoded_facts_is_taken(phantoms):
    index, pixels = phantoms(0)
    bare = Index.from_records(index.rows[["path", "label", "patient", "split"]].to_dict("records"), name="bare")
    found = by_name(controls(bare, pixels, metrics(), seconds=5, replicates=200))
    assert found["file_facts"]["auroc"]["value"] is not None
