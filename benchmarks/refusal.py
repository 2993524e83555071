"""Proportion of images refused as no chest radiograph: by feature distance alone, by both scores, by other scores.

    python -m benchmarks.refusal RUN ... --shown montgomery=DIR --shown four-class=DIR   # writes benchmarks/refusal.md

For each finished run the network's features are computed anew. Every score is learned from the same training
images, and its threshold is set on the same validation images, as the run's own refusal. The images are the
run's test radiographs, the non-radiographs that every run reports on, other kinds of noise, and the
radiographs in the folders of ``--shown`` and their subfolders.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from chestxray.data.decoded import decode
from chestxray.data.images import reading
from chestxray.data.images.pixels import Fit
from chestxray.evaluation.decision import out_of_distribution
from chestxray.evaluation.decision.ood_images import altered_films, mirrored_films, other_pictures
from chestxray.evaluation.decision.rule import FILE, Decision
from chestxray.models import startup
from chestxray.runs.run_folder import Run
from chestxray.storage import cache

FOLDER = Path(__file__).parent
#: Number of test radiographs to alter, and of pictures of each other kind.
EACH = 100


@dataclass(frozen=True)
class Seen:
    """The input of the scores: ``pixels`` uint8 (rows, height, width), ``features`` float (rows, features) and
    ``probabilities`` float (rows, classes).
    """

    pixels: np.ndarray
    features: np.ndarray
    probabilities: np.ndarray


#: A score, float (rows,), that is high for images to refuse.
Score = Callable[[Seen], np.ndarray]


def scores(training: Seen, validation: Seen, allowed: float) -> dict[str, Score]:
    """Return every score that was considered, by its name in the table.

    "both" is the score that chestxray uses, "features (before)" its part that uses the features alone.
    """
    found = out_of_distribution.learn(
        training.features, training.pixels, validation.features, validation.pixels, allowed
    )
    if found is None:
        raise SystemExit("This run refuses nothing.")
    return {
        "**both**": lambda seen: found.distances(seen.features, seen.pixels),
        "features (before)": lambda seen: found.by_features(seen.features),
        "turned films": lambda seen: found.by_pixels(seen.pixels),
        "probability": lambda seen: -seen.probabilities.max(axis=1),
        "grey levels": _density(_quantiles, training),
        "thumbnail": _density(lambda pixels: out_of_distribution.thumbnails(pixels).reshape(len(pixels), -1), training),
        "nearest thumbnail": _nearest(training),
    }


def _density(describe: Callable[[np.ndarray], np.ndarray], training: Seen) -> Score:
    """Return the principal component distance used for features, applied to another description of the pixels."""
    described = describe(training.pixels)
    found = out_of_distribution.learn(described, training.pixels, described, training.pixels, 0.01)
    assert found is not None, "pixels vary"
    return lambda seen: found.by_features(describe(seen.pixels))


def _nearest(training: Seen) -> Score:
    known = out_of_distribution.thumbnails(training.pixels).reshape(len(training.pixels), -1)

    def score(seen: Seen) -> np.ndarray:
        new = out_of_distribution.thumbnails(seen.pixels).reshape(len(seen.pixels), -1)
        squared = (new**2).sum(axis=1)[:, np.newaxis] + (known**2).sum(axis=1) - 2 * new @ known.T
        return squared.min(axis=1)

    return score


def _quantiles(pixels: np.ndarray) -> np.ndarray:
    levels = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
    return np.quantile(pixels.reshape(len(pixels), -1), levels, axis=1).T


def shown_to(seen_of: Callable[[np.ndarray], Seen], test: np.ndarray, folders: Mapping[str, np.ndarray]) -> dict:
    """Return the images to score, by the name of their line in the table."""
    size = (test.shape[1], test.shape[2])
    generator = np.random.default_rng(0)
    drawn, kinds = other_pictures(size, each=40)
    altered, ways = altered_films(test, np.arange(len(test)), each=EACH)
    pixels = {"test radiographs": test}
    pixels |= {way: altered[ways == way] for way in dict.fromkeys(ways)}
    pixels |= {kind: drawn[kinds == kind] for kind in dict.fromkeys(kinds)}
    pixels["noise, every pixel"] = generator.integers(0, 256, (EACH, *size), dtype=np.uint8)
    pixels["noise, Gaussian"] = np.clip(generator.normal(128, 40, (EACH, *size)), 0, 255).astype(np.uint8)
    pixels["mirrored films"] = mirrored_films(test, np.arange(len(test)), each=EACH)
    return {name: seen_of(part) for name, part in (pixels | dict(folders)).items()}


def table(folder: Path, folders: Mapping[str, Path]) -> str:
    """Return the Markdown of one run: a heading, and a table with a line per kind of image and a column per score."""
    run = Run(folder)
    decision, recipe = Decision.read(folder / FILE), run.recipe
    assert decision.features is not None and recipe.image_size is not None
    from chestxray.models.assembly import features_model

    feature_model = features_model(run.model, decision.features)
    pixels = decode(run.index, recipe.image_size, recipe.fit, cache.root(None), max_pixels=recipe.max_pixels).pixels

    def seen_of(part: np.ndarray) -> Seen:
        probabilities, features = feature_model.predict(
            part[..., np.newaxis].astype(np.float32), batch_size=64, verbose=0
        )
        return Seen(part, features, probabilities)

    splits = run.index.rows["split"].to_numpy()
    places = {name: np.flatnonzero(splits == name) for name in ("train", "validation", "test")}
    sample = np.random.default_rng(recipe.seed).permutation(places["train"])[: out_of_distribution.SAMPLE]
    training, validation = seen_of(pixels[np.sort(sample)]), seen_of(pixels[places["validation"]])
    found = scores(training, validation, recipe.refuse)
    clusters = run.predictions.of("validation").clusters
    limits = {
        name: out_of_distribution.at_rank(score(validation), recipe.refuse, clusters) for name, score in found.items()
    }
    elsewhere = {name: _read(path, recipe.image_size, recipe.fit) for name, path in folders.items()}
    lines = [
        f"| shown | images | {' | '.join(found)} |",
        f"| :--- | ---: |{' ---: |' * len(found)}",
    ]
    for name, seen in shown_to(seen_of, pixels[places["test"]], elsewhere).items():
        shares = [100 * (score(seen) > limits[title]).mean() for title, score in found.items()]
        lines.append(f"| {name} | {len(seen.pixels)} | {' | '.join(f'{share:.1f}' for share in shares)} |")
    size = "x".join(map(str, recipe.image_size))
    about = (
        f"{recipe.model} at {size} on {run.index.name}: {len(sample)} training images, {len(validation.pixels)} of "
        f"validation, {100 * recipe.refuse:g}% allowed."
    )
    return f"## {recipe.model}, {size}\n\n{about}\n\n" + "\n".join(lines) + "\n"


def _read(folder: Path, size: tuple[int, int], fit: Fit) -> np.ndarray:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in reading.SUFFIXES)
    return np.stack([reading.read(path, size=size, fit=fit).pixels for path in paths])


def main() -> None:
    """Run the measurements; rewrite the tables in ``refusal.md`` and keep the text before the first one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--shown", action="append", default=[], metavar="NAME=DIR", help="other radiographs")
    parser.add_argument("--output", type=Path, default=FOLDER / "refusal.md")
    options = parser.parse_args()
    folders = {name: Path(path) for name, _, path in (item.partition("=") for item in options.shown)}
    startup.start()
    tables = [table(run, folders) for run in options.runs]
    before = options.output.read_text(encoding="utf-8").partition("\n## ")[0] if options.output.is_file() else ""
    text = "\n\n".join(part.strip() for part in [before or "# What is refused", *tables]) + "\n"
    options.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
