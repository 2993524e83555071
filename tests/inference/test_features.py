"""`chestxray features`: what its file holds, what it comes from, and what it refuses."""

import sys

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import chestxray as cx
import tiny_models
from chestxray import registry
from chestxray.cli import main
from chestxray.data.decoded import decode
from chestxray.errors import DataError, InputError
from chestxray.inference import encoder
from chestxray.inference.feature_table import FeatureTable
from chestxray.models.assembly import build
from chestxray.training.feature_cache import Store
from run_folders import write_run


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


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("features") / "run")


def test_features_of_a_run_are_what_its_logits_are_made_of(run, folder, tmp_path, call):
    (folder / "normal" / "p000_0.png").write_bytes(b"no image")
    path = tmp_path / "films.parquet"
    _, err = call("features", run, f"folder:{folder}", "--patient-pattern", r"(p\d+)_", "--output", path)
    assert "Unreadable: " in err and "48 images, 1 unreadable" in err
    table = pq.read_table(path)
    assert table.column_names == ["path", "label", "patient", "split", "source", "unreadable", "features"]
    assert str(table.schema.field("features").type).startswith("large_list<")
    frame = table.to_pandas()
    assert sorted(frame["path"]) == sorted(map(str, folder.glob("*/*.png")))
    assert set(frame["label"]) == {"normal", "pneumonia"} and frame["patient"].nunique() == 24
    broken = frame["path"].str.endswith("p000_0.png")
    assert frame["features"][broken].isna().all() and (frame["unreadable"][broken] != "").all()
    kept = frame[~broken]
    # The plain way: the layer's output in Keras, and the logits from it by hand.
    model = cx.Run(run).model
    index = cx.load_data(f"folder:{folder}").index
    size = cx.Run(run).recipe.image_size
    pixels = decode(index, size, "stretch", tmp_path).pixels[~broken.to_numpy()][..., None].astype(np.float32)
    dense = model.get_layer("calibration").input._keras_history.operation
    plain = keras.Model(model.input, dense.input).predict(pixels, verbose=0)
    given = np.stack(kept["features"])
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, plain, atol=1e-5)
    again = FeatureTable.read(path)
    np.testing.assert_array_equal(again.vectors[again.readable], given)
    assert again.origin["run"] == str(run) and again.origin["width"] == given.shape[1]
    np.testing.assert_allclose(
        encoder.encode(encoder.of_origin(again.origin), pixels[..., 0].astype(np.uint8)), plain, atol=1e-5
    )


def test_features_of_an_architecture_are_its_backbone_pooled_and_computed_once(folder, tmp_path, call, monkeypatch):
    tiny_models.install(tmp_path / "site", monkeypatch)
    built = build(registry.load_plugin(registry.MODELS, "small"), 2, (16, 16), seed=3)
    weights = tmp_path / "small.weights.h5"
    built.model.save_weights(weights)
    arguments = ("features", "small", f"folder:{folder}", "--weights", weights, "--output", tmp_path / "a.parquet")
    call(*arguments)
    _, err = call(*arguments, code=2)
    assert "exists. Allowed: another --output, or --overwrite" in err
    monkeypatch.setattr(Store, "_compute", None)  # all rows are in the cache
    call(*arguments, "--overwrite")
    read = FeatureTable.read(tmp_path / "a.parquet")
    assert (read.origin["model"], read.origin["layer"], read.origin["image_size"]) == ("small", "last", [16, 16])
    index = cx.load_data(f"folder:{folder}").index
    pixels = decode(index, (16, 16), "stretch", tmp_path).pixels[..., None].astype(np.float32)
    maps = keras.Model(built.model.input, built.model.get_layer("last").output).predict(pixels, verbose=0)
    np.testing.assert_allclose(read.vectors, maps.mean(axis=(1, 2)), atol=1e-5)
    built.model.get_layer("last").bias.assign_add(np.ones(6))
    built.model.save_weights(weights)
    with pytest.raises(InputError, match="has changed since the features were computed"):
        encoder.of_origin(read.origin)


def test_the_api_gives_the_same_features(run, folder, tmp_path, call):
    call("features", run, f"folder:{folder}", "--output", tmp_path / "a.parquet")
    read = FeatureTable.read(tmp_path / "a.parquet")
    given = cx.Run(run).features(data=f"folder:{folder}")
    np.testing.assert_array_equal(np.stack(given["features"]), read.vectors)
    assert list(given["path"]) == list(read.rows["path"])
    with pytest.raises(InputError, match="image_size is not for a run"):
        cx.Run(run).features(data=f"folder:{folder}", image_size=16)


def test_findings_have_their_columns(tmp_path, call, monkeypatch):
    tiny_models.install(tmp_path / "site", monkeypatch)
    weights = tmp_path / "small.weights.h5"
    build(registry.load_plugin(registry.MODELS, "small"), 2, (16, 16)).model.save_weights(weights)
    data = "phantom:findings,patients=6,size=32"
    call("features", "small", data, "--weights", weights, "--output", tmp_path / "a.parquet")
    names = [name for name in pq.read_table(tmp_path / "a.parquet").column_names if name.startswith("finding:")]
    assert "finding:Effusion" in names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("small", "DATA", "--output", "a.csv"), "The output must be a Parquet file"),
        (("small", "DATA", "--output", "a.parquet"), "random features say nothing. Received: 'none'"),
        (("small", "DATA", "--weights", "no.h5", "--output", "a.parquet"), "Received: 'no.h5'"),
        (("smalll", "DATA", "--output", "a.parquet"), "Did you mean small"),
        (("small", "--output", "a.parquet"), "No data."),
        (("RUN", "DATA", "--image-size", "32", "--output", "a.parquet"), "image_size is not for a run"),
        (("RUN", "--map", "a=b", "--output", "a.parquet"), "map is not for a run without data"),
    ],
)
def test_a_mistake_is_one_line(arguments, said, run, folder, tmp_path, call, monkeypatch):
    tiny_models.install(tmp_path / "site", monkeypatch)
    monkeypatch.chdir(tmp_path)
    named = {"DATA": f"folder:{folder}", "RUN": str(run)}
    _, err = call("features", *(named.get(part, part) for part in arguments), code=2)
    assert said in err and "Traceback" not in err
    assert not (tmp_path / "a.parquet").exists()


def test_another_file_is_no_file_of_features(tmp_path, run):
    with pytest.raises(InputError, match="There is no file"):
        FeatureTable.read(tmp_path / "none.parquet")
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"path": ["a"]}), other)
    with pytest.raises(DataError, match="is no file of features"):
        FeatureTable.read(other)
