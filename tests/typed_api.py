"""What a type checker and an editor see of `import chestxray`: checked by mypy (`tox -e types`), never run."""

from typing import TYPE_CHECKING, assert_type

import chestxray as cx

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from chestxray.api.results import AuditResult, Controls, Environment
    from chestxray.evaluation.decision.rule import Decision
    from chestxray.evaluation.evaluate import Evaluation
    from chestxray.evaluation.findings_evaluation import FindingsEvaluation
    from chestxray.evaluation.paired.comparison_result import Comparison
    from chestxray.evaluation.paired.findings_comparison_result import FindingsComparison

    def runs(ax: Axes) -> None:
        run = cx.run(model="densenet121", data="folder:films", epochs=5, image_size=64, fit="pad")
        assert_type(run, cx.Run)
        assert_type(cx.load("runs/x"), cx.Run)
        assert_type(run.recipe, cx.Recipe)
        assert_type(run.evaluation, Evaluation)
        assert_type(run.evaluation.to_frame(), pd.DataFrame)
        assert_type(run.decision, Decision)
        assert_type(run.controls, Controls)
        assert_type(run.audit, AuditResult)
        assert_type(run.environment, Environment)
        assert_type(run.history, pd.DataFrame)
        assert_type(run.predict(["a.png"]), pd.DataFrame)
        assert_type(run.explain("a.png").map, np.ndarray)
        for axes in (run.plot_roc(ax), run.plot_calibration(ax), run.plot_confusion(), run.plot_history(of="accuracy")):
            assert_type(axes, Axes)
        assert_type(cx.compare([run, "runs/y"]), Comparison | FindingsComparison)
        assert_type(cx.compare({"a": [0.2], "b": [0.3]}, [1]), Comparison)
        assert_type(cx.compare({"a": [[0.2]], "b": [[0.3]]}, [[1]], findings=["Mass"]), FindingsComparison)
        assert_type(cx.evaluate([0, 1], [0.2, 0.7]), Evaluation)
        assert_type(cx.evaluate([[0], [1]], [[0.2], [0.7]], findings=["Mass"]), FindingsEvaluation)

    def data() -> None:
        films = cx.load_data("folder:films", patient_pattern=r"(p\d+)_", split="grouped")
        assert_type(films, cx.DataSet)
        assert_type(films.rows, pd.DataFrame)
        assert_type(films.show(4, label="NORMAL"), Figure)
        assert_type(films.audit(), AuditResult)

    def mistakes() -> None:
        # mypy says so where one of these is no mistake any more.
        cx.run(epoch=5)  # type: ignore[call-arg]
        cx.run(fit="squeeze")  # type: ignore[arg-type]
        cx.load_data("folder:films", epochs=5)  # type: ignore[call-arg]
        cx.lod("runs/x")  # type: ignore[attr-defined]
