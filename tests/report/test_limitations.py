"""What weakens a result is in its summary, gravest first, once, and alike wherever a person meets it."""

import json

import pytest

from chestxray.cli.closing import close
from chestxray.report import model_card
from chestxray.report.html_report import write
from chestxray.report.limitations import NOTED, TRAINING_RUN, cautions, of_training
from chestxray.runs import run_folder
from chestxray.storage.files import write_json
from made_runs import AUDIT, FOUR, RECIPE, TWO, Page, index_of, metrics_of, write_run

REAL = RECIPE.replace(data=("folder:films",))
ENVIRONMENT = {"data": {"name": "films"}}


def share(value, low=None, high=None):
    return {"value": value, "low": value if low is None else low, "high": value if high is None else high}


def kind(refused, pictures=40):
    return {"pictures": pictures, "refused": share(refused)}


def refusal(*, test=None, **refused):
    """``refusal.json`` of 40 pictures a kind."""
    whole = sum(refused.values()) / len(refused)
    return {
        "threshold": 1.0,
        "allowed": 0.01,
        "test": {"pictures": 200, "refused": test or share(0.01, 0.002, 0.04)},
        "others": kind(whole, 40 * len(refused)),
        "by_kind": {name.replace("_", " "): kind(value) for name, value in refused.items()},
        "mirrored": kind(0.0),
    }


def confound(name="brightness", severity="warning", right=67):
    sentence = (
        f"The {name} alone tells A from B: it is right for {right} of 100 images, where guessing is right for 50."
    )
    figures = {"association": 0.3, "p": 0.001, "p_holm": 0.004, "right": right / 100, "chance": 0.5, "units": 100}
    return {"name": name, "flagged": True, "severity": severity, "sentence": sentence, **figures}


def control(name, *, fires, leak=True, **more):
    auroc = {"value": 0.9 if fires else 0.5, "low": 0.4, "high": 0.95}
    facts = {"title": f"The {name}", "kind": "leak" if leak else "likeness", "auroc": auroc}
    return {"name": name, "fires": fires, **facts, **more}


CALIBRATION = {"temperature": 1.2, "at_bound": False, "test": {"before": {}, "after": {}}}
DECISION = {"positive": "PNEUMONIA", "features": None}
GOOD = {
    "refusal": refusal(noise=1.0, inverted_film=1.0),
    "decision": DECISION | {"features": "relu"},
    "controls": {"verdict": "All is well.", "controls": [control("border", fires=False, state="excluded")]},
}


def run_with(tmp_path, classes=TWO, *, audit=None, recipe=REAL, per_class=1200, skill=3.0, **files):
    """A run of real films, 300 a class in each split but training, that nothing speaks against but for `files`."""
    folder = write_run(
        tmp_path / "run",
        classes,
        skill=skill,
        recipe=recipe,
        environment=ENVIRONMENT,
        audit=AUDIT | (audit or {}),
        index=index_of(classes, per_class=per_class, drawn=False),
    )
    for name, content in (GOOD | files).items():
        if content is not None:
            write_json(folder / f"{name}.json", content)
    return folder


def found_in(folder):
    return {caution.title: caution for caution in cautions(run_folder.open_complete(folder))}


def test_a_good_run_has_no_weakness(tmp_path):
    assert found_in(run_with(tmp_path)) == {}


