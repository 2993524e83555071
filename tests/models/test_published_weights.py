"""Published weights are fetched, checked and loaded from a server of the publisher's layout, also as PyTorch saves
them; the files are written here without torch, which need not be installed.
"""

import argparse
import collections
import hashlib
import io
import pickle
import re
import sys
import zipfile

import keras
import numpy as np
import pytest

from chestxray.errors import PluginError, WeightsError
from chestxray.models import torch_files
from chestxray.models.assembly import build
from chestxray.plugin import ModelPlugin, PublishedWeights
from loopback import serving

FILE = "/owner/name/releases/download/v1/best.pt"
KERNEL = np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3)
BIAS = np.float32([0.5, -1])


def stand_in(name, module):
    """A class that a pickle calls MODULE.NAME."""
    return type(name, (), {"__module__": module, "__qualname__": name})


FLOATS = stand_in("FloatStorage", "torch")
LONGS = stand_in("LongStorage", "torch")
NETWORK = stand_in("DenseNet", "torchxrayvision.models")
LAYER = stand_in("Conv2d", "torch.nn.modules.conv")
REBUILD = stand_in("_rebuild_tensor_v2", "torch._utils")
STAND_INS = (FLOATS, LONGS, NETWORK, LAYER, REBUILD)


class Tensor:
    """A tensor of the `array`, contiguous unless there is a `stride`, as PyTorch reduces it."""

    def __init__(self, array, offset=0, size=None, stride=None):
        self.storage = array
        own = tuple(step // array.itemsize for step in array.strides)
        self.rest = (offset, size or array.shape, stride or own, False, collections.OrderedDict())


class Pickler(pickle._Pickler):  # the one in Python, whose classes need not be importable
    def __init__(self, file, whole=False):
        super().__init__(file, protocol=2)
        self.whole, self.told, self.storages = whole, False, {}

    def persistent_id(self, item):
        if isinstance(item, np.ndarray):
            self.storages[str(id(item))] = item
            kind = FLOATS if item.dtype == np.float32 else LONGS
            rest = (None,) if self.whole else ()
            return ("storage", kind, str(id(item)), "cuda:0", item.size, *rest)
        if self.whole and item is NETWORK and not self.told:
            self.told = True
            return ("module", item, "models.py", "class DenseNet: ...")
        return None

    def reducer_override(self, item):
        if isinstance(item, type) and item in STAND_INS:
            return item.__name__
        return (REBUILD, (item.storage, *item.rest)) if isinstance(item, Tensor) else NotImplemented

    def save_global(self, item, name=None):
        if item not in STAND_INS:
            return super().save_global(item, name)
        self.write(f"c{item.__module__}\n{item.__name__}\n".encode())
        return self.memoize(item)


def saved(content, *, legacy=False):
    """What `torch.save` writes: an archive, or the stream of PyTorch before 1.6."""
    file = io.BytesIO()
    pickler = Pickler(file, whole=legacy)
    pickler.dump(content)
    if not legacy:
        archived = io.BytesIO()
        with zipfile.ZipFile(archived, "w") as archive:
            archive.writestr("best/data.pkl", file.getvalue())
            archive.writestr("best/byteorder", "little")
            for key, array in pickler.storages.items():
                archive.writestr(f"best/data/{key}", array.tobytes())
        return archived.getvalue()
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    parts = [pickle.dumps(value, protocol=2) for value in head]
    parts += [file.getvalue(), pickle.dumps(list(pickler.storages), protocol=2)]
    parts += [array.size.to_bytes(8, "little") + array.tobytes() for array in pickler.storages.values()]
    return b"".join(parts)


def state(kernel=KERNEL, bias=BIAS):
    counted = np.array(7, dtype=np.int64)
    return collections.OrderedDict(
        {"conv.weight": Tensor(kernel), "conv.bias": Tensor(bias), "norm.num_batches_tracked": Tensor(counted)}
    )


def of_mae():
    """What trainings of the kind of MAE save."""
    return {"model": state(), "epoch": 3, "args": argparse.Namespace(lr=0.1, finetune="")}


def network():
    """A whole module, as torchxrayvision saves its DenseNets."""
    layer, root = LAYER(), NETWORK()
    parameters = {"weight": Tensor(KERNEL), "bias": Tensor(BIAS)}
    vars(layer).update(_parameters=collections.OrderedDict(parameters), _buffers={}, _modules={}, stride=(1, 1))
    vars(root).update(_parameters={}, _buffers={"op_threshs": None}, _modules={"conv": layer}, training=True)
    return root


def convert(tensors, shapes):
    return {
        "conv/kernel": tensors["conv.weight"].transpose(2, 3, 1, 0),
        "conv/bias": tensors["conv.bias"],
    }


def plugin(url, sha256=""):
    return ModelPlugin(
        build=lambda scaled, _: keras.layers.Conv2D(2, 3, padding="same", name="conv")(scaled),
        scale=lambda pixels: keras.layers.Rescaling(1 / 255)(pixels),
        image_size=(8, 8),
        minimum_size=(8, 8),
        channels=1,
        weights=("chest",),
        published={"chest": PublishedWeights(url=url, sha256=sha256, trained_on=("nih",))},
        convert=convert,
    )


@pytest.fixture
def published(monkeypatch, tmp_path):
    """A function that serves `content`, or 404, and builds the plugin's model with it; the files are in .folder."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def answer(service, content, cut):
        known = content is not None and service.path == FILE
        service.send(content or b"", 200 if known else 404, "application/octet-stream", cut=cut)

    def made(content, sha256="", cut=None):
        with serving(lambda service: answer(service, content, cut)) as server:
            made.url = f"http://127.0.0.1:{server.server_port}{FILE}"
            try:
                return build(plugin(made.url, sha256), 2, (8, 8), weights="chest")
            finally:
                made.asked = len(server.asked)

    made.folder = tmp_path / "keras" / "models"
    return made


def kernel_of(built):
    return np.asarray(built.model.get_layer("conv").kernel).transpose(3, 2, 0, 1)


def refused(published, content, message, **how):
    """The file is refused in one line, and what is left lets the next try fetch it again."""
    with pytest.raises(WeightsError, match=message) as caught:
        published(content, **how)
    assert "\n" not in str(caught.value) and published.url in str(caught.value)
    return caught.value


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("content", [state, network, lambda: {"epoch": 3, "state_dict": state()}, of_mae])
def test_the_right_file_is_loaded_in_every_form(published, content, legacy):
    file = saved(content(), legacy=legacy)
    built = published(file, hashlib.sha256(file).hexdigest())
    np.testing.assert_array_equal(kernel_of(built), KERNEL)
    np.testing.assert_array_equal(np.asarray(built.model.get_layer("conv").bias), BIAS)
    assert built.weights_sha256 == hashlib.sha256(file).hexdigest()
    assert [file.name for file in published.folder.iterdir()] == ["best.pt"]


def test_without_a_published_checksum_that_of_the_first_file_is_kept(published, caplog):
    first, other = saved(state()), saved(state(bias=BIAS + 1))
    digest = hashlib.sha256(first).hexdigest()
    assert published(first).weights_sha256 == digest
    record = published.folder / "best.pt.sha256"
    assert record.read_text().strip() == digest
    assert "states no checksum" in caplog.text and digest in caplog.text
    assert published(None).weights_sha256 == digest
    assert published.asked == 0  # it is not fetched again
    (published.folder / "best.pt").write_bytes(other)
    refused(published, None, re.escape(f"must be {digest}. Received: {hashlib.sha256(other).hexdigest()}"))


def test_another_checksum_than_the_published_one_is_refused(published):
    refused(published, saved(state()), f"must be {'0' * 64}", sha256="0" * 64)


def test_another_shape_is_refused_and_the_file_not_kept(published):
    refused(
        published, saved(state(kernel=KERNEL[:, :, :2].copy())), "layer conv expects kernel of shape .* and is deleted"
    )
    assert list(published.folder.iterdir()) == []
    assert published(saved(state())).weights_sha256


def test_a_missing_file_says_what_to_do(published):
    error = refused(published, None, "Cannot fetch the weights .*Not Found.*--weights PATH")
    answer = error.__cause__.__context__
    assert answer.code == 404 and answer.closed  # the connection is not left to the garbage collector
    assert list(published.folder.iterdir()) == []


def test_bytes_that_python_would_warn_about_are_refused_like_others(published):
    # Read as a pickle, they name something with a backslash that escapes nothing.
    refused(published, b"P\\F\n" + bytes(200), "cut short, or not what its name says")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_file_that_is_cut_short_is_refused(published, legacy, share):
    file = saved(network(), legacy=legacy)
    refused(published, file[: int(share * len(file))], "cut short, or not what its name says")
    assert list(published.folder.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing(published):
    refused(published, saved(state()), "Cannot fetch the weights", cut=100)
    assert list(published.folder.iterdir()) == []


class Runs:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_that_would_run_code_is_refused(published, legacy, tmp_path):
    content = state()
    content["conv.extra"] = Runs(tmp_path / "ran")
    refused(published, saved(content, legacy=legacy), r"refused: it names \w+\.exec")
    assert not (tmp_path / "ran").exists()


def test_nothing_that_a_pickle_names_is_imported_or_changed(tmp_path):
    """A class of a network becomes an empty one of the file's own, which a pickle cannot spoil for the next file."""
    spoils = b"\x80\x02ctorch.nn\nLayer\n(N}U\x08__init__N\x86bs."  # sets __init__ of the class to None
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", spoils)
    with pytest.raises(ValueError):
        torch_files.read(tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(saved(network()))
    assert set(torch_files.read(tmp_path / "y.pt")) == {"conv.weight", "conv.bias"}
    assert "torchxrayvision" not in sys.modules


def test_views_of_a_storage_are_read_by_their_offset_and_stride(tmp_path):
    base = np.arange(24, dtype=np.float32)
    (tmp_path / "x.pt").write_bytes(saved({"a": Tensor(base, 2, (3, 4), (1, 5)), "b": Tensor(base, 23, (1,), (1,))}))
    found = torch_files.read(tmp_path / "x.pt")
    np.testing.assert_array_equal(found["a"], [[2 + i + 5 * j for j in range(4)] for i in range(3)])
    np.testing.assert_array_equal(found["b"], [23])


@pytest.mark.parametrize(
    "hostile",
    [
        Tensor(BIAS, 0, (1 << 40,), (0,)),  # repeats two elements to terabytes
        Tensor(BIAS, 1, (2,), (1,)),  # reads beyond the end
        Tensor(BIAS, 0, (2, 1), (1,)),
        Tensor(BIAS, 0, (2,), (-1,)),
    ],
)
def test_tensors_that_do_not_lie_in_their_storage_are_refused(tmp_path, hostile):
    (tmp_path / "x.pt").write_bytes(saved({"a": hostile}))
    with pytest.raises(ValueError, match=r"tensor"):
        torch_files.read(tmp_path / "x.pt")


def test_a_pickle_that_would_take_all_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}r\xff\xff\xff\x7f.")  # place 2,147,483,647 of the memo
    with pytest.raises(ValueError, match="not one that PyTorch writes"):
        torch_files.read(tmp_path / "x.pt")


def test_published_weights_must_be_among_the_weights_and_have_a_threshold_a_finding():
    with pytest.raises(PluginError, match="published has names that weights has not: chest"):
        ModelPlugin(build=None, scale=None, image_size=(8, 8), published={"chest": PublishedWeights(url="")})
    with pytest.raises(PluginError, match=r"one for each of the 2 findings\. Received: 1"):
        PublishedWeights(url="", findings=("a", "b"), thresholds=(0.5,))
