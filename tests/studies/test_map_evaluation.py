"""`chestxray evaluate` checks heat maps and draws them by other methods."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from chestxray import workflow
from chestxray.cli.main import group
from chestxray.errors import DataError, InputError
from chestxray.recipe import Recipe
from chestxray.runs import heat_maps, output_folder
from chestxray.runs.run_folder import Run
from chestxray.studies import external_validation
from chestxray.training import shuffled_labels


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("films")
    generator = np.random.default_rng(0)
    for name in ("own", "other"):
        for k, label in enumerate(("normal", "sick")):
            (root / name / label).mkdir(parents=True)
            for n in range(30):
                pixels = generator.normal(80 + 60 * k, 25, (16, 16)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / name / label / f"{label}{n:03d}.png")
    return root


def recipe_of(place, **fields):
    return Recipe(
        model="shallow_cnn", data=(f"folder:{place / 'own'}",), image_size=16, epochs=6, batch_size=8,
        test_share=0.3, replicates=100, heatmaps=1, map_checks="none", augment="none", controls=False, refuse=0.0,
    ).replace(**fields)  # fmt: skip


@pytest.fixture(scope="module")
def trained(place, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHESTXRAY_CACHE", str(place / "cache"))
        recipe = recipe_of(place)
        return workflow.run(recipe, output=tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def evaluate(run, place, *options):
    return CliRunner().invoke(group, ["evaluate", str(run), "--cache", str(place / "cache"), *map(str, options)])


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def drawn(folder):
    return json.loads((folder / "heatmaps" / "index.json").read_text(encoding="utf-8"))


def test_each_method_that_is_checked_stays_known(run, place):
    assert Run(run).map_checks == {}
    done = evaluate(run, place, "--map-checks", "quick")
    assert done.exit_code == 0, done.output
    assert set(Run(run).map_checks) == {"gradcam"}
    done = evaluate(run, place, "--explain", "saliency", "--map-checks", "all")
    assert done.exit_code == 0, done.output
    found = Run(run)
    assert set(found.map_checks) == {"gradcam", "saliency"}
    names = {name: {one["name"] for one in said["checks"]} for name, said in found.map_checks.items()}
    assert names["saliency"] - names["gradcam"] == {"deletion", "insertion", "road", "shuffled-labels"}
    assert drawn(run)["method"] == found.recipe.explain == "saliency"
    page = found.report.read_text(encoding="utf-8")
    assert "Of other methods: Grad-CAM " in page
    assert found.map_checks["saliency"]["checks"][0]["sentence"].split(".")[0] in page


def test_other_maps_alone_are_not_checked(run, place):
    done = evaluate(run, place, "--explain", "saliency")
    assert done.exit_code == 0 and "Checking what" not in done.output
    assert drawn(run)["method"] == "saliency"
    assert Run(run).map_checks == {}


def test_other_data_are_checked_where_that_is_asked_for(run, place, tmp_path):
    for options, known in (((), set()), (("--map-checks", "quick"), {"gradcam"})):
        folder = tmp_path / f"external{len(options)}"
        done = evaluate(run, place, "--data", f"folder:{place / 'other'}", "--output", folder, *options)
        assert done.exit_code == 0, done.output
        assert ("Checking what the heat maps are worth" in done.output) == bool(known)
        assert set(Run(folder).map_checks) == known
    assert Run(run).map_checks == {}, "the run's own are of its own test"


def test_a_mistake_is_one_line_and_changes_nothing(run, place, tmp_path):
    before = contents(run)
    done = evaluate(run, place, "--explain", "gradcamm")
    assert done.exit_code == 1
    assert "Unknown explanation 'gradcamm'. Did you mean gradcam" in str(done.exception)
    done = evaluate(run, place, "--map-checks", "quick", "--masks", tmp_path / "none")
    assert "masks must name a folder of PNG files" in str(done.exception)
    done = evaluate(run, place, "--masks", place / "own")  # a run without checks
    assert "masks are for the checks of heat maps" in str(done.exception)
    done = CliRunner().invoke(group, ["evaluate", str(run), "--map-checks", "all", "--cache", str(tmp_path / "empty")])
    assert done.exit_code == 1
    assert "map_checks need the run's images, which are not decoded in the cache" in str(done.exception)
    assert contents(run) == before


def test_a_method_that_is_not_for_the_architecture_leaves_a_finished_run(run, place, tmp_path):
    """In a new run, in one that is evaluated anew, and on other data; no second model is trained for nothing."""
    recipe = recipe_of(place, explain="attention-rollout", map_checks="all", epochs=1)
    new = workflow.run(recipe, output=tmp_path / "new", cache=place / "cache")
    assert "train_shuffled" not in new.environment["seconds"]
    done = evaluate(run, place, "--explain", "attention-rollout", "--map-checks", "all")
    assert done.exit_code == 0, done.output
    assert shuffled_labels.DOING not in done.output
    options = ("--data", f"folder:{place / 'other'}", "--output", tmp_path / "other", "--map-checks", "quick")
    done = evaluate(run, place, *options)
    assert done.exit_code == 0, done.output
    for folder in (new.folder, run, tmp_path / "other"):
        found = Run(folder)
        assert found.finished and found.recipe.explain == "attention-rollout"
        judged = found.map_checks["attention-rollout"]
        assert not judged["badge"] and judged["reason"].startswith("attention-rollout is for transformers")
        assert drawn(folder)["reason"] == judged["reason"] and not drawn(folder)["images"]
        assert judged["reason"] in found.report.read_text(encoding="utf-8")
        assert not list(folder.glob("heatmaps/*.png")), "those of the method before are gone"


@pytest.mark.parametrize("step", ["draw", "assess"])
def test_a_run_whose_maps_or_figures_cannot_be_made_anew_stays_as_it_was(run, place, monkeypatch, step):
    def fail(*_, **__):
        raise DataError("A mask is gone.")

    monkeypatch.setattr(heat_maps if step == "draw" else external_validation, step, fail)
    before = contents(run)
    done = evaluate(run, place, "--explain", "saliency", "--map-checks", "quick", "--abstain", "0.8")
    assert isinstance(done.exception, DataError)
    assert contents(run) == before


@pytest.mark.parametrize("error", [DataError("A mask is gone."), KeyboardInterrupt()])
def test_a_test_on_other_data_is_whole_or_not_at_all(run, place, tmp_path, monkeypatch, error):
    """One that fails or is stopped leaves the one before, and no folder where there was none."""
    recipe, kept = Recipe(data=(f"folder:{place / 'other'}",)), tmp_path / "new" / "kept"

    def test_on(folder):
        return external_validation.evaluate_on(Run(run), recipe, place / "cache", output=folder, overwrite=True)

    test_on(kept)
    before, draw = contents(kept), heat_maps.draw

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(heat_maps, "draw", fail)
    for folder in (kept, tmp_path / "none" / "folder"):
        with pytest.raises(type(error)):
            test_on(folder)
    assert contents(kept) == before and not (tmp_path / "none").exists()

    monkeypatch.setattr(heat_maps, "draw", draw)
    (kept / output_folder.PARTIAL).mkdir()  # what a killed process leaves
    (kept / output_folder.PARTIAL / "old.json").touch()
    (kept / "extra.json").touch()
    test_on(kept)
    after = contents(kept)
    assert set(after) == set(before)
    assert not [path for path, text in after.items() if output_folder.PARTIAL.encode() in text]
    (tmp_path / "killed" / output_folder.PARTIAL).mkdir(parents=True)
    assert test_on(tmp_path / "killed").finished


def test_fewer_maps_leave_no_pictures_behind(run, place):
    assert evaluate(run, place, "--heatmaps", "2").exit_code == 0
    for count in (1, 0):
        done = evaluate(run, place, "--heatmaps", count)
        assert done.exit_code == 0, done.output
        assert ("Drawing" if count else "Removing") + " the heat maps" in done.output
        named = {item["file"] for item in drawn(run)["images"]}
        assert {path.name for path in run.glob("heatmaps/*.png")} == named and bool(named) == bool(count)


def test_maps_that_are_not_drawn_are_not_checked(run, place, tmp_path):
    """All checks of no maps are refused before anything is read; of the default, quick, the plan says it."""
    told = "map_checks {0} is of heat maps, of which heatmaps 0 draws none. Allowed: heatmaps 1 or more, or map_checks "
    with pytest.raises(InputError, match=told.format("all")):
        workflow.run(recipe_of(place, heatmaps=0, map_checks="all"), output=tmp_path / "new", cache=place / "cache")
    assert not (tmp_path / "new").exists()
    assert evaluate(run, place, "--heatmaps", 0).exit_code == 0
    before, other = contents(run), ("--data", f"folder:{place / 'other'}", "--output", tmp_path / "other")
    for options in ((), other):
        done = evaluate(run, place, "--map-checks", "quick", *options)
        assert done.exit_code == 1 and told.format("quick") in str(done.exception)
    assert contents(run) == before and not (tmp_path / "other").exists()
    done = evaluate(run, place, *other)
    assert done.exit_code == 0, done.output

    index = Run(run).index
    said = "Heat maps are not checked, since none is drawn (heatmaps 0)."
    quick = recipe_of(place, heatmaps=0, map_checks="quick")
    assert workflow._plan(quick, index).endswith(f"and write a report. {said}")
    for plain in (quick.replace(map_checks="none"), quick.replace(heatmaps=1)):
        assert workflow._plan(plain, index).endswith("and write a report.")
    assert workflow.resolve(quick)[0].map_checks == "quick"


def test_masks_of_a_folder_are_compared_with_the_maps(run, place, tmp_path):
    """Of the run's own test, with a threshold of its validation, and of other data, without one."""
    for name in ("lungs", "finding"):
        (tmp_path / name).mkdir()
    for n in range(30):
        Image.fromarray(np.tri(16, dtype=np.uint8) * 255).save(tmp_path / "finding" / f"sick{n:03d}.png")
        Image.fromarray(np.eye(16, dtype=np.uint8) * 255).save(tmp_path / "lungs" / f"normal{n:03d}.png")
    given = (
        "--map-checks",
        "quick",
        "--masks",
        f"sick={tmp_path / 'finding'}",
        "--masks",
        f"lungs={tmp_path / 'lungs'}",
    )
    where = {"own": (), "other": ("--data", f"folder:{place / 'other'}", "--output", tmp_path / "external")}
    for name, options in where.items():
        done = evaluate(run, place, *options, *given)
        assert done.exit_code == 0, done.output
        (found,) = Run(tmp_path / "external" if name == "other" else run).map_checks.values()
        checks = {one["name"]: one["figures"] for one in found["checks"]}
        assert {"pointing-game", "share-inside", "inside-lungs"} <= set(checks)
        assert ("iou" in checks) == (name == "own")
        assert list(checks["pointing-game"]["by_finding"]) == ["sick"]
        assert checks["share-inside"]["priors"]["chance, the share of the area"]["value"] == pytest.approx(136 / 256)
    # A mask that cannot be used is named in the report, and costs its check alone.
    for file in (tmp_path / "lungs").iterdir():
        file.write_bytes(b"no image")
    done = evaluate(run, place, *given)
    assert done.exit_code == 0, done.output
    (lungs,) = (one for one in Run(run).map_checks["gradcam"]["checks"] if one["name"] == "inside-lungs")
    assert lungs["verdict"] == "doubtful" and "could not be made" in lungs["sentence"]
    assert str(tmp_path) not in lungs["sentence"] and f"The mask {tmp_path / 'lungs' / 'normal0'}" in done.output


