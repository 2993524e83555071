"""Training and inference on a GPU in mixed precision, beside a plain Keras script and beside timm in PyTorch.

    KERAS_BACKEND=jax python -m benchmarks.gpu [--only resnet50] [--augment heavy] [--json gpu.json]

Needs the backend with its GPU packages, and PyTorch and timm. The plain script, on the same backend, is
`keras.applications` with `Model.fit` and `Model.predict` on arrays in memory, in Keras's mixed_float16; PyTorch has the
channels_last format, autocast to float16 with a gradient scaler, and a fused AdamW. Ours trains and infers as
`chestxray run --mixed-precision` does; with ``--augment`` ours augments and the others do not, so that the ratio shows
whether it binds. Each way has a process of its own; they work in turn.

The share of the card's peak counts the operations of convolutions and dense layers, three times for a training step,
against the rate of dense float16 products that the card's maker states.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limits import operations
from benchmarks.peers import Steps, Worker, answer
from benchmarks.table import Row, show, write

#: Ours -> the names in `keras.applications` and in timm.
ARCHITECTURES = {
    "resnet50": ("ResNet50", "resnet50"),
    "densenet121": ("DenseNet121", "densenet121"),
    "inceptionv3": ("InceptionV3", "inception_v3"),
}
#: Dense float16 products in 10^12 operations a second, as NVIDIA's data sheets state them for the SXM boards.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "V100": 125, "L4": 121, "T4": 65}
CLASSES = 4


class Setting:
    """What the processes share, by the environment: image size in pixels, images a batch, augmentation."""

    size = int(os.environ.get("GPU_BENCHMARK_SIZE", "224"))
    batch = int(os.environ.get("GPU_BENCHMARK_BATCH", "128"))
    augment = os.environ.get("GPU_BENCHMARK_AUGMENT", "none")


def pixels_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Noise: uint8 (images, size, size), and classes int64 (images,), of four batches."""
    number = 4 * Setting.batch
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (number, Setting.size, Setting.size), dtype=np.uint8)
    return images, np.arange(number) % CLASSES


def stepping(model: Any, batches: Any) -> Steps:
    """So many steps of training by Keras's own step, on endless `batches`, compiled once."""
    import keras

    if keras.backend.backend() == "jax":
        given = iter(batches)
        return lambda count: model.fit(given, steps_per_epoch=count, epochs=1, verbose=0) and None
    import tensorflow as tf

    given = iter(tf.distribute.get_strategy().experimental_distribute_dataset(batches))
    model.make_train_function()

    def steps(count: int) -> None:
        for _ in range(count):
            logs = model.train_function(given)
        float(logs["loss"])

    return steps


def ours(name: str, kind: str) -> Steps:
    """So many steps of training or inference by chestxray."""
    from chestxray.models import startup

    startup.start()
    import keras

    from chestxray import registry
    from chestxray.models import assembly, forward
    from chestxray.recipe import Recipe
    from chestxray.training import fused_batch_norm, fused_optimizers, input_pipeline, objective

    pixels, labels = pixels_and_labels()
    plugin = registry.load_entry(registry.MODELS, registry.find(registry.MODELS, name))
    model = assembly.build(plugin, CLASSES, (Setting.size,) * 2, batch_norm_momentum=0.9, mixed_precision=True).model
    if kind == "inference":
        network = forward.Forward(model, forward.MANY)

        def infer(count: int) -> None:
            rows = np.resize(np.arange(len(pixels)), count * Setting.batch)
            for images in forward.batches(pixels, rows, Setting.batch):
                network(images)

        return infer
    recipe = Recipe(model=name, augment=Setting.augment, batch_size=Setting.batch, mixed_precision=True)
    jit = keras.backend.backend() == "jax"
    model.compile(optimizer=objective.optimizer(recipe, 1e-3, 10**6), loss=objective.loss(recipe), jit_compile=jit)
    with fused_batch_norm.fused(model), fused_optimizers.fused(model.optimizer):
        targets = forward.one_hot(labels, CLASSES)
        steps = stepping(model, input_pipeline.training(pixels, np.arange(len(pixels)), targets, recipe))
        steps(1)  # what is traced here keeps the fused operations, as in `training.fit`
    return steps


