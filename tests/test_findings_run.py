"""A run of findings, from a table of labels to the report, and what takes classes alone."""

import dataclasses
import html
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import roc_auc_score

import chestxray
from chestxray import workflow
from chestxray.cli.main import group
from chestxray.errors import ChestXrayError, DataError, InputError
from chestxray.evaluation.decision import finding_rule, finding_selection
from chestxray.evaluation.figure_format import with_interval
from chestxray.evaluation.findings_evaluation import evaluate_findings
from chestxray.evaluation.shortcuts import classifiers, scores
from chestxray.recipe import Recipe
from chestxray.report import finding_sentences, findings_report, heatmap_wording, model_card
from chestxray.report.limitations import cautions
from chestxray.runs.run_folder import Run, open_findings
from chestxray.storage import cache as caches
from chestxray.studies import external_validation
from drawn_findings import films
from made_runs import Page

FINDINGS = ("Edema", "Mass", "Rare")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def recipe(table):
    return Recipe(
        model="shallow_cnn",
        data=(f"manifest:{table}",),
        data_option=("finding_columns=Edema,Mass,Rare",),
        image_size=16,
        epochs=2,
        batch_size=8,
        test_share=0.3,
        validation_share=0.3,
        replicates=100,
        heatmaps=1,
        by=("sex",),
    )


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    return workflow.run(recipe, output=tmp_path_factory.mktemp("runs") / "findings")


def test_it_makes_the_whole_folder(run):
    assert run.task == "findings" and run.finished and run.classes == FINDINGS
    found = run.findings_evaluation
    assert found.scored == ("Edema", "Mass")
    assert {path.name for path in (run.folder / "findings").iterdir()} == set(found.scored)
    test = run.finding_predictions.of("test")
    again = evaluate_findings(test, replicates=100, seed=0)
    # A number that was written and read again may differ in its last digit.
    pd.testing.assert_frame_equal(again.findings_to_frame(), found.findings_to_frame(), rtol=1e-6)
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame(), rtol=1e-6)
    assert isinstance(finding_rule.read(run.folder / "decision.json"), finding_rule.FindingDecision)
    page = run.report.read_text()
    for words in ("Mean of 2 findings", "findings/Edema/report.html", "Not scored", "Grad-CAM", "between the groups"):
        assert words in page
    for one in run.audit["findings"]:
        assert one["sentence"] in html.unescape(page)


def test_the_page_says_what_maps_of_another_method_mark(run, tmp_path):
    shutil.copytree(run.folder, folder := tmp_path / "other")
    path = folder / "heatmaps" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"method": "saliency"}))
    page = " ".join(html.unescape(findings_report.write(folder).read_text()).split())
    assert f"It is drawn for the score of the finding. {heatmap_wording.marks('saliency')}" in page


def test_gaps_are_corrected_over_all_findings(run, recipe, tmp_path):
    content = json.loads((run.folder / "finding_gaps.json").read_text())
    own = {name: json.loads((run.folder / "findings" / name / "gaps.json").read_text()) for name in ("Edema", "Mass")}
    assert {name: one["columns"] for name, one in own.items()} == content["findings"]
    # AUROC, sensitivity and specificity by sex, of each finding.
    assert content["tests"] == own["Mass"]["tests"] == 6
    assert "6 tests over all findings of the run" in (run.folder / "findings" / "Mass" / "report.html").read_text()


def test_a_group_that_is_worse_is_named_in_the_page(run, tmp_path):
    folder = tmp_path / "unfair"
    shutil.copytree(run.folder, folder)
    worst = {"finding": "Mass", "column": "sex", "figure": "auroc", "group": "F", "value": -0.2, "low": -0.3}
    worst |= {"high": -0.1, "p": 0.001, "p_holm": 0.006}
    content = json.loads((folder / "finding_gaps.json").read_text()) | {"worst": [worst]}
    (folder / "finding_gaps.json").write_text(json.dumps(content))
    page = html.unescape(findings_report.write(folder).read_text())
    assert "AUROC of Mass by sex, F less than the others by 0.20 (95% interval 0.10 to 0.30)" in page
    assert "the group below the others is named" in page


