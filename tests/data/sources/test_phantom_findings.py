"""The source `phantom` with several findings in one chest: what is drawn, what is labelled, and what is left open."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chestxray.data.findings import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from chestxray.data.sources.phantom import source
from chestxray.data.sources.phantom.drawing import draw, draw_findings
from chestxray.data.sources.phantom.findings import COEXISTING
from chestxray.data.sources.phantom.findings_set import plan
from chestxray.data.sources.phantom.options import FindingsOptions
from chestxray.errors import InputError
from chestxray.plugin import SourceOptions

TINY = "patients=12,size=32"


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    cache = tmp_path_factory.mktemp("phantoms")

    def load(address, **options):
        return source.load(address, SourceOptions(cache=cache, **options))

    return load


def pixels(path):
    with Path(path).open("rb") as file:
        return np.asarray(Image.open(file))


def names(index):
    return [Path(path).name for path in index.rows["path"]]


def test_it_is_an_index_of_findings_with_a_mask_of_each_that_is_there(load):
    index = load(f"findings,{TINY},uncertain=0,unlabelled=0")
    assert index.task == "findings" and index.classes == tuple(COEXISTING) and index.drawn.all()
    assert set(np.unique(index.states)) == {PRESENT, ABSENT}
    assert (index.states == PRESENT).sum(axis=1).max() > 1
    for name, states in zip(index.classes, index.states.T, strict=True):
        masks = index.rows[f"mask:{name}"]
        np.testing.assert_array_equal(masks != "", states == PRESENT)
        for mask, lungs in zip(masks, index.rows["lung_mask"], strict=True):
            assert not mask or (pixels(mask).any() and not (pixels(mask) > pixels(lungs)).any())


@pytest.mark.parametrize("finding", COEXISTING)
def test_a_finding_is_seen_at_its_place_alone(finding):
    for patient in range(10):
        without, having = (
            draw_findings(seed=2, patient=patient, image=0, findings=findings, size=64)
            for findings in ({"Effusion": 1.0} if finding != "Effusion" else {}, {"Effusion": 1.0, finding: 1.0})
        )
        mask = (
            having.findings[finding] & ~having.findings["Effusion"]
            if finding != "Effusion"
            else having.findings[finding]
        )
        change = np.abs(having.pixels.astype(float) - without.pixels)
        assert mask.sum() >= 8
        assert change[mask].mean() > 15 and change[~having.findings[finding]].mean() < 3


def test_without_findings_it_is_the_chest_of_the_other_phantoms():
    film = draw_findings(seed=1, patient=3, image=0, findings={}, size=48)
    plain = draw(seed=1, patient=3, image=0, finding="clear", size=48)
    assert (film.pixels == plain.pixels).all() and film.findings == {}


def test_a_faint_finding_is_seen_less():
    def change(strength):
        film = draw_findings(seed=1, patient=3, image=0, findings={"Nodule": strength}, size=48)
        return np.abs(film.pixels.astype(int) - draw_findings(seed=1, patient=3, image=0, findings={}, size=48).pixels)

    assert 0 < change(0.35).sum() < 0.6 * change(1.0).sum()


def test_findings_are_as_frequent_as_is_said_and_two_go_together():
    films = plan("findings", FindingsOptions(patients=3000, uncertain=0, unlabelled=0))
    patients = {}
    for film in films:
        patients.setdefault(film.patient, set()).update(film.strength)
    share = {name: np.mean([name in ill for ill in patients.values()]) for name in COEXISTING}
    expected = {"Cardiomegaly": 0.25, "Cavity": 0.15, "Consolidation": 0.21, "Nodule": 0.25, "Pneumothorax": 0.054}
    for name, about in expected.items():
        assert share[name] == pytest.approx(about, abs=0.03), name
    having = np.array([["Cardiomegaly" in ill, "Effusion" in ill] for ill in patients.values()])
    assert having[having[:, 0], 1].mean() > 1.7 * having[~having[:, 0], 1].mean()
    together = np.array([["Nodule" in ill, "Cavity" in ill] for ill in patients.values()])
    assert abs(np.corrcoef(together.T)[0, 1]) < 0.06


def test_some_labels_are_uncertain_and_some_missing():
    films = plan("findings", FindingsOptions(patients=1500, uncertain=0.2, unlabelled=0.3))
    states = np.array([[film.states[name] for name in COEXISTING] for film in films])
    drawn = np.array([[film.strength.get(name, 0) for name in COEXISTING] for film in films])
    assert (states == UNKNOWN).mean() == pytest.approx(0.3, abs=0.01)
    known = states != UNKNOWN
    assert (states[known & (drawn > 0)] == UNCERTAIN).mean() == pytest.approx(0.2, abs=0.02)
    assert (states[known & (drawn == 0)] == UNCERTAIN).mean() == pytest.approx(0.02, abs=0.005)
    assert set(drawn[states == PRESENT]) == {1.0} and set(drawn[states == ABSENT]) == {0.0}
    assert 0 < (drawn[states == UNCERTAIN] == 0).mean() < 1


def test_two_hospitals_know_different_findings_and_no_patient_in_common(load):
    a, b = load(f"findings-a,{TINY}"), load(f"findings-b,{TINY}")
    assert set(a.classes) & set(b.classes) == {"Effusion"}
    assert set(a.classes) | set(b.classes) == set(COEXISTING)
    assert (set(a.rows["source"]), set(b.rows["source"])) == ({"phantom-a"}, {"phantom-b"})
    assert not set(a.rows["patient"]) & set(b.rows["patient"])
    assert (pixels(a.rows["path"][0]).shape != pixels(b.rows["path"][0]).shape) or (
        pixels(a.rows["path"][0]) != pixels(b.rows["path"][0])
    ).any()


def test_the_same_images_may_have_all_labels(load):
    some, every = load(f"findings-a,{TINY},uncertain=0.3"), load(f"findings-a,{TINY},uncertain=0.3,complete=true")
    assert some.rows["path"].tolist() == every.rows["path"].tolist()
    assert every.classes == tuple(COEXISTING) and set(np.unique(every.states)) == {PRESENT, ABSENT}
    states = every.states[:, [every.classes.index(name) for name in some.classes]]
    known = some.states >= 0
    assert (states[known] == some.states[known]).all()
    assert (some.states == UNCERTAIN).any() and (some.states == UNKNOWN).any()


def test_the_seed_fixes_films_and_labels(load, tmp_path):
    first = load(f"findings,{TINY}", seed=3)
    again = source.load(f"findings, {TINY}", SourceOptions(cache=tmp_path, seed=3))
    assert names(first) == names(again) and (first.states == again.states).all()
    assert all((pixels(a) == pixels(b)).all() for a, b in zip(first.rows["path"], again.rows["path"], strict=True))
    assert not set(first.rows["patient"]) & set(load(f"findings,{TINY}", seed=4).rows["patient"])


def test_a_marker_goes_with_a_finding():
    films = plan("findings", FindingsOptions(patients=200, marker=0.9, marked="Nodule"))
    marked = np.array([film.marker for film in films])
    nodule = np.array(["Nodule" in film.strength for film in films])
    assert marked[nodule].mean() > 0.8 and not marked[~nodule].any()


def test_splits_may_be_left_to_the_run(load):
    assert set(load(f"findings,{TINY},splits=none").rows["split"]) == {""}
    assert set(load(f"findings,{TINY}").rows["split"]) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("findings-c", r"options are name=value"),
        ("findings,sise=48", r"unknown option\. Did you mean size.* Allowed: images, .* Received: sise"),
        ("findings,duplicates=3", r"unknown option.* Received: duplicates"),
        ("findings,uncertain=2", r"uncertain must be from 0 to 1\. Received: 2"),
        ("findings,complete=yes", r"complete must be true or false\. Received: yes"),
        ("findings,splits=random", r"splits must be official or none\. Received: random"),
        ("findings,marked=tb", r"marked must be one of Cardiomegaly, .*\. Received: tb"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(load, address, message):
    with pytest.raises(InputError, match=message) as caught:
        load(address)
    assert str(caught.value).startswith("phantom: ") and "\n" not in str(caught.value)
