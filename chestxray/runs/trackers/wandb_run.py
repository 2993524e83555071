"""Weights & Biases: a run in the project that its own environment variables name, or offline in the run's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

# Looked at when it is imported: its reports of its own errors.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")

import wandb

from chestxray.runs.trackers import Parameter

#: The project of runs if ``WANDB_PROJECT`` is not set.
PROJECT = "chestxray"


class WeightsAndBiases:
    """A run of ``$WANDB_PROJECT``; with ``WANDB_MODE=offline`` its files wait in ``trackers/wandb``.

    What it gathers by itself is turned off: the host, the user, the program and its path, the code, the output of the
    terminal, and the load of the machine.
    """

    def begin(self, name: str, parameters: Mapping[str, Parameter], place: Path, earlier: str) -> str:
        """Start a run with its parameters, or go on with the earlier one."""
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_meta=True,
            x_disable_stats=True, x_disable_machine_info=True, init_timeout=60,
        )  # fmt: skip
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=name,
            id=earlier or None,
            resume="allow" if earlier else None,
            config=dict(parameters),
            dir=str(place.parent),
            settings=settings,
        )
        return str(self.run.id)

    def epoch(self, step: int, figures: Mapping[str, float]) -> None:
        """Log the figures of an epoch."""
        self.run.log(dict(figures), step=step)

    def finish(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Write the figures into the run's summary, and the files into one artefact."""
        self.run.summary.update(dict(figures))
        artefact = wandb.Artifact(f"run-{self.run.id}", type="model")
        for path in files:
            artefact.add_file(str(path), name=f"figures/{path.name}" if path.suffix == ".png" else path.name)
        self.run.log_artifact(artefact)

    def close(self, *, finished: bool) -> None:
        """End the run, and wait until it is written or sent."""
        if hasattr(self, "run"):
            self.run.finish(exit_code=0 if finished else 1)
