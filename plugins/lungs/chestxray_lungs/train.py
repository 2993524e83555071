"""Train the network: ``python -m chestxray_lungs.train --montgomery DIR --output FILE``.

It learns from drawn phantoms and from the films of Montgomery County of the part ``train``; what lungs look like in
films that it was not trained on, ``validation``, sets from when on lungs are called unknown; ``test`` is measured only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops
from scipy import stats

from chestxray.errors import ChestXrayError
from chestxray_lungs.augmentation import batch
from chestxray_lungs.films import PARTS, Films, montgomery, phantoms
from chestxray_lungs.network import build, save
from chestxray_lungs.segmentation import certainty, lungs_of, prepared, probabilities

STEPS, BATCH, RATE = 700, 12, 3e-3
#: Number of phantoms, and of changed films from which the least certainty is taken.
DRAWN, CHANGED = 160, 400


def dice(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the Dice coefficient (Dice 1945) of each film, float (n,), of two masks, bool (n, h, w)."""
    both = (found & truth).sum(axis=(1, 2))
    return 2 * both / np.maximum(found.sum(axis=(1, 2)) + truth.sum(axis=(1, 2)), 1)


def loss(truth: keras.KerasTensor, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Return cross-entropy plus, where there are lungs, 1 minus the soft Dice coefficient; one number a film."""
    entropy = ops.mean(ops.binary_crossentropy(truth, logits, from_logits=True), axis=(1, 2, 3))
    given = ops.sigmoid(logits)
    area = ops.sum(truth, axis=(1, 2, 3))
    overlap = 2 * ops.sum(truth * given, axis=(1, 2, 3)) / (area + ops.sum(given, axis=(1, 2, 3)) + 1)
    return entropy + ops.where(area > 0, 1 - overlap, 0.0)


def trained(real: Films, steps: int, seed: int) -> tuple[keras.Model, list[float]]:
    """Return the network trained on `real` and on phantoms, and the lungs' share of each film that it saw."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    drawn = phantoms(range(DRAWN), seed)
    model = build()
    schedule = keras.optimizers.schedules.CosineDecay(RATE / 10, steps, warmup_target=RATE, warmup_steps=steps // 20)
    model.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-3, clipnorm=1.0), loss, jit_compile=False)
    shares: list[float] = []
    for step in range(steps):
        films, lungs = batch(real, drawn, BATCH, rng)
        shares += [share for share in lungs.mean(axis=(1, 2)).tolist() if share]
        value = model.train_on_batch(prepared(films), lungs[..., None])
        if step % 50 == 0 or step == steps - 1:
            sys.stderr.write(f"step {step} of {steps}: loss {float(value):.3f}\n")
    return model, shares


def limits(model: keras.Model, validation: Films, shares: list[float], seed: int) -> dict[str, str]:
    """Return from when on lungs are called unknown, for the file: the shares of all but 1 in 500 of the films that
    were trained on, and the certainty of all but 1 in 50 films of `validation` and phantoms, changed as in training:
    unchanged ones of one hospital are surer than those of others.
    """
    low, high = np.quantile(shares, (0.002, 0.998))
    drawn = phantoms(range(DRAWN, DRAWN + DRAWN // 4), seed)
    films, lungs = batch(validation, drawn, CHANGED, np.random.default_rng(seed))
    given = probabilities(model, films[lungs.any(axis=(1, 2))])
    least = np.quantile([certainty(one, lungs_of(one)) for one in given], 0.02)
    return {"least_share": f"{low:.4f}", "greatest_share": f"{high:.4f}", "least_certainty": f"{least:.4f}"}


def described(values: np.ndarray) -> str:
    """Return mean, 95% interval of the mean (Student's t, one film a patient), least value and number."""
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f}), worst {values.min():.3f}, {len(values)} patients"


def report(model: keras.Model, real: Films) -> list[str]:
    """Return lines on the patients of `test`, and on plain ways of guessing their lungs."""
    train, test = real.of("train"), real.of("test")
    found = np.stack([_enlarged(lungs_of(one), test.lungs.shape[1:]) for one in probabilities(model, test.pixels)])
    ill = np.array([patient.endswith("_1") for patient in test.patients])
    mean = np.broadcast_to(train.lungs.mean(axis=0) > 0.5, test.lungs.shape)
    medians = np.median(test.pixels, axis=(1, 2), keepdims=True)
    inner = np.zeros(test.lungs.shape[1:], bool)
    edge = test.lungs.shape[1] // 12
    inner[edge:-edge, edge:-edge] = True
    scores = {
        "all": dice(found, test.lungs),
        "normal": dice(found, test.lungs)[~ill],
        "tuberculosis": dice(found, test.lungs)[ill],
        "the mean mask of training": dice(mean, test.lungs),
        "darker than the median, off the edge": dice((test.pixels < medians) & inner, test.lungs),
    }
    return [f"{name}: Dice {described(values)}" for name, values in scores.items() if len(values) > 1]


def _enlarged(lungs: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = (np.minimum(np.arange(n) * lungs.shape[0] // n, lungs.shape[0] - 1) for n in shape)
    return lungs[rows][:, columns]


def main(arguments: list[str] | None = None) -> None:
    """Train, write the weights and say the Dice coefficient."""
    parser = argparse.ArgumentParser(prog="python -m chestxray_lungs.train", description=__doc__)
    parser.add_argument("--montgomery", type=Path, required=True, help="Folder with images/ and masks/.")
    parser.add_argument("--output", type=Path, required=True, help="File of the weights, .safetensors.")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    try:
        real = montgomery(chosen.montgomery)
    except ChestXrayError as error:
        parser.error(str(error))
    if few := [part for part in PARTS if len(real.of(part)) < 2]:
        parser.error(f"{chosen.montgomery} must have two or more patients for {few[0]}. Received: {len(real)} in all.")
    print(", ".join(f"{len(real.of(part))} patients for {part}" for part in PARTS))
    model, shares = trained(real.of("train"), chosen.steps, chosen.seed)
    save(model, chosen.output, limits(model, real.of("validation"), shares, chosen.seed))
    print(*report(model, real), sep="\n")


if __name__ == "__main__":
    main()
