"""`cx.compare`: runs, and arrays of any program, get the comparison of `chestxray compare`."""

import json
import subprocess
import sys

import numpy as np
import pytest

import chestxray
from chestxray.errors import DataError, InputError
from chestxray.evaluation.paired import comparison
from drawn_predictions import made
from made_runs import TWO, index_of, write_run

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, 90)
PROBABILITIES = RNG.dirichlet(np.ones(3), 90) * 0.4 + np.eye(3)[TRUTH] * 0.6
NAMES = ("COVID", "NORMAL", "PNEUMONIA")
PATIENTS = np.arange(90) // 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [chestxray.load(write_run(place / name, TWO, skill=skill)) for name, skill in (("weak", 0.3), ("good", 2.0))]


def test_a_comparison_is_that_of_the_tables():
    other = RNG.dirichlet(np.ones(3), 90)
    found = chestxray.compare(
        {"ours": PROBABILITIES, "chance": other}, TRUTH, groups=PATIENTS, classes=NAMES, replicates=200, margin=0.05
    )
    tables = {name: made(TRUTH, p, NAMES, PATIENTS) for name, p in (("ours", PROBABILITIES), ("chance", other))}
    assert found == comparison.compare(tables, replicates=200, margin=0.05)
    assert found.to_frame()["model"].tolist() == ["ours", "chance"]


def test_runs_are_compared_as_the_command_does(runs, tmp_path):
    found = chestxray.compare(runs, metric="accuracy", margin=0.1)
    code = "from chestxray.cli.main import main; main()"
    places = [str(run.folder) for run in runs]
    options = ["--metric", "accuracy", "--margin", "0.1", "--output", str(tmp_path / "page")]
    subprocess.run([sys.executable, "-c", code, "--quiet", "compare", *places, *options], check=True)
    told = json.loads((tmp_path / "page" / "comparison.json").read_text())
    own = json.loads(json.dumps(found.to_json()))
    assert own["pairs"] == told["pairs"]
    assert found.to_frame()["model"].tolist() == ["good", "weak"]
    assert "<table" in found._repr_html_()


def test_runs_may_be_folders_and_have_names(runs):
    by_folder = chestxray.compare([run.folder for run in runs], replicates=100)
    assert by_folder == chestxray.compare(runs, replicates=100)
    named = chestxray.compare({"a": runs[0], "b": str(runs[1].folder)}, replicates=100)
    assert named.to_frame()["model"].tolist() == ["b", "a"]
    assert named.to_frame()["value"].tolist() == by_folder.to_frame()["value"].tolist()


def test_tests_of_other_images_are_refused(runs, tmp_path):
    other = write_run(tmp_path / "other", TWO, index=index_of(TWO, per_class=32))
    with pytest.raises(DataError, match="were tested on different images"):
        chestxray.compare([runs[0], other])


@pytest.mark.parametrize(
    ("models", "beside", "told"),
    [
        ([], {}, "two models or more. Received: 0"),
        ("runs/x", {}, "a list of runs.*Received: str"),
        (3, {}, "a list of runs.*Received: int"),
        ([PROBABILITIES, PROBABILITIES], {}, "Without y_true, models must be runs.*Received: ndarray"),
        ({"a": PROBABILITIES, "b": PROBABILITIES}, {}, "probabilities need y_true. Received: ndarray"),
        ([PROBABILITIES, PROBABILITIES], {"y_true": TRUTH}, "as {name: y_prob}. Received: ndarray"),
        ({"a": "runs/x", "b": PROBABILITIES}, {"y_true": TRUTH}, "as {name: y_prob}. Received: str"),
        (["runs/x", "runs/y"], {"groups": PATIENTS}, "groups, classes and findings are for"),
        (["runs/x", "runs/x"], {}, "named once"),
        (["runs/x", "runs/y"], {}, "is not a run"),
        ({"a": PROBABILITIES, "b": PROBABILITIES}, {"y_true": TRUTH, "metric": "auc"}, "auroc"),
    ],
)
def test_a_mistake_is_told_in_a_line(models, beside, told):
    with pytest.raises(InputError, match=told) as caught:
        chestxray.compare(models, **beside)
    assert "\n" not in str(caught.value)


def test_names_of_models_are_not_run_in_a_notebook():
    odd = "<script>x</script>"
    page = chestxray.compare({odd: PROBABILITIES, "b": PROBABILITIES}, TRUTH, replicates=100)._repr_html_()
    assert "<table" in page and "90 images" in page
    assert "<script" not in page


def test_arrays_need_no_tensorflow():
    code = (
        "import sys, chestxray as cx; cx.compare({'a': [.1, .9, .4, .3], 'b': [.2, .8, .7, .1]}, [0, 1, 0, 1], "
        "replicates=100); print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
