"""`chestxray plan` as a user meets it."""

import json
import sys

import pytest

from chestxray.cli import main


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["chestxray", "plan", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        assert stopped.value.code == code
        return capsys.readouterr()

    return call


RILEY = ("--auroc", "0.8", "--prevalence", "0.018", "--predictor", "-5", "2.5", "--widths", "1", "0.2", "0.1", "0.2")


def test_what_is_needed_and_expected_is_told(call):
    out = call(*RILEY, "--patients", "4252").out
    assert "905" in out and "4,252" in out
    assert "0.800 (0.7" in out
    assert "59 patients with the finding" in out


def test_json_has_the_same_and_more_patients_narrow_every_interval(call):
    found = json.loads(call(*RILEY, "--patients", "500", "--patients", "5000", "--threshold", "0.08", "--json").out)
    assert found["needed"]["AUROC"] == {"width": 0.1, "images": 4252, "patients": 4252}
    assert set(found["needed"]) == {"observed / expected", "calibration slope", "AUROC", "standardised net benefit"}
    few, many = found["expected"]
    for name in ("AUROC", "sensitivity", "specificity", "observed / expected", "calibration slope"):
        assert many[name]["high"] - many[name]["low"] < few[name]["high"] - few[name]["low"]
    assert found["power"][1]["difference"] > found["power"][0]["difference"]


def test_images_of_one_patient_add_less_than_patients(call):
    def needed(*options):
        return json.loads(call("--auroc", "0.9", "--prevalence", "0.3", "--json", *options).out)["needed"]["AUROC"]

    plain, alike, unlike = needed(), needed("--images", "4", "--shared", "1"), needed("--images", "4", "--shared", "0")
    assert alike["patients"] == plain["patients"] == 4 * unlike["patients"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--auroc", "0.99", "--difference", "0.05"), "auroc + difference must be below 1. Received: 0.99 + 0.05"),
        (("--auroc", "0.9", "--widths", "0", "1", "1", "1"), "widths must be above 0"),
        (("--auroc", "0.9", "--promise", "1", "0.9"), "promise must be two shares above 0 and below 1"),
        (("--auroc", "0.9", "--predictor", "0", "-1"), "standard deviation"),
        (("--auroc", "1.5"), "--auroc"),
    ],
)
def test_what_cannot_be_planned_is_one_line(call, options, words):
    assert words in call("--prevalence", "0.3", *options, code=2).err
