"""MLflow: a run on the server, or in the local store, that MLflow's own environment variables name."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# Looked at when MLflow is imported: nothing of its use is reported, and a server that is gone is given up in seconds.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.tracking import get_tracking_uri

from chestxray.runs.trackers import Parameter

#: The experiment of runs if ``MLFLOW_EXPERIMENT_NAME`` is not set.
EXPERIMENT = "chestxray"
#: Most metrics that a server takes in one request.
_MOST = 500


class MLflow:
    """A run of the experiment ``$MLFLOW_EXPERIMENT_NAME`` at ``$MLFLOW_TRACKING_URI``.

    The client is used, not MLflow's global functions, which would add the user's name and the path of the program.
    """

    def begin(self, name: str, parameters: Mapping[str, Parameter], place: Path, earlier: str) -> str:
        """Make a run with its parameters, or open the earlier one again."""
        self.client = MlflowClient(tracking_uri=get_tracking_uri())
        if earlier:
            self.client.update_run(earlier, status="RUNNING")
            self.id = earlier
            # It may have an epoch more than we know, where the run was killed between the two.
            self.steps = {point.step for point in self.client.get_metric_history(earlier, "train/loss")}
            return earlier
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        known = self.client.get_experiment_by_name(title)
        experiment = known.experiment_id if known is not None else self.client.create_experiment(title)
        self.id, self.steps = self.client.create_run(experiment, run_name=name).info.run_id, set[int]()
        self.client.log_batch(self.id, params=[Param(key, str(value)) for key, value in parameters.items()])
        return self.id

    def epoch(self, step: int, figures: Mapping[str, float]) -> None:
        """Log a metric for each figure, once."""
        if step not in self.steps:
            self._log(step, figures)

    def finish(self, step: int, figures: Mapping[str, float], files: Sequence[Path]) -> None:
        """Log a metric for each figure, and the files as artefacts, pictures below ``figures``."""
        self._log(step, figures)
        for path in files:
            self.client.log_artifact(self.id, str(path), "figures" if path.suffix == ".png" else None)

    def close(self, *, finished: bool) -> None:
        """Give the run its status."""
        if hasattr(self, "id"):
            self.client.set_terminated(self.id, "FINISHED" if finished else "KILLED")

    def _log(self, step: int, figures: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        for start in range(0, len(metrics), _MOST):
            self.client.log_batch(self.id, metrics=metrics[start : start + _MOST])
