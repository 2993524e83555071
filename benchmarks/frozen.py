"""Caching the outputs of frozen layers, compared with two scripts that a competent user of Keras would write.

The two baselines are:

- features by hand: the frozen network once over the images, then `fit` of a head on its outputs, as in Keras's
  guide to transfer learning for data without augmentation;
- `fit` of the whole network on a `tf.data` set with `cache`, which decodes once and runs the frozen layers
  in every epoch, as is usual if part of the network is trained.

    CHESTXRAY_REAL_DATA=... python -m benchmarks.frozen [--images 400] [--epochs 10] [--size 224] [--rounds 1]

Each way reads the same JPEG files and trains the same layers of the same architecture from the same
weights with the same batch size, and each is measured in full: decoding, the frozen part and every epoch, with
validation. Nothing is extrapolated. The ways alternate. The ratio to the second script grows with the number of
epochs, up to that number if only a head is trained; read it together with that number. Importing TensorFlow is
not included. Nine tenths of the images are for training, a tenth for validation. The networks of the baselines
are those of keras.applications (ResNet-18 and ViT-S: our own graphs, since Keras has none).

Without ``$CHESTXRAY_REAL_DATA`` the images are noise and the weights random: the times are the same.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.table import Row, show
from benchmarks.timing import paired
from chestxray.models import startup

CLASSES = ("NORMAL", "PNEUMONIA")
BATCH = 32


class Job(NamedTuple):
    """A training task: the model, the phase and the number of epochs, of which a probe has none."""

    model: str
    phase: str
    epochs: int


#: Side in pixels; VGG16 at its own 224 would take an hour.
SIZES = {"mobilenetv2": 224, "vgg16_gap": 96, "resnet18": 128}
FILES = {
    "mobilenetv2": "mobilenetv2_imagenet_notop.weights.h5",
    "vgg16_gap": "vgg16_imagenet_notop.weights.h5",
}


def measure(
    images: int = 400, size: int | None = None, epochs: int = 10, models: Sequence[str] = tuple(SIZES), rounds: int = 1
) -> list[Row]:
    """Return rows with the seconds of the baselines and of chestxray for `models`, the fairest comparison first.

    `size`: side of the images in pixels for all models; None: that of `SIZES`.
    """
    startup.start()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = copy(root / "all", images)
        for model in models:
            side = size or SIZES[model]
            job = Job(model, "finetune" if model == "resnet18" else "head", epochs)
            ways = {"the network in every epoch, on cached images": network_every_epoch}
            if job.phase == "head":
                ways = {"features computed once by hand": features_by_hand} | ways
            for what, plain in ways.items():
                found = paired(
                    lambda plain=plain, job=job, side=side: plain(job, folder, side),
                    lambda job=job, side=side: ours(job, folder, side, root / "work"),
                    rounds,
                )
                said = f"{model}, {job.phase}, {epochs} epochs of {images} images at {side}, beside {what}"
                rows.append(Row.of(said, found, bar=1.0))
    return rows


def copy(folder: Path, images: int) -> Path:
    """Write `images` files to two class folders, real radiographs if available."""
    real = os.environ.get("CHESTXRAY_REAL_DATA")
    rng = np.random.default_rng(0)
    for label, count in zip(CLASSES, (images // 2, images - images // 2), strict=True):
        (folder / label).mkdir(parents=True)
        files = sorted((Path(real) / "kermany" / "train" / label).glob("*.jpeg")) if real else []
        for number in range(count):
            target = folder / label / f"{number:05d}.jpeg"
            if number < len(files):
                shutil.copy(files[number], target)
            else:
                Image.fromarray(rng.integers(0, 256, (224, 224), dtype=np.uint8)).save(target)
    return folder


def weights_of(model: str) -> Path | None:
    """Return the file of pretrained weights, if there is one."""
    real = os.environ.get("CHESTXRAY_REAL_DATA")
    return Path(real) / "weights" / FILES[model] if real and model in FILES else None


def features_by_hand(job: Job, folder: Path, size: int) -> None:
    """Run the frozen network once over the images, then train a head on its pooled output."""
    import keras

    keras.utils.set_random_seed(0)
    whole = plain_model(job.model, size)
    network = keras.Model(whole.inputs, whole.layers[-3].output)
    given = []
    for part in read(folder, size):
        # Both in one pass, since every pass has another order of images.
        seen = [(network.predict_on_batch(pixels), labels.numpy()) for pixels, labels in part.batch(BATCH)]
        given.append(tuple(np.concatenate(column) for column in zip(*seen, strict=True)))
    features = keras.Input(network.output_shape[1:])
    head = keras.Model(features, whole.layers[-1](whole.layers[-2](features)))
    head.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    head.fit(*given[0], validation_data=given[1], batch_size=BATCH, epochs=job.epochs, verbose=0)
    keras.backend.clear_session()
    gc.collect()


def network_every_epoch(job: Job, folder: Path, size: int) -> None:
    """Train the whole network with `fit` on images that tf.data caches in memory."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    training, held_out = (part.cache() for part in read(folder, size))
    training = training.shuffle(len(training)).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    model = plain_model(job.model, size)
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    held_out = held_out.batch(BATCH).prefetch(tf.data.AUTOTUNE)
    model.fit(training, validation_data=held_out, epochs=job.epochs, verbose=0)
    keras.backend.clear_session()
    gc.collect()


