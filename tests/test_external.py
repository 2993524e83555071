import json

import numpy as np
import pandas as pd
import pytest

import chestxray
from chestxray import cache as caches
from chestxray import external
from chestxray.assessment import groups
from chestxray.errors import ChestXrayError
from chestxray.evaluation import evaluate
from chestxray.other_pictures import ALTERED, KINDS
from chestxray.recipe import Recipe
from made import make_index


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Two hospitals that tell sick by brightness, the second one less plainly, with a table of it."""
    from PIL import Image

    root = tmp_path_factory.mktemp("places")
    generator = np.random.default_rng(0)
    records = []
    for name, gap, count in (("first", 80, 40), ("second", 30, 20)):
        for k, label in enumerate(("normal", "sick")):
            folder = root / name / label
            folder.mkdir(parents=True)
            for n in range(count):
                pixels = generator.normal(80 + gap * k, 25, (16, 16)).clip(0, 255).astype(np.uint8)
                path = folder / f"{label}{n:03d}.png"
                Image.fromarray(pixels).save(path)
                records.append(
                    {"path": str(path), "place": name, "label": label, "sex": "FM"[n % 2], "age": 10 + 2 * n}
                )
    table = pd.DataFrame(records)
    table[table["place"] == "second"].to_csv(root / "second.csv", index=False)
    return root


@pytest.fixture(scope="module")
def run(places, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHESTXRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        recipe = Recipe(
            model="shallow_cnn", data=(f"folder:{places / 'first'}",), image_size=16, epochs=8, batch_size=8,
            test_share=0.3, replicates=100, heatmaps=1, augment="none", controls=False, refuse=0.05,
        )  # fmt: skip
        return chestxray.run(recipe, output=tmp_path_factory.mktemp("runs") / "run")


def content(run, name):
    return json.loads((run.folder / f"{name}.json").read_text(encoding="utf-8"))


def test_other_data_is_tested_with_what_validation_chose(run, places):
    found = external.evaluate_on(run, Recipe(data=(f"folder:{places / 'second'}",)), caches.root())
    assert found.folder == run.folder / "external" / "second"
    assert len(found.predictions.rows) == 40
    assert content(found, "decision") == content(run, "decision")
    assert (
        content(found, "operating_points")["points"][0]["threshold"]
        == (content(run, "operating_points")["points"][0]["threshold"])
    )
    drop = content(found, "drop")
    again = evaluate(found.predictions, replicates=100)
    assert drop["figures"]["auroc"]["external"]["value"] == pytest.approx(again.test["auroc"].value)
    assert drop["figures"]["auroc"]["internal"] == run.metrics["test"]["auroc"]
    here, there, gap = (drop["figures"]["accuracy"][k]["value"] for k in ("internal", "external", "drop"))
    assert gap == pytest.approx(here - there)
    refused = content(found, "refusal")
    assert refused["test"]["pictures"] == refused["mirrored"]["pictures"] == 40
    assert set(refused["by_kind"]) == {*KINDS, *ALTERED}
    assert sum(item["pictures"] for item in refused["by_kind"].values()) == refused["others"]["pictures"] == 360
    page = found.report.read_text(encoding="utf-8")
    assert "What a second place costs" in page
    assert "In its training: Few validation images.</strong>" in page, "what weakens the run weakens it here"
    model = run.model.predict(_pixels(found.predictions.rows["path"]), verbose=0)
    np.testing.assert_allclose(model, found.predictions.probabilities, atol=1e-5)


def _pixels(paths):
    from PIL import Image

    return np.stack([np.asarray(Image.open(path), dtype=np.float32) for path in paths])[..., None]


def test_by_sex_and_age(run, places):
    options = ("path_column=path", "label_column=label")
    data = Recipe(data=(f"manifest:{places / 'second.csv'}",), data_option=options, by=("sex", "age"))
    found = external.evaluate_on(run, data, caches.root())
    by = content(found, "by_group")
    assert {name: item["rows"] for name, item in by["sex"].items()} == {"F": 20, "M": 20}
    assert {name: item["rows"] for name, item in by["age"].items()} == {"0 to 17": 8, "18 to 39": 22, "40 to 64": 10}


def test_images_of_the_training_are_a_leak(run, places):
    data = Recipe(data=(f"folder:{places / 'first'}",))
    with pytest.raises(ChestXrayError, match=r"56 of 80 images of first are among those"):
        external.evaluate_on(run, data, caches.root())
    found = external.evaluate_on(run, data.replace(on_leak="drop"), caches.root())
    assert set(found.predictions.rows["path"]) == set(run.predictions.of("test").rows["path"])
    kept = external.evaluate_on(run, data.replace(on_leak="ignore"), caches.root())
    assert len(kept.predictions.rows) == 80
    assert "Leaks between the splits were ignored" in kept.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"by": ("view",)}, "by must be a column"),
        ({"map": ("sick=ill",)}, "map sends sick to 'ill', which is no class. Allowed: normal, sick"),
        ({"data": ("folder:absent",)}, "absent"),
    ],
)
def test_what_cannot_be_evaluated_leaves_no_folder(run, places, changes, words, tmp_path):
    data = Recipe(data=(f"folder:{places / 'second'}",)).replace(**changes)
    with pytest.raises(ChestXrayError, match=words):
        external.evaluate_on(run, data, caches.root(), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_official_split_that_is_not_there(run, places, tmp_path):
    data = Recipe(data=(f"folder:{places / 'second'}",))
    with pytest.raises(ChestXrayError, match="no images in its official split 'test'"):
        external.evaluate_on(run, data, caches.root(), part="test", output=tmp_path / "out")


def test_a_run_is_evaluated_anew(run, tmp_path):
    import shutil

    from chestxray.run_folder import Run

    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    again = external.evaluate_again(copy, {"abstain": 0.8, "sensitivity": 0.9}, caches.root())
    assert again.recipe.abstain == 0.8
    told = content(again, "abstention")
    assert told["coverage"] == 0.8
    assert content(again, "operating_points")["chosen_by"] == "sensitivity of at least 0.9"
    found = content(again, "operating_points")["points"][0]["validation"]["sensitivity"]["value"]
    assert found >= 0.9
    assert content(again, "decision")["temperature"] == content(run, "decision")["temperature"]
    assert again.metrics == run.metrics
    assert content(again, "refusal") == content(run, "refusal")
    assert "Where it abstains" in again.report.read_text(encoding="utf-8")


def test_predicting_answers_as_often_as_the_run_says(run, tmp_path):
    import shutil

    from chestxray import bulk, keras_engine
    from chestxray.answers import answered
    from chestxray.run_folder import Run

    again = external.evaluate_again(
        Run(shutil.copytree(run.folder, tmp_path / "copy")), {"abstain": 0.6}, caches.root()
    )
    engine = keras_engine.load(again.folder)
    given = []
    for batch in bulk.predicted(engine, again.predictions.of("test").rows["path"].tolist()):
        given += answered(batch.paths, batch.reasons, batch.outputs, engine, engine.decision.limit)
    told = content(again, "abstention")["test"]["answered"]["value"]
    assert 0 < told < 1, "all or none would show nothing"
    assert told == pytest.approx(sum(not answer.abstained for answer in given) / len(given))


def test_groups_are_values_bands_of_age_or_quarters():
    index = make_index(["a", "b"] * 20)
    rows = index.rows.assign(age=["5", "17", "18", "64", "65", ""] * 6 + [""] * 4, dose=range(40), sex=["F", ""] * 20)
    assert groups(rows, "age")[:6].tolist() == ["0 to 17", "0 to 17", "18 to 39", "40 to 64", "65 up", ""]
    assert groups(rows, "dose").value_counts().tolist() == [10] * 4
    assert set(groups(rows, "sex")) == {"F", ""}
    with pytest.raises(ChestXrayError, match=r"Did you mean sex.*Received: 'sexe'"):
        groups(rows, "sexe")