def test_masks_are_added_to_those_that_the_run_has(run, place, tmp_path):
    """Its recipe names all of them, once; a later folder counts before an earlier one, which may be gone."""
    for number, (name, height) in enumerate({"first": 4, "second": 8}.items()):
        mask = np.zeros((16, 16), np.uint8)
        mask[:height] = 255
        (tmp_path / name).mkdir()
        for n in range(30):
            for finding in ("sick", "normal")[number:]:
                Image.fromarray(mask).save(tmp_path / name / f"{finding}{n:03d}.png")

    def known(*given):
        done = evaluate(run, place, "--map-checks", "quick", *given)
        assert done.exit_code == 0, done.output
        (found,) = Run(run).map_checks.values()
        (figures,) = (one["figures"] for one in found["checks"] if one["name"] == "share-inside")
        area = figures["priors"]["chance, the share of the area"]["value"]
        return Run(run).recipe.masks, figures["images"], area, done.output

    first, second = (str(tmp_path / name) for name in ("first", "second"))
    masks, images, area, _ = known("--masks", first)
    assert masks == (first,) and area == pytest.approx(1 / 4)
    for given in (("--masks", second, "--masks", second), ()):
        masks, count, both, _ = known(*given)
        assert masks == (first, second) and count == images and 1 / 4 < both < 1 / 2
    masks, _, again, _ = known("--masks", first)
    assert masks == (second, first) and again == area
    shutil.rmtree(first)
    masks, count, area, said = known()
    assert masks == (second, first) and count == images / 2 and area == pytest.approx(1 / 2)
    assert f"The masks {first} of the run are not read again. masks must name a folder" in " ".join(said.split())


