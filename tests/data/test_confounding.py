import numpy as np
import pytest

from chestxray.data import confounding
from chestxray.data.confounding import confounds
from made import make_index


def table(labels, patients=None, splits=None, **columns):
    index = make_index(labels, patients=patients, splits=splits)
    return index.rows.assign(**columns), index.classes


def by_name(*args, **columns):
    return {item.name: item for item in confounds(*table(*args, **columns))}


LABELS = ["covid", "normal"] * 60


def test_a_format_that_gives_the_class_away_is_critical():
    kinds = ["PNG" if label == "covid" else "JPEG" for label in LABELS]
    found = by_name(LABELS, format=kinds, mode="L")["format"]
    assert found.flagged
    assert found.severity == "critical"
    assert found.association > 0.95
    assert found.p == 0.001
    assert found.right == 1
    assert found.sentence == (
        "The file format alone tells covid from normal: it is right for 100 of 100 images, "
        "where guessing is right for 50."
    )


def test_what_is_the_same_everywhere_or_random_is_listed_and_not_flagged():
    rng = np.random.default_rng(0)
    sizes = rng.integers(500, 900, len(LABELS))
    found = by_name(LABELS, format="PNG", width=sizes, height=700, brightness=rng.normal(120, 9, len(LABELS)))
    assert set(found) == {"source", "format", "width", "height", "aspect", "brightness"}
    assert not any(item.flagged for item in found.values())
    assert found["format"].association == 0
    assert found["format"].p == 1
    assert found["height"].sentence == "The image height is the same for all images."
    assert found["width"].sentence == "The image width does not clearly go with the class."


def test_a_width_that_is_in_the_middle_for_one_class_is_seen():
    rng = np.random.default_rng(1)
    middle = rng.integers(600, 700, 60)
    ends = np.concatenate([rng.integers(400, 500, 30), rng.integers(800, 900, 30)])
    width = np.empty(120, int)
    width[::2], width[1::2] = middle, ends
    found = by_name(LABELS, width=width, height=500)
    assert found["width"].flagged
    assert found["width"].association > 0.9


def test_patients_are_the_witnesses_and_not_their_images():
    """Three patients a class with forty images each: sizes that differ by patient prove nothing."""
    labels = ["a"] * 120 + ["b"] * 120
    patients = [str(i // 40) for i in range(240)]
    modes = ["L" if int(p) in (0, 1, 3) else "RGB" for p in patients]
    alone = by_name(labels, mode=modes)["mode"]
    assert alone.flagged
    known = by_name(labels, patients=patients, mode=modes)["mode"]
    assert known.units == 6
    assert not known.flagged
    assert known.p > 0.2


def test_false_alarms_are_as_rare_as_promised():
    rng = np.random.default_rng(2)
    raised = 0
    for _ in range(40):
        columns = {name: rng.choice(["x", "y", "z"], 60) for name in ("format", "mode")}
        found = by_name(["a", "b", "c"] * 20, brightness=rng.normal(size=60), **columns)
        raised += any(item.p_holm <= 0.05 for item in found.values())
    assert raised <= 6  # of 40 at 5%, more than 6 come once in 50 times


def test_training_rows_alone_count_where_there_are_some():
    splits = ["train"] * 60 + ["test"] * 60
    kinds = ["PNG"] * 60 + ["PNG" if label == "covid" else "JPEG" for label in LABELS[60:]]
    assert by_name(LABELS, splits=splits, format=kinds)["format"].association == 0
    assert by_name(LABELS, format=kinds)["format"].flagged


def test_brightness_is_never_critical():
    grey = [90.0 + n / 100 if label == "covid" else 150.0 + n / 100 for n, label in enumerate(LABELS)]
    found = by_name(LABELS, brightness=grey)["brightness"]
    assert found.association > 0.9
    assert found.severity == "warning"


@pytest.mark.parametrize("labels", [["a"] * 5, ["a", "b"]])
def test_tiny_sets_raise_nothing(labels):
    assert not any(item.flagged for item in confounds(*table(labels, format="PNG", width=5, height=5)))


def test_the_same_rows_give_the_same_answer():
    rng = np.random.default_rng(3)
    values = rng.normal(size=120)
    assert confounds(*table(LABELS, brightness=values)) == confounds(*table(LABELS, brightness=values))


def test_proportions_are_those_of_counting_one_image_after_the_other():
    rng = np.random.default_rng(0)
    unit, codes = rng.integers(0, 40, 500), rng.integers(-1, 6, 500)
    unit[:40] = np.arange(40)
    size = np.bincount(unit).astype(float)
    plain = np.zeros((40, 6))
    for one, code in zip(unit, codes, strict=True):
        plain[one, code] += 1
    np.testing.assert_array_equal(confounding._proportions(unit, codes, size), plain / size[:, None])
