import base64
import io
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chestxray.errors import DataError, InputError
from chestxray.report import html_report
from chestxray.report.limitations import cautions
from chestxray.runs import run_folder
from chestxray.storage.files import write_bytes, write_json
from made_runs import AUDIT, FOUR, HOSTILE, TWO, Page, index_of, metrics_of, samples_of, write_run


def partly_drawn():
    index = index_of(FOUR)
    return index.replace(index.rows.assign(drawn=index.rows["label"] == FOUR[0]))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "four")
    html_report.write(folder, samples=samples_of(folder))
    return folder


@pytest.fixture(scope="module")
def opened(run) -> Page:
    return Page(run / "report.html")


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are one pixel each: for tests that only read the page."""
    pixel = io.BytesIO()
    Image.new("L", (1, 1)).save(pixel, format="PNG")
    monkeypatch.setattr("chestxray.report.figures.save", lambda figure, path: write_bytes(path, pixel.getvalue()))


def test_page_needs_nothing_from_outside(opened):
    assert not opened.all("script")
    assert not opened.all("link")
    for tag, attributes in opened.elements:
        for name in ("src", "srcset", "data", "poster", "background", "action"):
            assert str(attributes.get(name, "data:")).startswith("data:"), (tag, name)
        assert not any(name.startswith("on") for name in attributes)
        if "href" in attributes:
            assert tag == "a"
    style = opened.source.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_page_is_well_formed_and_accessible(opened):
    assert not opened.open
    assert opened.all("html")[0]["lang"] == "en"
    assert opened.all("img")
    assert opened.all("th")
    assert all((image.get("alt") or "").strip() for image in opened.all("img"))
    assert all(cell.get("scope") in ("row", "col") for cell in opened.all("th"))
    levels = [int(tag[1]) for tag, _ in opened.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    ids = [attributes["id"] for _, attributes in opened.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in opened.all("a") if a["href"].startswith("#")}
    assert targets <= set(ids)


def test_page_has_the_numbers_of_the_record(run, opened):
    metrics = metrics_of(run)
    every = [*metrics["test"].values(), *(f for item in metrics["per_class"].values() for f in item.values())]
    assert len(every) == 12 + 4 * 7
    for interval in every:
        assert f"{interval['value']:.3f}" in opened.text
        assert f"{interval['low']:.3f} to {interval['high']:.3f}" in opened.text
    for row in metrics["confusion"]["counts"]:
        assert " ".join(map(str, row)) in opened.text
    auroc = metrics["test"]["auroc"]
    headline = f"a macro AUROC of {auroc['value']:.2f} (95% interval {auroc['low']:.2f} to {auroc['high']:.2f})"
    assert headline in opened.text


def test_page_says_what_was_run(opened):
    for words in (
        "Research use only. Not a medical device; not for diagnosis.",
        "inceptionv3 on phantom",
        "21,802,784 parameters, 8,196 of them trained",
        "96 by 96 pixels",
        "random (trained from scratch)",
        "chestxray-inception 0.1.0",
        "f00dcafe",
        "1 min 24 s",
        "bootstrap clustered by patient",
        "replicates = 100",
    ):
        assert words in opened.text


def test_kept_epoch_is_the_best_of_the_last_phase(opened):
    # The head's validation loss of .2 is lower, but those weights are not the model's.
    assert "The weights of epoch 6 were kept" in opened.text
    assert "0.612" in opened.text


def test_figures_are_readable_pictures_of_something(run, opened):
    names = {path.stem for path in (run / "figures").glob("*.png")}
    assert names == {
        "class_distribution", "sample_grid", "training_curves", "confusion_matrix", "roc", "precision_recall",
        "reliability", "metrics", "heatmaps", "test_grid",
    }  # fmt: skip
    for path in (run / "figures").iterdir():
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 5, path.name
            assert round(image.info["dpi"][0]) == 150
    assert len(opened.all("img")) >= len(names)
    for picture in opened.all("img"):
        with Image.open(io.BytesIO(base64.b64decode(picture["src"].split(",")[1]))) as image:
            assert image.size == (int(picture["width"]), int(picture["height"]))


def test_nothing_is_half_written(run):
    assert not list(run.rglob(".*"))


def test_paths_are_shown_below_the_data_folder(opened, run):
    assert "/home/someone" not in opened.source


def test_without_samples_there_are_no_grids(tmp_path, run, undrawn):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    assert (folder / "figures" / "test_grid.png").exists()
    page = Page(html_report.write(folder))
    assert not (folder / "figures" / "test_grid.png").exists()
    assert "Training images" not in page.text
    assert len(page.all("img")) < len(Page(run / "report.html").all("img"))


def test_names_are_escaped(tmp_path):
    path = html_report.write(write_run(tmp_path, HOSTILE))
    page = Page(path)
    assert not page.all("script")
    assert "<script>alert" not in page.source
    assert "<script>alert(1)</script>" in page.text
    assert HOSTILE[1] in page.text


def test_binary_speaks_of_the_positive_class(tmp_path, undrawn):
    page = Page(html_report.write(write_run(tmp_path, TWO)))
    assert "tells PNEUMONIA from NORMAL with an AUROC of" in page.text
    assert "Of images that show PNEUMONIA, the model finds" in page.text
    assert "macro AUROC" not in page.text


def test_figures_that_cannot_be_had_are_said_to_be_so(tmp_path, undrawn):
    nothing = {"value": None, "low": None, "high": None}

    def without(metrics: dict) -> dict:
        metrics["test"] = dict.fromkeys(metrics["test"], nothing)
        metrics["per_class"] = {k: dict.fromkeys(v, nothing) for k, v in metrics["per_class"].items()}
        return metrics

    page = Page(html_report.write(write_run(tmp_path, TWO, metrics=without)))
    assert "the AUROC is not available" in page.text
    assert page.text.count("not available") >= 12 + 2 * 7
    assert not re.search(r"\b(None|nan)\b", page.text)


def test_class_without_test_images(tmp_path):
    index = index_of(FOUR)
    lost = (index.rows["label"] == "apical cavity") & (index.rows["split"] == "test")
    page = Page(html_report.write(write_run(tmp_path, index=index.replace(index.rows[~lost]))))
    assert "apical cavity (0)" in page.text


def test_no_heatmaps_has_its_reason(tmp_path, undrawn):
    none = {"layer": None, "reason": "A transformer has no <feature> map.", "method": "gradcam", "images": []}
    page = Page(html_report.write(write_run(tmp_path, heatmaps=none)))
    assert "There are no heat maps. A transformer has no <feature> map." in page.text
    assert not (tmp_path / "figures" / "heatmaps.png").exists()


def test_heatmaps_never_come_from_elsewhere(tmp_path, undrawn):
    secret = tmp_path / "secret.png"
    Image.new("L", (8, 8)).save(secret)
    item = {"file": "../../secret.png", "path": "x", "label": "a", "predicted": "a", "probability": 1.0, "right": True}
    index = {"layer": "conv", "reason": "", "method": "gradcam", "images": [item]}
    page = Page(html_report.write(write_run(tmp_path / "run", heatmaps=index)))
    assert "No heat map is in the run's folder." in page.text


def test_parts_that_are_missing_are_said_to_be_missing(tmp_path, undrawn):
    folder = write_run(tmp_path, environment=None, audit=None, history=None)
    page = Page(html_report.write(folder))
    assert "No history of the training" in page.text
    assert "No data audit" in page.text
    assert not (folder / "figures" / "training_curves.png").exists()


def test_audit_lists_what_was_found(tmp_path, undrawn):
    root = "/home/someone/data/train/0"
    found = AUDIT | {
        "exact_duplicates": {
            "groups": [[f"{root}/000.png", f"{root}/001.png"]],
            "across_splits": [[f"{root}/000.png", "/home/someone/data/test/0/003.png"]],
        },
        "patients": {"across_splits": [{"patient": "p<7>", "splits": ["train", "test"], "images": 5}]},
        "unreadable": [{"path": f"{root}/bad.png", "reason": "truncated"}],
        "dropped": [{"path": f"{root}/000.png", "reason": f"dropped: same pixels as {root}/001.png"}],
        "on_leak": "ignore",
        "notes": ["The validation split had 16 images and was redrawn."],
    }
    page = Page(html_report.write(write_run(tmp_path, audit=found)))
    assert "train/0/000.png = test/0/003.png" in page.text
    assert "p<7>" in page.text
    assert "truncated" in page.text
    assert "dropped: same pixels as train/0/001.png" in page.text
    serious, note = (page.source.index(f'<li class="{kind}"') for kind in ("serious", "note"))
    assert serious < page.source.index("Leaks between the splits were ignored") < note
    assert "validation split had 16 images and was redrawn" in page.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Drawn data, not radiographs"),
        ({"skill": 0.0}, "Not shown to be better than chance"),
        ({"index": index_of(FOUR, patients=False)}, "Patients not known"),
        ({"index": partly_drawn()}, "Drawn data, not radiographs"),
        ({}, "Small test set"),
    ],
)
def test_cautions(tmp_path, changes, words):
    found = cautions(run_folder.open_complete(write_run(tmp_path, **changes)))
    assert words in [caution.title for caution in found]


def test_model_that_always_says_the_same(tmp_path):
    folder = write_run(tmp_path, TWO)
    rows = pd.read_csv(folder / "predictions.csv").assign(predicted="PNEUMONIA")
    rows.to_csv(folder / "predictions.csv", index=False)
    found = [caution.text for caution in cautions(run_folder.open_complete(folder))]
    assert any(text.startswith("Every test image was called PNEUMONIA.") for text in found)


def test_many_classes(tmp_path, undrawn):
    classes = tuple(f"finding number {i}" for i in range(16))
    folder = write_run(tmp_path, classes, index=index_of(classes, per_class=8))
    page = Page(html_report.write(folder, samples=samples_of(folder)))
    assert all(name in page.text for name in classes)


def test_further_section_is_a_template_and_a_line(run, monkeypatch):
    import jinja2

    from chestxray.report.sections import extra

    write_json(run / "moon_phases.json", {"full": 0.51})
    loader = jinja2.PackageLoader("chestxray.report")
    more = jinja2.DictLoader({"report/moon_phases.html.jinja": "<p>{{ context.extra.full }}</p>"})
    monkeypatch.setattr(jinja2, "PackageLoader", lambda name: jinja2.ChoiceLoader([loader, more]))
    material = html_report.Material(run=run_folder.open_complete(run), figures={})
    sections = [html_report.Section(name, f"About {name}", extra(name)) for name in ("moon_phases", "absent")]
    html = html_report.page(material, sections)
    assert "<p>0.51</p>" in html
    assert "About absent" not in html


def test_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match=r"is not a run: it must be a folder with recipe\.toml"):
        html_report.write(tmp_path)


def test_damaged_file_is_named(tmp_path):
    folder = write_run(tmp_path)
    (folder / "audit.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"audit\.json is damaged"):
        html_report.write(folder)
