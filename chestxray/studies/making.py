"""Makes the parts of a study: one after the other in this process, or by an executor.

With an executor each part has a process of its own, here or on another machine, which may die, be begun again or be
followed by one of a driver that was started anew. So a part asks the study's folder alone what is to be done: it is
finished, resumed or begun, and locked meanwhile.
"""

from __future__ import annotations

import gc
import logging
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from chestxray import workflow
from chestxray.data.data_changes import require_same
from chestxray.data.index import Index
from chestxray.errors import ChestXrayError, InputError, OutputError, TrainingError, WorkerError
from chestxray.execution import parts as execution_parts
from chestxray.execution.executor import Executor
from chestxray.recipe import Recipe
from chestxray.runs import run_folder
from chestxray.runs.run_folder import Run
from chestxray.storage import cache as caches
from chestxray.storage import locks

if TYPE_CHECKING:
    from chestxray.studies.study import Part

log = logging.getLogger(__name__)

#: The file that identifies the folder of a study: the list of its parts.
STUDY = "study.json"
PARTS = "parts"
#: Fields of a recipe that determine the images, their labels and their patients.
_DATA = (
    "data", "test_data", "path", "data_option", "patient_pattern", "label_pattern", "classes", "map", "drop",
    "uncertain", "view", "max_pixels", "splits_by",
)  # fmt: skip
#: Seconds that the file system of a cluster may take to show what another machine has written, and that a worker
#: whose driver is gone may take to end.
PATIENCE = 90.0


def make(
    parts: Sequence[Part], folder: Path, cache: str | Path | None, executor: Executor | None
) -> dict[str, ChestXrayError]:
    """Train every part that is not finished, and return by label why parts failed in training.

    Without an `executor` the parts are trained in this process, unless they use several devices each.

    Raises:
        DataError: the data have changed since the first part was begun.
        ChestXrayError: as `workflow.run`.
    """
    own = executor or (Executor(workers=1) if any(_several_devices(part.recipe) for part in parts) else None)
    missing = []
    for number, part in enumerate(parts, 1):
        if Run(folder / PARTS / part.name).finished:
            log.info("Part %d of %d: %s is finished.", number, len(parts), part.label)
        else:
            missing.append((number, part))
    if own is None or not missing:
        return _in_turn(missing, parts, folder, cache)
    return _by(own, missing, parts, folder, cache, shared=executor is not None)


def _in_turn(
    missing: Sequence[tuple[int, Part]], parts: Sequence[Part], folder: Path, cache: str | Path | None
) -> dict[str, ChestXrayError]:
    failed: dict[str, ChestXrayError] = {}
    for number, part in missing:
        log.info("Part %d of %d: %s", number, len(parts), part.label)
        try:
            _train(part.recipe, folder / PARTS / part.name, cache, _begun(folder, _same_data(part, parts)))
        except TrainingError as error:
            # The other parts are trained nevertheless: they may take hours, and need not fail.
            log.warning("%s failed: %s", part.label, error)
            failed[part.label] = error
        finally:
            _forget()
    return failed


def _by(
    executor: Executor,
    missing: Sequence[tuple[int, Part]],
    parts: Sequence[Part],
    folder: Path,
    cache: str | Path | None,
    *,
    shared: bool,
) -> dict[str, ChestXrayError]:
    """`shared`: the GPUs of a machine are shared between parts, where the recipe does not say how many it uses."""
    failed: dict[str, ChestXrayError] = {}
    place = folder.absolute()
    content = (place / STUDY).read_text(encoding="utf-8")
    jobs = []
    for _, part in missing:
        arguments = {
            "recipe": part.recipe,
            "folder": place,
            "name": part.name,
            "cache": caches.root(cache),
            "like": _same_data(part, parts),
            "study": content,
        }
        gpus = gpus_of(part.recipe.devices, 1 if shared else execution_parts.ALL_GPUS)
        memory = executor.memory or execution_parts.MEMORY
        jobs.append(execution_parts.Part(part.label, make_part, arguments, gpus, memory))
    by_label = {part.label: part for _, part in missing}
    ended = len(parts) - len(missing)
    with closing(executor.run(jobs)) as outcomes:
        for outcome in outcomes:
            part, label = by_label[outcome.part.name], outcome.part.name
            try:
                node = outcome.value()
            except (TrainingError, WorkerError) as error:
                log.warning("%s failed: %s", label, error)
                failed[label] = error
                continue
            _require_seen(place / PARTS / part.name, node)
            _require_same_data(part, parts, place)
            ended += 1
            log.info("%s is finished: %d of %d parts.", label, ended, len(parts))
    return failed


