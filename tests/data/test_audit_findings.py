"""The audit and the tests of confounding on an index of findings."""

import numpy as np
import pandas as pd
import pytest

from chestxray.data import confounding
from chestxray.data.audit import audit, settle
from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.index import Index
from chestxray.errors import LeakError

NAMES = ("Edema", "Mass")


def index_of(states, hashes=None, splits=None, names=NAMES, **columns):
    """Return a decoded index of `states` (rows, findings), each row a patient's."""
    count = len(states)
    hashes = hashes if hashes is not None else [f"h{i}" for i in range(count)]
    rows = pd.DataFrame(
        {
            "path": [f"/{i:05d}.png" for i in range(count)],
            "patient": [str(i) for i in range(count)],
            "split": splits if splits is not None else ["train"] * count,
            "pixel_hash": hashes,
            "file_hash": hashes,
            "unreadable": "",
            **columns,
        }
    )
    for name, column in zip(names, np.transpose(states), strict=True):
        rows[f"finding:{name}"] = column
    return Index.from_findings(rows, names, name="made")


def test_copies_conflict_where_one_finding_is_both_present_and_absent():
    states = [
        [PRESENT, PRESENT],
        [ABSENT, PRESENT],
        [PRESENT, UNKNOWN],  # what is not known contradicts nothing
        [PRESENT, ABSENT],
        [UNCERTAIN, PRESENT],  # nor does what is uncertain
        [ABSENT, PRESENT],
    ]
    (found,) = audit(index_of(states, hashes=list("aabbcc"))).conflicting
    assert found == {"kind": "exact", "labels": {"/00000.png": "Edema present", "/00001.png": "Edema absent"}}


def test_a_validation_is_small_for_each_finding():
    rng = np.random.default_rng(0)
    states = rng.integers(0, 2, (300, 2))
    states[100:200, 1] = ABSENT
    states[100:105, 1] = PRESENT
    states[120:200, 1] = UNKNOWN
    splits = ["train"] * 100 + ["validation"] * 100 + ["test"] * 100
    said = audit(index_of(states, splits=splits)).small_validation
    assert said == ("Findings that are present in fewer than 10 validation images: Mass (5).",)


def test_leaving_out_what_leaks_must_leave_every_finding():
    states = [[PRESENT, ABSENT], [ABSENT, PRESENT], [ABSENT, ABSENT], [PRESENT, ABSENT], [PRESENT, PRESENT]]
    index = index_of(states, hashes=list("abcde"), splits=["train", "train", "validation", "validation", "test"])
    assert settle(index, audit(index), "stop")[1].leaks is False
    leaking = index_of(states, hashes=list("abcdb"), splits=["train", "train", "validation", "validation", "test"])
    with pytest.raises(LeakError, match="no training images with Mass"):
        settle(leaking, audit(leaking), "drop")
    marked, found = settle(leaking, audit(leaking), "ignore")
    assert found.on_leak == "ignore" and len(marked) == 5


def confounded(rows=600, findings=4, seed=0):
    """Return findings by chance, of which the second goes with the file format, and is not known in a third."""
    rng = np.random.default_rng(seed)
    states = (rng.random((rows, findings)) < 0.3).astype(int)
    mode = np.where(rng.random(rows) < np.where(states[:, 1] == 1, 0.9, 0.2), "jpeg", "png")
    states[rng.random(rows) < 1 / 3, 1] = UNKNOWN
    names = tuple(f"F{number}" for number in range(findings))
    return index_of(states, names=names, format=mode, width=rng.integers(500, 900, rows), height=700)


def test_the_finding_that_goes_with_a_property_is_named():
    index = confounded()
    found = confounding.of_index(index)
    flagged = [item for item in found if item.flagged]
    assert [(item.finding, item.name) for item in flagged] == [("F1", "format")]
    assert flagged[0].sentence.startswith("The file format alone tells no F1 from F1: it is right for")
    assert flagged[0].units == (index.rows["finding:F1"] != UNKNOWN).sum()
    assert {item.finding for item in found} == set(index.classes)
    assert "confound: format and F1" in [item.kind for item in audit(index).findings]


def test_multiplicity_is_held_over_findings_and_properties():
    false = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        states = (rng.random((150, 6)) < 0.15).astype(int)
        kind = rng.choice(["png", "jpeg"], 150)
        index = index_of(states, names=tuple("ABCDEF"), format=kind, width=rng.integers(500, 900, 150))
        false += any(item.p_holm <= 0.05 for item in confounding.of_index(index))
    assert false <= 3  # .6 are expected, and more than 3 in 1 of 300 such runs


def test_a_property_of_one_image_flags_nothing():
    states = np.zeros((400, 2), int)
    states[:12, 0], states[::3, 1] = PRESENT, PRESENT
    odd = np.where(np.arange(400) == 0, "gif", "png")
    assert not any(item.flagged for item in confounding.of_index(index_of(states, format=odd)))


def test_the_p_value_is_that_of_permuting_the_classes(monkeypatch):
    rng = np.random.default_rng(3)
    states = (rng.random((200, 2)) < 0.3).astype(int)
    # Weak: of the size of what chance gives.
    kind = np.where(rng.random(200) < 0.4 + 0.15 * states[:, 0], "jpeg", "png")
    index = index_of(states, format=kind, patient=[str(i // 2) for i in range(200)])
    alone = index.of_finding("Edema")
    monkeypatch.setattr(confounding, "FEWER", 2_000)
    monkeypatch.setattr(confounding, "ENOUGH", 10_000)
    plain = next(item for item in confounding.confounds(alone.rows, alone.classes) if item.name == "format")
    own = {(item.finding, item.name): item for item in confounding.of_index(index)}["Edema", "format"]
    assert (own.association, own.units, own.right) == (plain.association, plain.units, plain.right)
    assert own.p == pytest.approx(plain.p, abs=0.06)  # three standard errors of 999 and 2,000 permutations


def test_findings_of_one_kind_and_properties_that_are_missing_are_no_error():
    assert confounding.of_index(index_of([[PRESENT, ABSENT]] * 6)) == ()
    assert confounding.of_index(index_of([[PRESENT, UNKNOWN]] * 6, format="png")) == ()
