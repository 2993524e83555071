"""Training and inference of whole networks beside PyTorch and fastai, on the same cores in the same run.

    tox -e peers [-- --rounds 5 --only resnet18]

PyTorch runs torchvision's model in its channels_last memory format on batches gathered from one array in memory, as
fast as any loader gives them. fastai's `Learner` is given the same. Ours trains and infers as `chestxray run` does.
Each has a process of its own; they work in turn, a few seconds each, and the ratio is the median over the rounds, so
that what else the machine does falls on all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, show, write

#: Ours -> torchvision's name, and the sizes (pixels) of training and inference.
ARCHITECTURES = {
    "resnet18": ("resnet18", 128, 224),
    "resnet50": ("resnet50", 128, 224),
    "densenet121": ("densenet121", 128, 224),
    "mobilenetv2": ("mobilenet_v2", 128, 224),
    "inceptionv3": ("inception_v3", 128, 299),
}
BATCH, CLASSES, IMAGES = 32, 4, 256
#: Least seconds of a turn.
TURN = 3.0
Steps = Callable[[int], None]


def pixels_and_labels(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise: uint8 (images, size, size), and classes int64 (images,)."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (IMAGES, size, size), dtype=np.uint8), np.arange(IMAGES) % CLASSES


def ours(name: str, work: str) -> Steps:
    """So many steps of training or inference by chestxray."""
    from chestxray.models import startup

    startup.start()

    from chestxray import registry
    from chestxray.models import assembly, forward
    from chestxray.recipe import Recipe
    from chestxray.training import fused_batch_norm, fused_optimizers, input_pipeline, objective

    size = ARCHITECTURES[name][1 if work == "training" else 2]
    pixels, labels = pixels_and_labels(size)
    plugin = registry.load_entry(registry.MODELS, registry.find(registry.MODELS, name))
    model = assembly.build(plugin, CLASSES, (size, size), batch_norm_momentum=0.9).model
    if work == "inference":
        network = forward.Forward(model, forward.MANY)
        batches = iter(forward.batches(pixels, np.resize(np.arange(IMAGES), 10**7), BATCH))
        return lambda count: [network(next(batches)) for _ in range(count)] and None
    recipe = Recipe(model=name, augment="none", batch_size=BATCH)
    model.compile(
        optimizer=objective.optimizer(recipe, 1e-3, 10**6),
        loss=objective.loss(recipe),
        metrics=["accuracy"],
        jit_compile=False,
    )
    data = input_pipeline.training(pixels, np.arange(IMAGES), forward.one_hot(labels, CLASSES), recipe)
    given = iter(data)
    model.make_train_function()
    # What is traced within keeps the fused operations, as in `training.fit`.
    with fused_batch_norm.fused(model), fused_optimizers.fused(model.optimizer):
        model.train_function(given)

    def steps(count: int) -> None:
        for _ in range(count):
            logs = model.train_function(given)
        float(logs["loss"])

    return steps


def _torch(name: str) -> tuple[Any, Any]:
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    # A CPU build of torch does not load torchvision's compiled operations, which are for detection alone.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operation in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            library.define(f"{operation}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    options = {"aux_logits": False, "init_weights": False} if name == "inceptionv3" else {}
    model = getattr(torchvision.models, ARCHITECTURES[name][0])(weights=None, num_classes=CLASSES, **options)
    return torch, model.to(memory_format=torch.channels_last)


def _batches(torch: Any, size: int) -> Iterator[tuple[Any, Any]]:
    """Endless (images float32 (batch, 3, size, size) in -1..1, labels) gathered from memory in shuffled order."""
    pixels, labels = map(torch.from_numpy, pixels_and_labels(size))
    while True:
        for places in torch.randperm(IMAGES).split(BATCH):
            images = pixels[places].unsqueeze(1).expand(-1, 3, -1, -1).to(torch.float32).mul_(1 / 127.5).sub_(1)
            yield images.contiguous(memory_format=torch.channels_last), labels[places]


def pytorch(name: str, work: str) -> Steps:
    """So many steps of training or inference by PyTorch."""
    torch, model = _torch(name)
    batches = _batches(torch, ARCHITECTURES[name][1 if work == "training" else 2])
    if work == "inference":
        model.eval()

        def infer(count: int) -> None:
            with torch.inference_mode():
                for _ in range(count):
                    model(next(batches)[0]).softmax(1).numpy()

        return infer
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    criterion = torch.nn.CrossEntropyLoss()

    def steps(count: int) -> None:
        for _ in range(count):
            images, labels = next(batches)
            optimizer.zero_grad(set_to_none=True)
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        loss.item()

    return steps


def fastai(name: str, work: str) -> Steps:
    """So many steps of training by fastai's `Learner`."""
    torch, model = _torch(name)
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner

    batches = _batches(torch, ARCHITECTURES[name][1])

    class Loader:
        """As many batches as the next turn asks for."""

        count = 1
        device = torch.device("cpu")

        def __len__(self) -> int:
            return self.count

        def __iter__(self) -> Iterator[tuple[Any, Any]]:
            return (next(batches) for _ in range(self.count))

    loader = Loader()
    learner = Learner(DataLoaders(loader, []), model, loss_func=torch.nn.CrossEntropyLoss())
    learner.remove_cb(ProgressCallback)

    def steps(count: int) -> None:
        loader.count = count
        with learner.no_logging():
            learner.fit(1, lr=1e-3)

    return steps


