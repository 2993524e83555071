import keras
import numpy as np
import pytest
import tensorflow as tf

from chestxray.models import assembly, startup, xla_compilation
from chestxray.models.xla_compilation import Timing
from chestxray.storage import checked_json


@pytest.fixture
def built(tiny):
    return assembly.build(tiny, 2, (16, 16)).model


def variables(of):
    return [keras.ops.convert_to_numpy(v) for v in of.variables]


@pytest.mark.parametrize("work", ["inference", "full"])
def test_measuring_leaves_the_variables_as_they_were(built, work, monkeypatch):
    monkeypatch.setattr(xla_compilation, "SHORTEST", 0.0)
    before = variables(built)
    found = xla_compilation.measure(built, work, 4)
    assert found.plain > 0
    assert found.xla is not None, "XLA compiles this model wherever TensorFlow runs"
    assert found.xla > 0
    for one, other in zip(before, variables(built)[: len(before)], strict=True):
        np.testing.assert_array_equal(one, other)


def test_compiled_and_plain_predict_alike(built):
    images = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 1)).astype(np.float32)
    built.compile(jit_compile=False)
    plain = built.predict(images, verbose=0)
    built.predict_function = None
    built.compile(jit_compile=True)
    np.testing.assert_allclose(built.predict(images, verbose=0), plain, atol=1e-5)


@pytest.fixture
def gpu(monkeypatch):
    """The choice as it is made on a GPU; what is timed runs on the CPU."""
    monkeypatch.setattr(xla_compilation, "on_gpu", lambda: True)


def test_on_a_cpu_nothing_is_measured_and_xla_is_off(built, tmp_path, monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("measured")

    monkeypatch.setattr(xla_compilation, "timed", never)
    assert xla_compilation.choose(built, "inference", 4, 10**9, tmp_path) is False
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        assert xla_compilation.choose(built, "full", 4, 10**9, tmp_path) is False


def test_where_tensorflow_is_deterministic_no_clock_chooses(built, tmp_path, monkeypatch, gpu):
    def never(*arguments, **options):
        raise AssertionError("measured")

    monkeypatch.setattr(xla_compilation, "timed", never)
    monkeypatch.setattr(startup, "is_deterministic", lambda: True)
    assert xla_compilation.choose(built, "full", 4, 10**9, tmp_path) is False
    assert xla_compilation.choose(built, "full", 4, 10**9, tmp_path, wanted="on") is True


def test_little_work_is_not_measured(built, tmp_path, monkeypatch, gpu):
    monkeypatch.setattr(xla_compilation, "SHORTEST", 0.0)
    assert xla_compilation.choose(built, "inference", 4, 3, tmp_path) is False
    assert not list(tmp_path.iterdir())


def test_a_measurement_is_made_once_and_kept(built, tmp_path, monkeypatch, gpu):
    monkeypatch.setattr(xla_compilation, "SHORTEST", 0.0)
    monkeypatch.setattr(xla_compilation, "WORTHWHILE", 0.0)
    first = xla_compilation.choose(built, "inference", 4, 10**9, tmp_path)
    (file,) = (tmp_path / "jit").glob("*.json")

    def never(*arguments, **options):
        raise AssertionError("measured again")

    monkeypatch.setattr(xla_compilation, "timed", never)
    assert xla_compilation.choose(built, "inference", 4, 10**9, tmp_path) is first
    checked_json.write(file, {"plain": 0.01, "xla": 0.001, "compiling": 5.0})
    assert xla_compilation.choose(built, "inference", 4, 10_000, tmp_path) is True
    assert xla_compilation.choose(built, "inference", 4, 100, tmp_path) is False, (
        "compiling would take longer than is saved"
    )


def test_what_was_asked_for_is_not_measured(built, tmp_path):
    assert xla_compilation.choose(built, "full", 4, 10**9, tmp_path, wanted="on") is True
    assert xla_compilation.choose(built, "full", 4, 10**9, tmp_path, wanted="off") is False
    assert not list(tmp_path.iterdir())


def test_xla_must_win_clearly_and_be_able_to():
    assert Timing(1.0, 0.5, 10.0).better(100)
    assert not Timing(1.0, 0.98, 0.0).better(100)
    assert not Timing(1.0, None, 0.0).better(100)


def test_a_measurement_is_of_one_graph_size_and_kind_of_work(tiny, built):
    other = assembly.build(tiny, 2, (24, 24)).model
    keys = {
        xla_compilation._key(built, "inference", 4),
        xla_compilation._key(built, "full", 4),
        xla_compilation._key(built, "inference", 8),
    }
    assert len(keys | {xla_compilation._key(other, "inference", 4)}) == 4
    again = assembly.build(tiny, 2, (16, 16)).model
    assert xla_compilation._key(again, "inference", 4) in keys
