"""Frozen layers run once an image, against the script that a Keras user would write.

    CHESTXRAY_REAL_DATA=... python -m benchmarks.frozen [--images 2000] [--epochs 10 20] [--size 224]

Each way reads the same JPEG files and trains the same layers of the same architecture from the same
weights with the same batch size. The plain way is `image_dataset_from_directory`, a frozen network of
keras.applications (ResNet-18: our own graph, since Keras has none), `compile` as it comes and `fit`. It
is measured on ``--plain-images`` of the images over three epochs: the faster of the last two, in which
nothing is traced any more, is taken times epochs and images, LINEARLY, and what the first took beyond it
is added once. Ours is measured whole: decoding, computing the frozen part, and every epoch. Importing
TensorFlow is left out of both. Training and validation are nine tenths and a tenth of the images. The
ratio of the processors' time, in the note, hardly depends on what else the machine does.

Without ``$CHESTXRAY_REAL_DATA`` the images are noise and the weights random: the times are the same.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks.table import Row, show
from chestxray import backend

CLASSES = ("NORMAL", "PNEUMONIA")
BATCH = 32


class Spent(NamedTuple):
    """Seconds on the clock, and of all processors."""

    clock: float
    processors: float

    @classmethod
    def now(cls) -> Spent:
        """Counted from some moment on; processes that have ended are included."""
        return cls(time.perf_counter(), sum(os.times()[:4]))

    def since(self, before: Spent) -> Spent:
        """What was spent after `before`."""
        return Spent(self.clock - before.clock, self.processors - before.processors)


class Job(NamedTuple):
    """What is compared: the model, the phase, how many epochs, the bar."""

    model: str
    phase: str
    epochs: int
    bar: float


def jobs(short: int = 10, long: int = 20) -> list[Job]:
    """The head of two networks over few and more epochs, and the last stage of a third."""
    heads = [Job(name, "head", n, 8.0 if n == short else 14.0) for name in HEADS for n in (short, long)]
    return [*heads, Job("resnet18", "finetune", long, 1.6)]


#: Seconds below which ours is measured twice, as the plain way is, and the faster counts.
BRIEF = 40.0
HEADS = ("mobilenetv2", "vgg16_gap")
#: Side in pixels: VGG16 at its own 224 would take an hour.
SIZES = {"mobilenetv2": 224, "vgg16_gap": 96, "resnet18": 128}
FILES = {
    "mobilenetv2": "mobilenetv2_imagenet_notop.weights.h5",
    "vgg16_gap": "vgg16_imagenet_notop.weights.h5",
}


def measure(
    images: int = 2000,
    size: int | None = None,
    plain_images: int = 160,
    epochs: tuple[int, int] = (10, 20),
    models: Sequence[str] = tuple(SIZES),
) -> list[Row]:
    """Seconds of the plain way and of ours, for each job of the chosen `models`; `size` for them all."""
    backend.start()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder, few = copy(root / "all", images), copy(root / "few", min(plain_images, images))
        for model in models:
            side = size or SIZES[model]
            first, later = plain(model, few, side)
            share = images / min(plain_images, images)
            for job in (job for job in jobs(*epochs) if job.model == model):
                whole = [max(0.0, a - b) + b * share * job.epochs for a, b in zip(first, later, strict=True)]
                mine = ours(job, folder, side, root / "work")
                if mine.clock < BRIEF:
                    mine = min(mine, ours(job, folder, side, root / "work"))
                what = f"{model}, {job.phase}, {job.epochs} epochs of {images} images at {side}"
                note = f"plain extrapolated linearly from epochs of {min(plain_images, images)} images"
                note += f"; processors' time {whole[1] / mine.processors:.1f}x"
                rows.append(Row(what, whole[0], mine.clock, "s", job.bar, note))
    return rows


def copy(folder: Path, images: int) -> Path:
    """`images` files in two class folders: real ones where there are some."""
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
    """The file of pretrained weights, where there is one."""
    real = os.environ.get("CHESTXRAY_REAL_DATA")
    return Path(real) / "weights" / FILES[model] if real and model in FILES else None


def plain(name: str, folder: Path, size: int) -> tuple[Spent, Spent]:
    """What the first epoch took, with all before it, and the faster of two more, as one would write it."""
    import keras

    keras.utils.set_random_seed(0)
    start = Spent.now()
    given = {"image_size": (size, size), "batch_size": BATCH, "validation_split": 0.1, "seed": 0}
    training = keras.utils.image_dataset_from_directory(folder, subset="training", label_mode="categorical", **given)
    held_out = keras.utils.image_dataset_from_directory(folder, subset="validation", label_mode="categorical", **given)
    model = plain_model(name, size)
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    ends: list[Spent] = []
    stamp = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(Spent.now()))
    model.fit(training, validation_data=held_out, epochs=3, verbose=0, callbacks=[stamp])
    keras.backend.clear_session()
    gc.collect()
    return ends[0].since(start), min(ends[1].since(ends[0]), ends[2].since(ends[1]))


def plain_model(name: str, size: int):
    """A frozen network under a head; of ResNet-18 the fourth stage is trained too."""
    import keras

    pixels = keras.Input((size, size, 3))
    if name == "resnet18":
        import chestxray_resnet as resnet

        x = resnet.build_resnet18(resnet.scale(pixels), None)
        names = [layer.name for layer in keras.Model(pixels, x).layers]
        base = keras.Model(pixels, x)
        for layer in base.layers[: names.index(resnet.resnet18.finetune_from)]:
            layer.trainable = False
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
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    return keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(x))


def ours(job: Job, folder: Path, size: int, work: Path) -> Spent:
    """From the files to the trained model, with an empty cache."""
    import keras
    import tensorflow as tf

    from chestxray import model, registry, training
    from chestxray.decoded import decode, readable
    from chestxray.plugin import SourceOptions
    from chestxray.recipe import Recipe
    from chestxray.sources.folder import load

    shutil.rmtree(work, ignore_errors=True)
    (work / "run").mkdir(parents=True)
    start = Spent.now()
    plugin = registry.load(registry.MODELS, job.model)
    weights = weights_of(job.model)
    recipe = Recipe(
        model=job.model,
        weights=str(weights or "random, taken as pretrained"),
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
    built = model.build(plugin, 2, (size, size), weights=str(weights) if weights else None)
    training.train(built, decoded.pixels, index, recipe, work / "run", tf.distribute.get_strategy(), work)
    spent = Spent.now().since(start)
    keras.backend.clear_session()
    gc.collect()
    return spent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--plain-images", type=int, default=160)
    parser.add_argument("--size", type=int)
    parser.add_argument("--epochs", type=int, nargs=2, default=(10, 20), metavar=("SHORT", "LONG"))
    parser.add_argument("--models", nargs="+", choices=SIZES, default=tuple(SIZES))
    chosen = parser.parse_args()
    show(measure(chosen.images, chosen.size, chosen.plain_images, tuple(chosen.epochs), tuple(chosen.models)))
