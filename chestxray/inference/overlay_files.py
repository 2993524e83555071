"""Heat maps laid over their images, as files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from chestxray.explanation.overlay import marked, overlay
from chestxray.inference.answer import answered
from chestxray.inference.finding_answer import FindingAnswer
from chestxray.storage.files import replacing

if TYPE_CHECKING:
    from chestxray.evaluation.decision.finding_rule import Rule
    from chestxray.inference.batch_prediction import Batch
    from chestxray.inference.engine import Engine
    from chestxray.inference.heat_maps import HeatMaps
    from chestxray.inference.image_answer import ImageAnswer
    from chestxray.inference.output_file import Overlays


def overlay_name(path: str, finding: str = "") -> str:
    """A file name of its own for the overlay of the image at `path`, or that of a finding in it: letters, digits,
    ``._-`` alone.

    >>> overlay_name("../a b.png")
    'a-b-5600e982328d7db5.png'
    >>> overlay_name("../a b.png", "Pleural Effusion")
    'a-b-Pleural-Effusion-7c19579fafcaed79.png'
    """
    readable = [_plain(Path(path).stem) or "image", *filter(None, [_plain(finding)])]
    identity = "\0".join([path, finding] if finding else [path])
    digest = xxhash.xxh3_64_hexdigest(identity.encode("utf-8", "surrogateescape"))
    return f"{'-'.join(readable)}-{digest}.png"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:60]


def write_overlays(folder: Path, answers: Sequence[ImageAnswer], batch: Batch, known: HeatMaps) -> list[Overlays]:
    """Write the overlays of `batch` to `folder`; their names, None for what was unreadable or refused.

    All are drawn on the scale that is `known` of the model's maps, and marked where they fail their checks.

    With findings those are shown that are decided to be present, of the ones that have a map, which are the most
    probable; the most probable one where none of them is.

    Raises:
        OutputError: the folder cannot be written to.
    """
    names: list[Overlays] = [None] * len(answers)
    if batch.outputs is None or batch.outputs.maps is None:
        return names
    given, maps = batch.outputs, known.on_scale(batch.outputs.maps)
    fails = known.badge == "fails"
    readable = [place for place, answer in enumerate(answers) if not answer.unreadable]
    for row, place in enumerate(readable):
        answer = answers[place]
        if answer.refused:
            continue
        if not isinstance(answer, FindingAnswer):
            names[place] = _write(folder / overlay_name(answer.path), batch.pixels[row], maps[row], fails=fails)
            continue
        assert given.mapped is not None
        findings = list(answer.findings)
        mapped = [findings[number] for number in given.mapped[row]]
        shown = [name for name in mapped if name in answer.present] or mapped[:1]
        names[place] = {
            name: _write(
                folder / overlay_name(answer.path, name), batch.pixels[row], maps[row][mapped.index(name)], fails=fails
            )
            for name in shown
        }
    return names


def overlays_of(folder: Path | None, batch: Batch, engine: Engine, rule: Rule) -> Sequence[Overlays]:
    """Write the overlays of `batch`, answered by `rule`, as `write_overlays` does; a None for each image without a
    `folder`.
    """
    if folder is None or engine.heat_maps is None:
        return [None] * len(batch.paths)
    given = answered(batch.paths, batch.reasons, batch.outputs, engine, rule)
    return write_overlays(folder, given, batch, engine.heat_maps)


def _write(path: Path, pixels: np.ndarray, heat: np.ndarray, *, fails: bool) -> str:
    from PIL import Image

    drawn = overlay(pixels, heat)
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(marked(drawn) if fails else drawn)).save(temporary)
    return path.name
