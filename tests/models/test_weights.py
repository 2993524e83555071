import logging
import struct
import zipfile

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from chestxray.errors import WeightsError
from chestxray.models.weights import build_named, load_huggingface, load_weights, named_weights

# Keras turns TensorFlow's variables into arrays this way when it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def network(classes=2, filters=4, seed=0, named=True, depth=2):
    """A tiny backbone of convolutions and batch normalisation with the default kind of head."""
    keras.utils.set_random_seed(seed)

    def name(text):
        return text if named else None

    pixels = keras.Input((16, 16, 1), name="pixels")
    x = keras.layers.Rescaling(1 / 255)(pixels)
    for block in range(1, depth + 1):
        x = keras.layers.Conv2D(filters, 3, padding="same", name=name(f"conv{block}"))(x)
        x = keras.layers.BatchNormalization(moving_mean_initializer="random_normal", name=name(f"bn{block}"))(x)
    features = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = keras.layers.Dense(classes, name="logits")(keras.layers.Dropout(0.2, seed=0)(features))
    return keras.Model(pixels, logits)


def save_keras2(model, path, names=True):
    """Write what Keras 2 wrote, as keras.applications publishes it."""
    with h5py.File(path, "w") as file:
        layers = [layer for layer in model.layers if layer.name != "logits"]
        file.attrs["layer_names"] = [(layer.name if names else f"old_{layer.name}").encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name if names else f"old_{layer.name}")
            group.attrs["weight_names"] = [f"{layer.name}/{v.name}:0".encode() for v in layer.weights]
            for variable in layer.weights:
                group[f"{layer.name}/{variable.name}:0"] = variable.numpy()


def arrays_of(model):
    return {f"{layer.name}/{v.name}": v.numpy() for layer in model.layers for v in layer.weights}


def same(one, other, head=True):
    pairs = zip(one.weights, other.weights, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs if head or "logits" not in a.path)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
@pytest.mark.parametrize("named", [True, False])
def test_a_whole_model_saved_by_keras_loads_head_included(tmp_path, suffix, named):
    saved, model = network(seed=1, named=named), network(named=named)
    path = tmp_path / f"saved{suffix}"
    saved.save_weights(path) if suffix == ".weights.h5" else saved.save(path)
    load_weights(model, path)
    assert same(model, saved)


@pytest.mark.parametrize("names", [True, False])
def test_a_backbone_published_as_keras_2_loads_and_the_head_stays(tmp_path, names):
    saved, model = network(seed=1), network()
    head = model.get_layer("logits").get_weights()
    save_keras2(saved, tmp_path / "notop.h5", names)
    load_weights(model, tmp_path / "notop.h5")
    assert same(model, saved, head=False)
    np.testing.assert_array_equal(head[0], model.get_layer("logits").get_weights()[0])


def test_long_lists_of_names_that_keras_2_cut_into_pieces_are_joined(tmp_path):
    saved, model = network(seed=1), network()
    path = tmp_path / "notop.h5"
    save_keras2(saved, path)
    with h5py.File(path, "r+") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:2], names[2:]
    load_weights(model, path)
    assert same(model, saved, head=False)


def test_a_whole_model_of_keras_2_keeps_its_weights_one_group_down(tmp_path):
    saved, model = network(seed=1), network()
    save_keras2(saved, tmp_path / "flat.h5")
    with h5py.File(tmp_path / "flat.h5") as flat, h5py.File(tmp_path / "whole.h5", "w") as whole:
        flat.copy(flat, whole, name="model_weights")
    load_weights(model, tmp_path / "whole.h5")
    assert same(model, saved, head=False)


def test_safetensors_named_layer_and_variable_load(tmp_path):
    saved, model = network(seed=1), network()
    save_file(arrays_of(saved), tmp_path / "saved.safetensors")
    load_weights(model, tmp_path / "saved.safetensors")
    assert same(model, saved)


def test_safetensors_under_published_names_load_through_convert(tmp_path):
    saved, model = network(seed=1), network()
    published = {name.replace("/", "."): array for name, array in arrays_of(saved).items()}
    save_file(published, tmp_path / "saved.safetensors")

    def convert(tensors, shapes):
        assert shapes == {name: array.shape for name, array in arrays_of(saved).items()}
        return {name.replace(".", "/"): array for name, array in tensors.items()}

    load_weights(model, tmp_path / "saved.safetensors", convert=convert)
    assert same(model, saved)
    with pytest.raises(WeightsError, match=r"must be named layer/variable; received: bn1\.beta"):
        load_weights(model, tmp_path / "saved.safetensors")


