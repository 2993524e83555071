"""``python -m fuzz.kills --kills 24``: runs killed at random moments and resumed, beside the run left alone.

Every case of `CASES` is run to its end once, each line of its log with its time. A further run of the case, with a
cache of its own, is then sent a signal at a random moment after a random line of that log (so that short steps are
hit as often as long ones), resumed, killed and resumed again, up to six times, and the last one is left alone. Its
folder must equal that of the run left alone: what is compared is in `run_equality.differences`. Exit code 1 where
something was found.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.run_equality import Difference, differences

_TINY = ("--image-size", "32", "--replicates", "100", "--heatmaps", "1", "--batch-size", "8", "--patience", "0")
_DRAWN = ("--data", "phantom", "--data-option", "patients=40")
_FOLDER = ("--data", "folder:{films}", "--test-share", "0.2", "--validation-share", "0.2")
_PRETRAINED = ("--weights", "{weights}", "--head-epochs", "2", "--epochs", "2", "--finetune-from", "all")
#: Name -> options. In them ``{films}`` is a folder of PNG files and ``{weights}`` a trained model's file.
CASES: dict[str, tuple[str, ...]] = {
    "cosine": (*_DRAWN, "--epochs", "4", "--schedule", "cosine", "--augment", "light"),
    "plateau": (
        *_FOLDER, "--epochs", "5", "--schedule", "plateau", "--optimizer", "sgd", "--mix", "mixup",
        "--augment", "heavy", "--monitor", "auroc",
    ),
    "constant": (
        *_FOLDER, "--epochs", "4", "--schedule", "constant", "--optimizer", "adam", "--mix", "cutmix",
        "--augment", "crop", "--sampling", "rarity", "--loss", "focal",
    ),
    "head and features": (*_DRAWN, *_PRETRAINED, "--augment", "none", "--schedule", "plateau"),
    "head and views": (*_FOLDER, *_PRETRAINED, "--augment", "light", "--cached-views", "2"),
    "findings": ("--data", "phantom:findings", "--data-option", "patients=60", "--epochs", "3", "--loss", "asymmetric"),
}  # fmt: skip
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
#: A chestxray whose Ctrl-C is heard, whatever who starts this told its children to ignore.
_START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from chestxray.cli.main import main; main()"
)
#: Most seconds of a run.
LONGEST = 1800.0


@dataclass
class Ended:
    """A process that has ended: its exit code, its lines on standard error, and the seconds after which each came."""

    code: int
    lines: list[str]
    seconds: list[float]
    took: float


@dataclass(frozen=True)
class Moment:
    """So many ``seconds`` after the first of the ``lines`` that comes: a resumed run has not all of them."""

    lines: tuple[str, ...]
    seconds: float


@dataclass
class Trial:
    """A run that was killed and resumed: the signals with their moments, and what was found."""

    case: str
    kills: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)
    difference: Difference | None = None


def main(arguments: list[str] | None = None) -> int:
    """Print a line a trial and a summary; 1 where a resumed run ended otherwise, or a signal was not taken well."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=24, help="signals to be sent [24]")
    parser.add_argument("--seed", type=int, default=0, help="seed of cases, signals and moments [0]")
    parser.add_argument("--case", action="append", choices=CASES, help="this one alone; repeated: these alone")
    parser.add_argument("--plain", action="store_true", help="without --deterministic")
    parser.add_argument("--tolerance", type=float, default=0.0, help="allowed difference of a number [0]")
    options = parser.parse_args(arguments)
    chosen = tuple(options.case or CASES)
    extra = () if options.plain else ("--deterministic",)
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        return _campaign(Path(name), chosen, extra, options.kills, options.seed, options.tolerance)


def _campaign(work: Path, cases: tuple[str, ...], extra: tuple[str, ...], kills: int, seed: int, allowed: float) -> int:
    generator = random.Random(seed)
    alone: dict[str, Ended] = {}
    trials: list[Trial] = []
    sent: Counter[str] = Counter()
    while sum(sent.values()) < kills:
        case = cases[len(trials) % len(cases)]
        command = [*_command(case, work), *extra]
        if case not in alone:
            alone[case] = _run(command, _place(work, case, "alone"))
            if alone[case].code:
                raise SystemExit(f"{case}: the run left alone failed:\n" + "\n".join(alone[case].lines))
            print(f"{case}: left alone, {alone[case].took:.0f} s, {len(alone[case].lines)} lines", flush=True)
        trial = _trial(case, command, alone[case], work, generator, sent, allowed)
        trials.append(trial)
        print(f"{case}: {'; '.join(trial.kills)}: {trial.difference or 'not resumed'}", flush=True)
        for finding in trial.findings:
            print(f"  FOUND {finding}", flush=True)
    found = sum(len(trial.findings) for trial in trials)
    equal = sum(trial.difference is not None and trial.difference.largest == 0 for trial in trials)
    kinds = ", ".join(f"{number} {name}" for name, number in sorted(sent.items()))
    print(
        f"{sum(sent.values())} kills ({kinds}) in {len(trials)} runs: {equal} ended alike to the bit, {found} findings."
    )
    return int(found > 0)


