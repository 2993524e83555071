import json
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import chestxray
from chestxray import workflow
from chestxray.errors import DataError, InputError, LeakError, OutputError
from chestxray.recipe import Recipe
from chestxray.training import checkpoint

#: The files of docs/run-folder.md.
FILES = {
    "checksums.json",
    "recipe.toml", "environment.json", "audit.json", "index.parquet", "model.keras", "history.csv",
    "predictions.csv", "metrics.json", "heatmaps", "figures", "report.html", "MODEL_CARD.md", "MODEL_CARD.html",
    "decision.json", "calibration.json", "operating_points.json", "decision_curve.json", "patient_level.json",
    "refusal.json", "refusal.npz",
    "controls.json",
}  # fmt: skip


@pytest.fixture
def recipe(folder):
    return Recipe(
        model="shallow_cnn",
        data=(f"folder:{folder}",),
        patient_pattern=r"(p\d+)_",
        image_size=16,
        epochs=1,
        batch_size=8,
        test_share=0.3,
        replicates=100,
        heatmaps=1,
        map_checks="none",
    )


def test_a_run_makes_the_whole_folder(recipe, tmp_path):
    run = workflow.run(recipe, output=tmp_path / "run")
    assert {path.name for path in run.folder.iterdir()} == FILES
    assert run.recipe == recipe.replace(weights="none", image_size=(16, 16))
    rows = run.index.rows
    assert rows.groupby("patient")["split"].nunique().max() == 1
    predictions = run.predictions.rows
    assert set(predictions["path"]) == set(rows.loc[rows["split"] != "train", "path"])
    test = predictions[predictions["split"] == "test"]
    assert run.metrics["rows"] == len(test)
    assert run.metrics["patients"] == test["patient"].nunique()
    assert len(run.history) == 1
    assert run.evaluation.test["accuracy"].to_json() == run.metrics["test"]["accuracy"]
    assert run.decision.classes == run.index.classes
    accuracy = run.metrics["test"]["accuracy"]
    assert accuracy["value"] == pytest.approx((test["label"] == test["predicted"]).mean())
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    environment = run.environment
    assert environment["deterministic"] is False
    assert environment["plugin"]["distribution"] == "chestxray-baselines"
    assert set(environment["seconds"]) >= {"decode", "train", "predict", "evaluate", "explain"}
    with zipfile.ZipFile(run.folder / "model.keras") as archive:
        assert archive.getinfo("model.weights.h5").file_size < 4 * environment["model"]["parameters"] + 40_000
        assert not json.loads(archive.read("config.json"))["compile_config"]


def test_the_saved_model_takes_raw_pixels_and_gives_the_predictions(recipe, tmp_path):
    fields = {name: value for name, value in vars(recipe).items() if name not in ("model", "data")}
    run = chestxray.run(model=recipe.model, data=recipe.data[0], output=tmp_path / "run", **fields)
    again = chestxray.load(run.folder)
    row = again.predictions.rows.iloc[0]
    with Image.open(row["path"]) as image:
        pixels = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32)
    probability = again.model.predict(pixels[None, ..., None], verbose=0)[0]
    wanted = [row[f"probability_{name}"] for name in again.index.classes]
    np.testing.assert_allclose(probability, wanted, atol=1e-5)