def test_controls_are_called_what_they_are(run, tmp_path):
    folder = tmp_path / "alike"
    shutil.copytree(run.folder, folder)
    for name, found in (("Mass", "likeness"), ("Edema", "shortcut")):
        path = folder / "findings" / name / "controls.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"finding": found, "fires": ["thumbnail"]}))
    said = {one.title: (one.weight, one.text) for one in finding_sentences.of_whole(Run(folder))}
    weight, text = said["A blurred or blanked image does nearly as well"]
    assert weight == "note" and "of Mass can be reached" in text
    weight, text = said["Shortcuts tell some findings apart"]
    assert weight == "serious" and "of Edema cannot be taken" in text and "Mass" not in text
    page = model_card.page(Run(folder))
    assert '<li class="note"><p><strong>A blurred or blanked image' in page, "a note is no serious caution"


def test_a_single_finding_that_is_worse_elsewhere_is_named(run, tmp_path):
    folder = tmp_path / "elsewhere"
    shutil.copytree(run.folder, folder)
    gap = {"value": 0.2, "low": 0.1, "high": 0.3}
    own = {"internal": gap, "external": gap, "gap": gap, "p": 0.001, "p_holm": 0.002}
    mean = {"internal": gap, "external": gap, "gap": gap | {"low": -0.1}}
    content = {"findings": {"Mass": own}, "figures": {"auroc": mean}}
    (folder / "generalisation_gap.json").write_text(json.dumps(content))
    said = {one.title: one.text for one in finding_sentences.of_whole(Run(folder))}
    expected = (
        "The AUROC of Mass is lower here than on the run's own test, also after correction for all findings compared."
    )
    assert said["Worse here than where it was trained"] == expected


def test_each_finding_is_a_run_of_two_classes(run):
    mass = Run(run.folder / "findings" / "Mass")
    assert mass.classes == ("no Mass", "Mass") and mass.positive == "Mass" and mass.finished
    assert mass.evaluation.to_json() == run.metrics["findings"]["Mass"]["evaluation"]
    assert mass.decision == run.finding_decision.findings["Mass"]
    assert mass.controls["rule"]["figures"] % 2 == 0, "intervals are widened for the controls of both findings"
    known = run.index.rows["finding:Mass"] >= 0
    assert set(mass.index.rows["path"]) == set(run.index.rows.loc[known, "path"])
    assert "sex" in json.loads((mass.folder / "by_group.json").read_text())