CASES = {
    "answers for noise": (
        {"refusal": refusal(noise=0.3, photograph=0.3, inverted_film=0.0, texture=1.0)},
        ("serious", "It answers for other pictures", "60 are answered", "inverted film (40 of 40), noise (28 of 40)"),
    ),
    "answers for one kind": (
        {"refusal": refusal(noise=1.0, texture=0.8, page=1.0, blank=1.0)},
        ("note", "It answers for other pictures", "5 are answered", "texture (8 of 40)"),
    ),
    "refuses nothing": (
        {"refusal": None, "decision": DECISION},
        ("serious", "It refuses nothing", "noise, a photograph, an inverted"),
    ),
    "refuses radiographs": (
        {"refusal": refusal(noise=1.0, test=share(0.57, 0.45, 0.66))},
        ("serious", "It refuses radiographs", "57 (45 to 66) are refused", "about 1 should be"),
    ),
    "refuses some radiographs": (
        {"refusal": refusal(noise=1.0, test=share(0.05, 0.02, 0.1))},
        ("note", "It refuses radiographs", "5 (2 to 10) are refused"),
    ),
    "brightness": (
        {"audit": {"confounds": [confound(), confound("width", "note") | {"flagged": False}]}},
        ("note", "Image properties predict the class", "brightness alone", "67 of 100"),
    ),
    "critical confounds": (
        {"audit": {"confounds": [confound(str(i), "critical", 90 - i) for i in range(5)]}},
        ("serious", "Image properties predict the class", "88 of 100", "2 more properties in the data audit"),
    ),
    "leaks": (
        {"controls": {"verdict": "This score cannot be taken for disease.", "controls": [control("b", fires=True)]}},
        ("serious", "Shortcuts tell the classes apart", "cannot be taken for disease"),
    ),
    "controls undecided": (
        {"controls": {"verdict": "Too few.", "controls": [control("b", fires=False, state="undecided")]}},
        ("note", "Shortcuts are not ruled out", "Too few."),
    ),
    "no controls": ({"controls": None}, ("note", "No controls", "not known")),
    "calibration made worse": (
        {"calibration": CALIBRATION | {"test": {"before": {"ece": share(0.159)}, "after": {"ece": share(0.183)}}}},
        ("note", "Probabilities are miscalibrated", "0.159 before, 0.183 after"),
    ),
    "temperature at its bound": (
        {"calibration": CALIBRATION | {"at_bound": True}},
        ("note", "Probabilities are miscalibrated", "stands at its bound"),
    ),
    "empty promise": (
        {"abstention": {"coverage": 0.95, "empty_promise": True, "test": {"coverage": share(1.0)}}},
        ("note", "It always abstains", "coverage of 0.95"),
    ),
    "promise not kept": (
        {"abstention": {"coverage": 0.95, "empty_promise": False, "test": {"coverage": share(0.8, 0.7, 0.9)}}},
        ("note", "The promised coverage was not kept", "0.80 (95% interval 0.70 to 0.90)"),
    ),
    "sensitivity not reached": (
        {
            "recipe": REAL.replace(sensitivity=0.95),
            "operating_points": {"points": [{"label": "PNEUMONIA", "test": {"sensitivity": share(0.8, 0.7, 0.9)}}]},
        },
        ("note", "The sensitivity asked for was not reached", "0.95 was asked for", "0.80"),
    ),
    "a worse group": (
        {"by_group": {"sex": {"F": {"test": {"auroc": share(0.7, 0.6, 0.8)}}}}},
        ("note", "Worse for some than for others", "sex F 0.70 (95% interval 0.60 to 0.80)"),
    ),
    "a gap that is more than luck": (
        {"gaps": {"method": "", "interaction": "", "tests": 3, "columns": {"sex": {"auroc": {
            "against": "M", "interaction": {"p": 0.001, "p_holm": 0.003},
            "groups": {"F": {"value": -0.1, "low": -0.15, "high": -0.05, "p": 0.001, "p_holm": 0.003}}}}}}},
        ("note", "Worse for some than for others", "AUROC by sex, F less than M by 0.10 (95% interval 0.05 to 0.15)"),
    ),
    "worse elsewhere": (
        {"generalisation_gap": {"figures": {"auroc": {name: share(v, v - 0.1, v + 0.1) for name, v in
                                        (("internal", 0.95), ("external", 0.7), ("gap", 0.25))}}}},
        ("serious", "Worse here than where it was trained", "0.70 here and was 0.95", "0.25"),
    ),
    "contradicting labels": (
        {"audit": {"conflicting_labels": [{"kind": "exact", "labels": {}}]}},
        ("note", "Contradicting labels", "1 group of copies"),
    ),
    "few of validation": (
        {"per_class": 40},
        ("serious", "Few validation images", "20 images chose what was kept"),
    ),
    "a class with few of validation": (
        {"classes": (*FOUR, "fifth", "sixth"), "per_class": 36},
        ("note", "Few validation images", "54 images", "clear (9)"),
    ),
    "from its training": (
        {TRAINING_RUN: {"cautions": [{"weight": "serious", "title": "Few validation images", "text": "9 images."}]}},
        ("serious", "In its training: Few validation images", "9 images."),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_weakness_is_found_and_said(case, tmp_path):
    changes, (weight, title, *words) = CASES[case]
    found = found_in(run_with(tmp_path, **changes))
    assert title in found
    assert found[title].weight == weight
    assert all(word in found[title].text for word in words), found[title].text


def test_probabilities_that_are_far_off(tmp_path):
    folder = run_with(tmp_path)
    metrics = metrics_of(folder)
    metrics["test"]["ece"] = share(0.18)
    write_json(folder / "metrics.json", metrics)
    found = found_in(folder)["Probabilities are miscalibrated"]
    assert "off by 18 points of 100" in found.text


def test_probabilities_that_are_too_extreme_or_too_low(tmp_path):
    folder = run_with(tmp_path, controls=None)
    metrics = metrics_of(folder)
    metrics["calibration"] |= {"slope": share(0.6, 0.5, 0.7), "intercept": share(0.8, 0.5, 1.1)}
    write_json(folder / "metrics.json", metrics)
    text = found_in(folder)["Probabilities are miscalibrated"].text
    assert "Calibration slope 0.60 (95% interval 0.50 to 0.70): the probabilities are too extreme" in text
    assert "PNEUMONIA is more frequent than they say" in text
    metrics["calibration"] |= {"slope": share(0.6, 0.2, 1.1), "intercept": share(0.2, 0.1, 0.3)}
    write_json(folder / "metrics.json", metrics)
    assert "Probabilities are miscalibrated" not in found_in(folder)


def test_an_accuracy_that_a_guess_has_too(tmp_path):
    folder = run_with(tmp_path)
    metrics = metrics_of(folder)
    metrics["test"]["accuracy"] = share(0.53, 0.47, 0.59)
    write_json(folder / "metrics.json", metrics)
    found = found_in(folder)["Accuracy not shown to be better than a guess"]
    assert "is right for about 50 of 100 test images, the model for about 53 of 100" in found.text


def test_an_ensemble_is_not_told_that_it_refuses_nothing(tmp_path):
    files = {"refusal": None, "decision": DECISION, "ensemble": {"members": []}}
    assert "It refuses nothing" not in found_in(run_with(tmp_path, **files))


@pytest.fixture
def weak(tmp_path):
    return run_with(
        tmp_path,
        per_class=80,
        audit={"confounds": [confound()], "notes": ["Something was noted."]},
        refusal=refusal(noise=0.3, inverted_film=0.0),
        controls=None,
    )


def test_the_gravest_come_first_and_nothing_is_said_twice(weak):
    found = cautions(run_folder.open_complete(weak))
    weights = [caution.weight for caution in found]
    assert weights == sorted(weights, key=lambda weight: weight != "serious")
    assert found[0].title == "It answers for other pictures"
    assert found[-1].title == NOTED
    texts = [caution.text for caution in found]
    assert len({caution.title for caution in found}) == len(found) == len(set(texts))
    assert all(len(text) < 400 for text in texts)


def test_every_surface_says_them(weak, capsys):
    write(weak, samples={})
    found = cautions(run_folder.open_complete(weak))
    close(run_folder.Run(weak))
    ended = " ".join(capsys.readouterr().out.split())
    page = Page(weak / "report.html")
    first_screen = page.source[: page.source.index('<section id="data"')]
    markdown = model_card.text(run_folder.open_complete(weak)).split("\n## Results")[0]
    for caution in found:
        assert f"<strong>{caution.title}.</strong> {caution.text}" in first_screen
        assert f"- **{caution.title}.** " in markdown
        if caution.title != NOTED:
            mark = "!" if caution.weight == "serious" else "-"
            assert f"{mark} {caution.title}. {caution.text}" in ended
    assert ended.endswith("Research use only. Not a medical device; not for diagnosis.")


def test_a_run_with_nothing_against_it_ends_without_a_list(tmp_path, capsys):
    folder = run_with(tmp_path)
    close(run_folder.Run(folder))
    assert "weakens" not in capsys.readouterr().out


def test_what_weakens_the_training_is_kept_for_other_data(weak):
    titles = [caution.title for caution in of_training(run_folder.open_complete(weak))]
    assert titles == ["Few validation images", "No controls", "Image properties predict the class"]
    assert json.loads((weak / "audit.json").read_text(encoding="utf-8"))["confounds"]
