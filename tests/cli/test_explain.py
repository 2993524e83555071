"""`chestxray explain` as a user meets it: what is written where, on which scale, and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import method_plugins
from chestxray.cli.main import group
from chestxray.data.images.reading import read
from chestxray.errors import DataError, OutputError
from chestxray.explanation.methods import raw_maps
from chestxray.inference import explaining, explanation_files
from chestxray.inference.explaining import at_image, facts, seen
from chestxray.runs.run_folder import Run
from run_folders import CLASSES, SIZE, write_ensemble, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("explained") / "run")


@pytest.fixture
def films(tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 56), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"f{number}.png")
    return folder


def called(*arguments):
    return CliRunner().invoke(group, ["explain", *map(str, arguments)])


def records(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_each_map_is_a_picture_an_array_and_a_record_on_one_scale(run, films, tmp_path):
    output, panel = tmp_path / "maps", tmp_path / "panel.png"
    done = called(run, films, "--class", "all", "--method", "gradcam", "--method", "saliency", "--output", output,
                  "--panel", panel)  # fmt: skip
    assert done.exit_code == 0, done.output
    found = records(output)
    assert len(found) == 3 * 2 * 2
    model = Run(run).model
    for record in found:
        raw = np.load(output / record["raw"])
        pixels = read(films / record["path"].rpartition("/")[2], size=SIZE).pixels[None, ..., None]
        number = CLASSES.index(record["explained"]["class"])
        expected = raw_maps(record["method"], model, "last", pixels, np.array([number]))[0]
        np.testing.assert_allclose(raw, expected, atol=1e-5 * expected.max())
        assert raw.dtype == np.float32 and raw.shape == SIZE
        probability = record["probabilities"][record["explained"]["class"]]
        np.testing.assert_allclose(record["explained"]["probability"], probability, atol=1e-6)
        assert record["map"]["highest"] == raw.max()
        assert record["layer"] == ("last" if record["method"] == "gradcam" else None)
        with Image.open(output / record["picture"]) as picture:
            assert picture.size == (56, 40) and picture.mode == "RGB" and not picture.info
    for method in ("gradcam", "saliency"):
        own = [record for record in found if record["method"] == method]
        # The run states a scale for gradcam alone.
        end = 2.0 if method == "gradcam" else max(one["map"]["highest"] for one in own)
        assert {record["scale"]["highest"] for record in own} == {end}
        assert own[0]["scale"]["maps"] == 6
    with Image.open(panel) as picture:
        assert picture.width > 300 and picture.height > 6 * 300


def test_the_top_class_is_the_one_decided_on_and_the_command_says_the_scale(run, films, tmp_path):
    done = called(run, films / "f0.png", "--output", tmp_path / "maps")
    assert done.exit_code == 0
    (record,) = records(tmp_path / "maps")
    assert record["explained"]["class"] in CLASSES
    assert record["decision"] in (record["explained"]["class"], None)
    assert f"gradcam: 1 map in {tmp_path / 'maps'}, on one scale from 0 to" in done.output
    assert "Research use only" in done.output


def test_an_empty_map_stays_empty_beside_a_full_one(run, films, tmp_path, monkeypatch):
    def half(self, method, pixels, classes, layer=None):
        maps = np.zeros((len(pixels), *SIZE), np.float32)
        maps[0] = 3.0
        return maps

    monkeypatch.setattr(explaining.KerasEngine, "raw_maps", half)
    done = called(run, films, "--output", tmp_path / "maps")
    assert done.exit_code == 0 and "gradcam: 2 of 3 maps are empty, or nearly so on this scale." in done.output
    found = records(tmp_path / "maps")
    assert [record["map"]["empty"] for record in found] == [False, True, True]
    assert all(record["scale"]["highest"] == 2 for record in found), "as the run states"
    for record in found:
        film = np.asarray(Image.open(record["path"]))
        drawn = np.asarray(Image.open(tmp_path / "maps" / record["picture"]))
        same = (drawn == film[..., None]).all()
        assert same == record["map"]["empty"]
    assert found[1]["map"]["highest_at"] is None and found[1]["map"]["strongest_tenth"] is None


def test_a_map_that_is_the_same_everywhere_names_no_place(films, tmp_path):
    """Of networks whose features do not depend on the image, and whose features are its grey and no edge of it."""
    for name, method, slope in (("level", "gradcam", 0.0), ("grey", "saliency", 1.0)):
        flat = write_run(tmp_path / name, refuse=False)
        model = Run(flat).model
        for layer in map(model.get_layer, ("first", "last")):
            kernel, bias = layer.get_weights()
            kernel[:] = 0
            kernel[1, 1] = slope
            layer.set_weights([kernel, bias + 1])
        model.save(flat / "model.keras")
        maps = tmp_path / f"maps-{name}"
        done = called(flat, films, "--class", "all", "--output", maps, "--method", method)
        assert done.exit_code == 0, done.output
        found = [record["map"] for record in records(maps)]
        shown = sum(not one["empty"] for one in found)
        assert shown and f"{method}: {shown} of {len(found)} maps have one value everywhere" in done.output
        assert all(one["even"] and one["highest_at"] is None for one in found)
        hint = "A layer that is one cell at this image size gives such maps."
        assert (hint in done.output) == (method == "gradcam"), "saliency is of no layer"


def test_a_run_whose_own_maps_are_empty_leaves_others_their_own_scale(run, films, tmp_path, monkeypatch):
    def faint(self, method, pixels, classes, layer=None):
        return np.linspace(0, 0.00246, len(pixels) * 16 * 12, dtype=np.float32).reshape(-1, *SIZE)

    copy = shutil.copytree(run, tmp_path / "run")
    index = json.loads((copy / "heatmaps" / "index.json").read_text())
    index["gradcam"]["highest"] = 0.0
    (copy / "heatmaps" / "index.json").write_text(json.dumps(index))
    monkeypatch.setattr(explaining.KerasEngine, "raw_maps", faint)
    done = called(copy, films, "--output", tmp_path / "maps")
    assert done.exit_code == 0
    assert "gradcam: the run's own maps are all empty and give no scale: these have their own." in done.output
    assert "on one scale from 0 to 0.00246 (" in done.output
    for record in records(tmp_path / "maps"):
        assert record["scale"]["highest"] == pytest.approx(0.00246) and not record["map"]["empty"]
        film = np.asarray(Image.open(record["path"]))
        assert (np.asarray(Image.open(tmp_path / "maps" / record["picture"])) != film[..., None]).any()
    monkeypatch.undo()
    done = called(copy, films, "--output", tmp_path / "others", "--method", "saliency")
    assert "all empty" not in done.output, "of a method that the run has no maps of"


def checked(run, folder):
    """A copy of a run whose heat maps failed their checks."""
    copy = shutil.copytree(run, folder)
    one = {"method": "gradcam", "badge": "fails", "reason": "", "images": 24, "checks": []}
    (copy / "heatmaps" / "checks.json").write_text(json.dumps({"methods": [one]}))
    return copy


def test_the_own_layer_by_its_name_is_no_other_layer(run, films, tmp_path):
    copy = checked(run, tmp_path / "run")
    said, found = [], []
    for name, options in {"plain": [], "named": ["--layer", "last"]}.items():
        done = called(copy, films / "f0.png", "--output", tmp_path / name, *options)
        assert done.exit_code == 0, done.output
        said.append(done.output.replace(str(tmp_path / name), "FOLDER"))
        found += records(tmp_path / name)
    assert said[0] == said[1] and found[0] == found[1]
    assert found[1]["checks"] == "fails" and found[1]["scale"]["highest"] == 2
    pictures = [(tmp_path / name / found[0]["picture"]).read_bytes() for name in ("plain", "named")]
    assert pictures[0] == pictures[1], "the frame and the scale"


def test_maps_at_another_layer_are_said_not_to_be_checked(run, films, tmp_path):
    copy = checked(run, tmp_path / "run")
    done = called(copy, films / "f0.png", "--output", tmp_path / "maps", "--layer", "norm")
    assert done.exit_code == 0, done.output
    assert "The maps at the layer norm were not checked: the checks of the run are of its own" in done.output
    assert records(tmp_path / "maps")[0]["checks"] == "not made"


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_panel_never_takes_the_place_of_an_image(run, films, tmp_path, link):
    film, panel = films / "f1.png", films / "f1.png"
    before = film.read_bytes()
    if link is not None:
        link(film, panel := tmp_path / "panel.png")
    done = called(run, films, "--output", tmp_path / "maps", "--panel", panel)
    assert isinstance(done.exception, OutputError)
    assert f"--panel would overwrite {film}, which is among the images." in str(done.exception)
    assert film.read_bytes() == before and not (tmp_path / "maps").exists()


def test_a_picture_never_takes_the_place_of_an_image_or_of_the_panel(run, films, tmp_path):
    assert called(run, films / "f0.png", "--output", films).exit_code == 0
    (picture,) = films.glob("f0-*.png")
    done = called(run, films / "f1.png", picture, "--output", films)
    assert done.exit_code == 0, "its own picture has another name"
    before = {path.name: path.read_bytes() for path in films.iterdir()}
    done = called(run, films / "f0.png", picture, "--output", films)
    assert f"--output would overwrite {picture}, which is among the images." in str(done.exception)
    done = called(run, films / "f0.png", "--output", films, "--panel", picture)
    assert "--panel has the name of a picture in --output." in str(done.exception)
    assert {path.name: path.read_bytes() for path in films.iterdir()} == before
    done = called(run, films / "f0.png", "--output", films, "--panel", films / "panel.png")
    assert done.exit_code == 0 and (films / "panel.png").is_file()


def test_a_panel_that_is_a_folder_or_below_a_file_is_refused_before_anything_is_written(run, films, tmp_path):
    (tmp_path / "folder.png").mkdir()
    for panel, said in {
        tmp_path / "folder.png": f"--panel must be a PNG file. Received: the folder {tmp_path / 'folder.png'}.",
        films / "f0.png" / "x.png": f"where {films / 'f0.png'} is a file.",
    }.items():
        done = called(run, films, "--output", tmp_path / "maps", "--panel", panel)
        assert isinstance(done.exception, OutputError) and str(done.exception).endswith(said)
    assert not (tmp_path / "maps").exists()


def test_what_cannot_be_read_is_said_and_the_others_are_explained(run, films, tmp_path):
    (films / "f1.png").write_text("no film")
    done = called(run, films, "--output", tmp_path / "maps")
    assert done.exit_code == 0 and len(records(tmp_path / "maps")) == 2
    assert "f1.png cannot be read" in done.output
    assert called(run, films / "f1.png", "--output", tmp_path / "none").exit_code == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "gradcan"], r"Unknown explanation 'gradcan'\. Did you mean gradcam"),
        (["--class", "sik"], r"class must be one of clear, sick, top, all\. Did you mean sick\? Received: 'sik'"),
        (["--layer", "absent"], "^layer .* rank-4 output, such as last, .*Received: 'absent'"),
        (["--layer", "last", "--method", "saliency"], "has no layer. Received: 'last'"),
        (["--method", "attention-rollout"], "no attention between patches"),
        (["--panel", "panel.pdf"], "--panel must be a PNG file"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(run, films, tmp_path, options, said):
    done = called(run, films, "--output", tmp_path / "maps", *options)
    assert done.exit_code == 1 or isinstance(done.exception, Exception)
    message = str(done.exception)
    assert re.search(said, message) and "\n" not in message
    assert not (tmp_path / "maps").exists()


def test_a_layer_that_is_not_there_is_refused_of_a_method_of_a_plugin_too(run, films, tmp_path, monkeypatch):
    method_plugins.install(tmp_path / "site", monkeypatch, explanations="bright")
    options = ("--method", "bright", "--output", tmp_path / "maps", "--layer")
    message = str(called(run, films, *options, "absent").exception)
    assert re.search("^layer .* rank-4 output, such as last, .*Received: 'absent'", message) and "\n" not in message
    assert not (tmp_path / "maps").exists()
    assert called(run, films / "f0.png", *options, "norm").exit_code == 0
    assert records(tmp_path / "maps")[0]["layer"] == "norm"


@pytest.mark.parametrize("error", [DataError("The disk is gone."), KeyboardInterrupt()])
def test_what_fails_on_the_way_leaves_no_map_by_halves(run, films, tmp_path, monkeypatch, error):
    """In a later batch, and while the pictures are drawn; maps that are whole stay, and what was there before."""
    raw_maps, overlay = explaining.KerasEngine.raw_maps, explanation_files.overlay
    explained = explaining.explained
    calls = []

    def at_the_second(function):
        def called_twice(*given):
            calls.append(function)
            if len(calls) == 2:
                raise error
            return function(*given)

        calls.clear()
        return called_twice

    monkeypatch.setattr(explaining, "explained", partial(explained, batch_size=1))
    monkeypatch.setattr(explaining.KerasEngine, "raw_maps", at_the_second(raw_maps))
    (tmp_path / "kept").mkdir()
    assert called(run, films, "--output", tmp_path / "maps").exit_code == 1
    assert len(calls) == 2 and not (tmp_path / "maps").exists()
    calls.clear()
    assert called(run, films, "--output", tmp_path / "kept").exit_code == 1
    assert list((tmp_path / "kept").iterdir()) == []

    monkeypatch.setattr(explaining.KerasEngine, "raw_maps", raw_maps)
    monkeypatch.setattr(explanation_files, "overlay", at_the_second(overlay))
    assert called(run, films, "--output", tmp_path / "maps").exit_code == 1
    (record,) = records(tmp_path / "maps")
    assert {path.name for path in (tmp_path / "maps").glob("*.[np][pn][yg]")} == {record["raw"], record["picture"]}


def test_an_ensemble_and_a_run_without_a_layer_have_a_reason(run, films, tmp_path):
    other = write_run(tmp_path / "other", seed=1, explained=False)
    ensemble = write_ensemble(tmp_path / "ensemble", [run, other])
    assert "an ensemble: name a member" in str(called(ensemble, films, "--output", tmp_path / "maps").exception)
    assert "gradcam needs a layer" in str(called(other, films, "--output", tmp_path / "maps").exception)
    assert called(other, films / "f0.png", "--method", "saliency", "--output", tmp_path / "maps").exit_code == 0


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("shape", [(80, 40), (40, 80), (32, 32)])
def test_a_place_of_the_map_is_the_place_of_the_image_that_the_model_saw(fit, shape, tmp_path):
    """A bright square of the film is where the model's input, enlarged to the film again, is bright."""
    film = np.zeros(shape, np.uint8)
    middle = shape[0] // 2, shape[1] // 2
    film[middle[0] - 3 : middle[0] + 5, middle[1] - 5 : middle[1] + 3] = 255
    Image.fromarray(film).save(tmp_path / "film.png")
    size = (64, 64)
    given = read(tmp_path / "film.png", size=size, fit=fit).pixels.astype(np.float32)
    back = at_image(given, shape, fit)
    assert back.shape == shape
    rows, columns = np.indices(shape)
    for places in (rows, columns):
        ours, wanted = (np.average(places, weights=image) for image in (back, film))
        assert abs(ours - wanted) < 0.75
    row, column = facts(given, shape, fit)["highest_at"]
    assert film[row, column] == 255