def make_part(recipe: Recipe, folder: Path, name: str, cache: Path, like: Sequence[str], study: str) -> str:
    """Begin or resume the part `name` of the study in `folder`, unless it is finished; return the name of this machine.

    `like`: the parts that have the same data. `study`, the content of the study's file, is compared with what is here.

    Raises:
        InputError: the study's folder is not seen from here.
        ChestXrayError: as `workflow.run`.
    """
    node = platform.node()
    try:
        seen = (folder / STUDY).read_text(encoding="utf-8")
    except OSError:
        seen = None
    if seen != study:
        raise InputError(
            f"{node} does not see the study in {folder}: --output must be a folder that every node sees by that path, "
            "such as one of a network file system."
        )
    place = folder / PARTS / name
    place.parent.mkdir(exist_ok=True)
    busy = f"Another process is at work in {place}. Allowed: to wait for its end."
    # Whoever is at work may be a worker of a driver that was killed, which ends soon.
    with locks.exclusive(place.with_name(f".{name}.lock"), place, busy, patience=PATIENCE):
        if not Run(place).finished:
            _train(recipe, place, cache, _begun(folder, like))
    return node


def gpus_of(devices: str, automatic: int) -> int:
    """Return the number of GPUs that a part asks for, `automatic` where the recipe leaves it open.

    Numbered GPUs are those among the ones it is given:

    >>> gpus_of("auto", 1), gpus_of("cpu", 1), gpus_of("gpu:0,1", 1), gpus_of("gpu:2", 1)
    (1, 0, 2, 3)
    """
    kind, _, numbers = devices.partition(":")
    if kind == "auto":
        return automatic
    if kind != "gpu":
        return 0
    known = [int(number) for number in numbers.split(",") if number.strip().isdecimal()]
    return max(known) + 1 if known else execution_parts.ALL_GPUS


def _several_devices(recipe: Recipe) -> bool:
    """Whether a training uses several devices, of which TensorFlow allows one strategy a process."""
    kind, _, numbers = recipe.devices.partition(":")
    if numbers:
        return "," in numbers
    if kind == "cpu":
        return False
    from chestxray.execution import machine

    return len(machine.gpus()) > 1


def _same_data(part: Part, parts: Sequence[Part]) -> list[str]:
    return [other.name for other in parts if _data(other.recipe) == _data(part.recipe)]


def _begun(folder: Path, names: Sequence[str]) -> Index | None:
    """Return the index of the first of these parts that was begun; None where none was."""
    for name in names:
        run = Run(folder / PARTS / name)
        if (run.folder / run_folder.INDEX).is_file():
            return run.index
    return None


def _data(recipe: Recipe) -> tuple:
    return tuple(getattr(recipe, name) for name in _DATA)


def _train(recipe: Recipe, folder: Path, cache: str | Path | None, like: Index | None) -> None:
    """Train one part, or resume it, on the data of the index `like`."""
    if (folder / run_folder.RECIPE).is_file():
        workflow.resume(folder, cache=cache, like=like)
    else:
        workflow.run(recipe, output=folder, cache=cache, like=like)


def _require_seen(folder: Path, node: str) -> None:
    """Raise `OutputError` unless the part that `node` has finished is here, or comes to be."""
    until = time.monotonic() + PATIENCE
    while not Run(folder).finished:
        if time.monotonic() > until:
            raise OutputError(f"{node} has finished a part that is not in {folder}: is it a folder of its own there?")
        time.sleep(1)


def _require_same_data(part: Part, parts: Sequence[Part], folder: Path) -> None:
    """Raise `DataError` if the data changed while parts were begun at the same time, and could not compare."""
    like = _begun(folder, _same_data(part, parts))
    assert like is not None
    allowed = "the data as they were when the first part was trained, or --overwrite to train all parts anew"
    require_same(like, Run(folder / PARTS / part.name).index, allowed)


def _forget() -> None:
    """Free Keras's global state, so that memory does not grow with the number of parts."""
    # An error before training must not import Keras.
    if "keras" in sys.modules:
        import keras

        keras.utils.clear_session()
    gc.collect()
