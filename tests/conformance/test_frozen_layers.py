"""Architectures of ours whose frozen layers run once end with the weights of the plain way."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from chestxray import registry
from chestxray.models.assembly import build, freeze
from chestxray.recipe import Recipe
from chestxray.training import fit, graph_split
from made import make_index

#: Batch normalisation over fewer places than this, in small batches, makes any rounding grow from step to step.
SIZE = (64, 64)


def made(name, pixels):
    """The architecture with random weights, its batch normalisation as if trained on `pixels`.

    Otherwise activations vanish on their way through it, and gradients explode.
    """
    built = build(registry.load_plugin(registry.MODELS, name), 2, SIZE)
    norms = [layer for layer in built.model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    built.model(pixels[..., None].astype(np.float32), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return built


def fitted(name, phase, views, folder):
    """The model, its weights before, and its losses of two epochs of `phase`."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (26, *SIZE), dtype=np.uint8)
    index = make_index(["a", "b"] * 13, splits=["train"] * 17 + ["validation"] * 9)
    epochs = {"head_epochs": 2, "epochs": 0} if phase == "head" else {"head_epochs": 0, "epochs": 2}
    recipe = Recipe(
        model=name, weights="file", batch_size=8, augment="none", cached_views=views, optimizer="sgd",
        finetune_learning_rate=1e-3, **epochs,
    )  # fmt: skip
    built = made(name, pixels)
    before = built.model.get_weights()
    history = fit.train(built, pixels, index, recipe, folder, tf.distribute.get_strategy())
    return built.model, before, history["val_loss"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phase"),
    [("mobilenetv2", "head"), ("vgg16_gap", "head"), ("resnet18", "head"), ("resnet18", "finetune")],
)
def test_the_weights_are_those_of_the_plain_way(name, phase, tmp_path):
    plain, start, losses = fitted(name, phase, 0, tmp_path / "plain")
    once, _, losses_once = fitted(name, phase, None, tmp_path / "once")
    np.testing.assert_allclose(losses_once, losses, rtol=1e-3)
    for kind in (True, False):  # what the optimiser changes, and moving averages
        numbers = [n for n, v in enumerate(plain.weights) if v.trainable is kind and "seed_generator" not in v.path]
        before, one, other = (
            np.concatenate([np.ravel(values[n]) for n in numbers])
            for values in (start, plain.get_weights(), once.get_weights())
        )
        assert np.linalg.norm(other - one) <= 1e-3 * np.linalg.norm(one - before)
    changed = [n for n, v in enumerate(plain.weights) if v.trainable]
    assert any((start[n] != plain.get_weights()[n]).any() for n in changed)


@pytest.mark.parametrize(
    ("name", "phase", "kept"),
    [
        ("mobilenetv2", "head", [(1280,)]),
        ("mobilenetv2", "finetune", [(2, 2, 96)]),
        ("vgg16_gap", "finetune", [(2, 2, 512)]),
        ("resnet18", "finetune", [(2, 2, 256)]),
        ("densenet121", "finetune", [(1, 1, 512)]),
        # In its second residual block stands dropout, which no freezing stops: its input and its shortcut.
        ("efficientnetv2b0", "head", [(8, 8, 32), (8, 8, 32)]),
    ],
)
def test_each_is_cut_at_its_narrowest(name, phase, kept):
    built = build(registry.load_plugin(registry.MODELS, name), 2, (32, 32))
    freeze(built, phase)
    assert [tuple(tensor.shape[1:]) for tensor in graph_split.cut(built.model)] == kept
