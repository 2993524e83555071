"""The flow on real radiographs, where CHESTXRAY_REAL_DATA points at some."""

import pytest

from chestxray import workflow
from chestxray.data.audit import audit
from chestxray.data.decoded import decode, readable
from chestxray.data.near_duplicates import mark
from chestxray.data.sources.folder import load
from chestxray.data.splitting import split
from chestxray.errors import LeakError
from chestxray.plugin import SourceOptions
from chestxray.recipe import Recipe

pytestmark = pytest.mark.real_data

#: Numbers of patients restart in the official test folder of Kermany's set.
KERMANY_PATIENTS = r"(test/)?.*(person\d+|IM-\d+)"


def audited(folder, cache, pattern=None):
    index = load(str(folder), SourceOptions(cache=cache, patient_pattern=pattern))
    decoded = decode(index, (64, 64), "stretch", cache)
    return readable(index, decoded, 0.0)


def test_kermany_has_copies_inside_splits_and_none_across(real_data, tmp_path):
    index = audited(real_data / "kermany", tmp_path, KERMANY_PATIENTS)
    assert len(index) == 5856
    found = audit(index)
    assert len(found.duplicates) == 30
    assert not found.leaks
    splits = split(index, Recipe())
    counts = splits.index.counts()
    assert counts["test"].to_dict() == {"NORMAL": 234, "PNEUMONIA": 390}
    assert counts["validation"].sum() > 400
    assert "only 16 validation images" in splits.notes[0]
    assert not audit(splits.index).leaks


def looked_at(folder, cache, label_pattern=None):
    """The audit with near copies and brightness, at the size that the command line takes."""
    index = load(str(folder), SourceOptions(cache=cache, label_pattern=label_pattern))
    decoded = decode(index, (224, 224), "stretch", cache)
    return audit(mark(readable(index, decoded, 0.0), decoded.pixels))


def test_kermany_has_no_near_copies_at_any_size(real_data, tmp_path):
    index = load(str(real_data / "kermany"), SourceOptions(cache=tmp_path, patient_pattern=KERMANY_PATIENTS))
    for size in (224, 32):
        decoded = decode(index, (size, size), "stretch", tmp_path)
        found = audit(mark(readable(index, decoded, 0.0), decoded.pixels))
        assert found.near == ()
        assert not found.leaks


def test_near_copies_are_found_across_the_splits_of_a_published_set(real_data, tmp_path):
    found = looked_at(real_data / "covid19-three-class", tmp_path)
    assert len(found.duplicates) == 10
    assert len(found.duplicates_across_splits) == 6
    # Each judged by eye on the contact sheet: one film with other contrast or another format.
    assert len(found.near) == 6
    assert len(found.near_across_splits) == 3


def test_classes_from_different_sources_are_confounded(real_data, tmp_path):
    found = looked_at(real_data / "four-class", tmp_path)
    flagged = {item.name for item in found.confounds if item.flagged}
    assert "format" in flagged
    assert found.severity == "critical"
    assert not found.leaks


def test_montgomery_does_not_leak(real_data, tmp_path):
    found = looked_at(real_data / "montgomery" / "images", tmp_path, r"(?P<normal>_0\.)|(?P<tuberculosis>_1\.)")
    assert not found.leaks
    assert found.near == ()
    assert not found.duplicates


def test_a_published_set_leaks_and_the_audit_finds_it(real_data, tmp_path):
    found = audit(audited(real_data / "covid19-three-class", tmp_path))
    assert len(found.duplicates) == 10
    assert len(found.duplicates_across_splits) == 6


def test_a_run_on_a_leaking_set_stops_and_goes_on_without_the_leaks(real_data, tmp_path):
    recipe = Recipe(
        model="shallow_cnn",
        data=(f"folder:{real_data / 'covid19-three-class'}",),
        split="official",
        image_size=32,
        epochs=2,
        replicates=100,
    )
    with pytest.raises(LeakError, match="images have copies"):
        workflow.run(recipe, output=tmp_path / "stopped")
    run = workflow.run(recipe.replace(on_leak="drop"), output=tmp_path / "run")
    assert (run.index.rows["audit"] != "").sum() >= 1
    assert run.metrics["test"]["auroc"]["value"] > 0.6
