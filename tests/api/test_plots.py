"""A run's figures on axes: the report's drawing, on the user's figure or on a new one."""

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import chestxray
from chestxray.errors import InputError
from chestxray.report import run_figures
from chestxray.runs.run_folder import open_complete
from made_runs import HOSTILE, TWO, write_run

PLOTS = {"plot_roc": "roc", "plot_calibration": "reliability", "plot_confusion": "confusion_matrix",
         "plot_history": "training_curves"}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return chestxray.load(write_run(tmp_path_factory.mktemp("plots") / "run", TWO))


def artists(ax: Axes) -> tuple[list, list]:
    lines = [(line.get_label(), np.asarray(line.get_xydata()).tolist(), line.get_color()) for line in ax.lines]
    return lines, [(text.get_text(), text.get_position()) for text in ax.texts]


@pytest.mark.parametrize(("name", "figure"), PLOTS.items())
def test_what_is_drawn_is_what_the_report_draws(run, name, figure):
    own = Figure().subplots()
    assert getattr(run, name)(own) is own
    reported = dict(run_figures.draw(open_complete(run.folder), {}))[figure]
    assert artists(own) == artists(reported.axes[0])
    assert sum(map(len, artists(own))) >= 2
    assert own.get_ylabel() == reported.axes[0].get_ylabel() != ""
    assert own.get_xlabel() != ""
    own.figure.canvas.draw()


def test_they_stand_side_by_side_in_a_figure_of_the_user(run):
    axes = Figure(figsize=(8, 8)).subplots(2, 2)
    for name, ax in zip(PLOTS, axes.flat, strict=True):
        getattr(run, name)(ax=ax)
    assert len(axes[0, 0].figure.axes) == 4, "nothing is added to it"
    accuracy = run.plot_history(Figure().subplots(), of="accuracy")
    assert accuracy.get_ylabel() == "Accuracy (share right)"


def test_without_axes_pyplot_has_a_new_figure(run):
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    try:
        axes = [getattr(run, name)() for name in PLOTS]
        assert [ax.figure.number for ax in axes] == plt.get_fignums()
        assert dict(mpl.rcParams) == before, "the look is for these figures alone"
    finally:
        plt.close("all")


def test_the_state_of_pyplot_is_not_touched_where_axes_are_given(run):
    code = (
        "import sys, chestxray, matplotlib as mpl; from matplotlib.figure import Figure;"
        f"run = chestxray.load({str(run.folder)!r}); before = dict(mpl.rcParams);"
        f"[getattr(run, name)(Figure().subplots()) for name in {list(PLOTS)}];"
        "assert dict.__eq__(dict(mpl.rcParams), before); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_classes_are_no_formulas_and_many_classes_have_a_scale(tmp_path):
    odd = chestxray.load(write_run(tmp_path / "odd", HOSTILE))
    for name in PLOTS:
        ax = getattr(odd, name)(Figure().subplots())
        ax.figure.canvas.draw()
    assert HOSTILE[1] in odd.plot_calibration(Figure().subplots()).get_ylabel()
    many = chestxray.load(write_run(tmp_path / "many", tuple(f"c{i:02}" for i in range(13))))
    figure = Figure()
    many.plot_confusion(figure.subplots())
    assert figure.axes[1].get_ylabel() == "Share of the true class"


def test_a_mistake_is_told_in_a_line(run, tmp_path):
    with pytest.raises(InputError, match=r"matplotlib Axes.*Received: Figure"):
        run.plot_roc(Figure())
    with pytest.raises(InputError, match=r"of must be one of loss, accuracy\. Received: 'auroc'"):
        run.plot_history(of="auroc")
    untrained = chestxray.load(write_run(tmp_path / "untrained", TWO, history=None))
    assert untrained.plot_history(Figure().subplots()).texts[0].get_text() == "No epoch was recorded."
