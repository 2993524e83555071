"""Losses and augmentations of plugins train as our own do."""

import numpy as np
import pytest
from keras import ops

import method_plugins
from chestxray.errors import InputError
from chestxray.recipe import Recipe
from chestxray.training import augmentation, feature_cache, finding_losses, input_pipeline, objective

METHODS = {"metrics": "pairs", "losses": "plain each", "augmentations": "brighter grain"}


@pytest.fixture(autouse=True)
def _installed(tmp_path, monkeypatch):
    method_plugins.install(tmp_path / "site", monkeypatch, **METHODS)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_plugin_is_that_of_our_own_definition(smoothing):
    rng = np.random.default_rng(0)
    labels = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 8)]
    given = rng.dirichlet(np.ones(3), 8).astype(np.float32)
    weights = rng.random(8).astype(np.float32)
    ours, theirs = (
        float(objective.loss(Recipe(loss=name, label_smoothing=smoothing))(labels, given, sample_weight=weights))
        for name in ("crossentropy", "plain")
    )
    assert theirs == pytest.approx(ours, rel=1e-5)


def test_the_loss_of_a_plugin_leaves_out_what_is_not_known_of_findings():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (8, 3)).astype(np.float32)
    targets[rng.random((8, 3)) < 0.3] = np.nan
    given = rng.random((8, 3)).astype(np.float32)
    ours, theirs = (
        float(finding_losses.of(Recipe(loss=name, class_weights=False), targets)(targets, given))
        for name in ("crossentropy", "each")
    )
    assert np.isfinite(ours) and theirs == pytest.approx(ours, rel=1e-5)
    again = finding_losses.FindingLoss.from_config(finding_losses.FindingLoss("each").get_config())
    assert float(again(targets, given)) == pytest.approx(theirs)


def test_the_augmentation_of_a_plugin_depends_on_seed_and_step_alone():
    pixels = np.random.default_rng(0).integers(0, 200, (6, 8, 8)).astype(np.uint8)
    labels = np.eye(2, dtype=np.float32)[np.arange(6) % 2]

    def batches(**changes):
        recipe = Recipe(batch_size=3, augment="grain", **changes)
        return [
            np.asarray(images) for images, _ in input_pipeline.training(pixels, np.arange(6), labels, recipe).take(3)
        ]

    once, twice, other = batches(), batches(), batches(seed=1)
    for one, same, unlike in zip(once, twice, other, strict=True):
        assert one.shape == (3, 8, 8, 1) and one.min() >= 0 and one.max() <= 255
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, unlike)


def test_cached_views_of_a_plugin_are_its_own(monkeypatch):
    pixels = np.full((4, 8, 8), 100, np.uint8)
    (view,) = feature_cache.images(pixels, np.arange(4), feature_cache.View("brighter", 0))
    levels = np.asarray(view)[:, 0, 0, 0]
    assert len(set(levels)) == 4 and ((levels >= 100) & (levels <= 110)).all()
    assert augmentation.identity("light") == ""
    assert augmentation.identity("brighter").startswith("method-plugins:brighter 2.1 ")


def test_what_a_plugin_leaves_beyond_the_range_is_clipped():
    images = ops.ones((2, 4, 4, 1)) * 254
    draws = ops.ones((2, 1))
    changed = augmentation.augment(images, draws, augmentation.policy_of("brighter"))
    assert float(ops.max(changed)) == 255


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda: objective.loss(Recipe(loss="plane")), "Unknown loss 'plane'. Did you mean plain"),
        (lambda: augmentation.policy_of("lite"), "Unknown augmentation 'lite'. Did you mean light"),
        (lambda: objective.loss(Recipe(loss="each")), "The loss each is for findings"),
    ],
)
def test_a_name_that_is_none_or_not_for_the_task_is_one_line(use, said):
    with pytest.raises(InputError) as raised:
        use()
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)