def test_a_head_with_another_number_of_classes_is_left_alone_and_said_so(tmp_path, caplog):
    saved, model = network(classes=3, seed=1), network(classes=2)
    head = model.get_layer("logits").get_weights()
    saved.save(tmp_path / "three.keras")
    with caplog.at_level(logging.WARNING):
        load_weights(model, tmp_path / "three.keras")
    assert "Only the backbone is loaded" in caplog.text
    assert "logits expects kernel of shape (4, 2). Received: shape (4, 3)" in caplog.text
    np.testing.assert_array_equal(model.get_layer("conv1").get_weights()[0], saved.get_layer("conv1").get_weights()[0])
    np.testing.assert_array_equal(head[0], model.get_layer("logits").get_weights()[0])


def test_frozen_layers_load_in_the_same_order(tmp_path):
    saved, model = network(seed=1), network()
    model.trainable = False
    save_keras2(saved, tmp_path / "notop.h5")
    load_weights(model, tmp_path / "notop.h5")
    model.trainable = True
    assert same(model, saved, head=False)


def test_a_layer_made_of_layers_is_filled(tmp_path):
    def attention(seed):
        keras.utils.set_random_seed(seed)
        pixels = keras.Input((4, 8))
        x = keras.layers.MultiHeadAttention(2, 4, name="attention")(pixels, pixels)
        return keras.Model(pixels, keras.layers.Dense(2, name="logits")(x))

    saved, model = attention(1), attention(0)
    saved.save_weights(tmp_path / "saved.weights.h5")
    load_weights(model, tmp_path / "saved.weights.h5")
    assert same(model, saved)
    fresh = attention(0)
    save_file({v.path: v.numpy() for v in saved.weights}, tmp_path / "saved.safetensors")
    load_weights(fresh, tmp_path / "saved.safetensors")
    assert same(fresh, saved)


def test_a_backbone_nested_in_a_sequential_model_is_found(tmp_path):
    saved, model = network(seed=1), network()
    backbone = keras.Model(saved.input, saved.get_layer("pool").output)
    nested = keras.Sequential([backbone, keras.layers.Dense(2, name="logits")])
    nested.save(tmp_path / "nested.keras")
    load_weights(model, tmp_path / "nested.keras")
    assert same(model, saved, head=False)


def test_what_stands_before_the_backbone_is_left_alone(tmp_path):
    def normalised(seed):
        keras.utils.set_random_seed(seed)
        pixels = keras.Input((16, 16, 1))
        norm = keras.layers.Normalization(axis=(1, 2, 3), name="per_pixel")
        norm.adapt(np.full((2, 16, 16, 1), seed))
        x = keras.layers.Conv2D(4, 3, name="conv1")(norm(pixels))
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(pixels, keras.layers.Dense(2, name="logits")(x))

    saved, model = normalised(1), normalised(0)
    saved.save(tmp_path / "saved.keras")
    load_weights(model, tmp_path / "saved.keras", backbone=["conv1"])
    assert np.all(model.get_layer("per_pixel").adapt_mean == 0)
    for name in ("conv1", "logits"):
        np.testing.assert_array_equal(model.get_layer(name).get_weights()[0], saved.get_layer(name).get_weights()[0])


