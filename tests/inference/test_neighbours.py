"""`chestxray neighbours`: the copies that it finds, what it marks, what it writes and refuses."""

import csv
import io
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from chestxray import registry
from chestxray.cli import main
from chestxray.data.sources.phantom.drawing import draw
from chestxray.errors import InputError
from chestxray.inference import nearest_films
from chestxray.inference.feature_table import FeatureTable
from chestxray.models.assembly import build

#: Phantoms have one anatomy, so that other films than copies are also much alike.
COPIES_FROM = 0.99997


@pytest.fixture
def call(monkeypatch, capfd):
    def call(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["chestxray", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        out, err = capfd.readouterr()
        assert stopped.value.code == code, err
        return out, err

    return call


def film(patient):
    return Image.fromarray(draw(seed=0, patient=patient, image=0, finding="clear", size=64).pixels)


def cropped(image):
    width, height = image.size
    return image.crop((1, 1, width - 1, height - 1))


def windowed(image):
    return image.point(lambda grey: min(255, max(0, (grey - 10) * 1.1)))


COPIES = {"mirrored": (0, ImageOps.mirror), "cropped": (1, cropped), "windowed": (2, windowed)}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Phantoms of 16 patients to train on; to test on those of two others, and changed copies of three."""
    root = tmp_path_factory.mktemp("films")
    for split in ("train", "test"):
        (root / split / "clear").mkdir(parents=True)
    for patient in range(16):
        film(patient).save(root / "train" / "clear" / f"p{patient:02d}.png")
    for patient in (20, 21):
        film(patient).save(root / "test" / "clear" / f"p{patient}.png")
    for name, (patient, change) in COPIES.items():
        change(film(patient)).save(root / "test" / "clear" / f"{name}.png")
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights whose convolutions see left and right alike, as trained ones nearly do."""
    path = tmp_path_factory.mktemp("weights") / "symmetric.weights.h5"
    model = build(registry.load_plugin(registry.MODELS, "deep_cnn"), 2, (64, 64), seed=3).model
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.asarray(layer.kernel)
            layer.kernel.assign((kernel + kernel[:, ::-1]) / 2)
    model.save_weights(path)
    return path


@pytest.fixture
def features(films, weights, tmp_path, call):
    path = tmp_path / "films.parquet"
    call("features", "deep_cnn", f"folder:{films}", "--weights", weights, "--image-size", 64, "--output", path)
    return path


def read(text):
    return {(row["film"], row["neighbour"]): row for row in csv.DictReader(io.StringIO(text))}


def test_mirrored_cropped_and_windowed_copies_are_found_and_marked(films, features, tmp_path, call):
    panel = tmp_path / "near.png"
    out, err = call("neighbours", features, "--count", 2, "--copies-from", COPIES_FROM, "--panel", panel)
    found = read(out)
    assert len(found) == 2 * 21
    of = pd.DataFrame(found.values()).groupby("film", sort=False).head(1).set_index("film")
    for name, (patient, _) in COPIES.items():
        row = of.loc[str(films / "test" / "clear" / f"{name}.png")]
        assert row["neighbour"] == str(films / "train" / "clear" / f"p{patient:02d}.png")
        assert row["possible_copy"] == "yes" and float(row["similarity"]) >= COPIES_FROM
        assert (row["film_split"], row["neighbour_split"], row["film_label"]) == ("test", "train", "clear")
    for patient in (20, 21):
        assert of.loc[str(films / "test" / "clear" / f"p{patient}.png"), "possible_copy"] == ""
    assert "alike: 3 pairs. This is a hint and no proof" in err
    with Image.open(panel) as drawn:
        assert drawn.size[0] > 400


def test_an_image_is_searched_for_by_the_network_that_made_the_file(films, features, tmp_path, call):
    image = tmp_path / "new.png"
    windowed(film(7)).save(image)
    (tmp_path / "broken.png").write_bytes(b"no image")
    out, err = call("neighbours", features, "--of", image, "--of", tmp_path / "broken.png", "--count", 1)
    ((pair, row),) = read(out).items()
    assert pair == (str(image), str(films / "train" / "clear" / "p07.png"))
    assert (row["film_label"], row["neighbour_label"], row["film_patient"]) == ("", "clear", "")
    assert "Unreadable: " in err and "1 unreadable: they have no neighbours" in err
    # A file of features of the same film gives the same answer, and no file is a neighbour of itself.
    other = tmp_path / "other.csv"
    call("neighbours", features, "--of", features, "--count", 1, "--output", other)
    own, _ = call("neighbours", features, "--count", 1)
    assert other.read_text() == own
    assert all(film != neighbour for film, neighbour in read(own))


def table(vectors, *, patients, splits, fingerprint="a"):
    n = len(vectors)
    rows = pd.DataFrame({
        "path": [f"/x/{i}.png" for i in range(n)], "label": "clear", "patient": patients, "split": splits,
        "source": "made", "unreadable": "",
    })  # fmt: skip
    origin = {"model": "m", "weights": "w", "image_size": [8, 8], "fit": "pad", "layer": "l", "width": 2}
    return FeatureTable(rows, np.asarray(vectors, np.float32), origin | {"fingerprint": fingerprint})


def test_similarity_is_the_cosine_and_films_of_one_patient_and_split_are_not_marked():
    vectors = [[1, 0], [2, 0], [3, 0], [1, 1], [0, 5]]
    given = table(vectors, patients=["p", "p", "p", "q", ""], splits=["train", "train", "test", "train", ""])
    found = nearest_films.nearest(given, given, 4)
    pairs = found.set_index(["film", "neighbour"])
    unit = np.asarray(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    for (one, other), row in pairs.iterrows():
        assert row["similarity"] == pytest.approx(unit[int(one[3])] @ unit[int(other[3])], abs=1e-6)
    assert len(found) == 20 and list(found.groupby("film").size()) == [4] * 5
    assert not pairs.loc[("/x/0.png", "/x/1.png"), "possible_copy"]
    assert pairs.loc[("/x/0.png", "/x/2.png"), "possible_copy"]  # another split
    assert not pairs.loc[("/x/0.png", "/x/3.png"), "possible_copy"]  # not alike
    assert len(nearest_films.possible_copies(found)) == 2  # each pair once


def test_features_of_two_networks_are_not_compared():
    one = table([[1, 0]], patients=[""], splits=[""])
    with pytest.raises(InputError, match="Features of two networks cannot be compared"):
        nearest_films.nearest(one, table([[1, 0]], patients=[""], splits=[""], fingerprint="b"), 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("none.parquet",), "There is no file none.parquet"),
        (("FEATURES", "--panel", "near.pdf"), "--panel must be a PNG file"),
        (("FEATURES", "--of", "a.parquet", "--of", "b.png"), "--of takes one file of features, or images"),
        (("FEATURES", "--output", "FEATURES"), "exists. Allowed: another --output, or --overwrite"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, features, call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, err = call("neighbours", *(str(features) if part == "FEATURES" else part for part in arguments), code=2)
    assert said in err and "Traceback" not in err
