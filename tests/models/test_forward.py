import keras
import numpy as np
import pytest

from chestxray.models import forward

PIXELS = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 16), dtype=np.uint8)
ROWS = np.array([3, 5, 7, 11, 13, 17, 19])


@pytest.fixture
def model():
    inputs = keras.Input((16, 16, 1))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    return forward.Forward(keras.Model([inputs], [mean, mean * 2]))


def test_batches_keep_the_order_and_drop_nothing():
    shown = [np.asarray(x)[:, 0, 0, 0] for x in forward.batches(PIXELS, ROWS, 3)]
    assert np.concatenate(shown).tolist() == ROWS.tolist()


def test_labels_stand_beside_their_images():
    labels = forward.one_hot(ROWS % 3, 3)
    for images, given in forward.labelled(PIXELS, ROWS, labels, 3):
        np.testing.assert_array_equal(np.argmax(given, axis=1), np.asarray(images)[:, 0, 0, 0] % 3)


def test_outputs_come_in_blocks_and_in_order(model):
    parts = list(forward.outputs(model, PIXELS, ROWS, batch_size=2, block=4))
    assert [len(first) for first, _ in parts] == [4, 3]
    np.testing.assert_allclose(np.concatenate([first for first, _ in parts])[:, 0], ROWS)
    np.testing.assert_allclose(np.concatenate([second for _, second in parts])[:, 0], 2 * ROWS)


def test_a_rate_needs_images(model):
    assert forward.images_per_second(model, PIXELS, ROWS[:0]) is None
    assert forward.images_per_second(model, PIXELS, ROWS, seconds=0.01) > 0


def network(kind="float32"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 1))
    x = keras.layers.Conv2D(8, 3, use_bias=False, dtype=kind)(inputs)
    x = keras.layers.BatchNormalization(scale=False, dtype=kind)(x)
    made = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    made.layers[2].moving_mean.assign(np.linspace(-1, 1, 8))
    made.layers[2].moving_variance.assign(np.linspace(0.5, 2, 8))
    return made


@pytest.mark.parametrize("options", [{}, {"images": forward.MANY}, {"jit": True}], ids=str)
def test_it_gives_what_keras_predicts(options):
    made = network()
    images = PIXELS[..., None].astype(np.float32)
    wanted = made.predict(images, verbose=0)
    one = forward.Forward(made, **options)
    assert one.frozen == (options == {"images": forward.MANY})
    np.testing.assert_allclose(one(images)[0], wanted, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(one(images[:7])[0], wanted[:7], rtol=1e-5, atol=1e-4)


def test_it_is_traced_once_whatever_the_size_of_the_batch():
    traced = []

    class Traced(keras.layers.Layer):
        def call(self, images):
            traced.append(images.shape)
            return images

    inputs = keras.Input((16, 16, 1))
    made = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(Traced()(inputs)))
    del traced[:]
    one = forward.Forward(made)
    for _ in range(2):
        list(forward.outputs(one, PIXELS, ROWS, batch_size=3))
    assert traced == [(None, 16, 16, 1)]


def test_constants_do_not_change_the_model():
    made = network()
    before = made.get_weights()
    forward.Forward(made, forward.MANY)(PIXELS[..., None].astype(np.float32))
    for a, b in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
