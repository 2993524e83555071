"""A run with a metric, a loss and an augmentation of plugins, to report and comparison; and one that is missing."""

import html
import json
import re
import shutil

import pytest
from click.testing import CliRunner

import method_plugins
from chestxray import workflow
from chestxray.cli.compare import command as compare
from chestxray.cli.evaluate import command as evaluate
from chestxray.errors import InputError, PluginError
from chestxray.recipe import Recipe
from chestxray.storage import cache as caches
from chestxray.studies import external_validation

GROUPS = {"metrics": "pairs wrong", "losses": "plain each", "augmentations": "brighter", "explanations": "bright"}


@pytest.fixture
def recipe(folder, tmp_path, monkeypatch):
    method_plugins.install(tmp_path / "site", monkeypatch, **GROUPS)
    return Recipe(
        model="shallow_cnn", data=(f"folder:{folder}",), patient_pattern=r"(p\d+)_", weights="none", image_size=16,
        epochs=1, batch_size=8, replicates=100, heatmaps=1, controls=False, test_share=0.3,
        metric=("pairs", "wrong"), loss="plain", augment="brighter", explain="bright",
    )  # fmt: skip


def test_a_run_uses_and_records_them(recipe, tmp_path, monkeypatch):
    run = workflow.run(recipe, output=tmp_path / "one")
    assert run.recipe == run.recipe.replace(metric=("pairs", "wrong"), loss="plain", augment="brighter")
    found = json.loads((run.folder / "metrics.json").read_text())
    assert found["test"]["pairs"]["value"] == pytest.approx(found["test"]["auroc"]["value"])
    assert 0 <= found["test"]["wrong"]["low"] <= found["test"]["wrong"]["high"] <= 100
    methods = {(one["kind"], one["name"], one["distribution"], one["version"]) for one in run.environment["methods"]}
    kinds = {("metric", "pairs"), ("metric", "wrong"), ("loss", "plain"), ("augmentation", "brighter")}
    kinds |= {("explanation", "bright")}
    assert methods == {(*one, "method-plugins", "2.1") for one in kinds}
    page = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", run.report.read_text())))
    assert "Pairs in order" in page and "Reference: Mann and Whitney 1947." in page
    assert "Percentage wrong (lower is better)" in page and "loss plain (method-plugins 2.1)" in page

    drawn = json.loads((run.folder / "heatmaps" / "index.json").read_text())
    assert drawn["method"] == "bright" and len(drawn["images"]) > 1
    assert "by the method bright of a plugin" in page
    assert "Heat maps (bright), of a plugin, of" in (run.folder / "MODEL_CARD.md").read_text()

    other = tmp_path / "other"
    shutil.copytree(run.folder, other)
    arguments = [str(run.folder), str(other), "--metric", "pairs", "--output", str(tmp_path / "compared")]
    compared = CliRunner().invoke(compare, [*arguments, "--replicates", "100"], standalone_mode=False)
    assert compared.exception is None and "paired bootstrap clustered by patient" in compared.stdout

    again = CliRunner().invoke(evaluate, [str(other), "--metric", "wrong"], standalone_mode=False)
    assert again.exception is None
    assert set(json.loads((other / "metrics.json").read_text())["published"]) == {"wrong"}

    monkeypatch.setenv("CHESTXRAY_DISABLE_PLUGINS", "pairs,wrong,plain,brighter,bright")
    again = CliRunner().invoke(evaluate, [str(run.folder)], standalone_mode=False)
    assert isinstance(again.exception, PluginError)
    assert str(again.exception) == "Unknown metric 'pairs'. No metric plugin is installed."


@pytest.mark.parametrize(("method", "failed"), [("raising", "ValueError: no map."), ("leaving", "SystemExit: 3.")])
def test_a_broken_method_of_maps_leaves_a_finished_run(recipe, tmp_path, monkeypatch, caplog, method, failed):
    """With its figures and its report, which has the reason; one that is evaluated anew too."""
    method_plugins.install(tmp_path / "more", monkeypatch, explanations="raising leaving")
    changes = {"explain": method, "map_checks": "quick", "metric": (), "loss": "crossentropy", "augment": "light"}
    run = workflow.run(recipe.replace(**changes), output=tmp_path / "one")
    said = f"The explanation plugin method-plugins:{method} 2.1 is broken: explain failed with {failed}"
    for _ in range(2):
        assert run.finished and run.map_checks[method]["reason"] == f"The heat maps could not be checked. {said}"
        assert run.heatmaps["reason"] == said and not run.heatmaps["images"]
        assert said in html.unescape(run.report.read_text(encoding="utf-8"))
        assert f"No heat maps are drawn. {said}" in caplog.messages
        caplog.clear()
        run = external_validation.evaluate_again(run, {"map_checks": "quick"}, caches.root())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "plane"}, "Unknown loss 'plane'. Did you mean plain? Allowed: crossentropy, focal"),
        ({"augment": "brightr"}, "Unknown augmentation 'brightr'. Did you mean brighter or light? Allowed: none"),
        (
            {"explain": "brihgt"},
            "Unknown explanation 'brihgt'. Did you mean bright? Allowed: gradcam, gradcam++,",
        ),
        ({"loss": "each"}, "The loss each is for findings; xrays has classes."),
        ({"loss": "plain", "probe": True}, "probe minimises cross-entropy"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_made(recipe, tmp_path, changes, said):
    with pytest.raises(InputError) as raised:
        workflow.run(recipe.replace(**changes), output=tmp_path / "one")
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)
    assert not (tmp_path / "one").exists()