WAYS = {"ours": ours, "pytorch": pytorch, "fastai": fastai}


def answer(prepare: Callable[[], Steps]) -> None:
    """A process of one way: a number of steps is read from standard input, the seconds they took are written."""
    speak = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no answer
    steps = prepare()
    steps(2)
    for line in sys.stdin:
        start = time.perf_counter()
        steps(int(line))
        print(time.perf_counter() - start, file=speak, flush=True)


class Worker:
    """A way in a process of its own, which the module `benchmark` starts by ``--work``."""

    def __init__(self, benchmark: str, way: str, name: str, kind: str) -> None:
        command = [sys.executable, "-m", benchmark, "--work", way, name, kind]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        self.count = 1
        while (seconds := self._ask()) < TURN:
            self.count = max(self.count + 1, round(self.count * min(TURN * 1.2 / seconds, 8)))

    def _ask(self) -> float:
        stdin, stdout = typing.cast(Any, self.process.stdin), typing.cast(Any, self.process.stdout)
        print(self.count, file=stdin, flush=True)
        answer = stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return float(answer)

    def rate(self) -> float:
        """Steps a second in one turn."""
        return self.count / self._ask()

    def end(self) -> None:
        """Let the process end."""
        typing.cast(Any, self.process.stdin).close()
        self.process.wait()


def compared(name: str, kind: str, rounds: int) -> Iterator[Row]:
    """Rows of one architecture and kind of work: beside PyTorch, and in training beside fastai."""
    ways = ["ours", "pytorch"] + ["fastai"] * (kind == "training")
    workers = {way: Worker("benchmarks.peers", way, name, kind) for way in ways}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            found[way].append(workers[way].rate() * BATCH)
    for worker in workers.values():
        worker.end()
    size = ARCHITECTURES[name][1 if kind == "training" else 2]
    for way in ways[1:]:
        ratio = statistics.median(a / b for a, b in zip(found["ours"], found[way], strict=True))
        values = (statistics.median(found[one]) for one in (way, "ours"))
        bar = 1.1 if way == "pytorch" else None
        yield Row(f"{kind} {name} at {size}, beside {way}", *values, "images/s", bar, paired=ratio)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=ARCHITECTURES, action="append", help="some architectures; default: all")
    parser.add_argument("--kind", choices=("training", "inference"), action="append", help="default: both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("peers.json"))
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        way, name, kind = options.work
        answer(lambda: WAYS[way](name, kind))
        return
    rows: list[Row] = []
    for kind in options.kind or ("training", "inference"):
        for name in options.only or ARCHITECTURES:
            rows += compared(name, kind, options.rounds)
            print(rows[-1], file=sys.stderr, flush=True)
            write(rows, options.json)
    show(rows)


if __name__ == "__main__":
    main()
