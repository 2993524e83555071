"""`chestxray compare` and `cx.compare` of runs of findings whose probabilities were drawn."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import chestxray
from chestxray.cli import compare
from chestxray.errors import DataError, InputError
from chestxray.evaluation.paired.finding_comparison import compare_findings
from precomputed import controlled, findings_index_of, finished, finished_findings, index_of

SKILLS = {"good": 2.2, "fair": 2.1, "poor": 0.3}


def invoke(*arguments):
    """The output of the command on one line; errors are raised."""
    result = CliRunner().invoke(compare.command, list(map(str, arguments)), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three finished runs on the same test, of falling skill; of the third Mass could be read off the border."""
    place, index = tmp_path_factory.mktemp("findings"), findings_index_of()
    for name, skill in SKILLS.items():
        finished_findings(place / name, index, skill=skill)
    controlled(place / "poor" / "findings" / "Mass", "shortcut", border="fires")
    return place


@pytest.fixture(scope="module")
def page(runs):
    """The folder of their comparison, and what the command printed."""
    folder = runs / "c"
    return folder, invoke(*(runs / name for name in SKILLS), "--output", folder, "--margin", "0.1")


def test_the_folder_has_the_means_and_each_finding(page):
    folder, _ = page
    assert {path.name for path in folder.iterdir()} == {
        "comparison.csv", "findings.csv", "pairs.csv", "comparison.json", "comparison.html", "forest.png",
    }  # fmt: skip
    models = pd.read_csv(folder / "comparison.csv")
    assert models["model"].tolist() == ["good", "fair", "poor"] and models["letters"].tolist() == ["a", "a", "b"]
    assert {"auroc", "precision_low", "f1_high", "parameters"} <= set(models)
    findings = pd.read_csv(folder / "findings.csv")
    assert findings.groupby("finding").size().to_dict() == {"Mass": 3, "Edema": 3, "Effusion": 3}
    own = findings.set_index(["finding", "model"])
    assert own.loc[("Mass", "poor"), "controls"] == "shortcut" and own.loc[("Mass", "good"), "controls"] == "unknown"
    pairs = pd.read_csv(folder / "pairs.csv", keep_default_na=False)
    assert pairs.groupby("finding").size().to_dict() == {"": 3, "Mass": 3, "Edema": 3, "Effusion": 3}


def test_its_numbers_are_those_of_the_tables(page, runs):
    content = json.loads((page[0] / "comparison.json").read_text())
    opened = {name: chestxray.load(runs / name) for name in SKILLS}
    found = compare_findings({n: r.finding_predictions.of("test") for n, r in opened.items()}, margin=0.1)
    assert json.loads(json.dumps(found.to_json())).items() <= content.items()
    assert chestxray.compare([runs / name for name in SKILLS], margin=0.1) == found
    assert content["tests_of_findings"] == 9
    for item in content["models"]:
        own = opened[item["model"]].findings_evaluation.test["auroc"]
        assert item["value"] == pytest.approx(own.value)


def test_what_it_says(page):
    said = " ".join(json.loads((page[0] / "comparison.json").read_text())["verdict"])
    assert said in page[1]
    assert "has the highest mean AUROC of 3 findings" in said
    assert "It is better than poor" in said and "cannot be told apart from fair" in said
    assert "Of single findings, after correction for 9 tests: good is above poor in Mass, Edema and Effusion" in said
    assert "The scores of poor (Mass) cannot be taken as evidence that disease is recognised" in said
    assert "Of good, fair and poor (Edema and Effusion), no controls were run" in said
    assert "Not compared, as too few patients have it or lack it: Rare." in said
    assert "Equivalent within 0.1" in said
    html = (page[0] / "comparison.html").read_text(encoding="utf-8")
    for words in (
        "The mean over 3 findings",
        "Each finding",
        "could be a shortcut",
        "corrected for all 9 tests",
        *SKILLS,
    ):
        assert words in html


def test_models_that_do_not_differ_have_no_best(runs, tmp_path):
    output = invoke(runs / "good", runs / "fair", "--output", tmp_path / "c")
    assert "better than" not in output
    assert "In no single finding are two models told apart, after correction for 3 tests" in output


def test_what_cannot_be_compared_is_one_line(runs, tmp_path):
    good, other = runs / "good", tmp_path / "other"
    with pytest.raises(InputError, match=r"Unknown metric of findings.*Received: 'accuracy'"):
        invoke(good, runs / "poor", "--metric", "accuracy")
    with pytest.raises(InputError, match="positive is for two classes; each finding is its own"):
        invoke(good, runs / "poor", "--positive", "Mass")
    with pytest.raises(InputError, match=r"good is a run of findings and Edema one of classes.*findings/NAME"):
        invoke(good, runs / "poor" / "findings" / "Edema")
    finished(tmp_path / "classes", index_of())
    with pytest.raises(InputError, match="good is a run of findings and classes one of classes"):
        chestxray.compare([good, tmp_path / "classes"])
    finished_findings(other, findings_index_of(300))
    with pytest.raises(DataError, match="tested on different images"):
        invoke(good, other)
    finished_findings(tmp_path / "few", findings_index_of(findings=("Mass", "Rare")))
    with pytest.raises(DataError, match="different findings: Mass, Edema, Effusion, Rare and Mass, Rare"):
        invoke(good, tmp_path / "few")
    finished_findings(tmp_path / "labels", findings_index_of(seed=1))
    with pytest.raises(DataError, match=r"different labels of Mass for \d+ images.*uncertain findings"):
        invoke(good, tmp_path / "labels")


def test_probabilities_of_any_program(runs):
    rng = np.random.default_rng(0)
    truth = (rng.random((120, 2)) < 0.4).astype(float)
    given = {name: 0.5 * rng.random(truth.shape) + 0.4 * truth * skill for name, skill in (("good", 1), ("poor", 0.1))}
    groups = np.arange(120) // 2
    found = chestxray.compare(given, truth, findings=["Mass", "Edema"], groups=groups, replicates=200)
    assert found.to_frame()["model"].tolist() == ["good", "poor"] and found.mean.pairs[0].apart
    assert found.findings["Edema"].patients.known == 60
    with pytest.raises(InputError, match="leave them out"):
        chestxray.compare(given, truth, findings=["Mass", "Edema"], positive="Mass")
    with pytest.raises(InputError, match="groups, classes and findings are for probabilities"):
        chestxray.compare([runs / "good", runs / "poor"], findings=["Mass"])