def _trial(
    case: str,
    command: list[str],
    alone: Ended,
    work: Path,
    generator: random.Random,
    sent: Counter[str],
    allowed: float,
) -> Trial:
    """Kill a run of `case`, resume it, maybe kill it again, and compare its folder with that of the run left alone."""
    trial, place = Trial(case), _place(work, case, "again")
    shutil.rmtree(place, ignore_errors=True)
    # In their order, as what was done is not done again.
    for number in sorted(generator.choices(range(len(alone.lines)), k=generator.choice((4, 5, 6)))):
        chosen, moment = generator.choice(SIGNALS), _moment(alone, number, generator)
        ended = _run(_next(command, place), place, (chosen, moment))
        trial.kills.append(f"{chosen.name} {moment.seconds:.2f} s after {moment.lines[0]!r}")
        if ended.code == 0:
            trial.kills[-1] += " (it had ended)"
            break
        sent[chosen.name] += 1
        if (place / "run" / "report.html").is_file():
            # It was complete: Python was ending, which is deaf to signals.
            trial.kills[-1] += " (it was complete)"
            break
        trial.findings += _taken(chosen, ended, begun=(place / "run" / "recipe.toml").is_file())
    if not (place / "run" / "report.html").is_file():
        ended = _run(_next(command, place), place)
        if ended.code:
            trial.findings.append(f"it did not go on (code {ended.code}): {' | '.join(ended.lines[-5:])}")
            return trial
    trial.difference = differences(_place(work, case, "alone") / "run", place / "run")
    if trial.difference.largest > allowed or trial.difference.other:
        trial.findings.append(f"it ended otherwise: {trial.difference}")
    return trial


def _place(work: Path, case: str, which: str) -> Path:
    """The folder of a run and its cache. Its name is as long for all, as paths are in what is written."""
    return work / f"{which}-{case.replace(' ', '-')}"


def _command(case: str, work: Path) -> list[str]:
    films, weights = work / "films", work / "weights" / "run" / "model.keras"
    options = CASES[case]
    if "folder:{films}" in options and not films.is_dir():
        _draw(films)
    if "{weights}" in options and not weights.is_file():
        made = _run(["run", *_TINY, "--model", "shallow_cnn", *_DRAWN, "--epochs", "1"], work / "weights")
        if made.code:
            raise SystemExit("\n".join(made.lines))
    filled = [option.format(films=films, weights=weights) for option in options]
    return ["run", "--model", "shallow_cnn", *_TINY, *filled]


def _draw(folder: Path) -> None:
    """Draw 40 patients' phantoms, each in the folder of its class."""
    from PIL import Image

    from chestxray.data.sources.phantom.drawing import draw
    from chestxray.data.sources.phantom.findings import FINDINGS

    for patient in range(40):
        finding = list(FINDINGS)[patient % 3]
        path = folder / f"{finding} {patient % 3}".replace(" ", "_") / f"p{patient:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(seed=1, patient=patient, image=0, finding=finding, size=64).pixels).save(path)


def _moment(alone: Ended, place: int, generator: random.Random) -> Moment:
    """A random moment between the line of that number of the run left alone and the next one."""
    ends = [*alone.seconds[1:], alone.took][place]
    return Moment(tuple(map(_like, alone.lines[place:])), generator.random() * (ends - alone.seconds[place]))


def _like(line: str) -> str:
    """The line as it is in every run: up to its first number, or with that of an epoch."""
    return re.split(r"/|(?<!Epoch )\d", line)[0].strip()[:60]


def _next(command: list[str], place: Path) -> list[str]:
    """What a user types next: the command again until the run has begun, then to resume it."""
    if (place / "run" / "recipe.toml").is_file():
        return ["run", "--resume", str(place / "run")]
    return command


def _taken(sent: signal.Signals, ended: Ended, *, begun: bool) -> list[str]:
    """What is wrong with how a process took the signal that ended it."""
    wanted = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}[sent]
    found = []
    if ended.code != wanted:
        found.append(f"{sent.name} ended it with code {ended.code}, not {wanted}: {' | '.join(ended.lines[-3:])}")
    if any(line.startswith("Traceback") for line in ended.lines):
        found.append(f"{sent.name} left a traceback: {' | '.join(ended.lines[-8:])}")
    if sent != signal.SIGKILL and begun and not any("chestxray run --resume" in line for line in ended.lines):
        found.append(f"{sent.name}: it does not say how to go on: {' | '.join(ended.lines[-3:])}")
    return found


def _run(command: list[str], place: Path, kill: tuple[signal.Signals, Moment] | None = None) -> Ended:
    """Run chestxray, its output folder and cache in `place`, and send it the signal at its moment."""
    (place / "cache").mkdir(parents=True, exist_ok=True)
    output = [] if "--resume" in command else ["--output", str(place / "run")]
    whole = [sys.executable, "-c", _START, *command, *output, "--cache", str(place / "cache")]
    started, ended = time.monotonic(), Ended(0, [], [], 0.0)
    with subprocess.Popen(  # noqa: S603 - our own interpreter and code
        whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    ) as process:
        limit = threading.Timer(LONGEST, process.kill)
        limit.start()
        killer: threading.Timer | None = None
        assert process.stderr is not None
        for line in process.stderr:
            ended.lines.append(line.rstrip("\n"))
            ended.seconds.append(time.monotonic() - started)
            if kill is not None and killer is None and _reached(ended.lines, kill[1]):
                killer = threading.Timer(kill[1].seconds, process.send_signal, [kill[0]])
                killer.start()
        ended.code = process.wait()
        for timer in filter(None, (limit, killer)):
            timer.cancel()
    ended.took = time.monotonic() - started
    return ended


def _reached(lines: list[str], moment: Moment) -> bool:
    return _like(lines[-1]) in moment.lines


if __name__ == "__main__":
    sys.exit(main())