def same_layer(one, other, name):
    pairs = zip(one.get_layer(name).weights, other.get_layer(name).weights, strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def refused(path, model=None, **options):
    """The message with which `path` is refused; the model must be as it was, the message one line."""
    model = model or network()
    before = [w.numpy() for w in model.weights]
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path, **options)
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_a_folder_and_an_unknown_suffix_are_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "none.h5")
    assert "it is a folder" in refused(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"x")
    message = refused(tmp_path / "weights.bin")
    assert "must end in .weights.h5, .h5, .keras, .safetensors, .pt or .pth. Received: .bin" in message


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras", ".safetensors"])
def test_a_file_of_another_kind_is_refused(tmp_path, suffix):
    path = tmp_path / f"text{suffix}"
    path.write_text("hello " * 100)
    assert "not what its name says" in refused(path)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras", ".safetensors"])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path, suffix, kept):
    saved, path = network(seed=1), tmp_path / f"cut{suffix}"
    if suffix == ".weights.h5":
        saved.save_weights(path)
    elif suffix == ".keras":
        saved.save(path)
    elif suffix == ".h5":
        save_keras2(saved, path)
    else:
        save_file(arrays_of(saved), path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    assert "cut short" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_archive_is_refused(tmp_path, method):
    """Whatever an archive's bytes say, in its list or of what is packed; some are beyond the file's end."""
    path, content = tmp_path / "packed.keras", np.random.default_rng(0).bytes(3000)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("model.weights.h5", content)
    good = path.read_bytes()
    listed = good.index(b"PK\1\2")
    for at in (*range(40, 90, 5), *range(listed, len(good), 5)):
        path.write_bytes(good[:at] + bytes((good[at] ^ 0x7F,)) + good[at + 1 :])
        assert "Cannot read weights" in refused(path)
    # More bytes than there are, by both sizes in the list.
    more = struct.pack("<II", 9_000, 9_000)
    path.write_bytes(good[: listed + 20] + more + good[listed + 28 :])
    assert "Cannot read weights" in refused(path)


def test_a_file_without_layers_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["measurements"] = np.ones(3)
    assert "no layers of a Keras model" in refused(tmp_path / "other.h5")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    assert "model.weights.h5" in refused(tmp_path / "other.keras")


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".safetensors"])
def test_the_first_layer_that_does_not_fit_is_named(tmp_path, suffix):
    saved, path = network(filters=8, seed=1), tmp_path / f"wide{suffix}"
    if suffix == ".weights.h5":
        saved.save_weights(path)
    elif suffix == ".h5":
        save_keras2(saved, path)
    else:
        save_file(arrays_of(saved), path)
    message = refused(path)
    assert "layer conv1 expects kernel of shape (3, 3, 1, 4). Received: shape (3, 3, 1, 8)." in message


def test_a_missing_layer_and_a_missing_variable_are_named(tmp_path):
    shallow = network(depth=1, seed=1)
    shallow.save_weights(tmp_path / "shallow.weights.h5")
    message = refused(tmp_path / "shallow.weights.h5")
    assert "layer conv2 expects kernel of shape (3, 3, 4, 4). Received: no such layer." in message
    arrays = arrays_of(network(seed=1))
    del arrays["bn2/moving_mean"]
    save_file(arrays, tmp_path / "partial.safetensors")
    message = refused(tmp_path / "partial.safetensors")
    assert "layer bn2 expects moving_mean of shape (4,). Received: nothing." in message


@pytest.mark.parametrize("named", [True, False])
def test_a_deeper_network_whose_first_layers_fit_is_refused(tmp_path, named):
    network(depth=3, seed=1, named=named).save_weights(tmp_path / "deep.weights.h5")
    message = refused(tmp_path / "deep.weights.h5", network(named=named))
    assert "no place for layer conv" in message
    assert "Received: shape (3, 3, 4, 4)" in message


def test_weights_that_are_not_finite_are_refused(tmp_path):
    arrays = arrays_of(network(seed=1))
    arrays["conv2/bias"][1] = np.nan
    save_file(arrays, tmp_path / "nan.safetensors")
    assert "not finite: layer conv2, bias" in refused(tmp_path / "nan.safetensors")


def test_a_converter_that_does_not_know_the_names_is_refused_in_one_line(tmp_path):
    save_file({"something.weight": np.ones(3, "float32")}, tmp_path / "other.safetensors")

    def convert(tensors, shapes):
        return {"conv1/kernel": tensors["conv1.weight"]}

    assert "conv1.weight" in refused(tmp_path / "other.safetensors", convert=convert)


def test_links_out_of_the_file_and_bombs_are_not_followed(tmp_path):
    saved = network(seed=1)
    saved.save_weights(tmp_path / "real.weights.h5")
    saved.save_weights(tmp_path / "linked.weights.h5")
    with h5py.File(tmp_path / "linked.weights.h5", "r+") as file:
        key = next(k for k in file["layers"] if file["layers"][k]["vars"].attrs.get("name") == "conv1")
        del file[f"layers/{key}/vars/0"]
        file[f"layers/{key}/vars/0"] = h5py.ExternalLink("real.weights.h5", f"layers/{key}/vars/0")
    assert "layer conv1 expects kernel" in refused(tmp_path / "linked.weights.h5")

    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("layers/conv2d/vars/0", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1024, 1024))
    assert "Received: shape (1048576, 1048576)" in refused(tmp_path / "bomb.h5")

    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(1 << 22))
    assert "unpacks to 4194304 bytes" in refused(tmp_path / "bomb.keras")


