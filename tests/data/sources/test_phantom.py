"""The source `phantom`: what it draws, what it plants, and that it may be believed."""

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from chestxray.data.sources.phantom import source
from chestxray.data.sources.phantom.drawing import draw
from chestxray.data.sources.phantom.findings import FINDINGS
from chestxray.data.sources.phantom.options import Options
from chestxray.errors import InputError
from chestxray.plugin import SourceOptions

TINY = "patients=12,size=48"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("phantoms")


@pytest.fixture(scope="module")
def load(cache):
    def load(address, **options):
        return source.load(address, SourceOptions(cache=cache, **options))

    return load


def pixels(path):
    with Path(path).open("rb") as file:
        return np.asarray(Image.open(file))


def planted(index, *kinds):
    return index.rows[index.rows["planted"].isin(kinds)]


def sound(index):
    return index.rows[index.rows["planted"] == ""]


def test_a_set_is_grey_png_files_with_all_that_is_known_of_them(load):
    index = load(TINY)
    assert index.name == "phantom" and "CC0" in index.licence and index.citation == ""
    assert index.classes == ("clear", "consolidation", "ground_glass", "cavity")
    assert set(index.rows["source"]) == {"phantom"}
    assert set(index.rows["marker"]) == {"no"} and set(index.rows["planted"]) == {""}
    for row in index.rows.itertuples():
        with Image.open(row.path) as image:
            assert (image.mode, image.format, image.width) == ("L", "PNG", 48)
            assert 44 <= image.height <= 54
        assert f"/{row.split}/{row.label}/{row.patient}_" in row.path


def test_the_same_seed_draws_the_same_pixels_and_another_seed_others(load, tmp_path):
    first = load(TINY, seed=3)
    again = source.load(TINY, SourceOptions(cache=tmp_path, seed=3))
    other = load(TINY, seed=4)
    columns = ["label", "patient", "split"]
    assert first.rows[columns].equals(again.rows[columns])
    for one, two in zip(first.rows["path"], again.rows["path"], strict=True):
        assert (pixels(one) == pixels(two)).all()
    assert not set(first.rows["patient"]) & set(other.rows["patient"])
    assert load(f"{TINY},seed=3").rows.equals(first.rows)


def test_a_film_does_not_depend_on_how_many_others_are_drawn(load):
    few, more = load("patients=8,size=48"), load(TINY)
    by_path = {path.split("/")[-1]: path for path in more.rows["path"]}
    for path in few.rows["path"]:
        assert (pixels(path) == pixels(by_path[path.split("/")[-1]])).all()


def test_patients_have_one_label_one_split_and_one_to_four_images(load):
    by_patient = load("patients=45,size=32").rows.groupby("patient")
    assert len(by_patient) == 45
    assert (by_patient["label"].nunique() == 1).all() and (by_patient["split"].nunique() == 1).all()
    assert set(by_patient.size()) == {1, 2, 3, 4}


def test_splits_hold_60_13_27_percent_of_each_class_s_patients():
    films = source.plan(Options(patients=120))
    patients = {film.patient: (film.label, film.split) for film in films}
    for label in FINDINGS:
        splits = [split for of, split in patients.values() if of == label]
        assert [splits.count(name) for name in ("train", "validation", "test")] == [18, 4, 8]


def test_the_smallest_sets_have_every_class_in_every_split(load):
    assert (load(TINY).counts() > 0).all(axis=None)


def test_the_default_is_large_enough_to_train_on_and_to_test_with():
    films = source.plan(Options())
    counts = {name: sum(film.split == name for film in films) for name in ("train", "validation", "test")}
    assert 480 <= counts["train"] <= 560 and counts["validation"] >= 90 and counts["test"] >= 200


def test_images_are_counted_exactly_and_splits_may_be_left_to_the_run(load):
    index = load("images=21,size=32,splits=none")
    assert len(index) == 21
    assert set(index.rows["split"]) == {""}
    assert all("/images/" in path for path in index.rows["path"])


