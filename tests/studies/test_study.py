"""Studies of several trainings."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tiny_models
from chestxray import workflow
from chestxray.errors import DataError, InputError, OutputError, TrainingError
from chestxray.evaluation.shortcuts import controls as shortcut_controls
from chestxray.execution.executor import Executor
from chestxray.recipe import Recipe
from chestxray.runs import members as ensemble_members
from chestxray.studies import ensembling, making, study
from chestxray.studies.cross_validation import pool
from chestxray.training import checkpoint
from precomputed import finished


@pytest.fixture
def recipe(folder, tmp_path, monkeypatch):
    tiny_models.install(tmp_path / "site", monkeypatch)
    return Recipe(
        model="flat",
        data=(f"folder:{folder}",),
        patient_pattern=r"(p\d+)_",
        image_size=16,
        epochs=1,
        batch_size=16,
        replicates=100,
        heatmaps=0,
        controls=False,
        refuse=0,
    )


def resolved(recipe):
    return workflow.resolve(recipe)[0]


def finish(recipe, folder, cache, seeds=1):
    """Finish every part of a study but for the training: real splits, drawn probabilities."""
    for part in study.plan({recipe.model: resolved(recipe)}, seeds, cache):
        prepared = workflow.prepare(part.recipe, cache, workflow.Clock())
        finished(folder / "parts" / part.name, prepared.index, part.recipe)
    (folder / "study.json").write_text("{}")
    return study.run([recipe], folder, cache, seeds=seeds)


def times(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("parts/*/model.keras")}


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_stopped_and_makes_nothing_twice(recipe, tmp_path, monkeypatch, caplog):
    study.run([recipe], tmp_path / "s")
    before = times(tmp_path / "s")
    end = checkpoint.Record.on_epoch_end

    def interrupted(self, epoch, logs=None):
        end(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Record, "on_epoch_end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            study.run([recipe], tmp_path / "s", seeds=2)
    assert "1 of 2 parts are finished and kept" in caplog.text
    made = study.run([recipe], tmp_path / "s", seeds=2)
    assert times(made.folder)["flat"] == before["flat"]
    assert [part.name for part in made.parts] == ["flat", "flat-seed1"]
    first, second = made.runs("flat")
    assert pd.read_csv(second.folder / "history.csv")["epoch"].tolist() == [0]
    pd.testing.assert_frame_equal(first.index.rows, second.index.rows)
    assert not np.allclose(first.predictions.probabilities, second.predictions.probabilities)
    # A part after others is what a run alone would have been.
    alone = workflow.run(recipe.replace(seed=1, split_seed=0), output=tmp_path / "alone")
    pd.testing.assert_frame_equal(second.predictions.rows, alone.predictions.rows, atol=1e-4)


@pytest.mark.slow
def test_all_parts_of_a_study_are_of_the_same_data(recipe, folder, tmp_path, draw):
    finish(recipe, tmp_path / "s", tmp_path / "cache")
    finish(recipe.replace(folds=2), tmp_path / "f", tmp_path / "cache")
    (tmp_path / "f" / "parts" / "flat-fold2" / "report.html").unlink()
    added = draw(folder / "normal" / "p099_0.png", 77_777)
    small = recipe.replace(model="small")
    with pytest.raises(DataError, match=rf"1 image is new \({added}\).*--overwrite"):
        study.run([recipe, small], tmp_path / "s", tmp_path / "cache")
    assert not (tmp_path / "s" / "parts" / "small").exists()
    with pytest.raises(DataError, match="1 image is new"):
        study.run([recipe.replace(folds=2)], tmp_path / "f", tmp_path / "cache")
    # A candidate that was asked for with other data is not held to these.
    others = {"flat": recipe, "small": small.replace(patient_pattern=None)}
    made = study.run(others, tmp_path / "s", tmp_path / "cache")
    assert [len(made.runs(name)[0].index) for name in others] == [48, 49]


@pytest.mark.slow
def test_a_training_that_fails_does_not_stop_the_others(recipe, tmp_path):
    broken = recipe.replace(optimizer="sgd", learning_rate=1e38, schedule="constant")
    with pytest.raises(TrainingError, match=r"2 of 2 parts failed, the others are kept in .*one: .*two: "):
        study.run({"one": broken, "two": broken}, tmp_path / "s")


def test_folds_are_pooled(recipe, tmp_path):
    made = finish(recipe.replace(folds=3), tmp_path / "s", tmp_path / "cache", seeds=2)
    assert [part.label for part in made.parts[:3]] == [f"flat, seed 0, fold {i} of 3" for i in (1, 2, 3)]
    tables = made.tests("flat")
    assert len(tables) == 2
    for table in tables:
        assert sorted(table.rows["path"]) == sorted(made.runs("flat")[0].index.rows["path"])
    for run in made.runs("flat")[:3]:
        own = run.predictions.of("test").rows
        joined = own.merge(tables[0].rows, on="path")
        assert len(joined) == len(own)
        assert (joined["probability_normal_x"] == joined["probability_normal_y"]).all()
    with pytest.raises(InputError, match="one seed"):
        pool(made)


def test_pooled_folds_are_a_folder_like_a_run(recipe, tmp_path):
    pooled = pool(finish(recipe.replace(folds=2), tmp_path / "s", tmp_path / "cache"))
    assert pooled.metrics["rows"] == 48
    assert pooled.finished
    assert pooled.environment["model"]["parameters"] == 1000
    assert pooled.environment["seconds"]["train"] == 8
    assert not (pooled.folder / "decision.json").exists(), "no threshold is chosen on the test"
    over_folds = json.loads((pooled.folder / "folds.json").read_text())
    parts = [run.metrics["test"]["accuracy"]["value"] for run in study.Study(
        pooled.folder, {"flat": pooled.recipe}, study.plan({"flat": pooled.recipe}, 1, tmp_path / "cache")
    ).runs("flat")]  # fmt: skip
    assert over_folds["test"]["accuracy"]["value"] == pytest.approx(np.mean(parts))
    assert over_folds["test"]["auroc"]["low"] < pooled.metrics["test"]["auroc"]["low"], "two folds say little"
    assert set(pooled.predictions.rows["fold"]) == {0, 1}
    counts = [(run.index.rows["split"] == "train").sum() for run in (
        pooled.__class__(pooled.folder / "parts" / f"flat-fold{k}") for k in (1, 2))]  # fmt: skip
    assert sorted(set(pooled.predictions.rows["training_images"])) == sorted(set(counts))
    assert "every image was tested once" in pooled.report.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="no model of its own"):
        _ = pooled.model


def test_pooled_folds_have_controls_trained_and_tested_as_the_folds_were(recipe, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    made = finish(recipe.replace(folds=2, controls=True), tmp_path / "s", cache)
    asked = []
    controls = shortcut_controls.controls

    def seen(index, pixels, test, metrics, **rest):
        asked.append((index, rest["splits"]))
        return controls(index, pixels, test, metrics, **rest)

    monkeypatch.setattr(shortcut_controls, "controls", seen)
    pooled = pool(made, cache)
    ((index, splits),) = asked
    for run, split in zip(made.runs("flat"), splits, strict=True):
        assert split.tolist() == run.index.rows.set_index("path")["split"].reindex(index.rows["path"]).tolist()
    assert "inherited" not in pooled.controls
    assert (pooled.controls["rows"]["all"], pooled.controls["rows"]["test"]) == (48, 48)
    assert pooled.controls["model"]["auroc"] == pooled.metrics["test"]["auroc"]
    assert "Controls: what can be reached without the lungs" in pooled.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_ensemble_has_controls_of_its_own_where_the_images_are_at_hand(recipe, tmp_path):
    cache = tmp_path / "cache"
    runs = {}
    for seed in (0, 1):
        one = resolved(recipe.replace(seed=seed, split_seed=0, test_share=0.3, controls=True))
        prepared = workflow.prepare(one, cache, workflow.Clock())
        runs[f"s{seed}"] = finished(tmp_path / f"s{seed}", prepared.index, one)
    own = ensembling.write(runs, tmp_path / "mean", cache)
    assert "inherited" not in own.controls
    assert own.controls["model"]["auroc"] == own.metrics["test"]["auroc"]
    assert {item["name"] for item in own.controls["controls"]} >= {"border", "thumbnail"}
    assert not any(item["fires"] for item in own.controls["controls"]), "the images are noise"
    again = ensembling.write(runs, tmp_path / "again", cache)
    for run in (own, again):
        run.controls.pop("seconds")
    assert own.controls == again.controls
    away = ensembling.write(runs, tmp_path / "away", tmp_path / "another")
    assert not (away.folder / "controls.json").exists(), "no images, and no controls of a member"


def test_folds_beside_a_test_are_repetitions(recipe, tmp_path, draw):
    for k, label in enumerate(("normal", "pneumonia")):
        for n in range(4):
            draw(tmp_path / "there" / label / f"{n}.png", 70_000 + 100 * k + n)
    beside = recipe.replace(folds=2, test_data=f"folder:{tmp_path / 'there'}")
    made = finish(beside, tmp_path / "s", tmp_path / "cache")
    tables = made.tests("flat")
    assert [len(table.rows) for table in tables] == [8, 8]
    assert set(tables[0].rows["path"]) == set(tables[1].rows["path"])
    pooled = pool(made)
    members = json.loads((pooled.folder / "ensemble.json").read_text())["members"]
    assert [member["name"] for member in members] == ["flat-fold1", "flat-fold2"]
    moved = Path(shutil.move(pooled.folder, tmp_path / "moved"))
    assert ensemble_members.folders(moved) == [moved / "parts" / member["name"] for member in members]
    ensemble_members.check_unchanged(moved)
    shutil.move(moved, pooled.folder)
    mean = (tables[0].probabilities + tables[1].probabilities) / 2
    np.testing.assert_allclose(pooled.predictions.of("test").probabilities, mean)


def test_each_source_is_held_out_in_turn(recipe, tmp_path, draw):
    for place, offset in (("here", 50_000), ("there", 60_000)):
        for k, label in enumerate(("normal", "pneumonia")):
            for n in range(8):
                draw(tmp_path / place / label / f"{n}.png", offset + 100 * k + n)
    data = tuple(f"folder:{tmp_path / place}" for place in ("here", "there"))
    apart = recipe.replace(data=data, split="source", patient_pattern=None)
    made = finish(apart, tmp_path / "s", tmp_path / "cache")
    assert [part.name for part in made.parts] == ["flat-without-here", "flat-without-there"]
    (pooled,) = made.tests("flat")
    assert pooled.rows["source"].value_counts().to_dict() == {"here": 16, "there": 16}


def test_tests_that_overlap_are_refused(recipe, tmp_path):
    made = finish(recipe.replace(folds=2), tmp_path / "s", tmp_path / "cache")
    one, other = made.runs("flat")
    rows = pd.concat([one.predictions.rows, other.predictions.of("test").rows[:1]])
    rows.to_csv(one.folder / "predictions.csv", index=False)
    with pytest.raises(DataError, match="overlap"):
        made.tests("flat")


def test_drawn_data_is_the_same_for_all_seeds(recipe, tmp_path):
    drawn = recipe.replace(
        data=("phantom",), patient_pattern=None, data_option=("patients=24",), test_share=0.2, validation_share=0.2
    )
    parts = study.plan({"flat": resolved(drawn)}, 2, tmp_path / "cache")
    first, second = (workflow.prepare(part.recipe, tmp_path / "cache", workflow.Clock()).index for part in parts)
    pd.testing.assert_frame_equal(first.rows, second.rows)


def test_the_default_folder_goes_by_the_recipes(recipe):
    once = study.default_folder({"flat": recipe}, "comparisons")
    assert once == study.default_folder({"flat": recipe.replace()}, "comparisons")
    assert once != study.default_folder({"flat": recipe.replace(epochs=2)}, "comparisons")
    assert once.as_posix().startswith("comparisons/flat-xrays-")


@pytest.mark.slow
def test_other_settings_and_other_folders_are_refused(recipe, tmp_path):
    finish(recipe, tmp_path / "s", tmp_path / "cache")
    with pytest.raises(OutputError, match=r"other settings \(flat: epochs 1, now 2\).*--overwrite"):
        study.run([recipe.replace(epochs=2)], tmp_path / "s")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is not a study"):
        study.run([recipe], tmp_path / "thesis", overwrite=True)
    with pytest.raises(InputError, match="seeds must be at least 1"):
        study.run([recipe], tmp_path / "t", seeds=0)
    with pytest.raises(InputError, match=r"named once.*flat"):
        study.run([recipe, recipe], tmp_path / "t")
    with pytest.raises(InputError, match=r"differ as folders do\. Alike: a-b"):
        study.run({"a b": recipe, "a-b": recipe}, tmp_path / "t")
    with pytest.raises(InputError, match="positive"):
        study.run([recipe.replace(positive="absent")], tmp_path / "t")
    assert not (tmp_path / "t").exists(), "a mistake that is found before training leaves nothing"


TWO_DEVICES = """
import sys
if sys.modules["__main__"].__spec__ and sys.modules["__main__"].__spec__.name == "chestxray.execution.worker":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tiny_models import flat, small
"""


@pytest.mark.slow
def test_parts_on_several_devices_have_a_process_each(recipe, tmp_path):
    # TensorFlow's second strategy over several devices would end the process.
    (tmp_path / "site" / "two_devices.py").write_text(TWO_DEVICES)
    entries = tmp_path / "site" / "tiny_models-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text().replace("tiny_models:", "two_devices:"))
    made = study.run([recipe.replace(devices="cpu:0,1")], tmp_path / "s", seeds=2)
    assert [run.environment["devices"] for run in made.runs("flat")] == [["CPU:0", "CPU:1"]] * 2


DRIVER = """
import sys
sys.path[:0] = {paths!r}
from pathlib import Path
from chestxray.execution.executor import Executor
from chestxray.recipe import Recipe
from chestxray.runs import members as ensemble_members
from chestxray.studies import study
study.run([Recipe.read(Path({recipe!r}))], Path({folder!r}), seeds=2, executor=Executor(workers=1))
"""


@pytest.mark.slow
def test_a_study_by_workers_is_that_of_one_process_whoever_is_killed(recipe, tmp_path, caplog):
    folder = tmp_path / "killed"
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    paths = [str(tmp_path / "site"), str(Path(__file__).parents[1])]
    code = DRIVER.format(paths=paths, recipe=str(tmp_path / "recipe.toml"), folder=str(folder))
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while not (folder / "parts" / "flat-seed1" / "index.parquet").exists() and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        driver.kill()
        driver.wait()
    before = times(folder)
    assert list(before) == ["flat"], "the second part is under way"

    class KillOnce(logging.Handler):
        done = False

        def emit(self, record):
            if not self.done and record.getMessage().startswith("flat, seed 1 | Loading TensorFlow"):
                self.done = True
                (worker,) = (
                    int(process.name)
                    for process in Path("/proc").glob("[0-9]*")
                    if b"chestxray.execution.worker" in (process / "cmdline").read_bytes()
                    and (process / "stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
                )
                os.kill(worker, signal.SIGKILL)

    killer = KillOnce()
    logging.getLogger("chestxray").addHandler(killer)
    with caplog.at_level(logging.INFO, "chestxray"):
        made = study.run([recipe], folder, seeds=2, executor=Executor(workers=1))
    assert killer.done
    assert "flat, seed 1: its worker was killed by SIGKILL; it is begun again." in caplog.text
    assert times(folder)["flat"] == before["flat"]
    plain = study.run([recipe], tmp_path / "plain", seeds=2)
    for one, other in zip(made.runs("flat"), plain.runs("flat"), strict=True):
        assert (one.folder / "predictions.csv").read_bytes() == (other.folder / "predictions.csv").read_bytes()


@pytest.mark.slow
def test_workers_say_which_part_failed_and_the_others_are_made(recipe, tmp_path):
    broken = recipe.replace(optimizer="sgd", learning_rate=1e38, schedule="constant")
    with pytest.raises(TrainingError, match=r"1 of 2 parts failed, the others are kept in .*bad: .*finite"):
        study.run({"bad": broken, "good": recipe}, tmp_path / "s", executor=Executor(workers=2))
    assert study.Run(tmp_path / "s" / "parts" / "good").finished


def test_a_part_is_made_only_where_its_study_is_seen(recipe, tmp_path):
    given = {"recipe": recipe, "folder": tmp_path, "name": "flat", "cache": tmp_path, "like": [], "study": "{}"}
    for seen in (None, "{another}"):
        if seen:
            (tmp_path / "study.json").write_text(seen)
        with pytest.raises(InputError, match=r"does not see the study in .*: --output must be a folder"):
            making.make_part(**given)