def read(folder: Path, size: int) -> Any:
    """Return data sets of training and validation images with their labels, one by one."""
    import keras

    return keras.utils.image_dataset_from_directory(
        folder, subset="both", label_mode="categorical", image_size=(size, size), batch_size=None,
        validation_split=0.1, seed=0, verbose=False,
    )  # fmt: skip


def plain_model(name: str, size: int):
    """Return a frozen network with a head; the fourth stage of ResNet-18 is trainable too."""
    import keras

    pixels = keras.Input((size, size, 3))
    if name == "resnet18":
        import chestxray_resnet as resnet

        x = resnet.build_resnet18(resnet.scale(pixels), None)
        names = [layer.name for layer in keras.Model(pixels, x).layers]
        base = keras.Model(pixels, x)
        for layer in base.layers[: names.index(resnet.resnet18.finetune_from)]:
            layer.trainable = False
    elif name == "vit_small":
        from chestxray_vit import vit_small

        base = keras.Model(pixels, vit_small.build(vit_small.scale(pixels), None))
        base.trainable = False
        x = base(pixels, training=False)
    else:
        network, scale = {
            "mobilenetv2": (keras.applications.MobileNetV2, keras.applications.mobilenet_v2.preprocess_input),
            "vgg16_gap": (keras.applications.VGG16, keras.applications.vgg16.preprocess_input),
        }[name]
        base = network(include_top=False, weights=None, input_shape=(size, size, 3))
        if file := weights_of(name):
            base.load_weights(file)
        base.trainable = False
        x = base(scale(pixels), training=False)
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(x))


def ours(job: Job, folder: Path, size: int, work: Path) -> None:
    """Train with chestxray, from the files to the trained model, with an empty cache."""
    import keras
    import tensorflow as tf

    from chestxray import registry
    from chestxray.data.decoded import decode, readable
    from chestxray.data.sources.folder import load
    from chestxray.models import assembly
    from chestxray.plugin import SourceOptions
    from chestxray.recipe import Recipe
    from chestxray.training import fit

    shutil.rmtree(work, ignore_errors=True)
    (work / "run").mkdir(parents=True)
    plugin = registry.load_plugin(registry.MODELS, job.model)
    weights = weights_of(job.model)
    recipe = Recipe(
        model=job.model,
        weights=str(weights or "random, taken as pretrained"),
        probe=job.phase == "probe",
        head_epochs=job.epochs if job.phase == "head" else 0,
        epochs=job.epochs if job.phase == "finetune" else 0,
        batch_size=BATCH,
        augment="none",
        patience=0,
        image_size=size,
    )
    index = load(str(folder), SourceOptions(cache=work))
    decoded = decode(index, (size, size), "stretch", work)
    index = readable(index, decoded, 0.0)
    held_out = np.random.default_rng(0).random(len(index)) < 0.1
    index = index.replace(index.rows.assign(split=np.where(held_out, "validation", "train")))
    built = assembly.build(plugin, 2, (size, size), weights=str(weights) if weights else None)
    fit.train(built, decoded.pixels, index, recipe, work / "run", tf.distribute.get_strategy(), work)
    keras.backend.clear_session()
    gc.collect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=tuple(SIZES))
    chosen = parser.parse_args()
    show(measure(chosen.images, chosen.size, chosen.epochs, tuple(chosen.models), chosen.rounds))
