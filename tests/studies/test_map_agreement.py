"""What a comparison says of the heat maps of its models."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from chestxray.cli.main import group
from chestxray.errors import InputError
from chestxray.explanation import map_checks, published_explanations
from chestxray.models.assembly import build
from chestxray.recipe import Recipe
from chestxray.report import map_checks_wording
from chestxray.runs.run_folder import MODEL, Run
from chestxray.storage import checksums
from chestxray.storage.files import write_json, write_text
from chestxray.studies.candidates import Candidate
from chestxray.studies.map_agreement import _trainings, agreement
from made_runs import Page
from precomputed import finished, index_of
from untrained_runs import draw_films, write_run


@pytest.fixture
def films(tmp_path):
    return draw_films(tmp_path)


def made(folder, images, tiny, layer="last", **fields):
    """A run with a model of its own, the recipe `fields` and a layer to explain. Without a seed, its weights are those
    of its folder's name.
    """
    run = write_run(folder, images, tiny, seed=fields.get("seed", zlib.crc32(folder.name.encode())))
    recipe = Recipe(model="tiny", data=("folder:drawn",), image_size=(16, 16)).replace(**fields)
    write_text(folder / "recipe.toml", recipe.to_toml())
    write_json(folder / "heatmaps" / "index.json", {"layer": layer, "method": "gradcam", "reason": "", "images": []})
    return Run(run.folder)


def candidates(**runs):
    return {name: Candidate((), (run,), None, None, None, {}) for name, run in runs.items()}


def test_runs_that_differ_in_their_seed_are_trainings_of_one_model(films, tiny, tmp_path):
    one, two = (made(tmp_path / f"s{seed}", films, tiny, seed=seed, heatmaps=seed) for seed in (0, 1))
    other = made(tmp_path / "other", films, tiny, seed=2, epochs=9)
    found = agreement(candidates(a=one, b=two, c=other), tmp_path / "cache")
    assert [check.name for check in found.checks] == ["repeatability", "reproducibility"]
    assert found.checks[0].sentence.startswith("Between 2 trainings of tiny (a, b), two maps of one")
    assert found.checks[1].sentence.startswith("Between 2 models (tiny (a, b), c), two maps of one image")
    shown = map_checks_wording.agreement(json.loads(json.dumps(found.to_json())))
    assert shown["method"] == "Grad-CAM" and shown["images"] == found.checks[0].figures["images"]
    assert not found.left_out and not found.reason


def test_what_is_done_with_a_trained_model_makes_no_other_training_of_it(films, tiny, tmp_path):
    later = {
        "masks": ("lungs=/outlines",), "calibrate": False, "refuse": 0.1, "predict_batch_size": 8,
        "max_unreadable": 0.5,
    }  # fmt: skip
    runs = {
        name: made(tmp_path / name, films, tiny, seed=seed, **fields)
        for seed, (name, fields) in enumerate({"plain": {}, "later": later}.items())
    }
    assert list(_trainings({name: [run] for name, run in runs.items()})) == ["tiny (plain, later)"]
    runs["kept"] = made(tmp_path / "kept", films, tiny, seed=2, keep_validation=True)
    assert list(_trainings({name: [run] for name, run in runs.items()})) == ["tiny (plain, later)", "kept"]


def test_a_run_that_cannot_is_left_out_with_the_reason(films, tiny, tmp_path):
    runs = {name: made(tmp_path / name, films, tiny, epochs=i + 1) for i, name in enumerate("abcd")}
    (runs["c"].folder / "model.keras").unlink()
    write_json(runs["d"].folder / "heatmaps" / "index.json", {"layer": None, "reason": ""})
    found = agreement(candidates(**runs), tmp_path / "cache")
    assert [check.name for check in found.checks] == ["reproducibility"]
    assert found.left_out["c"] == "It has no model of its own, only predictions."
    assert "needs a layer of feature maps" in found.left_out["d"]
    few = agreement(candidates(a=runs["a"], c=runs["c"], d=runs["d"]), tmp_path / "cache")
    assert (few.checks, few.reason) == ((), "There are fewer than two models, or trainings, with maps.")


def test_a_copy_of_a_run_is_no_other_training(films, tiny, tmp_path):
    runs = {name: made(tmp_path / name, films, tiny, seed=seed) for seed, name in enumerate("ab")}
    for listed in (False, True):
        if listed:
            checksums.write(runs["a"].folder, [MODEL])
        copy = f"copy{listed}"
        runs[copy] = Run(shutil.copytree(runs["a"].folder, tmp_path / copy))
        alone = agreement(candidates(a=runs["a"], c=runs[copy]), tmp_path / "cache")
        assert (alone.checks, alone.reason) == ((), "There are fewer than two models, or trainings, with maps.")
        assert alone.left_out == {"c": "It has the network of a: it is a copy, and no other training."}
    found = agreement(candidates(**runs), tmp_path / "cache")
    assert set(found.left_out) == {"copyFalse", "copyTrue"}
    assert found.checks[0].sentence.startswith("Between 2 trainings of tiny (a, b)")
    of_one_name = {"x": Candidate((), (runs["a"], runs["copyTrue"], runs["b"]), None, None, None, {})}
    found = agreement(of_one_name, tmp_path / "cache")
    assert not found.left_out and found.checks[0].figures["models"] == 2


def test_a_network_that_the_method_is_not_for_is_left_out(films, tiny, tmp_path, monkeypatch):
    runs = {name: made(tmp_path / name, films, tiny, epochs=i + 1) for i, name in enumerate("abc")}
    maps_of, models = map_checks.maps_of, {id(runs["b"].model)}

    def for_others(method, model, *given):
        if id(model) in models:
            raise InputError("gradcam is for others.")
        return maps_of(method, model, *given)

    for module in (map_checks, published_explanations):
        monkeypatch.setattr(module, "maps_of", for_others)
    found = agreement(candidates(**runs), tmp_path / "cache")
    assert dict(found.left_out) == {"b": "gradcam is for others."} and not found.reason
    assert [check.name for check in found.checks] == ["reproducibility"]


def test_what_stops_the_comparison_of_maps_is_said_and_raises_nothing(films, tiny, tmp_path):
    one = made(tmp_path / "one", films, tiny)
    saliency = made(tmp_path / "saliency", films, tiny, explain="saliency")
    found = agreement(candidates(one=one, saliency=saliency), tmp_path / "cache")
    assert found.reason == "The runs draw their maps by different methods: gradcam, saliency."
    padded = made(tmp_path / "padded", films, tiny, fit="pad")
    found = agreement(candidates(one=one, padded=padded), tmp_path / "cache")
    assert found.reason.endswith("another place of the film: fit pad, crop none; fit stretch, crop none.")
    other = made(tmp_path / "other", films, tiny, epochs=9)
    (other.folder / "model.keras").write_bytes(b"no model")
    assert "cannot be loaded" in agreement(candidates(one=one, other=other), tmp_path / "cache").reason
    again = made(tmp_path / "again", films, tiny, epochs=8)
    test = one.predictions.of("test").rows["path"].tolist()
    for path in test:
        Path(path).unlink()
    gone = agreement(candidates(one=Run(one.folder), again=again), tmp_path / "empty").reason
    assert gone.startswith(f"{len(test)} of {len(test)} test images cannot be read any more: ")


def test_the_page_has_a_section_on_the_maps(tiny, draw, tmp_path):
    index = index_of(160, name=str(tmp_path / "films")[1:])
    for number, path in enumerate(index.rows["path"]):
        draw(Path(path), number)
    for seed in (0, 1):
        recipe = Recipe(model="tiny", data=("folder:/films",), image_size=(16, 16), replicates=100, seed=seed)
        finished(tmp_path / f"s{seed}", index, recipe, skill=1.0 + seed)
        build(tiny, 2, (16, 16), seed=seed).model.save(tmp_path / f"s{seed}" / "model.keras")
        write_json(tmp_path / f"s{seed}" / "heatmaps" / "index.json", {"layer": "last", "reason": "", "images": []})
    options = ("--map-checks", "quick", "--output", tmp_path / "c", "--cache", tmp_path / "cache")
    done = CliRunner().invoke(group, ["compare", *map(str, (tmp_path / "s0", tmp_path / "s1", *options))])
    assert done.exit_code == 0, done.output
    content = json.loads((tmp_path / "c" / "comparison.json").read_text())["map_checks"]
    (check,) = content["checks"]
    assert (check["name"], check["figures"]["models"], content["method"]) == ("repeatability", 2, "gradcam")
    page = Page(tmp_path / "c" / "comparison.html").text
    assert "Do the heat maps agree?" in page and check["sentence"] in page
    assert f"Same map after another training: {check['verdict']}. " in done.output


def test_finished_runs_are_compared_by_their_maps_where_that_is_asked_for(tmp_path):
    """Without TensorFlow too, for which Keras on JAX stands: the page says why the maps are not compared."""
    for name, skill in (("a", 2.0), ("b", 0.5)):
        finished(tmp_path / name, index_of(240), skill=skill)
    runs = [str(tmp_path / name) for name in "ab"]
    asked = [*runs, "--map-checks", "quick", "--output", str(tmp_path / "asked"), "--cache", str(tmp_path / "cache")]
    assert CliRunner().invoke(group, ["compare", *asked]).exit_code == 0
    content = json.loads((tmp_path / "asked" / "comparison.json").read_text())["map_checks"]
    assert "fewer than two models" in content["reason"] and set(content["left_out"]) == {"a", "b"}
    assert "It has no model of its own" in Page(tmp_path / "asked" / "comparison.html").text

    assert CliRunner().invoke(group, ["compare", *runs, "--output", str(tmp_path / "plain")]).exit_code == 0
    assert "map_checks" not in json.loads((tmp_path / "plain" / "comparison.json").read_text())
    assert "Do the heat maps agree?" not in Page(tmp_path / "plain" / "comparison.html").text
    with pytest.raises(InputError, match="with checks of maps --cache"):
        CliRunner().invoke(group, ["compare", *runs, "--cache", "x"], standalone_mode=False, catch_exceptions=False)

    for name in "ab":
        (tmp_path / name / "model.keras").write_text(name)
    command = [sys.executable, "-c", "from chestxray.cli.main import main; main()", "compare", *asked]
    done = subprocess.run(
        command, env=os.environ | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "not compared. A comparison of heat maps computes with TensorFlow here" in " ".join(done.stdout.split())
