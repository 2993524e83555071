"""`chestxray compare`, `ensemble` and `leakage`, on runs whose probabilities were drawn."""

import json
import re
import subprocess
import sys

import pandas as pd
import pytest
from click.testing import CliRunner

import tiny_models
from chestxray import workflow
from chestxray.cli import compare, ensemble
from chestxray.cli import leakage as leakage_command
from chestxray.cli import run as run_command
from chestxray.errors import ChestXrayError, DataError, InputError, OutputError
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import open_evaluated, open_trained
from chestxray.storage.files import write_json
from chestxray.studies import split_leakage, study
from precomputed import controlled, finished, index_of


def invoke(command, *arguments):
    """The output of a command; errors are raised, as `chestxray.cli.main` gets them."""
    result = CliRunner().invoke(command, list(map(str, arguments)), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three finished runs on the same test, of falling skill."""
    monkeypatch.chdir(tmp_path)
    index = index_of(480)
    for name, skill in (("good", 2.2), ("fair", 2.1), ("poor", 0.3)):
        finished(tmp_path / "runs" / name, index, skill=skill)
    return tmp_path / "runs"


def test_finished_runs_are_compared(runs, tmp_path):
    output = invoke(compare.command, *(runs / name for name in ("poor", "good", "fair")), "--output", "c")
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        "comparison.csv", "pairs.csv", "comparison.json", "comparison.html", "forest.png",
    }  # fmt: skip
    models = pd.read_csv(tmp_path / "c" / "comparison.csv")
    assert models["auroc"].is_monotonic_decreasing
    assert models["letters"].tolist() == ["a", "a", "b"]
    assert {"accuracy", "accuracy_low", "ece_high", "parameters", "images_per_second"} <= set(models)
    pairs = pd.read_csv(tmp_path / "c" / "pairs.csv")
    assert len(pairs) == 3
    assert (pairs["p_holm"] >= pairs["p"]).all()
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())
    said = " ".join(content["verdict"])
    best, second = (item["model"] for item in content["models"][:2])
    assert f"{best} has the highest AUROC" in said
    assert "better than poor" in said
    assert f"cannot be told apart from {second}" in said
    assert all(sentence in " ".join(output.split()) for sentence in content["verdict"])
    assert "Research use only" in output


def test_a_comparison_carries_the_controls_of_each_model(runs):
    for name in ("good", "fair"):
        controlled(runs / name, "shortcut", border="fires", thumbnail="fires")
    assert invoke(compare.command, runs / "good", runs / "fair", runs / "poor", "--output", "c")
    content = json.loads((runs.parent / "c" / "comparison.json").read_text())
    said = " ".join(content["verdict"])
    best = [item["model"] for item in content["models"][:2]]
    assert f"The scores of {best[0]} and {best[1]} cannot be taken as evidence that disease is recognised" in said
    assert "could be learnt from what shows no disease (the border), whether or not these models did" in said
    assert "No controls were run for poor" in said
    assert "It is better than" not in said, "a higher score is not a better model where a shortcut explains it"
    assert content["models"][0]["controls"]["finding"] == "shortcut"
    assert content["models"][0]["controls"]["fires"] == ["border", "thumbnail"]
    table = pd.read_csv(runs.parent / "c" / "comparison.csv", keep_default_na=False)
    assert table["controls"].tolist() == ["shortcut", "shortcut", "unknown"]
    assert table["controls_fire"].tolist() == ["border thumbnail", "border thumbnail", ""]
    page = (runs.parent / "c" / "comparison.html").read_text(encoding="utf-8")
    assert page.count("cannot be taken as evidence that disease is recognised") == 3 + 1, (
        "the verdict, what it means, and each run's own"
    )
    assert page.count("could be a shortcut") == 2, "a row of the table each"
    output = " ".join(invoke(compare.command, runs / "good", runs / "poor").split())
    assert "cannot be taken as evidence that disease is recognised" in output
    assert "The score of good cannot be taken as evidence that disease is recognised" in output


def test_what_controls_could_not_tell_stays_untold(runs):
    controlled(runs / "good", "undecided", border="undecided", thumbnail="undecided")
    controlled(runs / "poor", "none", border="excluded", thumbnail="excluded")
    output = " ".join(invoke(compare.command, runs / "good", runs / "poor", "--output", "c").split())
    assert "Whether a control explains the score of good cannot be told from so few images" in output
    assert "No control explains the score of poor" in output
    assert "too few images to tell" in output
    assert "It is better than poor" in output


def test_controls_of_an_earlier_version_are_read(runs):
    content = controlled(runs / "good", "part", border="fires")
    content.pop("finding")
    content["controls"][0].pop("state")
    write_json(runs / "good" / "controls.json", content)
    output = " ".join(invoke(compare.command, runs / "good", runs / "poor").split())
    assert "Part of the score of good may come from the border" in output


def test_an_ensemble_without_images_has_its_members_controls(runs):
    controlled(runs / "good", "part", border="excluded", thumbnail="undecided")
    controlled(runs / "fair", "shortcut", border="fires", thumbnail="excluded")
    invoke(ensemble.command, runs / "good", runs / "fair", "--output", "mean")
    found = open_evaluated("mean")
    assert found.controls["inherited"] == ["good", "fair"]
    assert found.controls["verdict"].startswith("The images are no longer decoded in the cache")
    assert "fair: The model's AUROC" in found.controls["verdict"]
    assert [(item["name"], item["state"], item["inherited"]) for item in found.controls["controls"]] == [
        ("border", "fires", "fair"),
        ("thumbnail", "undecided", "good"),
    ]
    assert "those of good, fair" in found.report.read_text(encoding="utf-8")
    output = " ".join(invoke(compare.command, "mean", runs / "poor").split())
    assert "The score of mean cannot be taken as evidence that disease is recognised" in output
    # Overwritten by an ensemble of runs without controls, nothing of them is left.
    for name in ("good", "fair"):
        (runs / name / "controls.json").unlink()
    invoke(ensemble.command, runs / "good", runs / "fair", "--output", "mean", "--overwrite")
    assert not (found.folder / "controls.json").exists()


def test_the_page_stands_alone(runs):
    invoke(compare.command, runs / "good", runs / "poor", "--output", "c", "--metric", "accuracy")
    page = (runs.parent / "c" / "comparison.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "Research use only" in page
    assert page.count("<img") == 1
    assert "McNemar clustered by patient" in page


def test_what_is_serious_of_a_model_is_said_beside_the_others(runs):
    content = {"threshold": 1.0, "allowed": 0.01}
    for name in ("test", "others"):
        content[name] = {"pictures": 40, "refused": {"value": 0.0, "low": 0.0, "high": 0.1}}
    content["by_kind"] = {"noise": content["others"]}
    (runs / "good" / "refusal.json").write_text(json.dumps(content))
    output = invoke(compare.command, runs / "good", runs / "poor", "--output", "c")
    said = "good: It answers for other pictures. Of 100 pictures that are no upright chest radiographs, 100"
    assert said in " ".join(output.split())
    assert said in (runs.parent / "c" / "comparison.html").read_text(encoding="utf-8")


def test_without_output_a_comparison_goes_below_comparisons(runs):
    first = invoke(compare.command, runs / "good", runs / "fair")
    again = invoke(compare.command, runs / "good", runs / "fair")
    assert first == again
    (folder,) = (runs.parent / "comparisons").iterdir()
    assert folder.name.startswith("good-fair-")


def test_runs_of_one_name_are_told_apart(runs):
    finished(runs.parent / "other" / "good", index_of(480), skill=0.5)
    invoke(compare.command, runs / "good", runs.parent / "other" / "good", "--output", "c")
    assert set(pd.read_csv("c/comparison.csv")["model"]) == {"runs/good", "other/good"}


def test_runs_without_times_or_rates_have_a_dash(runs):
    (runs / "good" / "environment.json").write_text('{"data": {"name": "demo"}}')
    output = invoke(compare.command, runs / "good", runs / "poor")
    (row,) = [line for line in output.splitlines() if line.strip().startswith("good") and "a" in line and "1" in line][
        :1
    ]
    assert row.count(" - ") == 3


def test_an_ensemble_is_a_folder_like_a_run(runs):
    invoke(ensemble.command, runs / "good", runs / "fair", "--output", "mean")
    found = open_evaluated("mean")
    members = json.loads((found.folder / "ensemble.json").read_text())["members"]
    assert [member["name"] for member in members] == ["good", "fair"]
    ones = [open_evaluated(runs / name).predictions for name in ("good", "fair")]
    mean = (ones[0].probabilities + ones[1].probabilities) / 2
    assert found.predictions.probabilities == pytest.approx(mean)
    assert found.environment["model"] == {"parameters": 2000, "images_per_second": 25.0}
    assert (found.folder / "decision.json").is_file(), "thresholds are chosen on the shared validation"
    assert "the mean of the probabilities of good, fair" in found.report.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="no model of its own"):
        _ = found.model
    output = invoke(compare.command, "mean", runs / "good", runs / "poor")
    assert "mean" in output
    with pytest.raises(OutputError, match="--overwrite"):
        invoke(ensemble.command, runs / "good", runs / "fair", "--output", "mean")
    with pytest.raises(OutputError, match="is not an ensemble"):
        invoke(ensemble.command, runs / "good", runs / "fair", "--output", runs / "poor", "--overwrite")


def test_an_ensemble_without_shared_validation_has_no_thresholds(runs):
    index = index_of(480)
    rows = index.rows.copy()
    rows.loc[rows["split"] == "validation", "split"] = "train"
    rows.loc[:40, "split"] = "validation"
    finished(runs / "elsewhere", index.replace(rows))
    invoke(ensemble.command, runs / "good", runs / "elsewhere", "--output", "mean")
    assert not (runs.parent / "mean" / "decision.json").exists()
    assert set(open_evaluated("mean").predictions.rows["split"]) == {"test"}


def leaked(run, **changes):
    """The audit of `run` as it is where an edited copy of a test image was trained on, and kept."""
    path = run / "audit.json"
    groups = [["/films/0479.png", "/c"], ["/films/0000.png", "/films/0250.png"]]  # the second one not in the test
    near = {"searched": True, "reason": "", "groups": groups, "across_splits": groups}
    leak = {"severity": "critical", "kind": "near copies across splits", "count": 1, "sentence": "Groups."}
    audit = json.loads(path.read_text()) | {"near_duplicates": near, "on_leak": "ignore", "findings": [leak]} | changes
    path.write_text(json.dumps(audit))


@pytest.mark.parametrize("names", [("good", "fair"), ("fair", "good")])
def test_an_ensemble_has_seen_what_any_member_has(runs, names):
    searched = {"searched": True, "groups": [], "across_splits": []}
    leaked(runs / "good", near_duplicates=searched, on_leak="stop", findings=[])
    leaked(runs / "fair")
    invoke(ensemble.command, *(runs / name for name in names), "--output", "mean")
    found = json.loads((runs.parent / "mean" / "audit.json").read_text())
    assert len(found["near_duplicates"]["across_splits"]) == 2
    assert found["near_duplicates"]["searched"] is True
    assert (found["on_leak"], found["severity"], len(found["findings"])) == ("ignore", "critical", 1)
    page = (runs.parent / "mean" / "report.html").read_text(encoding="utf-8")
    assert "Leaks between the splits were ignored" in page


def test_an_ensemble_of_one_that_was_not_searched_is_not_searched(runs):
    leaked(runs / "good")
    invoke(ensemble.command, runs / "good", runs / "fair", "--output", "mean")
    found = json.loads((runs.parent / "mean" / "audit.json").read_text())["near_duplicates"]
    assert (found["searched"], found["reason"]) == (False, "A member of the ensemble was not searched.")


def test_a_comparison_says_whose_training_has_seen_the_test(runs):
    leaked(runs / "good")
    leaked(runs / "poor", near_duplicates={"searched": True}, on_leak="stop")
    output = " ".join(invoke(compare.command, runs / "good", runs / "poor", runs / "fair", "--output", "c").split())
    page = (runs.parent / "c" / "comparison.html").read_text(encoding="utf-8")
    for said in (
        "good was trained or chosen on 1 edited copy of a test image, which were kept: its figures are too good.",
        "Whether fair had edited copies of test images in training was not looked for.",
    ):
        assert said in output
        assert said in page


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["good", "absent"], InputError, "absent is not a run"),
        (["good"], InputError, "two runs or more"),
        (["good", "good"], InputError, "named once"),
        (["good", "shifted"], DataError, "tested on different images"),
        (["good", "cut"], InputError, "chestxray run --resume"),
        (["good", "turned"], InputError, "different positive classes.*turned of NORMAL.*--positive"),
        (["good", "poor", "--metric", "aurok"], InputError, "Did you mean auroc"),
        (["good", "poor", "--epochs", "3"], InputError, "compared as they are.*epochs"),
        (["good", "poor", "--model", "vgg16"], InputError, "compared as they are.*model"),
        (["good", "poor", "--output", "thesis"], OutputError, "is not a comparison"),
        ([], InputError, "two models or more"),
        (["--model", "vgg16"], InputError, "two models or more.*vgg16"),
        (["--model", "vgg61", "--model", "resnet18"], ChestXrayError, "Unknown model 'vgg61'"),
        (["--model", "vgg16", "--model", "vgg16"], InputError, "named once"),
    ],
)
def test_what_cannot_be_compared(runs, monkeypatch, arguments, kind, words):
    monkeypatch.chdir(runs)
    finished(runs / "shifted", index_of(480, name="others"))
    finished(runs / "turned", index_of(480), positive="NORMAL")
    finished(runs / "cut", index_of(480))
    (runs / "cut" / "metrics.json").unlink()
    (runs / "thesis").mkdir()
    (runs / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(kind, match=words) as caught:
        invoke(compare.command, *arguments)
    assert "\n" not in str(caught.value)
    assert not (runs / "comparisons").exists()


def test_a_refusal_is_one_line_and_exit_code_2(runs):
    finished(runs / "shifted", index_of(480, name="others"))
    code = "from chestxray.cli.main import main; main()"
    command = [sys.executable, "-c", code, "compare", str(runs / "good"), str(runs / "shifted")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: good and shifted were tested on different images")
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def options(folder, tmp_path, monkeypatch):
    """Options of a tiny training, and the recipe that they make."""
    monkeypatch.chdir(tmp_path)
    tiny_models.install(tmp_path / "site", monkeypatch)
    fields = {"image_size": 16, "epochs": 1, "batch_size": 16, "replicates": 100, "heatmaps": 0, "refuse": 0.0}
    recipe = Recipe(data=(f"folder:{folder}",), patient_pattern=r"(p\d+)_", controls=False, **fields)
    given = ["--data", f"folder:{folder}", "--patient-pattern", r"(p\d+)_", "--no-controls"]
    return [*given, *(text for k, v in fields.items() for text in (f"--{k.replace('_', '-')}", v))], recipe


def finish(named, folder, cache, seeds=1):
    """Finish every part of a study but for the training: real splits, drawn probabilities."""
    for part in study.plan({name: workflow.resolve(recipe)[0] for name, recipe in named.items()}, seeds, cache):
        prepared = workflow.prepare(part.recipe, cache, workflow.Clock())
        finished(folder / "parts" / part.name, prepared.index, part.recipe, skill=0.5 + 0.5 * len(part.candidate))
    (folder / "study.json").write_text("{}")


def test_maps_of_trained_models_are_compared_where_the_recipe_checks_them(options, tmp_path):
    given, recipe = options
    given = [*given, "--model", "flat", "--model", "small", "--output", "c", "--cache", tmp_path / "cache"]
    finish({n: recipe.replace(model=n, heatmaps=1) for n in ("flat", "small")}, tmp_path / "c", tmp_path / "cache")
    invoke(compare.command, *given, "--heatmaps", 1)
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert set(content["map_checks"]["left_out"]) == {"flat", "small"}, "these parts have no model"


def test_models_are_compared_over_seeds_and_folds(options, tmp_path):
    given, recipe = options
    named = {name: recipe.replace(model=name, folds=2) for name in ("flat", "small")}
    finish(named, tmp_path / "c", tmp_path / "cache", seeds=2)
    given = [
        *given,
        "--model",
        "flat",
        "--model",
        "small",
        "--folds",
        2,
        "--seeds",
        2,
        "--output",
        "c",
        "--metric",
        "mcc",
    ]
    output = invoke(compare.command, *given, "--cache", tmp_path / "cache")
    assert "48 test images of 24 patients" in output
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert [item["trainings"] for item in content["models"]] == [4, 4]
    for item in content["models"]:
        assert len(item["repeats"]) == 2
        assert item["value"] == pytest.approx(sum(item["repeats"]) / 2)
    assert content["pairs"][0]["test"] == "corrected resampled t over folds (Nadeau and Bengio 2003)"
    assert content["design"] == "folds"
    assert "models trained anew" in " ".join(content["verdict"])
    assert "Single trainings" in (tmp_path / "c" / "comparison.html").read_text(encoding="utf-8")
    assert "mcc_sd" in pd.read_csv(tmp_path / "c" / "comparison.csv")


def test_who_is_not_inferior_by_a_margin(runs):
    output = " ".join(
        invoke(compare.command, *(runs / n for n in ("good", "fair", "poor")), "--margin", 0.1, "--output", "c").split()
    )
    content = json.loads((runs.parent / "c" / "comparison.json").read_text())
    assert content["margin"] == 0.1
    found = {(pair["first"], pair["second"]): pair["margin"]["finding"] for pair in content["pairs"]}
    best, second = (item["model"] for item in content["models"][:2])
    assert found == {
        (best, second): "equivalent", (best, "poor"): "first not inferior", (second, "poor"): "first not inferior",
    }  # fmt: skip
    assert f"Equivalent within 0.1 of AUROC: {best} and {second}." in output
    assert f"Not inferior by 0.1 of AUROC: {best} to poor; {second} to poor." in output
    assert "Within 0.1" in (runs.parent / "c" / "comparison.html").read_text(encoding="utf-8")
    assert pd.read_csv(runs.parent / "c" / "pairs.csv")["margin_finding"].tolist() == list(found.values())
    with pytest.raises(InputError, match=r"margin must be above 0 and below 1.*Received: 2"):
        invoke(compare.command, runs / "good", runs / "fair", "--margin", 2)


def test_a_run_of_folds_is_pooled(options, tmp_path):
    given, recipe = options
    finish({"flat": recipe.replace(model="flat", folds=2)}, tmp_path / "r", tmp_path / "cache")
    arguments = [*given, "--model", "flat", "--folds", 2, "--output", "r", "--cache", tmp_path / "cache"]
    output = invoke(run_command.command, *arguments)
    assert "flat, fold 2 of 2" in output
    assert "48 test images of 24 patients" in output
    with pytest.raises(InputError, match="holds predictions and no weights"):
        open_trained(tmp_path / "r")


def test_what_a_leak_is_worth(options, tmp_path):
    given, recipe = options
    plain = recipe.replace(model="flat", test_share=0.3, on_leak="ignore")
    finish({name: plain.replace(split=name) for name in ("random", "grouped")}, tmp_path / "l", tmp_path / "cache")
    arguments = [*given, "--model", "flat", "--test-share", 0.3, "--output", "l", "--cache", tmp_path / "cache"]
    output = " ".join(invoke(leakage_command.command, *arguments).split())
    content = json.loads((tmp_path / "l" / "leakage.json").read_text())
    random, grouped = content["splits"]
    assert random["leaking"] > 0
    assert random["training"] + random["rows"] < 48, "the others validate"
    if random["training"] != grouped["training"]:
        assert "train on different numbers of images (random" in output
    assert grouped["leaking"] == 0
    gain = content["gains"]["grouped"]
    assert gain["value"] == pytest.approx(random["test"]["auroc"]["value"] - grouped["test"]["auroc"]["value"])
    assert gain["low"] < gain["value"] < gain["high"]
    assert content["verdict"]
    assert all(sentence in output for sentence in content["verdict"])
    assert pd.read_csv(tmp_path / "l" / "leakage.csv")["split"].tolist() == ["random", "grouped"]
    page = (tmp_path / "l" / "leakage.html").read_text(encoding="utf-8")
    assert "Research use only" in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_luck_in_training_counts_where_splits_are_trained_several_times(options, tmp_path):
    _, recipe = options
    plain = recipe.replace(model="flat", test_share=0.5, on_leak="ignore")
    recipes = {name: plain.replace(split=name) for name in ("random", "grouped")}
    finish(recipes, tmp_path / "once", tmp_path / "cache")
    once, _ = split_leakage.measure(plain, tmp_path / "once", tmp_path / "cache")
    said = " ".join(once.verdict)
    assert "Each split was trained once: the intervals leave out chance in training" in said
    assert f"{once.splits[1].shared} patients of the test by patient are in the random one too" in said
    finish(recipes, tmp_path / "thrice", tmp_path / "cache", seeds=3)
    thrice, page = split_leakage.measure(plain, tmp_path / "thrice", tmp_path / "cache", seeds=3)
    for split in thrice.splits:
        assert split.figures["auroc"].value == pytest.approx(sum(split.repeats) / 3)
        assert len({run.folder for run in split.runs}) == 3
    assert "means over 3 trainings of each split" in " ".join(thrice.verdict)
    assert "drawn at random as patients are" in page.read_text(encoding="utf-8")


def test_without_patients_a_leak_cannot_be_measured(options, tmp_path):
    _, recipe = options
    plain = recipe.replace(model="flat", patient_pattern=None, on_leak="ignore")
    finish({name: plain.replace(split=name) for name in ("random", "grouped")}, tmp_path / "l", tmp_path / "cache")
    found, _ = split_leakage.measure(plain, tmp_path / "l", tmp_path / "cache")
    assert "No patient is known" in " ".join(found.verdict)


def test_an_official_split_is_measured_too(options, tmp_path, draw):
    _, recipe = options
    for split, offset in (("train", 0), ("test", 500)):
        for k, label in enumerate(("normal", "pneumonia")):
            for n in range(12):
                draw(tmp_path / "set" / split / label / f"p{k}{n:02d}_0.png", 90_000 + offset + 1000 * k + n)
    plain = recipe.replace(model="flat", data=f"folder:{tmp_path / 'set'}", on_leak="ignore")
    splits = ("random", "grouped", "official")
    finish({name: plain.replace(split=name) for name in splits}, tmp_path / "l", tmp_path / "cache")
    found, _ = split_leakage.measure(plain, tmp_path / "l", tmp_path / "cache")
    assert [split.name for split in found.splits] == list(splits)
    assert found.splits[2].leaking == 24, "the same patients stand in train and test"
    assert "The official split is that of set (train 24, validation 0, test 24)." in found.official
    moved = (found.splits[2].runs[0].index.rows["split"] == "validation").sum()
    assert f"Of its images {moved} stand elsewhere" in found.official
    assert found.official in found.verdict
    sizes = [split.training for split in found.splits]
    assert len(set(sizes)) > 1
    assert f"(random {sizes[0]}, grouped {sizes[1]}, official {sizes[2]})" in " ".join(found.verdict)
    with pytest.raises(InputError, match="test_data"):
        split_leakage.measure(plain.replace(test_data="phantom"), tmp_path / "m", tmp_path / "cache")


@pytest.mark.parametrize("command", [compare.command, ensemble.command, leakage_command.command])
def test_help_has_examples(command):
    assert f"chestxray {command.name} " in invoke(command, "--help")
