"""Upper bound of what micro-batching could gain in the server: images per second of processor time of an exported
model, one at a time and in batches.

    python -m benchmarks.batching [--models shallow_cnn mobilenetv3small densenet121] [--rounds 5]

One at a time is what the server does: each of as many threads as cores computes one image after another, on one core
each. Batches are the most that gathering the requests of 8 or 64 clients could give, without the time that is spent
waiting for a batch to fill: images lie ready, in batches of 2, 4, 8 and as many as the clients, computed on one core
each by as many threads as cores, or one after another on all cores. Both with heat maps, as the page asks for, on two
cores. Of a server whose cores are busy, throughput is the number of cores times this rate, and processor time does not
depend on what else the machine does as the clock would. The rounds alternate between all ways; medians are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.table import Row, show
from chestxray.inference.onnx_engine import OnnxEngine

CLIENTS = (8, 64)
BATCHES = (2, 4, 8, 64)


def measured(path: Path, clients: int, rounds: int, seconds: float = 1.5) -> list[Row]:
    """Return a row for the best batch of the model at `path` with `clients` images at hand."""
    cores = len(os.sched_getaffinity(0))
    wide, narrow = OnnxEngine(path), OnnxEngine(path, threads=1)
    images = np.random.default_rng(0).integers(0, 256, (clients, *narrow.image_size), np.uint8)
    plain = np.concatenate([narrow.run(image[np.newaxis]).probabilities for image in images])
    apart = float(np.abs(plain - narrow.run(images).probabilities).max())
    ways: dict[str, Callable[[], int]] = {"one at a time": partial(each, narrow, images, 1, cores)}
    for size in (size for size in BATCHES if size <= clients):
        ways[f"batches of {size}, a core each"] = partial(each, narrow, images, size, cores)
        ways[f"batches of {size}, all cores"] = partial(each, wide, images, size, 1)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(rate(way, seconds))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    alone = medians.pop("one at a time")
    for name, value in medians.items():
        print(f"  {path.stem}, {clients} clients, {name}: {value / alone:.2f}")
    best = max(medians, key=lambda name: medians[name])
    note = f"{best}; probabilities differ by at most {apart:.1e}"
    return [Row(f"{path.stem}, {clients} clients", alone, medians[best], "images/s", note=note)]


def each(engine: OnnxEngine, images: np.ndarray, size: int, threads: int) -> int:
    """Compute `images` in batches of `size`, in `threads` threads; return their number."""
    parts = [images[at : at + size] for at in range(0, len(images), size)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(partial(engine.run, maps=engine.heat_maps is not None), parts))
    return len(images)


def rate(way: Callable[[], int], seconds: float) -> float:
    """Return images per second of processor time of `way`, called until `seconds` of it are over."""
    count, start = 0, time.process_time()
    while (taken := time.process_time() - start) < seconds:
        count += way()
    return count / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["shallow_cnn", "mobilenetv3small", "densenet121"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from benchmarks.serving import exported

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for model in options.models:
            path = exported(model, options.image_size, Path(name) / model)
            for clients in CLIENTS:
                rows += measured(path, clients, options.rounds)
    show(rows)


if __name__ == "__main__":
    main()
