"""Arrays in MedMNIST's layout."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from chestxray.data.decoded import decode
from chestxray.data.sources.npz import load
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions


def arrays(dtype=np.uint8, shape=(9, 7), counts=(5, 3, 4)):
    rng = np.random.default_rng(0)
    made = {}
    for name, n in zip(("train", "val", "test"), counts, strict=True):
        made[f"{name}_images"] = rng.integers(0, np.iinfo(dtype).max, (n, *shape), dtype=dtype, endpoint=True)
        made[f"{name}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    return made


@pytest.fixture
def read(tmp_path):
    def inner(made, compressed=True, **extra):
        file = tmp_path / "set.npz"
        (np.savez_compressed if compressed else np.savez)(file, **made)
        return load(str(file), SourceOptions(cache=tmp_path / "cache", extra=extra))

    return inner


@pytest.mark.parametrize("compressed", [True, False])
def test_images_are_written_bit_for_bit(read, tmp_path, compressed):
    made = arrays()
    index = read(made, compressed, names="clear, ill")
    assert index.classes == ("clear", "ill")
    assert index.rows["split"].value_counts().to_dict() == {"train": 5, "test": 4, "validation": 3}
    found = decode(index, (9, 7), "stretch", tmp_path / "cache").pixels
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        of_split = np.flatnonzero((index.rows["split"] == split).to_numpy())
        numbers = index.rows["path"].iloc[of_split].str.extract(r"(\d+)\.png")[0].astype(int)
        assert (found[of_split[numbers.argsort()]] == made[f"{name}_images"]).all()


def test_sixteen_bits_and_colour_are_kept(read):
    first = read(arrays(np.uint16)).rows.iloc[0]["path"]
    with Image.open(first) as image:
        assert image.mode == "I;16"
    with Image.open(read(arrays(shape=(9, 7, 3))).rows.iloc[0]["path"]) as image:
        assert image.mode == "RGB"
    with Image.open(read(arrays(shape=(9, 7, 1))).rows.iloc[0]["path"]) as image:
        assert image.mode == "L"


def test_the_same_file_is_written_once_and_a_changed_one_anew(read):
    made = arrays()
    before = set(read(made).rows["path"])
    again = read(made)
    # `savez` wrote the file again: another time of change, another set.
    assert set(again.rows["path"]).isdisjoint(before)


def test_names_come_from_the_file_or_are_numbers(read):
    assert read(arrays()).classes == ("0", "1")
    assert read(arrays() | {"names": np.array(["b", "a"])}).classes == ("a", "b")
    with pytest.raises(InputError, match="names must name the 2 classes"):
        read(arrays(), names="one")


def test_an_interrupted_conversion_starts_clean(read, tmp_path):
    made = arrays()
    index = read(made)
    folder = tmp_path / "cache" / "npz"
    (done,) = [item for item in folder.iterdir() if item.is_dir()]
    # What a killed process leaves: the partial folder, with half a file.
    partial = done.with_name(done.name + ".partial")
    done.rename(partial)
    (partial / "train" / "0" / "half.png").write_bytes(b"\x89PNG")
    again = load(str(tmp_path / "set.npz"), SourceOptions(cache=tmp_path / "cache"))
    assert again.rows.equals(index.rows)
    assert not list(done.rglob("half.png"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.eye(5, dtype=np.uint8)}, "several labels an image are not supported"),
        ({"train_labels": np.zeros((4, 1), np.uint8)}, "has 5 train images but 4 labels"),
        ({"train_labels": np.zeros((5, 1), np.float32)}, "one whole number an image"),
        ({"train_labels": np.full((5, 1), -1, np.int8)}, "must be numbers from 0"),
        ({"train_images": np.zeros((5, 9, 7), np.float32)}, "must be uint8 or uint16"),
        ({"train_images": np.zeros((5, 9, 7, 2), np.uint8)}, "must be uint8 or uint16"),
        ({"train_images": np.asfortranarray(np.zeros((5, 9, 7), np.uint8))}, "must be uint8 or uint16"),
        ({"train_images": np.array([{"a": 1}] * 5, dtype=object)}, "must be uint8 or uint16"),
    ],
)
def test_arrays_in_another_layout_are_refused(read, change, message):
    with pytest.raises(DataError, match=message):
        read(arrays() | change)


def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, shape in (("images", (5, 40_000, 40_000)), ("labels", (5, 1))):
            raw = io.BytesIO()
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(raw, header)
            archive.writestr(f"train_{name}.npy", raw.getvalue() + bytes(5))
    (tmp_path / "x.npz").write_bytes(made.getvalue())
    with pytest.raises(DataError, match=r"40000x40000 pixels; at most 100,000,000"):
        load(str(tmp_path / "x.npz"), SourceOptions(cache=tmp_path))


def test_what_is_no_npz_is_said(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read as an npz file"):
        load(str(tmp_path / "x.npz"), SourceOptions(cache=tmp_path))
    np.savez(tmp_path / "y.npz", x_train=np.zeros(3))
    with pytest.raises(DataError, match=r"not in MedMNIST's layout.*Its arrays: x_train"):
        load(str(tmp_path / "y.npz"), SourceOptions(cache=tmp_path))
    with pytest.raises(InputError, match="No file"):
        load(str(tmp_path / "none.npz"), SourceOptions(cache=tmp_path))


@pytest.mark.real_data
def test_pneumoniamnist(real_data, tmp_path):
    index = load(
        str(real_data / "pneumoniamnist.npz"), SourceOptions(cache=tmp_path, extra={"names": "normal,pneumonia"})
    )
    counts = index.counts()
    assert counts["test"].to_dict() == {"normal": 234, "pneumonia": 390}
    assert counts.sum().to_dict() == {"train": 4708, "validation": 524, "test": 624}
    with np.load(real_data / "pneumoniamnist.npz") as arrays_:
        first = arrays_["test_images"][0]
    path = index.rows.loc[index.rows["split"] == "test", "path"].map(str).sort_values(key=lambda p: p.str[-10:]).iloc[0]
    with Image.open(path) as image:
        assert (np.asarray(image) == first).all()
