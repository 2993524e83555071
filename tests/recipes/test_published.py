"""Each shipped recipe runs whole on phantoms, and every option in it is seen to take effect."""

import dataclasses
import json
import re
import shutil
import traceback

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import public_trees
from chestxray import recipe_files, registry
from chestxray.cli.main import group
from chestxray.errors import InputError
from chestxray.explanation.gradcam import with_places
from chestxray.models import assembly, forward
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run
from chestxray.training import fit

#: Classes of the phantoms in the place of each set, under the names that its films have.
FOUR = "covid19+lung_opacity+normal+viral_pneumonia"
RADIOGRAPHY = f"phantom:classes={FOUR},patients=24,size=48,splits=none"
TWO = "phantom:classes=normal+pneumonia,patients=16,size=48,duplicates_across=1,straddlers=1"
KAGGLE = "phantom:classes=COVID19+NORMAL+PNEUMONIA+TURBERCULOSIS,patients=24,size=48,duplicates_across=1"
#: Options that make a run small, and the fields that a test therefore does not compare.
TINY = {"image_size": 64, "replicates": 100, "heatmaps": 1, "map_checks": "none", "jit_compile": "off"}
LOSSES = {"crossentropy": "CategoricalCrossentropy", "soft_f1": "SoftF1"}
REPLACED = {"model", "data", "test_data", "path", "weights", "epochs", "head_epochs", "folds", "fold", *TINY}


@pytest.fixture
def seen(monkeypatch):
    """What the steps are given that leaves no trace in the folder: sizes of batches, class weights."""
    found = {"predicted": set(), "weighted": False}
    plain, weigh = forward.batches, fit.class_weights

    def batches(pixels, rows, batch_size, *devices):
        found["predicted"].add(batch_size)
        return plain(pixels, rows, batch_size, *devices)

    def class_weights(labels, *rest):
        found["weighted"] = True
        return weigh(labels, *rest)

    monkeypatch.setattr(forward, "batches", batches)
    monkeypatch.setattr(fit, "class_weights", class_weights)
    return found


def chestxray(command, name, folder, *given, **changes):
    """Run the recipe by its name, with `changes` given as options; what was said."""
    options = TINY | changes
    given = ["--recipe", name, "--output", folder, *given]
    given += [text for field, value in options.items() for text in (f"--{field.replace('_', '-')}", value)]
    result = CliRunner().invoke(group, [command, *map(str, given)])
    assert result.exit_code == 0, result.output + "".join(traceback.format_exception(result.exception))
    return result.output


@pytest.fixture
def imagenet(tmp_path):
    """A function that writes weights in the place of ImageNet's, and returns the file."""

    def write(name):
        size = TINY["image_size"]
        built = assembly.build(registry.load_plugin(registry.MODELS, name), 2, (size, size), seed=123)
        path = tmp_path / f"{name}.weights.h5"
        built.model.save_weights(path)
        return path

    return write


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def check(run, name, output, seen):
    """What every run of the recipe `name` must show: nothing in the recipe was left aside."""
    wanted, folder = Recipe.read(name), run.folder
    # The parts of a study name the seed of their splits, which a single run takes from its own.
    assert run.recipe.splits_by == wanted.splits_by
    for field in {field.name for field in dataclasses.fields(Recipe)} - REPLACED - {"split_seed"}:
        assert getattr(run.recipe, field) == getattr(wanted, field), field
    check_data(run, wanted)
    check_training(run, wanted, output, seen)
    built = run.model
    assert built.input_shape == (None, *run.recipe.image_size, 1)
    assert any(layer.name == "per_pixel" for layer in built.layers) == (wanted.normalisation == "pixel")
    policies = {layer.dtype_policy.name for layer in built.layers}
    assert ("mixed_float16" in policies) == wanted.mixed_precision
    assert (folder / "controls.json").is_file() == wanted.controls
    maps, plugin = read(folder, "heatmaps/index.json"), registry.load_plugin(registry.MODELS, run.recipe.model)
    # At the tests' tiny size the last layer of some is a single cell.
    assert maps["layer"] == (plugin.cam_layer and with_places(built, plugin.cam_layer))
    assert bool(maps["images"]) == (plugin.cam_layer is not None)
    figures = {file.stem for file in (folder / "figures").iterdir()}
    assert {"class_distribution", "sample_grid", "training_curves", "confusion_matrix", "test_grid"} <= figures
    return built


