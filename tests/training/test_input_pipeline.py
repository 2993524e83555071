import numpy as np
import pytest

from chestxray.models import forward
from chestxray.recipe import Recipe
from chestxray.training import input_pipeline

PIXELS = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 16), dtype=np.uint8)
ROWS = np.array([3, 5, 7, 11, 13, 17, 19])
LABELS = forward.one_hot(np.array([0, 1, 0, 1, 0, 1, 0]), 2)
PLAIN = Recipe(batch_size=3, augment="none", seed=4)


def batches(count, recipe=PLAIN, **options):
    return [
        (np.asarray(x), np.asarray(y))
        for x, y in input_pipeline.training(PIXELS, ROWS, LABELS, recipe, **options).take(count)
    ]


def test_an_epoch_shows_rows_once_in_full_batches_with_their_labels():
    epoch = batches(2)
    shown = np.concatenate([x[:, 0, 0, 0] for x, _ in epoch])
    assert len(set(shown)) == 6
    assert set(shown) <= set(ROWS)
    wanted = dict(zip(ROWS, LABELS.argmax(axis=1), strict=True))
    assert [wanted[int(row)] for row in shown] == np.concatenate([y for _, y in epoch]).argmax(axis=1).tolist()
    assert all(x.shape == (3, 16, 16, 1) and x.dtype == np.float32 for x, _ in epoch)


def test_epochs_differ_and_a_resumed_one_is_the_same():
    first_three = batches(6)
    assert (first_three[0][0] != first_three[2][0]).any()
    resumed = batches(2, first_epoch=2)
    for a, b in zip(first_three[4:], resumed, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


@pytest.mark.parametrize("changes", [{"augment": "heavy"}, {"mix": "mixup"}, {"mix": "cutmix"}])
def test_augmentation_depends_on_seed_and_step_alone(changes):
    recipe = PLAIN.replace(**changes)
    all_steps = batches(6, recipe)
    resumed = batches(2, recipe, first_epoch=2)
    for a, b in zip(all_steps[4:], resumed, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])
    plain = batches(6)
    assert any((a[0] != b[0]).any() for a, b in zip(all_steps, plain, strict=True)), "the option does something"
    other = batches(6, recipe.replace(seed=5))
    assert any((a[0] != b[0]).any() for a, b in zip(all_steps, other, strict=True))


def test_fewer_rows_than_a_batch_are_one_batch():
    assert batches(1, PLAIN.replace(batch_size=64))[0][0].shape[0] == 7


def test_class_weights_balance_the_classes():
    from chestxray.training.fit import class_weights

    weights = class_weights(LABELS)
    per_class = LABELS.sum(axis=0) * [weights[0], weights[1]]
    assert per_class[0] == pytest.approx(per_class[1])
    assert per_class.sum() == pytest.approx(len(LABELS))