def test_bfloat16_in_hdf5_is_read_as_keras_marks_it(tmp_path):
    saved, model = network(seed=1), network()
    saved.save_weights(tmp_path / "half.weights.h5")
    with h5py.File(tmp_path / "half.weights.h5", "r+") as file:
        import ml_dtypes

        key = next(k for k in file["layers"] if file["layers"][k]["vars"].attrs.get("name") == "conv1")
        group = file[f"layers/{key}/vars"]
        values = np.asarray(group["0"]).astype(ml_dtypes.bfloat16)
        del group["0"]
        group.create_dataset("0", data=values).attrs["dtype"] = "bfloat16"
    load_weights(model, tmp_path / "half.weights.h5")
    np.testing.assert_array_equal(model.get_layer("conv1").kernel.numpy(), values.astype("float32"))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No server to be reached and nothing in the caches."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "keras").mkdir()
    return tmp_path


def test_a_failed_download_says_what_to_do(offline):
    url = "http://127.0.0.1:9/weights/vgg16_notop.h5"
    with pytest.raises(WeightsError) as caught, named_weights("imagenet"):
        keras.utils.get_file("vgg16_notop.h5", url, cache_subdir="models", cache_dir=str(offline / "keras"))
    message = str(caught.value)
    assert "\n" not in message
    assert url in message and "refused" in message
    assert f"put it at {offline / 'keras' / 'models' / 'vgg16_notop.h5'}" in message
    assert "--weights none" in message and "--weights PATH" in message


def test_a_damaged_download_says_what_to_do(offline):
    served = offline / "served.h5"
    served.write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="Incomplete or corrupted file"), named_weights("imagenet"):
        keras.utils.get_file(
            "x.h5",
            served.as_uri(),
            cache_subdir="models",
            cache_dir=str(offline / "keras"),
            file_hash="0" * 64,
        )


def test_other_errors_of_a_plugin_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), named_weights(None):
        raise ZeroDivisionError


def renamed(tensors, shapes):
    """A converter of a file whose names need none."""
    raise AssertionError("not asked")


def test_a_hub_that_cannot_be_reached_says_what_to_do(offline):
    model = network()
    with pytest.raises(WeightsError) as caught:
        load_huggingface(model.input, model.output, "owner/name", convert=renamed)
    message = str(caught.value)
    assert "https://huggingface.co/owner/name/resolve/main/model.safetensors" in message
    assert "\n" not in message and "--weights PATH" in message


def test_a_file_in_the_hubs_cache_is_used_without_asking_the_server(offline):
    saved, model = network(seed=1), network()
    commit = offline / "hub" / "models--owner--name" / "snapshots" / ("0" * 40)
    commit.mkdir(parents=True)
    save_file(arrays_of(saved), commit / "model.safetensors")
    load_huggingface(model.input, model.output, "owner/name", convert=renamed, revision="0" * 40)
    assert same(model, saved)


def test_named_weights_load_behind_a_normalisation_with_weights_of_its_own(tmp_path):
    """keras.applications counts every layer from the input on, and refuses the file."""

    def build(scaled, weights):
        x = keras.layers.Conv2D(4, 3, name="conv1")(scaled)
        x = keras.layers.BatchNormalization(name="bn1")(x)
        if weights:
            keras.Model(keras.utils.get_source_inputs(x), x).load_weights(tmp_path / "imagenet.h5")
        return x

    saved = network(depth=1, seed=1)
    save_keras2(saved, tmp_path / "imagenet.h5")
    pixels = keras.Input((16, 16, 1))
    for scaled in (pixels, keras.layers.BatchNormalization(name="own")(pixels)):
        keras.utils.set_random_seed(0)
        model = keras.Model(pixels, build_named(build, scaled, "imagenet"))
        assert same_layer(model, saved, "conv1")
        assert same_layer(model, saved, "bn1")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("filename", "application"),
    [("vgg16_imagenet_notop", "VGG16"), ("mobilenetv2_imagenet_notop", "MobileNetV2")],
)
def test_real_weights_load_as_keras_itself_loads_them(real_data, filename, application):
    path = real_data / "weights" / f"{filename}.weights.h5"
    network = getattr(keras.applications, application)
    expected = network(input_shape=(32, 32, 3), include_top=False, weights=None)
    expected.load_weights(path)
    pixels = keras.Input((32, 32, 3))
    backbone = network(input_tensor=keras.layers.Rescaling(1 / 255)(pixels), include_top=False, weights=None)
    x = keras.layers.GlobalAveragePooling2D()(backbone.output)
    model = keras.Model(pixels, keras.layers.Dense(2, name="logits")(x))
    load_weights(model, path)
    for loaded, wanted in zip(model.weights[: len(expected.weights)], expected.weights, strict=True):
        np.testing.assert_array_equal(loaded, wanted)