def check_data(run, wanted):
    audit, rows = read(run.folder, "audit.json"), run.index.rows
    if wanted.classes:
        assert tuple(run.metrics["confusion"]["classes"]) == wanted.classes
    assert not set(rows["label"]) & set(wanted.drop)
    assert bool(wanted.drop) == any("their class was dropped" in note for note in audit["notes"])
    assert audit["on_leak"] == wanted.on_leak
    assert not (audit["dropped"] and wanted.on_leak == "ignore")
    said = " ".join(audit["notes"])
    method = {"random": "at random by image", "stratified": "by image, stratified", "grouped": "Split by patient"}
    if wanted.split in method:
        assert method[wanted.split] in said
    else:
        assert ("were redrawn" in said) != wanted.keep_validation
    known = rows[(rows["split"] != "") & (rows["patient"] != "")]
    sides = known.groupby(["source", "patient"])["split"].nunique()
    if wanted.on_leak == "drop":
        assert len(sides)
        assert sides.max() == 1, "no patient stands on both sides"


def check_training(run, wanted, output, seen):
    history, used = pd.read_csv(run.folder / "history.csv"), run.recipe
    phases = ["full"] * used.epochs if used.weights == "none" else []
    phases = phases or ["head"] * used.head_epochs + ["finetune"] * used.epochs
    assert history["phase"].tolist() == phases
    if wanted.schedule != "cosine":
        rates = {"head": wanted.learning_rate, "full": wanted.learning_rate, "finetune": wanted.finetune_learning_rate}
        np.testing.assert_allclose(history["learning_rate"], [rates[phase] for phase in phases], rtol=1e-5)
    compiled = set(re.findall(r"epochs? of \d+ steps \((\w+), (\w+)\)", output))
    assert [(optimizer.lower(), loss) for optimizer, loss in compiled] == [
        (wanted.optimizer, {"crossentropy": "CategoricalCrossentropy", "soft_f1": "SoftF1"}[wanted.loss])
    ]
    training_rows = int((run.index.rows["split"] == "train").sum())
    steps = re.findall(r"(\d+) images, \d+ epochs? of (\d+) steps", output)
    assert set(steps) == {(str(training_rows), str(max(1, training_rows // wanted.batch_size)))}
    assert wanted.predict_batch_size in seen["predicted"]
    assert seen["weighted"] == wanted.class_weights


def check_frozen(built, path, start):
    """The backbone has the weights of the file before the layer `start` (None: in all of it), others from it on."""
    plugin = registry.load_plugin(registry.MODELS, path.name.split(".")[0])
    source = assembly.build(plugin, 2, built.input_shape[1:3], weights=str(path))
    names = list(source.backbone)
    first = len(names) if start is None else names.index(start)
    for place, name in enumerate(names):
        if variables := source.model.get_layer(name).weights:
            same = np.array_equal(variables[0], built.get_layer(name).weights[0])
            assert same == (place < first), name


@pytest.mark.slow
def test_seven_models_are_compared(tmp_path, seen):
    size = 75  # the smallest that InceptionV3 takes
    given = ["--data", RADIOGRAPHY]
    output = chestxray("compare", "seven-models", tmp_path / "c", *given, image_size=size, epochs=1)
    _, models = recipe_files.read("seven-models")
    compared = read(tmp_path / "c", "comparison.json")
    assert {item["model"] for item in compared["models"]} == set(models)
    assert len(compared["pairs"]) == 21
    assert "letters" in output, "the one table of all models"
    for name in models:
        part = Run(tmp_path / "c" / "parts" / name)
        said = output.split(f": {name}\n")[1].split("\nPart ")[0]
        built = check(part, "seven-models", said, seen)
        assert built.input_shape == (None, size, size, 1)
        normalisation = built.get_layer("per_pixel")
        index = part.index.rows
        assert normalisation.mean.shape == (1, size, size, 3 if "fc" not in name and "cnn" not in name else 1)
        shares = index["split"].value_counts() / len(index[index["split"] != ""])
        assert shares["test"] == pytest.approx(0.1, abs=0.03)
        assert shares["validation"] == pytest.approx(0.1, abs=0.03)


def test_seven_models_honest(tmp_path, seen):
    names = ("shallow_fc", "shallow_cnn")
    models = [text for name in names for text in ("--model", name)]
    chestxray("compare", "seven-models-honest", tmp_path / "c", *models, "--data", RADIOGRAPHY, epochs=1)
    assert {item["model"] for item in read(tmp_path / "c", "comparison.json")["models"]} == set(names)
    for name in names:
        part = Run(tmp_path / "c" / "parts" / name)
        check_data(part, Recipe.read("seven-models-honest"))
        assert (part.folder / "controls.json").is_file()


@pytest.mark.parametrize("name", ["resnet18-keremberke", "resnet18-keremberke-honest"])
def test_resnet18(name, tmp_path, seen, imagenet):
    path = imagenet("resnet18")
    output = chestxray("run", name, tmp_path / "r", "--data", TWO, weights=path, epochs=2)
    run = Run(tmp_path / "r")
    built = check(run, name, output, seen)
    check_frozen(built, path, "layer4_0_conv1_pad")
    assert "Frozen layers ran once an image" in output
    audit = read(run.folder, "audit.json")
    leaks = len(audit["exact_duplicates"]["across_splits"]) + len(audit["patients"]["across_splits"])
    assert bool(leaks) == (name == "resnet18-keremberke"), "drawn by patient, nothing leaks"


#: The model of each recipe, and for its twin, whose options are nearly the same, one that is trained in a moment.
@pytest.mark.parametrize(
    ("name", "architecture", "start"),
    [
        ("mobilenetv3-four-class", "mobilenetv3small", "expanded_conv_8_expand"),
        ("mobilenetv3-four-class-honest", "shallow_cnn", "conv1"),
    ],
)
def test_mobilenetv3(name, architecture, start, tmp_path, seen, imagenet):
    path = imagenet(architecture)
    given = ["--data", KAGGLE, "--model", architecture]
    output = chestxray("run", name, tmp_path / "r", *given, weights=path, epochs=1, head_epochs=1)
    run = Run(tmp_path / "r")
    check_frozen(check(run, name, output, seen), path, start)
    # Features of MobileNetV3 with random weights vary by rounding alone, and nothing can be known by them.
    assert (run.folder / "refusal.npz").is_file() == (architecture == "shallow_cnn"), "what the web page refuses by"
    assert bool(read(run.folder, "audit.json")["dropped"]) == (name == "mobilenetv3-four-class-honest")
    assert set(run.metrics["confusion"]["classes"]) == {"COVID19", "NORMAL", "PNEUMONIA", "TURBERCULOSIS"}


def test_class_weights_of_the_four_classes_are_those_published():
    """8.4, 2.9, 1 and 6 for the training folder's 460, 1,341, 3,875 and 650 films, but for a common factor."""
    labels = np.repeat(np.eye(4, dtype=np.float32), [460, 1341, 3875, 650], axis=0)
    weights = np.array(list(fit.class_weights(labels).values()))
    assert (weights / weights[2]).round(1).tolist() == [8.4, 2.9, 1.0, 6.0]
    assert Recipe.read("mobilenetv3-four-class").class_weights


@pytest.mark.parametrize(
    ("name", "architecture"), [("vgg16-kermany", "vgg16_gap"), ("vgg16-kermany-honest", "shallow_cnn")]
)
def test_vgg16(name, architecture, tmp_path, seen, imagenet):
    """With a backbone that takes small images; vgg16 itself, of 135 million parameters, below."""
    path = imagenet(architecture)
    given = ["--data", TWO, "--model", architecture]
    output = chestxray("run", name, tmp_path / "r", *given, weights=path, head_epochs=2)
    run = Run(tmp_path / "r")
    check_frozen(check(run, name, output, seen), path, None)
    assert "augmentation (crop) changes them anew" in output
    assert bool(read(run.folder, "audit.json")["dropped"]) == (name == "vgg16-kermany-honest")


def test_vgg16_trains_as_many_parameters_as_were_published():
    recipe = Recipe.read("vgg16-kermany")
    built = assembly.build(registry.load_plugin(registry.MODELS, recipe.model), 2, recipe.image_size)
    assert [phase for phase, _ in fit.phases(recipe, pretrained=True)] == ["head"]
    assembly.freeze(built, "head")
    assert built.model.count_params() == 135_309_890
    assert sum(int(np.prod(v.shape)) for v in built.model.trainable_variables) == 1_049_346


@pytest.fixture
def covid(tmp_path):
    """Copies of the five sets of resnet200d-covid, laid out as they are published, as options; 16 films of each
    class of the radiography database.
    """
    trees = {
        "covid-radiography": public_trees.covid_radiography(tmp_path / "radiography", each=16),
        "covid-chestxray": public_trees.covid_chestxray(tmp_path / "cohen"),
        "kermany": public_trees.kermany(tmp_path / "kermany"),
        "covid-xray-10000": public_trees.covid_xray_10000(tmp_path / "10000", each=5),
        "covid19-xray-train-test": public_trees.covid19_train_test(tmp_path / "train-test", each=4),
    }
    # As it is: these COVID-19 films are of the collection that is trained on.
    for name in ("a2.jpg", "b.png"):
        shutil.copy(trees["covid-chestxray"] / "images" / name, trees["covid-xray-10000"] / "dataset" / "covid" / name)
    return [text for name, root in trees.items() for text in ("--path", f"{name}={root}")]


def check_six_sets(run):
    """The radiography database is trained on and tested on, and the run says so."""
    rows, audit = run.index.rows, read(run.folder, "audit.json")
    tested = rows[rows["split"] == "test"]
    assert set(tested["source"]) == {"covid-radiography-2", "covid-xray-10000", "covid19-xray-train-test"}
    assert tested["source"].value_counts()["covid-radiography-2"] == 3 * 16
    trained = rows[rows["split"].isin(["train", "validation"])]
    assert set(trained["source"]) == {"covid-radiography", "covid-chestxray", "kermany"}
    assert len(set(tested["path"]) & set(trained["path"])) == 3 * 16, "no film of the test is held back"
    leaks = {path for group in audit["exact_duplicates"]["across_splits"] for path in group}
    assert set(tested.loc[tested["source"] == "covid-radiography-2", "path"]) <= leaks
    assert audit["severity"] == "critical"
    assert len(run.by_source) == 3
    counts = run.index.counts()["test"].to_dict()
    assert counts == {"covid19": 16 + 7, "pneumonia": 16 + 8, "normal": 16 + 5 + 8}


@pytest.mark.slow
def test_resnet200d_as_published(tmp_path, seen, covid):
    output = chestxray("run", "resnet200d-covid", tmp_path / "r", *covid, weights="none", epochs=1)
    run = Run(tmp_path / "r")
    check(run, "resnet200d-covid", output, seen)
    check_six_sets(run)
    assert "Fold 1 of 5" in " ".join(read(run.folder, "audit.json")["notes"])
    facts = read(run.folder, "environment.json")["model"]
    assert facts["trained_parameters"] > 0.99 * facts["parameters"], "the whole network is trained"


def test_all_folds_and_their_pool(tmp_path, covid):
    every = tmp_path / "every-fold.toml"
    text = recipe_files.find("resnet200d-covid").read_text(encoding="utf-8")
    every.write_text(text.replace("fold = 0\n", ""), encoding="utf-8")
    given = [*covid, "--mix", "cutmix", "--model", "shallow_cnn"]
    output = chestxray("run", every, tmp_path / "r", *given, weights="none", epochs=1, folds=2)
    runs = [Run(tmp_path / "r" / "parts" / f"shallow_cnn-fold{fold}") for fold in (1, 2)]
    held_out = [set(run.index.rows.query("split == 'validation'")["path"]) for run in runs]
    assert all(held_out)
    assert not held_out[0] & held_out[1]
    for run in runs:
        check_six_sets(run)
        assert run.recipe.mix == "cutmix"
    pooled = Run(tmp_path / "r")
    assert pooled.metrics["rows"] == runs[0].metrics["rows"]
    assert (pooled.index.rows["split"] == "test").sum() == runs[0].metrics["rows"], "training films stay what they are"
    assert len(pooled.by_source) == 3
    assert output.count("Part ") == 2


def test_resnet200d_honest(tmp_path, seen, covid):
    name, given = "resnet200d-covid-honest", [*covid, "--model", "shallow_cnn"]
    output = chestxray("run", name, tmp_path / "r", *given, weights="none", epochs=1)
    run = Run(tmp_path / "r")
    check(run, name, output, seen)
    rows = run.index.rows
    tested = rows[rows["split"] == "test"]
    assert set(tested["source"]) == {"covid-xray-10000", "covid19-xray-train-test"}
    assert tested["label"].value_counts().to_dict() == {"normal": 5 + 8, "covid19": 7}
    assert not (tested["label"] == "pneumonia").any()
    trained = rows[rows["split"].isin(["train", "validation"])]
    assert set(trained["label"]) == {"covid19", "pneumonia", "normal"}
    assert not set(tested["pixel_hash"]) & set(trained["pixel_hash"])
    gone = {path.rsplit("/", 1)[1] for path in (item["path"] for item in read(run.folder, "audit.json")["dropped"])}
    assert {"a2.jpg", "b.png"} <= gone


def test_a_layer_to_begin_from_that_is_none(tmp_path, imagenet):
    path = imagenet("shallow_cnn")
    given = [
        "--model",
        "shallow_cnn",
        "--data",
        TWO,
        "--weights",
        path,
        "--finetune-from",
        "conv3",
        "--on-leak",
        "drop",
    ]
    result = CliRunner().invoke(group, ["run", *map(str, given), "--image-size", "32", "--output", str(tmp_path / "r")])
    assert isinstance(result.exception, InputError)
    assert "finetune_from must be all or a layer of the backbone of shallow_cnn. Did you mean conv" in str(
        result.exception
    )