def test_masks_lie_in_the_lungs_and_show_every_finding(load):
    for row in load(TINY).rows.itertuples():
        lungs = pixels(row.lung_mask)
        assert lungs.shape == pixels(row.path).shape
        assert set(np.unique(lungs)) == {0, 255} and 0.15 < (lungs > 0).mean() < 0.6
        if row.label == "clear":
            assert row.mask == ""
            continue
        mask = pixels(row.mask)
        assert mask.any() and not (mask > lungs).any()


@pytest.mark.parametrize("patient", range(30))
def test_a_finding_is_never_cut_away(patient):
    for finding in ("consolidation", "ground_glass", "cavity"):
        drawing = draw(seed=9, patient=patient, image=0, finding=finding, size=32)
        assert drawing.finding.sum() >= 8


def test_findings_lie_where_their_rules_say():
    def places(finding):
        for patient in range(12):
            drawing = draw(seed=1, patient=patient, image=0, finding=finding, size=64)
            rows = np.where(drawing.lungs.any(1))[0]
            down, across = np.where(drawing.finding)
            yield (down.mean() - rows[0]) / np.ptp(rows), across / drawing.lungs.shape[1]

    assert all(level < 0.5 for level, _ in places("cavity"))
    assert all(across.min() < 0.5 < across.max() for _, across in places("ground_glass"))
    sides = {bool((across > 0.5).mean() > 0.5) for _, across in places("consolidation")}
    assert sides == {False, True}


def test_a_finding_changes_nothing_outside_the_lungs():
    clear, ill = (draw(seed=0, patient=5, image=0, finding=f, size=64) for f in ("clear", "consolidation"))
    changed = np.abs(clear.pixels.astype(int) - ill.pixels) > 8
    assert changed[ill.finding].mean() > 0.5
    assert changed[~clear.lungs].mean() < 0.02


def test_the_images_of_a_patient_differ_but_show_one_chest():
    one, two = (draw(seed=0, patient=1, image=n, finding="clear", size=64).pixels for n in (0, 1))
    other = draw(seed=0, patient=3, image=0, finding="clear", size=64).pixels
    assert one.shape != two.shape or (one != two).any()

    def distance(a, b):
        small = [np.asarray(Image.fromarray(x).resize((16, 16)), float) for x in (a, b)]
        return np.abs(small[0] - small[1]).mean()

    assert distance(one, two) < distance(one, other)


def test_the_marker_goes_with_its_class_and_changes_only_a_corner(load):
    plain = load("patients=40,size=48")
    marked = load("patients=40,size=48,marker=0.9,marked=cavity")
    share = (marked.rows["marker"] == "yes").groupby(marked.rows["label"]).mean()
    assert share["cavity"] > 0.7 and share.drop("cavity").max() == 0
    for before, row in zip(plain.rows["path"], marked.rows.itertuples(), strict=True):
        differing = np.argwhere(pixels(before) != pixels(row.path))
        assert bool(len(differing)) == (row.marker == "yes")
        assert all(y < 48 / 4 and x > 48 * 3 / 4 for y, x in differing)


def test_the_marker_may_stand_elsewhere_too(load):
    rows = load(f"{TINY},marker=1,marker_elsewhere=1").rows
    assert set(rows["marker"]) == {"yes"}
    rows = load(f"{TINY},marker=1").rows
    assert set(rows.loc[rows["marker"] == "yes", "label"]) == {"consolidation"}


def test_duplicates_are_copies_within_a_split_and_across(load):
    index = load(f"{TINY},duplicates=3,duplicates_across=2")
    originals = {pixels(row.path).tobytes(): row for row in sound(index).itertuples()}
    assert len(originals) == len(sound(index)) == len(load(TINY))
    within, across = planted(index, "duplicate"), planted(index, "duplicate_across")
    assert (len(within), len(across)) == (3, 2)
    for row in within.itertuples():
        original = originals[pixels(row.path).tobytes()]
        assert (row.split, row.patient, row.label) == (original.split, original.patient, original.label)
        assert (row.mask, row.lung_mask) == (original.mask, original.lung_mask)
    for row in across.itertuples():
        original = originals[pixels(row.path).tobytes()]
        assert (row.split, original.split, row.label) == ("test", "train", original.label)
        assert row.patient not in set(sound(index)["patient"])


