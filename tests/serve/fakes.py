"""Engines that answer from memory, and images for them."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.evaluation.decision.rule import Decision
from chestxray.evaluation.decision.temperature_scaling import Calibration
from chestxray.inference.engine import Outputs
from chestxray.inference.heat_maps import HeatMaps
from chestxray.serve.app import create_app
from chestxray.serve.connections import Server
from chestxray.serve.loading import Served
from chestxray.serve.server import bound
from chestxray.serve.settings import Settings

#: The maps of the engines here are shares.
KNOWN = HeatMaps("gradcam", "share", 1.0, "It ends where a pixel is white.", "passes", "Nothing is wrong with them.")
#: The same of a model whose maps fail.
FAILING = replace(
    KNOWN,
    highest=2.0,
    badge="fails",
    sentence="For this model Grad-CAM fails the checks of its maps.",
    reasons=(
        {"title": "Weights made random from the top", "verdict": "fails", "sentence": "The map stays <b>alike</b>."},
        {"title": "Small shifts, rotations and noise", "verdict": "passes", "sentence": "The map stays too."},
    ),
)


@dataclass
class BrightEngine:
    """The brighter an image, the more probably it is ``bright``. Refuses what is black, if it refuses."""

    name: str = "bright-or-dark"
    classes: tuple[str, ...] = ("dark", "bright")
    image_size: tuple[int, int] = (24, 32)
    fit: str = "stretch"
    limit: float | None = None
    refusal_threshold: float | None = None
    segmenter: None = None
    heat_maps: HeatMaps | None = KNOWN
    hold: threading.Event | None = None
    begun: threading.Event = field(default_factory=threading.Event)

    @property
    def decision(self) -> Decision:
        binary = len(self.classes) == 2
        return Decision(
            classes=self.classes,
            positive=self.classes[1] if binary else None,
            calibration=Calibration(),
            thresholds={self.classes[1]: 0.4} if binary else dict.fromkeys(self.classes, 0.3),
            chosen_by="Youden's index",
            coverage=None if self.limit is None else 0.9,
            limit=self.limit,
        )

    def run(self, pixels, *, maps=False):
        self.begun.set()
        if self.hold is not None:
            assert self.hold.wait(60)
        light = (pixels.mean(axis=(1, 2)) / 255).astype(np.float32)
        rest = (1 - light[:, None]) / (len(self.classes) - 1)
        probabilities = np.column_stack([*[rest] * (len(self.classes) - 1), light])
        far = None if self.refusal_threshold is None else 10.0 * (light == 0)
        return Outputs(probabilities, far, (pixels / 255).astype(np.float32) if maps else None)


@dataclass
class FindingsEngine:
    """The brighter an image, the more probable each finding, to its own power; maps are of the `mapped` ones."""

    powers: dict[str, float] = field(default_factory=lambda: {"Edema": 1.0, "Mass": 0.5, "Nodule": 2.0, "Rare": 4.0})
    name: str = "several"
    image_size: tuple[int, int] = (24, 32)
    fit: str = "stretch"
    limit: float | None = None
    refusal_threshold: float | None = None
    segmenter: None = None
    heat_maps: HeatMaps | None = KNOWN
    mapped: int = 3

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.powers)

    @property
    def decision(self) -> FindingDecision:
        why = {"Rare": "not chosen: validation has 2 patients with it and 9 without; 6 of each are needed"}
        return FindingDecision({
            name: Decision(
                (f"no {name}", name), name, Calibration(), {name: 0.5 if name == "Rare" else 0.6},
                why.get(name, "Youden's index"), limit=None if name == "Rare" else self.limit,
                coverage=None if self.limit is None or name == "Rare" else 0.9,
            )
            for name in self.powers
        })  # fmt: skip

    def run(self, pixels, *, maps=False):
        light = pixels.mean(axis=(1, 2)) / 255
        probabilities = np.stack([light**power for power in self.powers.values()], axis=1).astype(np.float32)
        far = None if self.refusal_threshold is None else 10.0 * (light == 0)
        if not maps:
            return Outputs(probabilities, far, None)
        mapped = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.mapped].astype(np.int32)
        # Each finding has a grey of its own.
        greys = (mapped[..., None, None] + 1) / 10 * np.ones((1, 1, *self.image_size))
        return Outputs(probabilities, far, greys.astype(np.float32), mapped)


def image_bytes(value=200, size=(40, 30), kind="PNG", **options) -> bytes:
    """An image file of one grey value with a brighter left half; `size` is (width, height)."""
    pixels = np.full((size[1], size[0]), value, np.uint8)
    pixels[:, : size[0] // 2] = min(255, value + 20) if value else 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def served(*engines) -> tuple[Served, ...]:
    return tuple(Served(f"model-{n}", engine, None) for n, engine in enumerate(engines or (BrightEngine(),), 1))


def post(client, content=b"", kind="image/png", query="", **options):
    return client.post(f"/api/predict{query}", data=content, content_type=kind, **options)


@contextlib.contextmanager
def listening(*engines, models=None, links=None, decoders=None, **settings):
    """The port of a real server in this process."""
    chosen = Settings(**{"threads": 2, **settings})
    app = create_app(models or served(*engines), chosen, links, decoders)
    with contextlib.closing(bound("127.0.0.1", 0)) as listener:
        server = Server(app, chosen, listener)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server.effective_port
        finally:
            server.stop()
            thread.join(10)
            work = app.extensions["chestxray"]
            # Decoders that tests share live on.
            (work.close if decoders is None else work.gate.close)()
            assert not thread.is_alive()


#: A server of several processes: its settings and number of workers, the seconds that its model computes, a file with
#: the model's name and fingerprint, which is read at each load, and the search path.
SEVERAL = """
import json, sys, time
settings, workers, seconds, file, *path = json.loads(sys.argv[1])
sys.path[:0] = path
from chestxray.serve.json_logs import speak
from chestxray.serve.server import bound
from chestxray.serve.settings import Settings
from chestxray.serve.shared_folder import shared_folder
with bound("127.0.0.1", 0) as listener, shared_folder() as folder:
    from chestxray.errors import DataError
    from chestxray.serve.loading import Served
    from chestxray.serve.master import serve
    from serve.fakes import BrightEngine
    class Slow(BrightEngine):
        def run(self, pixels, *, maps=False):
            time.sleep(seconds)
            return super().run(pixels, maps=maps)
    def load():
        if file is None:
            return (Served("model", Slow(), None),)
        told = json.loads(open(file).read() or "null")
        if told is None:
            raise DataError(f"{file} is damaged.")
        return (Served("model", Slow(name=told), None, told * 16),)
    speak()
    serve(load, Settings(**settings), listener, workers, folder, lambda: print(listener.getsockname()[1], flush=True))
"""


@contextlib.contextmanager
def by_workers(workers=2, seconds=0.0, file=None, log=None, **settings):
    """The master of a server of several processes, and its port."""
    tests = Path(__file__).parents[1]
    given = [{"threads": 1, **settings}, workers, seconds, None if file is None else str(file)]
    command = [sys.executable, "-c", SEVERAL, json.dumps([*given, str(tests), str(tests.parent)])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as master:
        try:
            yield master, int(master.stdout.readline())
        finally:
            master.terminate()
            try:
                master.wait(30)
            finally:
                master.kill()
