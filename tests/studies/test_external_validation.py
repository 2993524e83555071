import json
import pathlib
import shutil
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from chestxray import workflow
from chestxray.data import sources
from chestxray.data.decoded import decode, readable
from chestxray.errors import ChestXrayError, InputError
from chestxray.evaluation.decision.ood_images import ALTERED, KINDS
from chestxray.evaluation.evaluate import evaluate
from chestxray.recipe import Recipe
from chestxray.storage import cache as caches
from chestxray.studies import contamination, external_validation


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
            test_share=0.3, replicates=100, heatmaps=1, map_checks="none", augment="none", controls=False, refuse=0.05,
        )  # fmt: skip
        return workflow.run(recipe, output=tmp_path_factory.mktemp("runs") / "run")


def content(run, name):
    return json.loads((run.folder / f"{name}.json").read_text(encoding="utf-8"))


def test_other_data_is_tested_with_what_validation_chose(run, places):
    found = external_validation.evaluate_on(run, Recipe(data=(f"folder:{places / 'second'}",)), caches.root())
    assert found.folder.parent == run.folder / "external"
    assert found.folder.name.startswith("second-")
    assert len(found.predictions.rows) == 40
    assert content(found, "decision") == content(run, "decision")
    assert (
        content(found, "operating_points")["points"][0]["threshold"]
        == (content(run, "operating_points")["points"][0]["threshold"])
    )
    compared = content(found, "generalisation_gap")
    again = evaluate(found.predictions, replicates=100)
    assert compared["figures"]["auroc"]["external"]["value"] == pytest.approx(again.test["auroc"].value)
    assert compared["figures"]["auroc"]["internal"] == run.metrics["test"]["auroc"]
    here, there, gap = (compared["figures"]["accuracy"][k]["value"] for k in ("internal", "external", "gap"))
    assert gap == pytest.approx(here - there)
    refused = content(found, "refusal")
    assert refused["test"]["pictures"] == refused["mirrored"]["pictures"] == 40
    assert set(refused["by_kind"]) == {*KINDS, *ALTERED}
    assert sum(item["pictures"] for item in refused["by_kind"].values()) == refused["others"]["pictures"] == 360
    page = found.report.read_text(encoding="utf-8")
    assert "Generalisation gap to other data" in page
    assert "of them among these 40 images: 0 exact copies, 0 edited copies." in page
    assert "These images name no patients, so that one person may be in both." in page
    assert "never saw" not in page
    assert "not looked for" not in page.lower()
    assert content(found, "audit")["near_duplicates"]["searched"] is True
    assert "In its training: Few validation images.</strong>" in page, "what weakens the run weakens it here"
    model = run.model.predict(_pixels(found.predictions.rows["path"]), verbose=0)
    np.testing.assert_allclose(model, found.predictions.probabilities, atol=1e-5)


def _pixels(paths):
    from PIL import Image

    return np.stack([np.asarray(Image.open(path), dtype=np.float32) for path in paths])[..., None]


def test_by_sex_and_age(run, places):
    options = ("path_column=path", "label_column=label")
    data = Recipe(data=(f"manifest:{places / 'second.csv'}",), data_option=options, by=("sex", "age"))
    found = external_validation.evaluate_on(run, data, caches.root())
    by = content(found, "by_group")
    assert {name: item["rows"] for name, item in by["sex"].items()} == {"F": 20, "M": 20}
    assert {name: item["rows"] for name, item in by["age"].items()} == {"0 to 17": 8, "18 to 39": 22, "40 to 64": 10}
    gaps = content(found, "gaps")["columns"]
    sex, age = gaps["sex"]["auroc"], gaps["age"]["auroc"]
    aurocs = {name: item["test"]["auroc"]["value"] for name, item in by["sex"].items()}
    assert sex["groups"]["F"]["value"] == pytest.approx(aurocs["F"] - aurocs["M"])
    assert set(age["groups"]) == set(by["age"])
    assert "Is it better for some than for others?" in found.report.read_text(encoding="utf-8")


