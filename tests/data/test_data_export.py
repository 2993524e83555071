"""A set written for other programs, and read back."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chestxray.data.data_export import export
from chestxray.data.index import Index
from chestxray.data.sources import load_index
from chestxray.data.sources.tfds import quiet
from chestxray.errors import OutputError
from chestxray.recipe import Recipe

CLASSES = ("Viral Pneumonia", "normal")


@pytest.fixture
def prepared():
    """12 rows, one of them left out, and their pixels."""
    records = [
        {
            "path": f"/x/{n:02d}.jpg",
            "label": CLASSES[n % 2],
            "split": ("train", "train", "train", "train", "validation", "validation", "test", "test")[n % 8],
            "patient": f"p{n // 2}" if n < 6 else "",
            "source": "one" if n < 8 else "two",
        }
        for n in range(12)
    ]
    index = Index.from_records(records, name="one + two", classes=CLASSES, citation="me")
    index.rows.loc[3, "split"] = ""
    return index, np.random.default_rng(0).integers(0, 256, (12, 10, 14), dtype=np.uint8)


def contents(index):
    """(split, label, pixels) of every row, whatever its name."""
    found = set()
    for row in index.rows.itertuples():
        with Image.open(row.path) as image:
            found.add((row.split, row.label, np.asarray(image).tobytes()))
    return found


def expected(prepared):
    index, pixels = prepared
    rows = index.rows[index.rows["split"] != ""]
    return {
        (row.split, row.label, pixels[place].tobytes())
        for place, row in zip(rows.index, rows.itertuples(), strict=True)
    }


def test_folders_are_read_back(prepared, tmp_path):
    assert export(*prepared, "folder", tmp_path / "out") == 11
    index = load_index(Recipe(data=f"folder:{tmp_path / 'out'}"), tmp_path)
    assert contents(index) == expected(prepared)
    again = load_index(Recipe(data=f"manifest:{tmp_path / 'out' / 'index.csv'}"), tmp_path)
    assert contents(again) == expected(prepared)
    assert again.rows["patient"].tolist().count("") == 6
    table = pd.read_csv(tmp_path / "out" / "index.csv")
    assert set(table["source"]) == {"one", "two"}
    assert "02.jpg" in set(table["origin"])


def test_npz_is_read_back(prepared, tmp_path):
    assert export(*prepared, "npz", tmp_path / "out") == 11
    (file,) = (tmp_path / "out").iterdir()
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["train_images"].shape == (7, 10, 14)
        assert arrays["val_labels"].tolist() == [[0], [1]]
        assert arrays["names"].tolist() == list(CLASSES)
    index = load_index(Recipe(data=f"npz:{file}"), tmp_path)
    assert contents(index) == expected(prepared)


def test_tfds_is_read_by_builder_from_directory_and_read_back(prepared, tmp_path):
    assert export(*prepared, "tfds", tmp_path / "out") == 11
    with quiet():
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(str(tmp_path / "out"))
        assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
            "train": 7, "validation": 2, "test": 2,
        }  # fmt: skip
        assert builder.info.features["label"].names == list(CLASSES)
        assert "me" in builder.info.citation
        rows = list(tfds.as_numpy(builder.as_dataset(split="test")))
    pixels = prepared[1]
    assert {row["image"][..., 0].tobytes() for row in rows} == {pixels[6].tobytes(), pixels[7].tobytes()}
    assert {row["source"] for row in rows} == {b"one"}
    again = load_index(Recipe(data=f"tfds:{tmp_path / 'out'}"), tmp_path)
    assert contents(again) == expected(prepared)
    assert set(again.rows["patient"]) == {"", "one/p0", "one/p1", "one/p2"}
    assert again.citation == "me"
    assert not (tmp_path / ".out.partial").exists()


def test_class_names_that_no_folder_can_have(prepared, tmp_path):
    index, pixels = prepared
    names = {"normal": "a/b", "Viral Pneumonia": "a:b"}
    rows = index.rows.assign(label=index.rows["label"].map(names))
    odd = Index(rows=rows, classes=("a/b", "a:b"), name="odd")
    export(odd, pixels, "folder", tmp_path / "out")
    assert load_index(Recipe(data=f"folder:{tmp_path / 'out'}"), tmp_path).classes == ("a_b", "a_b_1")
    assert load_index(Recipe(data=f"manifest:{tmp_path / 'out' / 'index.csv'}"), tmp_path).classes == ("a/b", "a:b")


def test_nothing_is_written_over(prepared, tmp_path):
    (tmp_path / "out").mkdir()
    export(*prepared, "folder", tmp_path / "out")
    with pytest.raises(OutputError, match="is there already"):
        export(*prepared, "npz", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is there already"):
        export(*prepared, "npz", tmp_path / "file")


def test_a_failure_leaves_nothing_behind(prepared, tmp_path):
    index, pixels = prepared
    with pytest.raises(IndexError):
        export(index, pixels[:3], "folder", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
