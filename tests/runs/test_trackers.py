"""What a tracker is sent of a run, and what it is not. tests/trackers has the trackers themselves."""

import json

import pytest
from click.testing import CliRunner

import made_runs
from chestxray import errors
from chestxray.cli.main import group
from chestxray.errors import InputError, MissingPackageError
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run
from chestxray.runs.trackers import content, tracking


@pytest.fixture
def run(tmp_path):
    return Run(made_runs.write_run(tmp_path / "run", made_runs.TWO))


def test_parameters_are_the_recipe_without_paths(tmp_path):
    recipe = Recipe(
        model="vgg16", data=("folder:/home/jane.doe/Mueller_Hans", "phantom:images=8"), weights="/home/jane.doe/w.h5",
        test_data=("/mnt/patients/Mueller_Hans", "kermany"), path=("/mnt/patients",), image_size=(96, 128), epochs=7,
        data_option=("folder:root=/mnt/patients",), map=("Mueller_Hans=sick",), drop=("jane.doe",),
        patient_pattern="(Mueller)_", label_pattern="(Hans)", learning_rate=0.5, loss="focal",
    )  # fmt: skip
    found = content.parameters(Run(made_runs.write_run(tmp_path / "run", made_runs.TWO, recipe=recipe)))
    assert found["data"] == "folder,phantom:images=8" and found["test_data"] == "other,kermany"
    assert found["weights"] == "file" and found["image_size"] == "96x128"
    assert (found["model"], found["epochs"], found["learning_rate"], found["loss"]) == ("vgg16", 7, 0.5, "focal")
    assert (found["images_train"], found["images_validation"], found["images_test"]) == (40, 20, 20)
    for word in ("Mueller", "Hans", "jane", "/"):
        assert word not in json.dumps(found), word
    assert all(isinstance(value, (str, int, float, bool)) for value in found.values())


def test_curves_are_the_epochs_in_order(run):
    rows = content.curves(run)
    assert [row["epoch_in_phase"] for row in rows] == [1, 2, 3, 1, 2, 3, 4]
    assert [row["validation/loss"] for row in rows] == [0.2, 0.2, 0.2, 0.9, 0.7, 0.612, 0.65]
    assert "validation/auroc" not in rows[0]


def test_figures_have_the_ends_of_their_intervals(run):
    found, test = content.figures(run), run.metrics["test"]["auroc"]
    assert (found["test/auroc"], found["test/auroc_low"], found["test/auroc_high"]) == (
        test["value"], test["low"], test["high"],
    )  # fmt: skip
    assert found["test/PNEUMONIA/sensitivity"] == run.metrics["per_class"]["PNEUMONIA"]["sensitivity"]["value"]


def test_names_of_classes_are_made_fit_for_every_tracker(tmp_path):
    run = Run(made_runs.write_run(tmp_path / "run", made_runs.HOSTILE))
    assert all(set(name) <= set("/_-. ") | set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
               for name in content.figures(run))  # fmt: skip


def test_files_are_the_model_the_card_and_pictures_of_figures(run):
    for name in ("model.keras", "report.html", "predictions.csv", "refusal.npz", "MODEL_CARD.md"):
        (run.folder / name).write_text("Nothing of a patient.")
    (run.folder / "figures").mkdir()
    for name in ("roc.png", "sample_grid.png", "test_grid.png", "heatmaps.png"):
        (run.folder / "figures" / name).write_bytes(b"")
    assert [path.name for path in content.files(run)] == ["model.keras", "roc.png", "MODEL_CARD.md"]
    (run.folder / "MODEL_CARD.md").write_text("In two splits: 003.png.")
    assert [path.name for path in content.files(run)] == ["model.keras", "roc.png"]


@pytest.mark.parametrize("name", tracking.TRACKERS)
def test_a_missing_package_is_said_before_anything_is_read(monkeypatch, tmp_path, name):
    found = errors.importlib.util.find_spec
    monkeypatch.setattr(errors.importlib.util, "find_spec", lambda n: None if n == name else found(n))
    monkeypatch.chdir(tmp_path)
    arguments = ["run", "--model", "shallow_fc", "--data", "folder:absent", f"--{name}"]
    error = CliRunner().invoke(group, arguments).exception
    assert isinstance(error, MissingPackageError)
    assert str(error) == f"--{name} needs {name}: pip install 'chestxray[{name}]'"


def test_one_training_is_logged_and_not_several(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "check", lambda names: None)
    arguments = ["run", "--model", "shallow_fc", "--data", "phantom:images=24", "--folds", "3", "--mlflow"]
    error = CliRunner().invoke(group, arguments).exception
    assert isinstance(error, InputError) and "--fold" in str(error)
    assert list(tmp_path.iterdir()) == []
