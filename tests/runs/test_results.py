"""What a run's folder says of its promises, net benefit and patients, and how the report tells it."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from chestxray.cli.closing import close
from chestxray.evaluation.decision import conformal
from chestxray.evaluation.decision.selection import decide
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.evaluation.predictions import PREFIX, Predictions
from chestxray.report import html_report
from chestxray.report.limitations import cautions
from chestxray.runs import run_folder
from chestxray.runs.results import Refusals, assess
from chestxray.runs.run_folder import Run
from chestxray.storage.result_files import read
from made_runs import TWO, Page, index_of, write_run

#: 160 patients of each class in validation and in the test, with two images each.
INDEX = index_of(TWO, per_class=1280, drawn=False)


def refused(validation, test, allowed):
    none = np.zeros(len(test.rows), dtype=bool)
    kinds = np.full(20, "noise")
    return Refusals(
        1.0, allowed, none[: len(validation.rows)], validation.clusters, none, kinds == "noise", kinds, none
    )


def assessed(tmp_path, *, allowed=0.1, skill=3.0, **choices):
    folder = write_run(tmp_path / "run", TWO, skill=skill, index=INDEX)
    recipe = Run(folder).recipe.replace(replicates=100, **choices)
    (folder / "recipe.toml").write_text(recipe.to_toml())
    validation, test = (Predictions.read(folder / "predictions.csv").of(split) for split in ("validation", "test"))
    decision = decide(validation, recipe, Calibration())
    validation, test = decision.applied(validation), decision.applied(test)
    assess(test, INDEX, recipe, decision, folder, validation=validation, refusals=refused(validation, test, allowed))
    return folder, decision, validation, test


def test_a_promise_stands_in_the_files_the_page_and_on_the_terminal(tmp_path):
    folder, decision, validation, test = assessed(tmp_path, sensitivity=0.8, abstain=0.9, prevalence=0.02)
    patients = len(np.unique(validation.clusters[validation.truth == 1]))
    assert read(folder / "decision.json")["promise"] == {"sensitivity": 0.8, "confidence": 0.95, "patients": patients}
    point = read(folder / "operating_points.json")["points"][0]
    called = (test.rows[PREFIX + "PNEUMONIA"] >= decision.threshold).to_numpy()
    sick = test.truth == 1
    assert point["test"]["npv"]["value"] == pytest.approx((~sick[~called]).mean())
    by_patient = pd.Series(called[sick]).groupby(test.clusters[sick]).mean().mean()
    assert point["test"]["sensitivity_of_patients"]["value"] == pytest.approx(by_patient)
    found, passed = called[sick].mean(), (~called[~sick]).mean()
    at = point["test"]["at_prevalence"]
    assert at["ppv"]["value"] == pytest.approx(0.02 * found / (0.02 * found + 0.98 * (1 - passed)))
    assert "optimism" not in point["validation"], "a promise allows for the choice already"
    words = "With confidence 0.95, a sensitivity of at least 80% is promised"
    page = Page(html_report.write(folder))
    for told in (
        words,
        "Negative predictive value",
        "is 2% of the images",
        "Partial AUROC",
        "Is it worth acting on?",
        "Patient by patient",
        f"With other validations of {len(np.unique(validation.clusters))} patients",
    ):
        assert told in page.text, told
    terminal = CliRunner().invoke(_closing(folder)).output
    assert words in " ".join(terminal.split())
    assert words in (folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def _closing(folder):
    import click

    return click.command()(lambda: close(Run(folder)))


def test_youdens_threshold_is_told_with_its_optimism_and_a_capped_rank_is_said(tmp_path):
    folder, *_ = assessed(tmp_path, skill=1.0, allowed=0.001)
    validation = read(folder / "operating_points.json")["points"][0]["validation"]
    assert sum(validation["optimism"].values()) > 0
    text = Page(html_report.write(folder)).text
    assert "are optimism" in text
    assert "validation has 320 patients: its farthest image is the threshold, and about 0.3% are to be expected" in text


def test_the_spread_over_validations_and_what_patients_count_for(tmp_path):
    folder, decision, validation, test = assessed(tmp_path, abstain=0.9)
    found = read(folder / "abstention.json")
    codes = validation.clusters
    assert decision.limit == conformal.quantile(validation.probabilities, validation.truth, 0.9, codes)
    assert found["validation"]["patients"] == len(np.unique(codes)) < found["validation"]["rows"]
    low, high = found["validation"]["spread"]
    assert 0.7 < low < 0.9 < high < 1
    inside = conformal.sets(test.probabilities, decision.limit)[np.arange(len(test.rows)), test.truth]
    covered = pd.Series(inside).groupby(test.clusters).mean().mean()
    assert found["test"]["coverage_of_patients"]["value"] == pytest.approx(covered)


@pytest.mark.parametrize(("allowed", "capped"), [(0.001, True), (0.5, False)])
def test_a_capped_rank_of_refusal_is_said(tmp_path, allowed, capped):
    folder, _, validation, _ = assessed(tmp_path, allowed=allowed)
    found = read(folder / "refusal.json")["validation"]
    patients = len(np.unique(validation.clusters))
    assert found["capped"] == capped
    assert found["least_allowed"] == pytest.approx(1 / (patients + 1))
    titles = [caution.title for caution in cautions(run_folder.open_complete(folder))]
    assert ("Too few validation patients for the share that may be refused" in titles) == capped


@pytest.mark.parametrize(
    ("choices", "kept", "title"),
    [
        ({"sensitivity": 0.8}, 0.5, "A promised sensitivity was not kept"),
        ({"sensitivity": 0.8}, 0.9, None),
        ({"sensitivity": 0.8, "confidence": 0.0}, 0.5, "The sensitivity asked for was not reached"),
        ({"sensitivity": 0.8, "confidence": 0.0}, 0.9, "No sensitivity is promised"),
    ],
)
def test_a_promise_that_the_test_breaks_is_said(tmp_path, choices, kept, title):
    folder, *_ = assessed(tmp_path, **choices)
    record = run_folder.open_complete(folder)
    figure = {"value": kept, "low": kept - 0.05, "high": kept + 0.05}
    record.extras["operating_points"]["points"][0]["test"]["sensitivity_of_patients"] = figure
    titles = [caution.title for caution in cautions(record)]
    said = {
        "A promised sensitivity was not kept",
        "The sensitivity asked for was not reached",
        "No sensitivity is promised",
    }
    assert [name for name in titles if name in said] == ([] if title is None else [title])