def test_straddlers_have_images_in_train_and_test(load):
    index = load(f"{TINY},straddlers=2")
    splits = index.rows.groupby("patient")["split"].agg(lambda s: tuple(sorted(set(s))))
    assert list(splits[splits.str.len() > 1]) == [("test", "train")] * 2
    extra = planted(index, "straddler")
    assert len(extra) == 2 and extra["patient"].nunique() == 2
    old = {pixels(path).tobytes() for path in sound(index)["path"]}
    assert not any(pixels(path).tobytes() in old for path in extra["path"])


def test_unreadable_files_are_rows_that_no_one_can_read(load):
    index = load(f"{TINY},unreadable=4")
    bad = planted(index, *source.SPOILT)
    assert sorted(bad["planted"]) == ["empty", "garbage", "truncated", "truncated"]
    for row in bad.itertuples():
        assert f"/{row.label}/" in row.path and row.mask == row.lung_mask == ""
        with pytest.raises((UnidentifiedImageError, OSError)):
            pixels(row.path)
    for path in sound(index)["path"]:
        pixels(path)


def test_classes_are_renamed_in_the_order_of_the_findings(load):
    index = load(f"{TINY},classes=COVID+NORMAL+TB+Viral Pneumonia")
    plain = load(TINY)
    assert index.classes == ("COVID", "NORMAL", "TB", "Viral Pneumonia")
    names = dict(zip(index.classes, plain.classes, strict=True))
    by_file = {path.split("/")[-1]: path for path in plain.rows["path"]}
    for row in index.rows.itertuples():
        twin = by_file[row.path.split("/")[-1]]
        assert f"/{names[row.label]}/" in twin and (pixels(row.path) == pixels(twin)).all()


def test_findings_may_be_chosen_for_the_classes(load):
    index = load(f"{TINY},classes=PNEUMONIA+NORMAL,findings=ground_glass+clear")
    assert set(index.rows.loc[index.rows["mask"] == "", "label"]) == {"NORMAL"}
    assert load("patients=6,size=32,findings=clear+cavity").classes == ("clear", "cavity")
    assert load("patients=6,size=32,classes=a+b+c").classes == ("a", "b", "c")


