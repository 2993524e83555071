"""The audit of data with findings: contradictions, conflicts, confounding, and what show and export say of them."""

import numpy as np
import pandas as pd
import pytest

from chestxray.data.audit import audit
from chestxray.data.data_export import export
from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.index import Index
from chestxray.data.sources.manifest import load
from chestxray.errors import InputError
from chestxray.plugin import SourceOptions
from chestxray.report.data_summary import Summary

STATES = [[PRESENT, ABSENT], [ABSENT, UNCERTAIN], [UNKNOWN, PRESENT], [ABSENT, ABSENT]]


def index_of(states, **columns):
    count = len(states)
    rows = pd.DataFrame(
        {
            "path": [f"/{i}.png" for i in range(count)], "unreadable": "", "split": "train", "mode": "L",
            "format": "PNG", "width": 64, "height": 64, "pixel_hash": [f"p{i}" for i in range(count)],
            "file_hash": [f"f{i}" for i in range(count)], **columns,
        }
    )  # fmt: skip
    rows[["finding:Edema", "finding:Mass"]] = np.asarray(states, dtype=np.int8)
    return Index.from_findings(rows, ["Edema", "Mass"], name="made")


def test_contradictory_and_conflicting_labels_are_named():
    found = audit(index_of(STATES, pixel_hash=["x", "x", "x", "y"], contradiction=["No Finding and Edema", "", "", ""]))
    assert found.contradictions == ({"path": "/0.png", "labels": "No Finding and Edema"},)
    # Of Mass the second copy is uncertain and the first absent against the third.
    (group,) = found.conflicting
    assert group["labels"] == {
        "/0.png": "Edema present, Mass absent", "/1.png": "Edema absent", "/2.png": "Mass present",
    }  # fmt: skip
    kinds = {item.kind: item.count for item in found.findings}
    assert kinds["contradictory labels"] == 1 and kinds["conflicting labels"] == 1
    assert found.to_json()["contradictory_labels"] == [{"path": "/0.png", "labels": "No Finding and Edema"}]


def test_copies_that_know_different_findings_do_not_conflict():
    assert audit(index_of([[1, UNKNOWN], [UNKNOWN, 0]], pixel_hash=["x", "x"])).conflicting == ()


def test_findings_that_are_rare_in_validation_or_not_tested_are_named():
    found = audit(index_of(STATES, split=["train", "validation", "test", "test"]))
    assert (
        "Findings that are present in fewer than 10 validation images: Edema (0), Mass (0)." in found.small_validation
    )
    assert "Findings that no test image shows: Edema. No figure speaks of them." in found.notes


def test_a_property_that_goes_with_one_finding_is_named_with_it():
    rng = np.random.default_rng(0)
    states = np.stack([np.arange(120) % 2, rng.integers(0, 2, 120)], axis=1)
    found = audit(index_of(states, width=np.where(states[:, 0] == 1, 512, 1024)))
    (flagged,) = [item for item in found.confounds if item.flagged and item.name == "width"]
    assert flagged.finding == "Edema" and flagged.sentence.startswith("The image width alone tells no Edema from Edema")
    assert found.severity == "critical"


def test_show_counts_each_state_by_split_and_source():
    index = index_of(STATES, split=["train", "train", "test", ""], source=["one", "one", "two", "two"])
    summary = Summary(index=index, pixels=np.zeros((4, 8, 8), np.uint8))
    facts = summary.to_json()
    assert facts["findings"]["Edema"]["train"] == {"present": 1, "absent": 1, "uncertain": 0, "not known": 0}
    assert facts["findings"]["Mass"]["train"] == {"present": 0, "absent": 1, "uncertain": 1, "not known": 0}
    assert facts["findings_by_source"]["Edema"]["two"] == {"present": 0, "absent": 1, "uncertain": 0, "not known": 1}
    assert list(facts["findings"]["Edema"]) == ["train", "test", "no split"]
    assert "Images by finding, state and source" in index._repr_html_()


def test_an_export_can_be_read_back(tmp_path):
    index = index_of(STATES, split=["train", "validation", "test", ""], patient=["a", "b", "c", "d"])
    pixels = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    assert export(index, pixels, "folder", tmp_path / "out") == 3
    options = SourceOptions(cache=tmp_path, extra={"finding_columns": "Edema,Mass"})
    again = load(str(tmp_path / "out" / "index.csv"), options)
    by_patient = dict(zip(again.rows["patient"], again.states.tolist(), strict=True))
    assert by_patient == dict(zip("abc", STATES[:3], strict=True))
    assert dict(zip(again.rows["patient"], again.rows["split"], strict=True))["b"] == "validation"
    with pytest.raises(InputError, match=r"exported as folder, which has a table\. Received: npz"):
        export(index, pixels, "npz", tmp_path / "other")