def plain(name: str, kind: str) -> Steps:
    """So many steps of training or inference by the script that a Keras user would write."""
    from chestxray.models import startup

    startup.start()
    import keras

    keras.mixed_precision.set_global_policy("mixed_float16")
    pixels, labels = pixels_and_labels()
    images = np.repeat(pixels[..., np.newaxis], 3, axis=-1).astype(np.float32)
    build = getattr(keras.applications, ARCHITECTURES[name][0])
    inputs = keras.Input((Setting.size, Setting.size, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    features = build(weights=None, include_top=False, input_tensor=scaled, pooling="avg").output
    outputs = keras.layers.Dense(CLASSES, activation="softmax", dtype="float32")(keras.layers.Dropout(0.2)(features))
    model = keras.Model(inputs, outputs)
    if kind == "inference":
        batches = len(images) // Setting.batch

        def infer(count: int) -> None:
            for _ in range(-(-count // batches)):
                model.predict(images[: min(count, batches) * Setting.batch], batch_size=Setting.batch, verbose=0)

        return infer
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=1e-4), "sparse_categorical_crossentropy")
    if keras.backend.backend() == "jax":
        return stepping(model, _endless(images, labels))
    import tensorflow as tf

    given = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(images)).repeat()
    return stepping(model, given.batch(Setting.batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE))


def _endless(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    while True:
        for places in np.split(generator.permutation(len(images)), len(images) // Setting.batch):
            yield images[places], labels[places]


def timm(name: str, kind: str) -> Steps:
    """So many steps of training or inference by timm's network in PyTorch."""
    import timm as library
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind_of_number = torch.float16 if device == "cuda" else torch.bfloat16
    model = library.create_model(ARCHITECTURES[name][1], pretrained=False, num_classes=CLASSES, drop_rate=0.2)
    model = model.to(device, memory_format=torch.channels_last)
    pixels, labels = (torch.from_numpy(array).to(device) for array in pixels_and_labels())

    def batches() -> Iterator[tuple[Any, Any]]:
        while True:
            for places in torch.randperm(len(pixels), device=device).split(Setting.batch):
                images = pixels[places].unsqueeze(1).expand(-1, 3, -1, -1).to(torch.float32).mul_(1 / 127.5).sub_(1)
                yield images.contiguous(memory_format=torch.channels_last), labels[places]

    given = batches()
    if kind == "inference":
        model.eval()

        def infer(count: int) -> None:
            with torch.inference_mode(), torch.autocast(device, kind_of_number):
                for _ in range(count):
                    model(next(given)[0]).softmax(1).float().cpu().numpy()

        return infer
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    criterion, scaler = torch.nn.CrossEntropyLoss(), torch.amp.GradScaler(device, enabled=device == "cuda")

    def steps(count: int) -> None:
        for _ in range(count):
            images, targets = next(given)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, kind_of_number):
                loss = criterion(model(images), targets)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        loss.item()

    return steps


WAYS = {"ours": ours, "plain": plain, "timm": timm}


def card() -> tuple[str, float | None]:
    """Return the GPU's name and its peak in operations a second; ("CPU", None) without one."""
    listing = shutil.which("nvidia-smi")
    if listing is None:
        return "CPU", None
    asked = [listing, "--query-gpu=name", "--format=csv,noheader"]
    name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    return name, None if peak is None else peak * 1e12


def counted(name: str) -> float:
    """Return the operations of an image, from the graph."""
    code = f"from benchmarks import gpu; gpu._count({name!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(run.stdout.splitlines()[-1])


def _count(name: str) -> None:
    from chestxray import registry
    from chestxray.models import assembly, startup

    startup.start()
    plugin = registry.load_entry(registry.MODELS, registry.find(registry.MODELS, name))
    print(operations(assembly.build(plugin, CLASSES, (Setting.size,) * 2).model))


def compared(name: str, kind: str, ways: list[str], rounds: int) -> dict[str, list[float]]:
    """Return images a second of each of `ways`, by round."""
    workers = {way: Worker("benchmarks.gpu", way, name, kind) for way in ways}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            found[way].append(workers[way].rate() * Setting.batch)
    for worker in workers.values():
        worker.end()
    return found


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ARCHITECTURES, action="append", help="some architectures; default: all")
    parser.add_argument("--kind", choices=("training", "inference"), action="append", help="default: both")
    parser.add_argument("--way", choices=("plain", "timm"), action="append", help="beside these; default: both")
    parser.add_argument("--size", type=int, default=Setting.size, help="image size in pixels [%(default)s]")
    parser.add_argument("--batch", type=int, default=Setting.batch, help="images a batch [%(default)s]")
    parser.add_argument("--augment", default=Setting.augment, help="augmentation of ours [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        way, name, kind = options.work
        answer(lambda: WAYS[way](name, kind))
        return
    # The processes of the ways, and this one, read them when they start.
    for field in ("size", "batch", "augment"):
        os.environ[f"GPU_BENCHMARK_{field.upper()}"] = str(getattr(options, field))
        setattr(Setting, field, getattr(options, field))
    device, peak = card()
    print(f"{device}, {os.environ.get('KERAS_BACKEND', 'tensorflow')}, batches of {Setting.batch} at {Setting.size}")
    rows: list[Row] = []
    for kind in options.kind or ("training", "inference"):
        for name in options.only or ARCHITECTURES:
            others = options.way or ["plain", "timm"]
            found = compared(name, kind, ["ours", *others], options.rounds)
            rate = statistics.median(found["ours"])
            if peak:
                share = rate * counted(name) * (3 if kind == "training" else 1) / peak
                print(f"{kind} {name}: {rate:.0f} images/s, {share:.1%} of the card's peak", flush=True)
            for way in others:
                ratio = statistics.median(a / b for a, b in zip(found["ours"], found[way], strict=True))
                values = statistics.median(found[way]), rate
                rows.append(Row(f"{kind} {name} beside {way}", *values, "images/s", 1.0, paired=ratio))
            write(rows, options.json)
    show(rows)


if __name__ == "__main__":
    main()
