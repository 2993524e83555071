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
    return keras.Model(inputs, [mean, mean * 2])


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
