"""tensorflow-datasets itself, on sets prepared on disk as it lays them out."""

import io
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import public_trees
from chestxray.data.sources import load_index
from chestxray.data.sources.tfds import quiet
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions
from chestxray.recipe import Recipe

SPLITS = {"train": range(6), "val": range(6, 8), "test": range(8, 12)}


def pixels(number):
    return np.asarray(public_trees.phantom(number).resize((28, 28)))[..., None]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """`pneumonia_mnist` as if tensorflow-datasets had downloaded and prepared it."""
    root = tmp_path_factory.mktemp("tfds")
    with quiet():
        import tensorflow as tf
        import tensorflow_datasets as tfds

        names = ["Normal", "Pneumonia"]
        features = {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(names=names),
            "patient": tfds.features.Text(),
        }
        sets = {
            split: tf.data.Dataset.from_tensor_slices(
                {
                    "image": np.stack([pixels(n) for n in numbers]),
                    "label": np.array([n % 2 for n in numbers]),
                    "patient": np.array([f"p{n}" for n in numbers]),
                }
            )
            for split, numbers in SPLITS.items()
        }
        tfds.dataset_builders.store_as_tfds_dataset(
            name="pneumonia_mnist", version="1.0.0", data_dir=str(root), split_datasets=sets, disable_shuffling=True,
            features=tfds.features.FeaturesDict(features),
        )  # fmt: skip
    return root


def test_a_prepared_set_is_read_by_name_bit_for_bit(data_dir, tmp_path, monkeypatch):
    index = load_index(Recipe(data="pneumoniamnist", data_option=f"data_dir={data_dir}"), tmp_path)
    assert index.classes == ("normal", "pneumonia")
    assert index.rows["split"].value_counts().to_dict() == {"train": 6, "test": 4, "validation": 2}
    for split, numbers in (("train", SPLITS["train"]), ("validation", SPLITS["val"]), ("test", SPLITS["test"])):
        paths = index.rows.loc[index.rows["split"] == split, "path"].sort_values(key=lambda p: p.str[-10:])
        for path, number in zip(paths, numbers, strict=True):
            with Image.open(path) as image:
                assert (np.asarray(image) == pixels(number)[..., 0]).all()
    # What was written is used again: nothing of tensorflow-datasets is asked.
    (data_dir / "pneumonia_mnist").rename(data_dir / "gone")
    try:
        again = load_index(Recipe(data="pneumoniamnist", data_option=f"data_dir={data_dir}"), tmp_path)
    finally:
        (data_dir / "gone").rename(data_dir / "pneumonia_mnist")
    assert again.rows.equals(index.rows)


def test_a_prepared_set_is_read_as_a_folder(data_dir, tmp_path):
    folder = data_dir / "pneumonia_mnist" / "1.0.0"
    index = load_index(Recipe(data=f"tfds:{folder}"), tmp_path)
    assert index.classes == ("Normal", "Pneumonia")
    assert index.name == "pneumonia_mnist"
    copied = load_index(Recipe(data="pneumoniamnist", path=str(folder)), tmp_path)
    assert copied.classes == ("normal", "pneumonia")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("image=label", "Which feature is the image.*one of image. Received: label"),
        ("label=kind", "Which feature is the label.*one of label, patient"),
        ("patient=who", "No feature 'who'"),
        ("names=a", "names must name the 2 classes Normal, Pneumonia"),
    ],
)
def test_a_feature_that_is_not_there(data_dir, tmp_path, option, message):
    folder = data_dir / "pneumonia_mnist" / "1.0.0"
    with pytest.raises(InputError, match=message):
        load_index(Recipe(data=f"tfds:{folder}", data_option=option), tmp_path)


def test_an_unknown_name_and_a_broken_folder(tmp_path):
    with pytest.raises(InputError, match="knows no set 'no_such_set'"):
        load_index(Recipe(data="tfds:no_such_set"), tmp_path)
    (tmp_path / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="could not be had"):
        load_index(Recipe(data=f"tfds:{tmp_path}"), tmp_path)
    with pytest.raises(InputError, match="must name a set"):
        load_index(Recipe(data="tfds:"), tmp_path)


def test_without_a_network_it_says_so_at_once(tmp_path, monkeypatch):
    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DataError, match=r"tfds:pneumonia_mnist could not be had: no connection to zenodo\.org"):
        load_index(Recipe(data="pneumoniamnist"), tmp_path)


def test_jpeg_stays_the_file_it_was(tmp_path):
    buffer = io.BytesIO()
    public_trees.phantom(3).save(buffer, "JPEG")
    with quiet():
        import tensorflow as tf
        import tensorflow_datasets as tfds

        features = {
            "film": tfds.features.Image(shape=(None, None, 1), encoding_format="jpeg"),
            "kind": tfds.features.Text(),
        }
        rows = {"film": [buffer.getvalue()] * 2, "kind": [b"a", b"b"]}
        tfds.dataset_builders.store_as_tfds_dataset(
            name="films", version="1.0.0", data_dir=str(tmp_path / "made"),
            features=tfds.features.FeaturesDict(features),
            split_datasets={"everything": tf.data.Dataset.from_tensor_slices(rows)},
        )  # fmt: skip
    index = load_index(Recipe(data=f"tfds:{tmp_path / 'made' / 'films' / '1.0.0'}"), tmp_path / "cache")
    assert index.classes == ("a", "b")
    assert set(index.rows["split"]) == {""}
    assert all(path.endswith(".jpg") for path in index.rows["path"])
    assert Path(index.rows["path"][0]).read_bytes() == buffer.getvalue()


def test_patients_come_from_the_set_else_from_a_pattern(data_dir, tmp_path):
    from chestxray.data.sources.tfds import plugin

    # The set's own patients go before a pattern.
    options = SourceOptions(cache=tmp_path, patient_pattern=r"(\d+)\.png")
    folder = str(data_dir / "pneumonia_mnist" / "1.0.0")
    assert set(plugin.load(folder, options).rows["patient"]) == {f"p{n}" for n in range(12)}
    # Of a set without any, a pattern finds them in the files' names.
    options = SourceOptions(cache=tmp_path, patient_pattern=r"(\d+)\.png", extra={"data_dir": str(data_dir)})
    assert "000003" in set(plugin.load("pneumonia_mnist", options).rows["patient"])