def test_images_of_the_training_are_a_leak(run, places):
    data = Recipe(data=(f"folder:{places / 'first'}",))
    with pytest.raises(ChestXrayError, match=r"56 of 80 images of first are among those"):
        external_validation.evaluate_on(run, data, caches.root())
    found = external_validation.evaluate_on(run, data.replace(on_leak="drop"), caches.root())
    assert set(found.predictions.rows["path"]) == set(run.predictions.of("test").rows["path"])
    assert any(note.startswith("24 images are of the run's own test") for note in content(found, "audit")["notes"])
    kept = external_validation.evaluate_on(run, data.replace(on_leak="ignore"), caches.root())
    assert len(kept.predictions.rows) == 80
    assert "Images that the model has seen were kept in the test" in kept.report.read_text(encoding="utf-8")
    assert kept.folder != found.folder
    card = (run.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"Evaluated later on {kept.folder.name}: AUROC" in card
    assert "The model was trained or chosen on 56 images of it, which were kept: too good." in card


@pytest.fixture(scope="module")
def edited(places):
    """Ten films of the first hospital in other tones, and ten of the second one as they are."""
    from PIL import Image

    for k, label in enumerate(("normal", "sick")):
        folder = places / "edited" / label
        folder.mkdir(parents=True)
        for n in range(5):
            for place in ("first", "second"):
                pixels = np.asarray(Image.open(places / place / label / f"{label}{n:03d}.png"))
                toned = np.round(pixels * 0.7 + 20) if place == "first" else pixels
                Image.fromarray(toned.astype(np.uint8)).save(folder / f"{place}{k}{n}.png")
    return places / "edited"


def test_edited_copies_of_the_training_are_a_leak(run, edited):
    data = Recipe(data=(f"folder:{edited}",))
    seen = run.index.rows[run.index.rows["split"].isin(["train", "validation"])]["path"]
    expected = {
        str(edited / label / f"first{k}{n}.png")
        for k, label in enumerate(("normal", "sick"))
        for n in range(5)
        if seen.str.endswith(f"{label}{n:03d}.png").any()
    }
    assert 4 <= len(expected) < 10
    with pytest.raises(ChestXrayError, match=rf"{len(expected)} of 20 .* {len(expected)} show the same radiograph"):
        external_validation.evaluate_on(run, data, caches.root())
    found = external_validation.evaluate_on(run, data.replace(on_leak="drop"), caches.root())
    assert set(found.index.rows["path"]) - set(found.predictions.rows["path"]) == expected
    audit = content(found, "audit")
    assert {group[0] for group in audit["near_duplicates"]["across_splits"]} == expected
    assert all(group[1] in set(seen) for group in audit["near_duplicates"]["across_splits"])
    assert len(audit["near_duplicates"]["correlations"]) == len(audit["near_duplicates"]["groups"])
    page = found.report.read_text(encoding="utf-8")
    assert "Images that the model has seen were left out" in page
    assert "left out of training" not in page


def searched(run, data, cache):
    """What `contamination.search` finds, with what `evaluate_on` does before it."""
    index = sources.load_index(data, cache)
    decoded = decode(index, run.recipe.image_size, run.recipe.fit, cache)
    index = readable(index, decoded, 0)
    index = index.replace(index.rows.assign(split="test"))
    return contamination.search(run, data, index, decoded.pixels, cache), index


def test_images_that_are_gone_are_searched_from_the_cache_or_not_at_all(run, edited, places, tmp_path):
    data = Recipe(data=(f"folder:{edited}",))
    whole, _ = searched(run, data, caches.root())
    again, _ = searched(run, data, tmp_path / "another")
    assert whole.near == again.near != ()
    assert whole.unsearched == ""
    first = (places / "first").rename(places / "moved")
    try:
        assert searched(run, data, caches.root())[0].near == whole.near
        gone, index = searched(run, data, tmp_path / "empty")
        # A file of another content under an old name is not the image that the run had.
        (places / "first").mkdir()
        other = np.flatnonzero(run.index.rows["split"] == "train")[0]
        path = run.index.rows["path"][other]
        pathlib.Path(path).parent.mkdir()
        pathlib.Path(path).write_bytes(next((edited / "sick").glob("second*")).read_bytes())
        changed, _ = searched(run, data, tmp_path / "changed")
    finally:
        shutil.rmtree(places / "first")
        first.rename(places / "first")
    for found in (gone, changed):
        assert found.near == ()
        assert found.unsearched.startswith(
            "None of the 56 images that the run was trained or chosen on is still available"
        )
        assert "0 exact copies, edited copies not looked for." in found.notes[0]
    _, audit = contamination.settle(index, gone, "stop")
    assert audit.to_json()["near_duplicates"]["searched"] is False
    assert audit.unsearched == gone.unsearched


def test_patients_are_the_same_in_the_same_set_alone(run, places):
    pattern = r"([a-z]+\d\d)\d\.png"
    rows = run.index.rows.assign(patient=run.index.rows["path"].str.extract(pattern)[0])
    named = Named(run, run.recipe.replace(patient_pattern=pattern), rows)
    same, index = searched(named, named.recipe.replace(classes=()), caches.root())
    straddling = {item["patient"] for item in same.patients}
    assert straddling == {"normal00", "normal01", "normal02", "normal03", "sick00", "sick01", "sick02", "sick03"}
    trained = set(rows.loc[rows["split"].isin(["train", "validation"]), "path"])
    of_patients = {path for path, why in same.reasons.items() if why == "patient"}
    assert of_patients == set(index.rows["path"]) - trained
    assert "Of the patients that are named, 8 are in the training too." in same.notes
    elsewhere = Recipe(data=(f"folder:{places / 'second'}",), patient_pattern=pattern)
    other, _ = searched(named, elsewhere, caches.root())
    assert not other.patients
    assert not other.reasons
    assert "4 identifiers are found in both, such as normal00" in other.notes[-1]


@dataclass(frozen=True)
class Named:
    """A run whose images name patients."""

    run: object
    recipe: Recipe
    rows: pd.DataFrame
    published: str = ""

    @property
    def index(self):
        return self.run.index.replace(self.rows)

    @property
    def environment(self):
        return self.run.environment


def test_each_choice_of_images_has_its_folder(run):
    choices = [
        Recipe(data=("folder:/siteA/test",)), Recipe(data=("folder:/siteB/test",)),
        Recipe(data=("npz:/siteA/test",)), Recipe(data=("folder:/siteA/test",), map=("viral=sick",)),
        Recipe(data=("folder:/siteA/test",), on_leak="drop"), Recipe(data=("folder:/siteA/test", "folder:/siteB/test")),
    ]  # fmt: skip
    folders = {external_validation.default_folder(run, data, "all") for data in choices}
    folders |= {external_validation.default_folder(run, choices[0], "test")}
    assert len(folders) == len(choices) + 1
    assert all(folder.parent == run.folder / "external" for folder in folders)
    again = choices[0].replace(by=("sex",), sensitivity=0.9, replicates=700)
    assert external_validation.default_folder(run, again, "all") in folders


def test_an_evaluation_replaces_no_run_and_nothing_unasked(run, places, tmp_path):
    data = Recipe(data=(f"folder:{places / 'second'}",))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "recipe.toml").write_text("")
    for output, overwrite, words in (
        (run.folder, True, "holds the run itself"),
        (run.folder.parent, True, "holds the run itself"),
        (tmp_path / "other", False, "--overwrite"),
    ):
        with pytest.raises(ChestXrayError, match=words):
            external_validation.evaluate_on(run, data, caches.root(), output=output, overwrite=overwrite)
    (tmp_path / "other" / "model.keras").write_text("")
    with pytest.raises(ChestXrayError, match="holds a trained model"):
        external_validation.evaluate_on(run, data, caches.root(), output=tmp_path / "other", overwrite=True)
    assert run.finished


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
        external_validation.evaluate_on(run, data, caches.root(), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_official_split_that_is_not_there(run, places, tmp_path):
    data = Recipe(data=(f"folder:{places / 'second'}",))
    with pytest.raises(ChestXrayError, match="no images in its official split 'test'"):
        external_validation.evaluate_on(run, data, caches.root(), part="test", output=tmp_path / "out")


def test_a_run_that_was_not_finished_is_not_made_to_look_so(run, tmp_path):
    from chestxray.runs.run_folder import Run

    folder = shutil.copytree(run.folder, tmp_path / "run")
    for name in ("report.html", "environment.json"):  # the last that a run writes
        (folder / name).unlink()
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(
        InputError, match=r"was not finished: environment\.json is missing\. Continue it: chestxray run"
    ):
        external_validation.evaluate_again(Run(folder), {"replicates": 100}, tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_run_is_evaluated_anew(run, tmp_path):
    from chestxray.runs.run_folder import Run

    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    again = external_validation.evaluate_again(
        copy, {"abstain": 0.8, "sensitivity": 0.9, "confidence": 0.0}, caches.root()
    )
    assert again.recipe.abstain == 0.8
    told = content(again, "abstention")
    assert told["coverage"] == 0.8
    deployed, largest = content(again, "operating_points")["points"]
    assert deployed["chosen_by"] == "sensitivity of at least 0.9 on validation alone"
    assert deployed["decides"] and not largest["decides"]
    assert largest["threshold"] == 0.5
    assert deployed["validation"]["sensitivity"]["value"] >= 0.9
    assert content(again, "decision")["calibration"] == content(run, "decision")["calibration"]
    assert again.metrics["test"]["auroc"] == run.metrics["test"]["auroc"]
    assert again.metrics["test"]["sensitivity"] == deployed["test"]["sensitivity"]
    assert content(again, "refusal") == content(run, "refusal")
    assert "Abstention" in again.report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cautious(run, places, tmp_path_factory):
    """The run, decided anew so that it finds every sick film of validation: far from one half."""
    import shutil

    from chestxray.runs.run_folder import Run

    copy = Run(shutil.copytree(run.folder, tmp_path_factory.mktemp("cautious") / "run"))
    again = external_validation.evaluate_again(
        copy, {"sensitivity": 1.0, "confidence": 0, "abstain": 0.6}, caches.root(run.folder.parent / "cache")
    )
    return again


def answers_of(folder, paths):
    from chestxray.inference import batch_prediction, keras_engine
    from chestxray.inference.answer import answered

    engine = keras_engine.load_engine(folder)
    given = []
    for batch in batch_prediction.predicted(engine, list(paths)):
        given += answered(batch.paths, batch.reasons, batch.outputs, engine)
    return [answer.row(engine.classes) for answer in given]


@pytest.mark.parametrize("which", ["run", "cautious"])
def test_the_table_of_predictions_says_what_predict_says(which, request):
    made = request.getfixturevalue(which)
    rows = made.predictions.rows
    told = pd.DataFrame(answers_of(made.folder, rows["path"]))
    for column in ("decision", "abstained", "refused"):
        assert rows[column].tolist() == told[column].tolist(), column
    assert set(rows["refused"]) <= {"true", "false"}
    if which == "cautious":
        assert set(rows["abstained"]) == {"true", "false"}


def test_the_figures_are_those_of_the_decision_that_is_deployed(cautious):
    decided = cautious.predictions.of("test")
    positive = decided.rows["label"] == "sick"
    threshold = content(cautious, "decision")["thresholds"]["sick"]
    called = decided.rows["probability_sick"] >= threshold
    assert (called != (decided.rows["probability_sick"] >= 0.5)).any(), "another threshold than one half"
    test = cautious.metrics["test"]
    assert test["sensitivity"]["value"] == pytest.approx(called[positive].mean())
    assert test["accuracy"]["value"] == pytest.approx((called == positive).mean())
    maps = json.loads((cautious.folder / "heatmaps" / "index.json").read_text(encoding="utf-8"))["images"]
    by_path = dict(zip(decided.rows["path"], decided.rows["predicted"], strict=True))
    assert all(item["predicted"] == by_path[item["path"]] for item in maps)
    assert "(decides)" in cautious.report.read_text(encoding="utf-8")


def test_an_external_test_decides_alike_on_both_sides(run, places, tmp_path):
    data = Recipe(data=(f"folder:{places / 'second'}",), sensitivity=1.0, confidence=0)
    found = external_validation.evaluate_on(run, data, caches.root(), output=tmp_path / "out")
    compared = content(found, "generalisation_gap")["figures"]["sensitivity"]
    validated = run.predictions.of("test")
    threshold = content(found, "decision")["thresholds"]["sick"]
    called = validated.rows["probability_sick"] >= threshold
    assert compared["internal"]["value"] == pytest.approx(called[validated.rows["label"] == "sick"].mean())
    assert compared["external"] == found.metrics["test"]["sensitivity"]


def test_predicting_answers_as_often_as_the_run_says(run, tmp_path):
    from chestxray.inference import batch_prediction, keras_engine
    from chestxray.inference.answer import answered
    from chestxray.runs.run_folder import Run

    again = external_validation.evaluate_again(
        Run(shutil.copytree(run.folder, tmp_path / "copy")), {"abstain": 0.6}, caches.root()
    )
    engine = keras_engine.load_engine(again.folder)
    given = []
    for batch in batch_prediction.predicted(engine, again.predictions.of("test").rows["path"].tolist()):
        given += answered(batch.paths, batch.reasons, batch.outputs, engine)
    told = content(again, "abstention")["test"]["answered"]["value"]
    assert 0 < told < 1, "all or none would show nothing"
    assert told == pytest.approx(sum(not answer.abstained for answer in given) / len(given))
