"""Speed of predicting many image files, compared with the slower of decoding and inference.

    python -m benchmarks.bulk [--model shallow_cnn --image-size 224 --images 1500]

JPEG files of about 1,000 pixels a side are generated in a temporary folder and predicted by a model with
random weights. Three measurements alternate several times, and the best rate of each counts: decoding
alone, inference alone on pixels in memory, and all of `chestxray predict`, including writing. With an
accelerator the whole can be as fast as the slower step; if the same cores do both, it cannot be faster than
decoding and inference one after the other. Both bounds are reported.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.table import Row, show
from benchmarks.timing import seconds
from chestxray import registry
from chestxray.evaluation.decision.rule import FILE, Decision
from chestxray.inference import batch_prediction, keras_engine
from chestxray.inference.answer import answered
from chestxray.inference.engine import Engine
from chestxray.inference.output_file import Lines, appending, behind
from chestxray.models import startup
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import MODEL, RECIPE
from chestxray.storage.files import write_json, write_text

#: Model, side in pixels, number of images: the network of the README's command, and a small one.
JOBS = (("inceptionv3", 299, 192), ("shallow_cnn", 224, 1500))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: " + ", ".join(f"{name} at {size}" for name, size, _ in JOBS))
    parser.add_argument("--images", type=int, help="default: as many as take some seconds; of another model 1500")
    parser.add_argument("--image-size", type=int, help="default: as above; of another model 224")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    jobs = [job for job in JOBS if given.model in (None, job[0])] or [(given.model, 224, 1500)]
    jobs = [(name, given.image_size or size, given.images or images) for name, size, images in jobs]
    show(measure(jobs, given.batch_size, given.rounds))


def measure(jobs: Sequence[tuple[str, int, int]] = JOBS, batch_size: int = 32, rounds: int = 2) -> list[Row]:
    """Return rows for a network dominated by inference, and for one whose inference costs no more than decoding."""
    return [row for model, size, images in jobs for row in beside(images, model, size, batch_size, rounds)]


def beside(images: int, model: str, image_size: int, batch_size: int, rounds: int) -> list[Row]:
    """Return rows of the whole compared with each step, and with the most that one set of cores can do."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        engine = keras_engine.load_engine(made_run(root / "run", model, image_size))
        paths = drawn(root / "films", images)
        rates = measured(engine, paths, root / "answers.csv", batch_size, rounds)
    decoding, inference, whole = rates
    name = f"bulk prediction, {model} at {image_size}, beside"
    return [
        Row(f"{name} decoding alone", decoding, whole, "images/s"),
        Row(f"{name} inference alone", inference, whole, "images/s"),
        Row(f"{name} the slower step", min(decoding, inference), whole, "images/s", 0.9),
        Row(f"{name} both in turn on the same cores", 1 / (1 / decoding + 1 / inference), whole, "images/s", 0.9),
    ]


def measured(engine: Engine, paths: list[str], output: Path, batch_size: int, rounds: int) -> tuple[float, ...]:
    """Return images per second of decoding, of inference, and of both with writing."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, *engine.image_size), dtype=np.uint8)
    engine.run(pixels)  # loaded and traced before the clock starts

    def decode() -> None:
        for _ in batch_prediction.decoded(paths, engine.image_size, engine.fit, batch_size=batch_size):
            pass

    def infer() -> None:
        for _ in range(0, len(paths), batch_size):
            engine.run(pixels)

    def whole() -> None:
        lines = Lines("csv", engine.decision, "0")
        output.unlink(missing_ok=True)
        with appending(output) as put:

            def write(batch: batch_prediction.Batch) -> None:
                given = answered(batch.paths, batch.reasons, batch.outputs, engine)
                put(lines.of(given, [None] * len(given)))

            with behind(write) as later:
                for batch in batch_prediction.predicted(engine, paths, batch_size=batch_size):
                    later(batch)

    best = [0.0] * 3
    for _ in range(rounds):
        for i, way in enumerate((decode, infer, whole)):
            best[i] = max(best[i], len(paths) / seconds(way))
    return tuple(best)


def made_run(folder: Path, model: str, size: int) -> Path:
    """Write and return a run's folder with random weights, with the files that prediction needs."""
    startup.start()
    from chestxray.models.assembly import build

    plugin = registry.load_plugin(registry.MODELS, model)
    built = build(plugin, 2, (size, size), name=model)
    recipe = Recipe(model=model, data=("folder:films",), image_size=(size, size), weights="none")
    decision = Decision(("NORMAL", "PNEUMONIA"), "PNEUMONIA", 1.0, {"PNEUMONIA": 0.5}, "", None, None, None)
    folder.mkdir(parents=True)
    write_text(folder / RECIPE, recipe.to_toml())
    write_json(folder / FILE, decision.to_json())
    built.model.save(folder / MODEL)
    return folder


def drawn(folder: Path, count: int, kinds: int = 12) -> list[str]:
    """Write `count` JPEG files of about 1,000 pixels a side with different noise; return their paths."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    films = []
    for kind in range(kinds):
        shapes = Image.fromarray(generator.integers(0, 256, (24, 24), dtype=np.uint8))
        film = np.asarray(shapes.resize((950 + 10 * kind, 1000), Image.Resampling.BICUBIC), dtype=np.int16)
        films.append((film + generator.integers(-12, 13, film.shape, dtype=np.int16)).clip(0, 255).astype(np.uint8))
    paths = []
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        Image.fromarray(np.roll(films[number % kinds], number, axis=1)).save(path, quality=90)
        paths.append(str(path))
    return paths


if __name__ == "__main__":
    main()