def test_options_may_come_from_the_run(load):
    assert load("size=48", extra={"patients": "12"}).rows.equals(load(TINY).rows)
    assert len(load("size=32,patients=2", extra={"duplicates": "1"})) == len(load("size=32,patients=2")) + 1


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("sise=48", r"unknown option\. Did you mean size.* Allowed: images, .* Received: sise"),
        ("size", r"name=value, separated by commas\. Received: size"),
        ("size=", r"name=value, separated by commas\. Received: size="),
        ("size=48,size=64", r"size may be given once\. Received: size twice"),
        ("size=big", r"size must be a whole number\. Received: big"),
        ("size=4", r"size must be from 32 to 1024\. Received: 4"),
        ("marker=high", r"marker must be a number\. Received: high"),
        ("marker=1.5", r"marker must be from 0 to 1\. Received: 1\.5"),
        ("marker=nan", r"marker must be from 0 to 1\. Received: nan"),
        ("seed=-1", r"seed must be from 0"),
        ("images=0", r"images must be from 1"),
        ("images=9,patients=9", r"images or patients may be given\. Received: both"),
        ("marked=tb", r"marked must be one of clear, .*cavity\. Received: tb"),
        ("classes=a", r"classes must be 2 to 4 different names\. Received: a"),
        ("classes=a+b+c+d+e", r"classes must be 2 to 4 different names\. Received: a\+b\+c\+d\+e"),
        ("classes=a+A", r"classes must be 2 to 4 different names\. Received: a\+A"),
        ("classes=../x+b", r"names of classes may have letters.* Received: \.\./x"),
        ("classes=a+b,findings=clear", r"as many as classes \(2\), and different\. Received: clear"),
        ("findings=clear+clear", r"different"),
        ("findings=clear+mass", r"findings must be of clear, .* Received: mass"),
        ("splits=random", r"splits must be official or none\. Received: random"),
        ("splits=none,straddlers=1", r"need splits=official\. Received: splits=none"),
        ("patients=4,straddlers=99", r"straddlers must be at most 4, the training patients\. Received: 99"),
        ("images=4,duplicates=99", r"duplicates must be at most 4, the images left to copy\. Received: 99"),
        ("images=4,unreadable=99", r"unreadable must be at most 4, the images\. Received: 99"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(load, cache, address, message):
    before = set((cache / "phantom").glob("*"))
    with pytest.raises(InputError, match=message) as caught:
        load(address)
    assert str(caught.value).startswith("phantom: ") and "\n" not in str(caught.value)
    assert set((cache / "phantom").glob("*")) == before


def test_a_set_is_drawn_once(tmp_path, monkeypatch, caplog, capsys):
    options = SourceOptions(cache=tmp_path)
    with caplog.at_level(logging.INFO, logger="chestxray"):
        first = source.load("patients=3,size=32", options)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    caplog.clear()
    monkeypatch.setattr(source, "draw", None)
    with caplog.at_level(logging.INFO, logger="chestxray"):
        again = source.load("size=32, patients=3", options)
    assert again.rows.equals(first.rows) and not caplog.records
    assert capsys.readouterr() == ("", "")


def test_a_newer_drawing_is_drawn_anew(monkeypatch):
    old = source.key(Options())
    assert old == source.key(Options()) != source.key(Options(seed=1))
    monkeypatch.setattr(source, "VERSION", source.VERSION + 1)
    assert source.key(Options()) != old


def test_a_failure_leaves_no_half_set(tmp_path, monkeypatch):
    options = SourceOptions(cache=tmp_path)

    def fail(**arguments):
        if arguments["patient"] == 2:
            raise KeyboardInterrupt
        return draw(**arguments)

    monkeypatch.setattr(source, "draw", fail)
    with pytest.raises(KeyboardInterrupt):
        source.load("patients=4,size=32", options)
    assert not [place for place in (tmp_path / "phantom").iterdir() if place.is_dir()]
    monkeypatch.undo()
    assert len(set(source.load("patients=4,size=32", options).rows["patient"])) == 4


def test_a_set_with_files_missing_is_mended(tmp_path):
    options = SourceOptions(cache=tmp_path)
    index = source.load("patients=3,size=32", options)
    lost = tmp_path / index.rows["path"][0]
    kept = pixels(lost)
    lost.unlink()
    assert source.load("patients=3,size=32", options).rows.equals(index.rows)
    assert (pixels(lost) == kept).all()


def test_of_two_that_need_the_same_set_one_draws_it(tmp_path, monkeypatch):
    options = SourceOptions(cache=tmp_path)
    second, drawn, found = threading.Thread(target=lambda: found.append(load())), [], []

    def load():
        return source.load("patients=2,size=32", options)

    def overtaken(**arguments):
        if not drawn:
            second.start()
        drawn.append(arguments)
        return draw(**arguments)

    monkeypatch.setattr(source, "draw", overtaken)
    index = load()
    second.join()
    assert len(drawn) == len(index)
    assert found[0].rows.equals(index.rows)
    assert all(pixels(path).any() for path in index.rows["path"])
    kept = [place.name for place in (tmp_path / "phantom").iterdir() if place.is_dir()]
    assert kept == [source.key(Options.parse("patients=2,size=32", options))]


@pytest.mark.slow
def test_a_linear_model_on_the_pixels_does_not_solve_the_default_set(load):
    rows = load("").rows
    x = np.stack(
        [np.asarray(Image.fromarray(pixels(p)).resize((32, 32), Image.Resampling.BILINEAR)) for p in rows["path"]]
    )
    x = x.reshape(len(x), -1).astype(float)
    train, test = (rows["split"] == name for name in ("train", "test"))
    scaler = StandardScaler().fit(x[train])
    model = LogisticRegression(max_iter=200, tol=1e-3).fit(scaler.transform(x[train]), rows.loc[train, "label"])
    scores = model.predict_proba(scaler.transform(x[test]))
    auroc = roc_auc_score(rows.loc[test, "label"], scores, multi_class="ovr", labels=model.classes_)
    assert auroc < 0.75