def test_what_was_cropped_off_has_no_map():
    heat = at_image(np.ones((16, 16), np.float32), (64, 16), "crop")
    assert heat[:20].max() == heat[-20:].max() == 0 and heat[30:34].min() == 1
    assert at_image(np.ones((16, 16), np.float32), (64, 16), "pad").min() == 1
    box = seen((64, 16), (16, 16), "pad")
    assert (box.row_of(0), box.row_of(16), box.column_of(8)) == (0, 63, 8)


def test_the_strongest_tenth_of_an_even_map_is_a_tenth():
    assert abs(facts(np.ones((10, 10), np.float32), (10, 10), "stretch")["strongest_tenth"] - 0.1) < 1e-9


def test_only_the_command_speaks(run, films, tmp_path):
    """In a process of its own, as a user starts it: TensorFlow greets whoever imports it unprepared."""
    command = [sys.executable, "-c", "from chestxray.cli.main import main; main()", "explain", str(run)]
    plain = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [*command, str(films / "f0.png"), "--output", str(tmp_path / "maps")], capture_output=True, text=True, env=plain
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.strip().splitlines()
    assert [line.split()[0] for line in lines] == ["gradcam:", "gradcam:", "The", "Research"], done.stderr
    assert lines[1] == "gradcam: 1 of 1 maps are empty, or nearly so on this scale."
    assert not done.stdout