def test_a_run_can_be_repeated_from_its_own_recipe_in_any_folder(recipe, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    first = workflow.run(recipe.replace(data=(f"folder:{folder.name}",)), output=tmp_path / "a")
    monkeypatch.chdir("/")
    second = workflow.run(Recipe.read(first.folder / "recipe.toml"), output=tmp_path / "b")
    pd.testing.assert_frame_equal(first.predictions.rows, second.predictions.rows, atol=1e-5)
    assert first.environment["data"]["fingerprint"] == second.environment["data"]["fingerprint"]


def test_an_interrupted_run_is_resumed_to_the_same_end(recipe, tmp_path, monkeypatch):
    recipe = recipe.replace(epochs=2)
    whole = workflow.run(recipe, output=tmp_path / "whole")
    end = checkpoint.Record.on_epoch_end

    def interrupted(self, epoch, logs=None):
        end(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Record, "on_epoch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workflow.run(recipe, output=tmp_path / "cut")
    with pytest.raises(InputError, match="--resume"):
        chestxray.load(tmp_path / "cut")
    resumed = workflow.resume(tmp_path / "cut")
    assert pd.read_csv(resumed.folder / "history.csv")["epoch"].tolist() == [0, 1]
    pd.testing.assert_frame_equal(whole.predictions.rows, resumed.predictions.rows, atol=1e-4)
    controls = [run.controls | {"seconds": None} for run in (whole, resumed)]
    assert controls[0] == controls[1], "controls know nothing of the time that passed"
    assert workflow.resume(tmp_path / "cut").folder == resumed.folder, "a finished run is left as it is"


@pytest.fixture
def cut(recipe, tmp_path, monkeypatch):
    """The folder of a run of two epochs that was interrupted after the first one."""
    end = checkpoint.Record.on_epoch_end

    def interrupted(self, epoch, logs=None):
        end(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Record, "on_epoch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workflow.run(recipe.replace(epochs=2), output=tmp_path / "cut")
    return tmp_path / "cut"


def test_a_run_goes_on_with_its_own_split_or_not_at_all(cut, folder, draw, caplog):
    caplog.set_level("INFO")
    before = {path.name: path.read_bytes() for path in cut.iterdir() if path.is_file()}
    added = draw(folder / "normal" / "p099_0.png", 77_777)
    with pytest.raises(DataError, match=rf"1 image is new \({added}\)\. Allowed: .*index\.parquet.*--recipe"):
        workflow.resume(cut)
    added.unlink()
    some = folder / "normal" / "p003_1.png"
    pixels = some.read_bytes()
    draw(some, 88_888)
    with pytest.raises(DataError, match=rf"1 image is of other pixels \({some}\)"):
        workflow.resume(cut)
    some.unlink()
    with pytest.raises(DataError, match=rf"1 image is gone \({some}\)"):
        workflow.resume(cut)
    assert {path.name: path.read_bytes() for path in cut.iterdir() if path.is_file()} == before
    # Copied back, with another time of change: the same data.
    some.write_bytes(pixels)
    (cut / "figures").mkdir(exist_ok=True)
    (cut / "figures" / ".part-x-left.png").write_bytes(b"by a run that was killed while it wrote")
    resumed = workflow.resume(cut)
    assert not list(cut.rglob(".part-*"))
    assert "split as the run began" in caplog.text
    assert (resumed.folder / "index.parquet").read_bytes() == before["index.parquet"]
    assert (resumed.folder / "audit.json").read_bytes() == before["audit.json"]


def test_a_run_goes_on_with_its_own_recipe_or_not_at_all(cut):
    path = cut / "recipe.toml"
    before = path.read_text()
    path.write_text(before.replace("epochs = 2", "epochs = 3"))
    history = (cut / "history.csv").read_bytes()
    with pytest.raises(InputError, match=r"recipe\.toml has changed since the run began.*chestxray run --recipe"):
        workflow.resume(cut)
    assert (cut / "history.csv").read_bytes() == history
    path.write_text(before)
    assert len(workflow.resume(cut).history) == 2


@pytest.fixture
def interrupted(monkeypatch):
    """A function that interrupts a run of two epochs of a recipe after the first one and returns its folder."""

    def interrupt(recipe, folder, cache):
        end = checkpoint.Record.on_epoch_end

        def stopped(self, epoch, logs=None):
            end(self, epoch, logs)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.Record, "on_epoch_end", stopped)
            with pytest.raises(KeyboardInterrupt):
                workflow.run(recipe.replace(epochs=2, controls=False), output=folder, cache=cache)
        return folder

    return interrupt


def test_a_manifest_whose_labels_changed_stops_the_resume(recipe, folder, tmp_path, interrupted):
    manifest = tmp_path / "films.csv"
    rows = [(path, path.parent.name, path.name[:4]) for path in sorted(folder.rglob("*.png"))]
    manifest.write_text("path,label,patient\n" + "".join(f"{path},{label},{who}\n" for path, label, who in rows))
    of_table = recipe.replace(data=(f"manifest:{manifest}",), patient_pattern=None)
    cut = interrupted(of_table, tmp_path / "cut", tmp_path / "cache")
    before = manifest.read_text()
    manifest.write_text(before.replace(f"{rows[0][0]},normal", f"{rows[0][0]},pneumonia"))
    with pytest.raises(DataError, match=rf"1 image is of another label \({rows[0][0]}\)"):
        workflow.resume(cut, cache=tmp_path / "cache")
    manifest.write_text(before)
    assert workflow.resume(cut, cache=tmp_path / "cache").finished


@pytest.mark.slow
def test_a_file_that_changed_in_secret_is_seen_or_not_used(recipe, folder, tmp_path, draw, interrupted):
    """Of the same size and date it is taken for the one that was decoded, whose pixels the run goes on with."""
    films = sorted(folder.rglob("*.png"))
    for film in films:  # of a format that makes all of one size
        Image.open(film).save(film.with_suffix(".bmp"))
        film.unlink()
    whole = workflow.run(recipe.replace(epochs=2, controls=False), output=tmp_path / "whole", cache=tmp_path / "cache")
    cut = interrupted(recipe, tmp_path / "cut", tmp_path / "cache")
    film = films[0].with_suffix(".bmp")
    kept, status = film.read_bytes(), film.stat()
    Image.open(draw(tmp_path / "other.png", 99_999)).save(film)
    os.utime(film, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert film.stat().st_size == status.st_size
    assert film.read_bytes() != kept
    with pytest.raises(DataError, match=rf"1 image is of other pixels \({film}\)"):
        workflow.resume(cut, cache=tmp_path / "cleared")
    resumed = workflow.resume(cut, cache=tmp_path / "cache")
    pd.testing.assert_frame_equal(whole.predictions.rows, resumed.predictions.rows, atol=1e-5)


def test_a_cache_that_was_cleared_changes_nothing(recipe, tmp_path, interrupted):
    whole = workflow.run(recipe.replace(epochs=2, controls=False), output=tmp_path / "whole", cache=tmp_path / "cache")
    cut = interrupted(recipe, tmp_path / "cut", tmp_path / "cache")
    resumed = workflow.resume(cut, cache=tmp_path / "cleared")
    pd.testing.assert_frame_equal(whole.predictions.rows, resumed.predictions.rows, atol=1e-5)


def test_a_split_is_never_drawn_again(cut, monkeypatch):
    """Another version may draw another one."""

    def refuse(*_):
        raise AssertionError("a run that has begun is not split again")

    monkeypatch.setattr(workflow, "split", refuse)
    assert workflow.resume(cut).finished


def test_a_run_that_was_stopped_before_its_split_was_written_begins_anew(recipe, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(workflow, "begin", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            workflow.run(recipe, output=tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"recipe.toml", "checksums.json"}
    assert {path.name for path in workflow.resume(tmp_path / "run").folder.iterdir()} == FILES


def test_what_was_trained_does_not_go_on_without_its_index(cut):
    (cut / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"index\.parquet is damaged"):
        workflow.resume(cut)
    (cut / "index.parquet").unlink()
    with pytest.raises(InputError, match=r"has lost index\.parquet"):
        workflow.resume(cut)


def test_leaks_stop_a_run_before_anything_is_made(recipe, folder, tmp_path):
    for split, numbers in (("train", range(9)), ("val", range(9, 10)), ("test", range(10, 12))):
        for k, label in enumerate(("normal", "pneumonia")):
            (folder / split / label).mkdir(parents=True)
            for n in numbers:
                for path in (folder / label).glob(f"p{k}{n:02d}_*"):
                    path.rename(folder / split / label / path.name)
    for label in ("normal", "pneumonia"):
        (folder / label).rmdir()
    copy = next((folder / "train" / "normal").iterdir())
    (folder / "test" / "normal" / "p999_0.png").write_bytes(copy.read_bytes())
    with pytest.raises(LeakError, match=r"1 images have copies.*Allowed: --split grouped .*, --on-leak drop"):
        workflow.run(recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = workflow.run(recipe.replace(on_leak="drop"), output=tmp_path / "run")
    audit = json.loads((run.folder / "audit.json").read_text())
    assert [item["path"] for item in audit["dropped"]] == [str(copy)]
    assert run.index.rows.set_index("path").loc[str(copy), "split"] == ""


def test_an_output_folder_is_never_overwritten_by_mistake(recipe, tmp_path):
    output = tmp_path / "run"
    first = workflow.run(recipe, output=output)
    before = (first.folder / "metrics.json").read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        workflow.run(recipe, output=output)
    with pytest.raises(DataError, match="no official split"):
        workflow.run(recipe.replace(test_share=0.01, split="official"), output=output, overwrite=True)
    assert (output / "metrics.json").read_bytes() == before, "a run that fails early destroys nothing"
    (output / "old.txt").write_text("")
    workflow.run(recipe, output=output, overwrite=True)
    assert not (output / "old.txt").exists()


def test_an_unknown_positive_class_is_found_before_training(recipe, tmp_path):
    with pytest.raises(InputError, match="Did you mean pneumonia"):
        workflow.run(recipe.replace(positive="Pneumonai"), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_never_replaced(recipe, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is not a run"):
        workflow.run(recipe, output=tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"normalisation": "pixel"},
        {"normalisation": "image", "fit": "pad", "split": "random", "on_leak": "ignore"},
        {"model": "shallow_fc", "augment": "heavy", "mix": "cutmix", "split": "stratified", "on_leak": "drop"},
        {"model": "deep_cnn", "mixed_precision": True, "fit": "crop", "loss": "focal"},
    ],
)
def test_options_make_whole_runs(recipe, tmp_path, changes):
    run = workflow.run(recipe.replace(**changes), output=tmp_path / "run")
    assert np.isfinite(run.predictions.probabilities).all()
    heatmaps = json.loads((run.folder / "heatmaps" / "index.json").read_text())
    assert bool(heatmaps["images"]) == (run.recipe.model != "shallow_fc")
    assert bool(heatmaps["reason"]) == (run.recipe.model == "shallow_fc")


@pytest.mark.slow
def test_an_external_test_is_the_whole_test_and_is_told_by_source(recipe, folder, tmp_path, draw):
    for place, offset in (("here", 50_000), ("there", 60_000)):
        for k, label in enumerate(("Normal", "Pneumonia")):
            for n in range(4):
                draw(tmp_path / place / label / f"{n}.png", offset + 100 * k + n)
    external = (f"folder:{tmp_path / 'here'}", f"folder:{tmp_path / 'there'}")
    run = workflow.run(recipe.replace(test_data=external), output=tmp_path / "run")
    rows = run.index.rows
    assert set(rows.loc[rows["split"] == "test", "source"]) == {"here", "there"}
    assert set(rows.loc[rows["source"] == "xrays", "split"]) == {"train", "validation"}
    assert {name: part["rows"] for name, part in run.by_source.items()} == {"here": 8, "there": 8}
    assert "Source by source" in run.report.read_text(encoding="utf-8")
