"""What simulations say of the intervals of a run like this one."""

from pathlib import Path

import pytest

from chestxray.report import interval_coverage
from chestxray.report.interval_coverage import EVEN, FEWEST, KEPT, caution, kind, measured, words
from chestxray.runs import run_folder
from made_runs import TWO, index_of, write_run

TABLE = Path(__file__).parents[2] / "benchmarks" / "coverage.md"
TITLE = "Intervals that are not quite 95%"


@pytest.mark.parametrize(
    ("rarest", "evenness", "expected"),
    [(3.0, 1.0, (0, True)), (10.0, 0.2, (10, False)), (19.9, EVEN, (10, True)), (500.0, 0.9, (20, True))],
)
def test_kinds(rarest, evenness, expected):
    assert kind(rarest, evenness) == expected


def test_every_kind_was_measured_and_has_words():
    kinds = {(least, even) for least in FEWEST for even in (True, False)}
    assert set(measured()) == kinds
    assert len({words(*one) for one in kinds}) == len(kinds)
    for covered in measured().values():
        assert {"accuracy", "auroc", "f1_macro", "brier", "ece", "slope"} <= set(covered)


def test_the_report_goes_by_the_table_of_the_benchmark():
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    (start,) = [i for i, line in enumerate(lines) if line.startswith("| tests | designs |")]
    names = [cell.strip() for cell in lines[start].split("|")[3:-1]]
    shown = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        first, _, *cells = [cell.strip(" *") for cell in line.split("|")[1:-1]]
        shown[first] = dict(zip(names, cells, strict=True))
    for one, covered in measured().items():
        said = {name: float(cell) for name, cell in shown[words(*one)].items() if cell}
        assert said == pytest.approx({name: 100 * share for name, share in covered.items()}, abs=0.051)


def run_of(tmp_path, per_class, crowded=False):
    """A run whose test has so many images a class; crowded: half of them are of one patient of each class."""
    index = index_of(TWO, per_class=4 * per_class, patients=False)
    numbers = index.rows.groupby(["label", "split"]).cumcount()
    if crowded:
        patients = [f"{label}{split}{max(n, per_class // 2)}" for label, split, n in
                    zip(index.rows["label"], index.rows["split"], numbers, strict=True)]  # fmt: skip
        index = index.replace(index.rows.assign(patient=patients))
    return run_folder.open_complete(write_run(tmp_path / "run", TWO, index=index))


@pytest.mark.parametrize(
    ("per_class", "crowded", "expected"),
    [(6, False, (0, True)), (12, False, (10, True)), (40, False, (20, True)), (40, True, (0, False))],
)
def test_a_run_is_told_of_its_own_kind(tmp_path, per_class, crowded, expected):
    covered = measured()[expected]
    odd = {name: share for name, share in covered.items() if name != "ece" and not KEPT[0] <= share <= KEPT[1]}
    found = caution(run_of(tmp_path, per_class, crowded))
    assert bool(found) == bool(odd)
    for one in found:
        assert (one.weight, one.title) == ("note", TITLE)
        assert words(*expected) in one.text
        assert len(one.text) < 400
        assert ("too seldom" in one.text) == any(share < KEPT[0] for share in odd.values())
        assert ("more often than need be" in one.text) == any(share > KEPT[1] for share in odd.values())


def test_figures_that_the_run_lacks_are_not_named(tmp_path, monkeypatch):
    record = run_of(tmp_path, 6)
    for figure in record.metrics["test"].values():
        figure["low"] = None
    record.metrics.pop("calibration")
    monkeypatch.setattr(interval_coverage, "measured", lambda: {(0, True): {"auroc": 0.5, "slope": 0.5}})
    assert caution(record) == []