def test_its_model_card_has_what_each_finding_rests_on(run):
    card = (run.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    page = Page(run.folder / "MODEL_CARD.html")
    decision = run.finding_decision.findings
    for name, one in run.findings_evaluation.findings.items():
        row = f"| {name} | {one.known.rows} | {one.known.positive} | {one.known.patients_with} | "
        auroc = "" if one.not_scored else with_interval(one.test["auroc"].to_json())
        assert row + (auroc or f"not scored: {one.not_scored}") in card
        assert model_card.markdown(decision[name].words) in card and decision[name].words in page.text
        assert (f"findings/{name}/MODEL_CARD.html" in [link.get("href") for link in page.all("a")]) == bool(one.test)
    assert "Uncertain findings: as if they were not known." in card
    for words in ("each by itself (sigmoid)", "over the findings that are known", "Edema: AUROC by sex", "not scored"):
        assert words in card and words in page.text
    first = card.split("## Read this first")[1].split("\n## ")[0]
    assert "The model's AUROC" not in first, "what the controls of one finding reach is said of that finding"
    assert "adding up to 1" not in card
    states = run.index.states[(run.index.rows["split"] == "test").to_numpy(), FINDINGS.index("Mass")]
    counted = f"Mass present {(states == 1).sum()}, absent {(states == 0).sum()}, uncertain 0, not known "
    assert counted + str((states == -2).sum()) in card


def test_its_model_card_lists_evaluations_on_other_data_and_the_author(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    shutil.copytree(run.folder, copy / "external" / "elsewhere", ignore=shutil.ignore_patterns("findings"))
    (copy / "card.toml").write_text('[claim]\n44 = "No funding."\n')
    model_card.write(open_findings(copy))
    card = (copy / "MODEL_CARD.md").read_text(encoding="utf-8")
    aurocs = {name: run.metrics["findings"][name]["evaluation"]["test"]["auroc"] for name in ("Edema", "Mass")}
    listed = ", ".join(f"{name} {with_interval(item)}" for name, item in aurocs.items())
    assert f"Evaluated later on elsewhere: mean AUROC {with_interval(run.metrics['test']['auroc'])}" in card
    assert listed in card and "No funding." in card


def test_the_saved_model_gives_the_calibrated_predictions(run):
    rows = run.finding_predictions.rows.iloc[:8]
    pixels = np.stack([np.asarray(Image.open(path)) for path in rows["path"]])[..., None].astype("float32")
    given = rows[[f"probability_{name}" for name in FINDINGS]].to_numpy()
    np.testing.assert_allclose(run.model.predict(pixels, verbose=0), given, atol=1e-5)


def test_what_is_not_known_has_no_truth(run):
    rows = run.finding_predictions.rows.set_index("path")
    states = run.index.rows.set_index("path").loc[rows.index, "finding:Mass"]
    assert (rows["truth_Mass"].isna() == (states < 0)).all() and rows["truth_Mass"].isna().any()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_predictions(recipe, run, tmp_path, monkeypatch):
    from chestxray.report import findings_report

    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(findings_report, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        workflow.run(recipe, output=tmp_path / "run")
    monkeypatch.undo()
    again = workflow.resume(tmp_path / "run")
    pd.testing.assert_frame_equal(again.finding_predictions.rows, run.finding_predictions.rows)


@pytest.mark.slow
def test_folds_are_pooled(recipe, tmp_path):
    made = CliRunner().invoke(
        group,
        f"run --model shallow_cnn --data {recipe.data[0]} --data-option {recipe.data_option[0]} --image-size 16 "
        f"--epochs 1 --folds 2 --replicates 100 --heatmaps 0 --no-controls --output {tmp_path / 'folds'}",
    )
    assert made.exit_code == 0, made.output
    assert "mean of 2" in made.output and "not scored" in made.output
    pooled = Run(tmp_path / "folds")
    assert pooled.finding_predictions.rows["path"].is_unique
    assert len(pooled.finding_predictions.rows) == 120
    assert (pooled.folder / "findings" / "Edema" / "report.html").is_file()
    assert set(pooled.findings) == set(pooled.findings_evaluation.scored)
    shutil.copytree(pooled.folder, tmp_path / "again")
    found = chestxray.compare([pooled.folder, tmp_path / "again"])
    assert found.mean.design == "folds" and found.mean.pairs[0].difference.value == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "RUN", "RUN/findings/Edema"],
        ["ensemble", "RUN", "RUN/findings/Edema"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_of_classes_refuse_it_in_one_line(arguments, run):
    made = CliRunner().invoke(group, [text.replace("RUN", str(run.folder)) for text in arguments])
    assert isinstance(made.exception, InputError) and "is a run of findings" in str(made.exception)


def test_a_finding_of_a_run_is_compared(run, tmp_path):
    edema, copy = run.folder / "findings" / "Edema", tmp_path / "other"
    shutil.copytree(edema, copy)
    made = CliRunner().invoke(group, ["compare", str(edema), str(copy), "--output", str(tmp_path / "c")])
    assert made.exit_code == 0, made.exception
    assert "Edema" in made.output and "other" in made.output


def test_the_folder_of_a_finding_has_no_model(run):
    edema = str(run.folder / "findings" / "Edema")
    made = CliRunner().invoke(group, ["evaluate", edema])
    assert isinstance(made.exception, InputError) and "holds predictions and no weights" in str(made.exception)


def test_it_is_opened_from_python(run):
    opened = chestxray.load(run.folder)
    assert opened.task == "findings" and set(opened.findings) == {"Edema", "Mass"}
    assert opened.findings["Mass"].evaluation.positive == "Mass"
    assert "Not scored" in opened._repr_html_() and "Edema" in opened._repr_html_()
    assert opened.findings_evaluation.to_frame().loc["auroc", "value"] == run.metrics["test"]["auroc"]["value"]
    assert opened.finding_decision.classes == FINDINGS and len(opened.finding_predictions.rows)
    for name in ("predictions", "evaluation", "decision"):
        with pytest.raises(InputError, match="is a run of findings"):
            getattr(opened, name)


def invoke(*arguments):
    """The output of a command on one line; errors are raised."""
    made = CliRunner().invoke(group, list(map(str, arguments)), standalone_mode=False)
    if made.exception is not None:
        raise made.exception
    return " ".join(made.output.split())


@pytest.fixture
def options(recipe):
    return [
        "--data", recipe.data[0], "--data-option", recipe.data_option[0], "--image-size", 16, "--epochs", 1,
        "--test-share", 0.3, "--replicates", 100, "--heatmaps", 0,
    ]  # fmt: skip


@pytest.mark.slow
def test_models_are_trained_and_compared_on_folds(options, tmp_path, monkeypatch):
    fitted, fit = [], classifiers.probabilities
    monkeypatch.setattr(classifiers, "probabilities", lambda *given: fitted.append(given[0]) or fit(*given))
    monkeypatch.setattr(scores, "_FITTED", {})
    place, models = tmp_path / "c", ("shallow_cnn", "deep_cnn")
    named = [word for model in models for word in ("--model", model)]
    output = invoke("compare", *named, *options, "--folds", 2, "--output", place)
    content = json.loads((place / "comparison.json").read_text())
    assert content["mean"]["design"] == "folds" and set(content["findings"]) >= {"Edema", "Mass"}
    assert {item["model"] for item in content["models"]} == set(models)
    assert content["mean"]["pairs"][0]["test"].startswith("corrected resampled t over folds")
    assert all(sentence in output for sentence in content["verdict"])
    assert fitted and len(fitted) == len(scores._FITTED), "the controls of the first model are those of the second"
    for model in models:
        first = Run(place / "parts" / f"{model}-fold1")
        assert first.findings["Mass"].controls["controls"], "each fold has its own controls"
        table = pd.concat([
            Run(place / "parts" / f"{model}-fold{k}").finding_predictions.of("test").rows.assign(fold=k)
            for k in (1, 2)
        ])  # fmt: skip
        assert table["path"].is_unique and len(table) == 120
        own = []
        for _, part in table.groupby("fold"):
            known = {name: part[part[f"truth_{name}"].notna()] for name in content["findings"]}
            own.append([roc_auc_score(t[f"truth_{n}"], t[f"probability_{n}"]) for n, t in known.items()])
        (given,) = [item["value"] for item in content["models"] if item["model"] == model]
        assert given == pytest.approx(np.mean(own))


def test_what_cannot_be_compared_is_said_before_training(options, tmp_path):
    with pytest.raises(InputError, match="Unknown metric of findings"):
        invoke("compare", "--model", "shallow_cnn", "--model", "deep_cnn", *options, "--metric", "accuracy")
    with pytest.raises(InputError, match="Unknown metric of findings"):
        invoke("leakage", "--model", "shallow_cnn", *options, "--metric", "brier")


@pytest.mark.slow
def test_what_a_leak_is_worth(options, tmp_path):
    place = tmp_path / "l"
    output = invoke("leakage", "--model", "shallow_cnn", *options, "--no-controls", "--output", place)
    content = json.loads((place / "leakage.json").read_text())
    splits = {item["split"]: item for item in content["splits"]}
    assert splits["random"]["leaking"] > 0 and splits["grouped"]["leaking"] == 0
    scored = set(content["findings"])
    assert scored == {"Edema", "Mass"} and "Rare" in content["not_scored"]
    for name, item in splits.items():
        own = Run(place / "parts" / name).findings_evaluation
        assert item["test"]["auroc"]["value"] == pytest.approx(
            np.mean([own.findings[finding].test["auroc"].value for finding in scored])
        )
    gain = content["gains"]["grouped"]
    aurocs = [splits[name]["test"]["auroc"]["value"] for name in ("random", "grouped")]
    assert gain["value"] == pytest.approx(aurocs[0] - aurocs[1]) and gain["low"] < gain["value"] < gain["high"]
    each = [content["findings"][name]["gains"]["grouped"] for name in scored]
    assert gain["value"] == pytest.approx(np.mean([item["value"] for item in each]))
    assert gain["high"] - gain["low"] < max(item["high"] - item["low"] for item in each)
    assert all(sentence in output for sentence in content["verdict"])
    assert "not corrected for their number" in output and "mean AUROC of 2 findings" in output
    table = pd.read_csv(place / "leakage.csv", keep_default_na=False)
    assert set(table["finding"]) == {"", *scored} and len(table) == 6
    page = (place / "leakage.html").read_text(encoding="utf-8")
    assert "Each finding" in page and "Not scored" in page


def test_a_loss_of_findings_is_refused_for_classes(folder, tmp_path):
    wrong = Recipe(model="shallow_cnn", data=(f"folder:{folder}",), image_size=16, loss="asymmetric")
    with pytest.raises(InputError, match="asymmetric is for findings"):
        workflow.run(wrong, output=tmp_path / "run")


@pytest.mark.parametrize("loss", ["focal", "asymmetric", "soft_f1"])
def test_every_loss_trains(recipe, loss, tmp_path):
    made = workflow.run(recipe.replace(loss=loss, epochs=1, controls=False, heatmaps=0, mix="mixup"), output=tmp_path)
    assert np.isfinite(made.history["val_loss"]).all()


def content(run, name):
    return json.loads((run.folder / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def itself(run, recipe, tmp_path_factory):
    """The run on its own data: what it was trained and chosen on is left out, so that its own test is left."""
    data = Recipe(data=recipe.data, data_option=recipe.data_option, on_leak="drop", by=("sex",))
    folder = tmp_path_factory.mktemp("itself") / "out"
    return external_validation.evaluate_on(run, data, caches.root(), output=folder)


def test_on_its_own_test_nothing_is_lost(run, itself):
    assert set(itself.finding_predictions.rows["path"]) == set(run.finding_predictions.of("test").rows["path"])
    gap = content(itself, "generalisation_gap")
    assert set(gap["findings"]) == {"Edema", "Mass"}
    for name, item in gap["findings"].items():
        assert item["internal"] == run.metrics["findings"][name]["evaluation"]["test"]["auroc"]
        assert (item["gap"]["value"], item["p"], item["p_holm"]) == (pytest.approx(0, abs=1e-9), 1, 1)
        own = content(itself.findings[name], "generalisation_gap")
        assert all(figure["gap"]["value"] == pytest.approx(0, abs=1e-4) for figure in own["figures"].values())
        assert own["corrected"] == {"tests": 2, "p": 1, "p_holm": 1}
    assert gap["figures"]["auroc"]["gap"]["value"] == pytest.approx(0, abs=1e-9)
    rare = "the run's own test has {0}; these data have {0}"
    assert gap["not_compared"] == {"Rare": rare.format(run.metrics["findings"]["Rare"]["not_scored"])}
    notes = itself.notes
    assert any("of the run's own test" in note for note in notes), "that it is no external test is said"


def test_an_evaluation_elsewhere_is_read_as_a_run_without_a_model(run, itself):
    assert itself.task == "findings" and not itself.has_model and itself.finished
    assert itself.finding_decision == run.finding_decision
    assert set(itself.findings) == {"Edema", "Mass"}
    edema = itself.findings["Edema"]
    assert set(edema.predictions.rows["split"]) == {"test"} and "sex" in content(edema, "by_group")
    assert content(edema, "prevalence")["validation"], "the shift of the prevalence of each finding"
    assert "In its training" in edema.report.read_text()
    page = itself.report.read_text()
    for words in ("Generalisation gap", "2 findings compared: the AUROC of none", "findings/Edema/report.html"):
        assert words in page
    assert ">Training</th>" not in page, "nothing here is of a training"
    card = (itself.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    states = "| Test: present | Test: absent | Test: uncertain | Test: not known |"
    assert f"\n| Finding {states}\n" in card and "Training: present" not in card


@pytest.fixture(scope="module")
def second(table, tmp_path_factory):
    """A hospital of dimmer films that labels masses, not in each, and nodules, of which the model knows nothing."""
    folder = tmp_path_factory.mktemp("second")
    rng = np.random.default_rng(5)
    rows = []
    for i in range(60):
        mass = rng.random() < 0.4
        pixels = rng.normal(80, 20, (16, 16))
        if mass:
            pixels[5:9, 5:9] += 60
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")
        rows.append({
            "path": f"{i:03}.png", "patient": f"q{i // 2}", "sex": "MF"[i % 2],
            "Mass": "" if i % 6 == 0 else int(mass), "Nodule": int(i % 5 == 0),
        })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def test_a_set_that_knows_one_finding_is_scored_on_that(run, second, tmp_path):
    made = CliRunner().invoke(
        group,
        ["evaluate", str(run.folder), "--data", f"manifest:{second}", "--data-option", "finding_columns=Mass,Nodule",
         "--output", str(tmp_path / "out")],
    )  # fmt: skip
    assert made.exit_code == 0, made.exception
    found = Run(tmp_path / "out")
    states = pd.read_csv(second)["Mass"]
    assert len(found.finding_predictions.rows) == states.notna().sum(), "films of which nothing is known are left out"
    assert any("1 finding that is not asked for" in note and "Nodule 12" in note for note in found.notes)
    assert "Findings that " in " ".join(found.notes) and "does not label: Edema, Rare." in " ".join(found.notes)
    rows = found.finding_predictions.rows
    assert rows["truth_Edema"].isna().all() and rows["truth_Rare"].isna().all(), "not labelled is not absent"
    expected = roc_auc_score(states.dropna(), rows["probability_Mass"])
    assert found.findings_evaluation.scored == ("Mass",)
    gap = content(found, "generalisation_gap")
    assert found.metrics["test"]["auroc"]["value"] == pytest.approx(expected)
    # The mean is over what both sides score, so that it is that of this finding on both.
    for figures in (gap["findings"]["Mass"], gap["figures"]["auroc"]):
        assert figures["external"]["value"] == pytest.approx(expected)
        assert figures["internal"] == run.metrics["findings"]["Mass"]["evaluation"]["test"]["auroc"]
    assert gap["not_compared"]["Edema"] == "these data have no image in which it is known"
    assert "Edema is not compared: these data have no image in which it is known." in made.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("finding_columns=Nodule",), "No finding of labels is left. Its findings: Nodule. Asked for: Edema, Mass"),
        (("label_column=Nodule",), "trained on findings, and labels has one class an image"),
    ],
)
def test_data_with_nothing_in_common_are_one_line(run, second, options, words, tmp_path):
    data = Recipe(data=(f"manifest:{second}",), data_option=options)
    with pytest.raises(ChestXrayError, match=words) as raised:
        external_validation.evaluate_on(run, data, caches.root(), output=tmp_path / "out")
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_a_run_of_findings_is_evaluated_anew(run, tmp_path):
    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    again = external_validation.evaluate_again(
        copy, {"abstain": 0.8, "sensitivity": 0.8, "confidence": 0.0, "by": ()}, caches.root()
    )
    for name in ("Edema", "Mass"):
        before, after = run.finding_decision.findings[name], again.finding_decision.findings[name]
        assert after.calibration == before.calibration and after.coverage == 0.8
        assert after.chosen_by == "sensitivity of at least 0.8 on validation alone"
        own = again.findings[name]
        assert content(own, "abstention")["coverage"] == 0.8 and not (own.folder / "by_group.json").is_file()
        assert own.controls == run.findings[name].controls, "what was trained stays"
        assert (
            again.metrics["findings"][name]["evaluation"]["test"]["auroc"]
            == (run.metrics["findings"][name]["evaluation"]["test"]["auroc"])
        )
        test = again.finding_predictions.of("test").of_finding(name)
        called = test.rows[f"probability_{name}"] >= after.thresholds[name]
        assert ((test.rows["predicted"] == name) == called).all()
    with pytest.raises(InputError, match="prevalence is for two classes"):
        external_validation.evaluate_again(copy, {"prevalence": 0.1}, caches.root())


@pytest.fixture(scope="module")
def other(run, tmp_path_factory):
    """The run with other probabilities, as another training would have."""
    copy = Run(shutil.copytree(run.folder, tmp_path_factory.mktemp("members") / "other"))
    table = run.finding_predictions
    changed = np.random.default_rng(0).beta(2, 2, table.probabilities.shape)
    table.with_probabilities((table.probabilities + changed) / 2).write(copy.folder / "predictions.csv")
    return Run(copy.folder)


def test_an_ensemble_of_findings(run, other, tmp_path):
    made = CliRunner().invoke(group, ["ensemble", str(run.folder), str(other.folder), "--output", str(tmp_path / "m")])
    assert made.exit_code == 0, made.exception
    mean = Run(tmp_path / "m")
    rows = mean.finding_predictions.rows.set_index("path")
    for name in FINDINGS:
        column = f"probability_{name}"
        members = [one.finding_predictions.rows.set_index("path")[column] for one in (run, other)]
        np.testing.assert_allclose(rows[column], sum(members).loc[rows.index] / 2, atol=1e-12)
    assert [one["name"] for one in content(mean, "ensemble")["members"]] == ["findings", "other"]
    test, validation = (mean.finding_predictions.of(split) for split in ("test", "validation"))
    expected, _ = evaluate_findings(test, replicates=100, seed=0), validation
    pd.testing.assert_frame_equal(expected.findings_to_frame(), mean.findings_evaluation.findings_to_frame(), rtol=1e-6)
    _, decision = finding_selection.decide(validation, run.recipe.replace(calibrate=False))
    # A number that was written and read again may differ in its last digit.
    np.testing.assert_allclose(mean.finding_decision.thresholds, decision.thresholds, atol=1e-9)
    rules = zip(mean.finding_decision.findings.values(), decision.findings.values(), strict=True)
    for written, one in rules:
        same = {"thresholds": one.thresholds, "limit": one.limit}
        assert dataclasses.replace(written, **same) == one, "chosen on the mean of validation, not calibrated again"
    assert mean.findings["Mass"].controls and "ensemble" in mean.report.read_text()
    assert not any("refuses nothing" in made.title for made in cautions(mean.findings["Mass"]))
    page, card = mean.report.read_text(), (mean.findings["Mass"].folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "mean of those of the members" in page and "lowest validation loss" not in page
    assert "several models are put together" in card and "None: one model" not in card


def test_members_of_other_labels_are_refused(run, other, tmp_path):
    changed = Run(shutil.copytree(other.folder, tmp_path / "odd"))
    table = other.finding_predictions
    row = table.rows.index[(table.rows["split"] == "test") & table.rows["truth_Mass"].notna()][0]
    table.rows.loc[row, "truth_Mass"] = np.nan
    table.write(changed.folder / "predictions.csv")
    made = CliRunner().invoke(
        group, ["ensemble", str(run.folder), str(changed.folder), "--output", str(tmp_path / "m")]
    )
    assert isinstance(made.exception, DataError) and "different labels of Mass for 1 images" in str(made.exception)