def test_explain_says_what_is_known_of_a_method(run, place, tmp_path):
    film = place / "own" / "sick" / "sick000.png"
    checks = [{"name": "road", "verdict": "fails", "sentence": "It is worse.", "figures": {}}]
    judged = {"method": "gradcam", "badge": "fails", "reason": "", "images": 20, "checks": checks}
    (run / "heatmaps" / "checks.json").write_text(json.dumps({"methods": [judged]}))
    options = ("--method", "gradcam", "--method", "saliency", "--output", tmp_path / "maps")
    done = CliRunner().invoke(group, ["explain", str(run), str(film), *map(str, options)])
    assert done.exit_code == 0, done.output
    assert "Grad-CAM fails the checks of its maps (Marked pixels removed, by ROAD)." in done.output
    assert "The maps of the gradient (saliency) were not checked for this model." in done.output
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "maps").glob("*.json"))]
    said = {one["method"]: one for one in records}
    assert {name: one["checks"] for name, one in said.items()} == {"gradcam": "fails", "saliency": "not made"}
    red = {
        name: np.asarray(Image.open(tmp_path / "maps" / one["picture"]).convert("RGB"))[0, 0].tolist() == [215, 25, 28]
        for name, one in said.items()
    }
    assert red == {"gradcam": True, "saliency": False}


def test_a_film_alone_is_shown_on_the_scale_of_the_report(run, place, tmp_path):
    index = drawn(run)
    index["scale"]["highest"] = 1e3
    (run / "heatmaps" / "index.json").write_text(json.dumps(index))
    film, output = place / "own" / "sick" / "sick000.png", tmp_path / "maps"
    methods = ("--method", "gradcam", "--method", "saliency")
    done = CliRunner().invoke(group, ["explain", str(run), str(film), *methods, "--output", str(output)])
    assert done.exit_code == 0, done.output
    said = {one["method"]: one for one in (json.loads(path.read_text()) for path in output.glob("*.json"))}
    assert said["gradcam"]["scale"]["highest"] == 1e3
    assert said["saliency"]["scale"]["highest"] == said["saliency"]["map"]["highest"]
    picture, film = Image.open(output / said["gradcam"]["picture"]), Image.open(film).convert("RGB")
    assert np.abs(np.asarray(picture, int) - np.asarray(film, int)).max() <= 3, "a faint map stays faint"
