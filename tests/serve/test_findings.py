"""Models of findings behind the server, beside models of classes, and as members of an ensemble."""

import dataclasses

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from chestxray.errors import DataError, InputError
from chestxray.inference.engine import Outputs
from chestxray.inference.ensemble import Ensemble
from chestxray.serve import loading
from chestxray.serve.loading import Served
from serve.fakes import BrightEngine, FindingsEngine, image_bytes, post


def told(client, response, name):
    specification = client.get("/openapi.json").get_json()
    schema = specification["components"]["schemas"][name]
    Draft202012Validator({**schema, "components": specification["components"]}).validate(response.get_json())
    return response.get_json()


def test_findings_and_classes_side_by_side(make_client):
    client = make_client(FindingsEngine(limit=0.35), BrightEngine())
    listed = told(client, client.get("/api/models"), "Models")["models"]
    assert [model["task"] for model in listed] == ["findings", "classes"]
    assert listed[0]["chosen_by"]["Rare"].startswith("not chosen") and listed[1]["chosen_by"] is None
    first, second = told(client, post(client, image_bytes(200), query="?maps=true"), "Prediction")["answers"]
    assert list(first["maps"]) == ["Mass", "Edema", "Nodule"], "the most probable ones"
    # Each finding's map has a grey of its own.
    greys = [one["peak"] for one in first["maps"].values()]
    assert greys == pytest.approx([0.2, 0.1, 0.3]) and {one["highest"] for one in first["maps"].values()} == {1.0}
    assert first["findings"]["Mass"]["present"] and not first["findings"]["Rare"]["threshold_chosen"]
    assert second["decision"] == "bright" and "findings" not in second


def test_outcomes_are_counted(make_client):
    only = FindingsEngine(powers={"Edema": 1.0}, limit=0.6, refusal_threshold=3.0)
    client = make_client(only)
    for value in (120, 0):
        answer = told(client, post(client, image_bytes(value), query="?maps=true"), "Prediction")["answers"][0]
        assert (answer["maps"] is None) == answer["refused"] == (value == 0)
        assert answer["findings"]["Edema"]["present"] is None
    metrics = client.get("/metrics").get_data(as_text=True)
    assert 'chestxray_answers_total{model="model-1",outcome="abstained"} 1.0' in metrics
    assert 'chestxray_answers_total{model="model-1",outcome="refused"} 1.0' in metrics


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"probabilities": np.array([[0.1, 0.2]], np.float32)}, r"shape \(1, 2\) for 4 findings"),
        ({"probabilities": np.array([[0.1, 1.2, 0.3, 0.4]], np.float32)}, "not from 0 to 1"),
        ({"probabilities": np.array([[0.1, np.nan, 0.3, 0.4]], np.float32)}, "not from 0 to 1"),
        ({"maps": np.zeros((1, 24, 32), np.float32)}, "a heat map of shape"),
        ({"mapped": None}, "without the numbers of their findings"),
        ({"mapped": np.array([[0, 1, 4]], np.int32)}, "findings that it does not have"),
    ],
)
def test_outputs_that_do_not_match_are_found_at_the_start(changes, words, tmp_path, monkeypatch):
    class Wrong(FindingsEngine):
        def run(self, pixels, *, maps=False) -> Outputs:
            return dataclasses.replace(super().run(pixels, maps=maps), **changes)

    monkeypatch.setattr(loading, "_open", lambda *_: Wrong())
    monkeypatch.setattr(loading.opening, "fingerprint", lambda path: "0" * 16)
    with pytest.raises(DataError, match=words):
        loading.open_models([tmp_path])


def test_a_map_of_an_ensemble_is_the_mean_over_those_that_explain_the_finding():
    first = FindingsEngine(mapped=2)
    second = FindingsEngine({"Edema": 1.0, "Mass": 4.0, "Nodule": 0.5, "Rare": 8.0}, name="other", mapped=2)
    both = Ensemble("both", [first, second], first.decision)
    pixels = np.full((2, 24, 32), 128, np.uint8)
    given = both.run(pixels, maps=True)
    np.testing.assert_allclose(
        given.probabilities, (first.run(pixels).probabilities + second.run(pixels).probabilities) / 2
    )
    # Mass and Edema of one, Nodule and Edema of the other: of these Edema and, of two alike, Mass are most probable.
    names = np.array(first.classes)[given.mapped]
    likely = given.probabilities[0][given.mapped[0]]
    assert set(names[0]) <= {"Edema", "Mass", "Nodule"} and likely[0] >= likely[1]
    for place, number in enumerate(given.mapped[0]):
        np.testing.assert_allclose(given.maps[0, place], (number + 1) / 10, atol=1e-6)


def test_tasks_are_not_mixed(make_client):
    with pytest.raises(InputError, match=r"must be of one class an image, as it is\. Received: several, of findings"):
        Ensemble("mixed", [BrightEngine(), FindingsEngine()], BrightEngine().decision)
    other = FindingsEngine({"Edema": 1.0, "Fracture": 1.0})
    with pytest.raises(InputError, match=r"must have its findings, Edema, Mass, Nodule, Rare\. Received"):
        Ensemble("mixed", [FindingsEngine(), other], FindingsEngine().decision)
    page = make_client(models=(Served("model", FindingsEngine(), None),)).get("/").get_data(as_text=True)
    assert "<dt>Findings</dt>" in page and "<dt>Classes</dt>" not in page
