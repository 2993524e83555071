import numpy as np
import pandas as pd

from chestxray.evaluation.finding_predictions import FindingPredictions
from chestxray.evaluation.predictions import Predictions
from chestxray.explanation.panel_choice import CLASS_KINDS, FINDING_KINDS, of_classes, of_findings


def predictions(generator, rows=60):
    names = np.array(["a", "b", "c"])[generator.integers(0, 3, rows)]
    table = {"path": [f"{i:03d}" for i in range(rows)], "label": names, "source": "s", "patient": "", "split": "test"}
    p = generator.dirichlet([1, 1, 1], rows)
    return Predictions.from_probabilities(pd.DataFrame(table), ("a", "b", "c"), p)


def test_every_class_has_images_of_each_kind():
    table = predictions(np.random.default_rng(0))
    chosen = of_classes(table, each=3, seed=0)
    rows = table.rows
    for name in table.classes:
        own = [item for item in chosen if item.group == name]
        counts = {kind: sum(kind in item.kinds for item in own) for kind in CLASS_KINDS}
        assert counts == dict.fromkeys(CLASS_KINDS, 3)
        answered = rows[rows["label"] == name]
        stated = [row[f"probability_{row['predicted']}"] for row in answered.to_dict("records")]
        for item in own:
            row = rows.iloc[item.row]
            said, probability = row["predicted"], row[f"probability_{row['predicted']}"]
            assert (row["label"], table.classes[item.explained]) == (name, said)
            assert "right" not in item.kinds or said == name
            assert "wrong" not in item.kinds or said != name
            assert ("most certain" in item.kinds) == (probability >= sorted(stated)[-3])
            assert ("least certain" in item.kinds) == (probability <= sorted(stated)[2])
    assert len({(item.row, item.group) for item in chosen}) == len(chosen), "no image twice"


def test_the_random_images_are_the_same_for_every_model_order_and_seed():
    def drawn(table, seed):
        return {table.rows["path"][i.row] for i in of_classes(table, 2, seed) if "random" in i.kinds}

    one = predictions(np.random.default_rng(0))
    answers = np.random.default_rng(9).dirichlet([1, 1, 1], len(one.rows))
    other = Predictions.from_probabilities(one.rows.iloc[::-1].reset_index(drop=True), one.classes, answers)
    assert (one.predicted != other.predicted[::-1]).any()
    assert drawn(one, 0) == drawn(other, 5)
    assert len(drawn(one, 0)) == 6


def test_other_images_of_a_class_are_drawn_by_seed():
    table = predictions(np.random.default_rng(0), rows=300)
    drawn = [{i.row for i in of_classes(table, 2, seed) if "right" in i.kinds} for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_every_finding_has_images_of_each_kind_where_it_is_known():
    generator = np.random.default_rng(1)
    truth, p = generator.choice([0.0, 1.0, np.nan], (80, 2)), generator.random((80, 2))
    columns = {"path": [f"{i:03d}" for i in range(80)], "patient": "", "split": "test", "source": "s", "label": ""}
    for number, name in enumerate(("x", "y")):
        columns |= {f"truth_{name}": truth[:, number], f"probability_{name}": p[:, number]}
        columns[f"predicted_{name}"] = (p[:, number] >= 0.3).astype(float)
    chosen = of_findings(FindingPredictions(pd.DataFrame(columns), ("x", "y")), each=2, seed=0)
    for number, name in enumerate(("x", "y")):
        own = [item for item in chosen if item.group == name]
        assert {kind: sum(kind in i.kinds for i in own) for kind in FINDING_KINDS} == dict.fromkeys(FINDING_KINDS, 2)
        known = p[~np.isnan(truth[:, number]), number]
        for item in own:
            present, score = truth[item.row, number], p[item.row, number]
            assert item.explained == number
            assert not np.isnan(present)
            assert not {"random", "found", "missed"} & set(item.kinds) or present == 1
            assert "false alarm" not in item.kinds or (present == 0 and score >= 0.3)
            assert "missed" not in item.kinds or score < 0.3
            assert ("most certain" in item.kinds) == (score >= np.sort(known)[-2])
            # The decision changes at 0.3; where exactly is not told by the answers.
            assert "least certain" not in item.kinds or abs(score - 0.3) <= np.sort(np.abs(known - 0.3))[5]


def test_a_finding_without_a_case_has_what_there_is():
    columns = {"path": ["0", "1"], "patient": "", "split": "test", "source": "s", "label": ""}
    columns |= {"truth_x": [0.0, 0.0], "probability_x": [0.1, 0.2], "predicted_x": [0.0, 0.0]}
    chosen = of_findings(FindingPredictions(pd.DataFrame(columns), ("x",)), each=1, seed=0)
    assert [(item.row, item.kinds) for item in chosen] == [(1, ("most certain", "least certain"))]
