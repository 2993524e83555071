"""A linear probe (`--probe`), compared with two scripts that a competent user would write.

- `fit` of the frozen network with a head, by Keras, for 20 epochs on images that tf.data caches in memory;
- the features computed once by hand with Keras, then scikit-learn's standardisation and logistic regression for the
  same strengths to the same tolerance, of which the log loss of validation chooses.

    CHESTXRAY_REAL_DATA=... python -m benchmarks.probe [--model mobilenetv2|vit_small] [--images 2000] [--size 224]
        [--epochs 20] [--rounds 1]

All read the same JPEG files and use the same network with the same weights. Each is measured in full, from the files
to the trained model, with an empty cache; importing TensorFlow is not included. The ratio to the first script grows
with the number of epochs and with the images. Nine tenths of the images are for training, a tenth for validation.

Without ``$CHESTXRAY_REAL_DATA`` the images are noise and the weights random.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import frozen
from benchmarks.table import Row, show
from benchmarks.timing import paired
from chestxray.models import startup

MODELS = ("mobilenetv2", "vit_small")
#: How many times faster than `fit` a probe should be, and at most how much slower than the regression by hand.
FASTER, SLOWER = 15.0, 1.2


def measure(
    images: int = 2000, size: int = 224, epochs: int = 20, rounds: int = 1, model: str = MODELS[0]
) -> list[Row]:
    """Return a row for each of the two scripts, in seconds."""
    startup.start()
    rows = []
    probe = frozen.Job(model, "probe", 0)
    head = frozen.Job(model, "head", epochs)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = frozen.copy(root / "all", images)
        ways = {
            "scikit-learn on features by hand": (lambda: by_hand(model, folder, size), 1 / SLOWER),
            f"fit of the frozen network, {epochs} epochs": (
                lambda: frozen.network_every_epoch(head, folder, size),
                FASTER,
            ),
        }
        for what, (plain, bar) in ways.items():
            found = paired(plain, lambda: frozen.ours(probe, folder, size, root / "work"), rounds)
            rows.append(Row.of(f"{model}, probe, {images} images at {size}, beside {what}", found, bar=bar))
    return rows


def by_hand(model: str, folder: Path, size: int) -> None:
    """Run the frozen network once over the images, then choose a logistic regression by scikit-learn."""
    import keras
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from chestxray.training.linear_probe import ITERATIONS, STRENGTHS, TOLERANCE

    whole = frozen.plain_model(model, size)
    network = keras.Model(whole.inputs, whole.layers[-3].output)
    given = []
    for part in frozen.read(folder, size):
        # Both in one pass, since every pass has another order of images.
        seen = [(network.predict_on_batch(pixels), labels.numpy()) for pixels, labels in part.batch(frozen.BATCH)]
        features, labels = (np.concatenate(column) for column in zip(*seen, strict=True))
        given.append((features.astype(np.float64), labels.argmax(axis=1)))
    (features, codes), (held_out, truth) = given
    losses = []
    for strength in STRENGTHS:
        regression = LogisticRegression(C=strength, tol=TOLERANCE, max_iter=ITERATIONS, class_weight="balanced")
        regression = make_pipeline(StandardScaler(), regression).fit(features, codes)
        losses.append(log_loss(truth, regression.predict_proba(held_out), labels=[0, 1]))
    print(f"By hand C = {STRENGTHS[int(np.argmin(losses))]:g} has the lowest log loss.")
    keras.backend.clear_session()
    gc.collect()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    show(measure(chosen.images, chosen.size, chosen.epochs, chosen.rounds, chosen.model))
