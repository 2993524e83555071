"""What the interface answers, and that openapi.json says so."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from PIL import Image

from chestxray.errors import DataError
from chestxray.explanation.overlay import overlay
from chestxray.inference.heat_maps import HeatMaps
from chestxray.serve.loading import Served
from serve.fakes import FAILING, KNOWN, BrightEngine, image_bytes, post


@pytest.fixture
def specification(client):
    with client.get("/openapi.json") as response:
        return response.get_json()


def conforms(specification, response, path, method="get"):
    """Check a response against what the file says of its path and status."""
    responses = specification["paths"][path][method]["responses"]
    told = responses.get(str(response.status_code)) or responses["default"]
    schema = told["content"][response.mimetype]["schema"]
    Draft202012Validator({**schema, "components": specification["components"]}).validate(response.get_json())
    for name in told.get("headers", {}):
        assert response.headers[name]


def image_of(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_openapi_is_valid_and_names_every_route(client, specification):
    validate(specification)
    routes = {rule.rule for rule in client.application.url_map.iter_rules()}
    pages = {"/", "/static/<path:filename>", "/openapi.json", "/models/<key>/card"}
    assert routes - pages == set(specification["paths"])


def test_openapi_says_what_is_accepted(client, make_client, specification):
    def bodies(told):
        return told["paths"]["/api/predict"]["post"]["requestBody"]["content"]

    assert "application/json" not in bodies(specification) and "Link" not in specification["components"]["schemas"]
    linking = make_client(allow_links=True).get("/openapi.json").get_json()
    validate(linking)
    assert set(bodies(linking)) == {*bodies(specification), "application/json"}
    for kind, body in bodies(specification).items():
        assert body["schema"]["contentMediaType"] == kind
        assert post(client, b"", kind).get_json()["error"]["code"] == "empty"


def test_answer(client, specification):
    response = post(client, image_bytes(200), query="?maps=true&pictures=true")
    assert response.status_code == 200
    conforms(specification, response, "/api/predict", "post")
    told = response.get_json()
    assert told["image"] == {"format": "PNG", "width": 40, "height": 30}
    answer = told["answers"][0]
    assert answer["decision"] == "bright"
    assert answer["probabilities"]["bright"] == pytest.approx(210 / 255, abs=0.01)
    assert image_of(answer["picture"]).size == (40, 30)
    assert image_of(answer["map"]["image"]).size == (32, 24)
    assert response.headers["X-Request-ID"] == told["request_id"]


@pytest.mark.parametrize("path", ["/api/models", "/healthz", "/readyz"])
def test_other_responses(client, specification, path):
    response = client.get(path)
    assert response.status_code == 200
    conforms(specification, response, path)


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (403, {"data": b'{"url": "https://example.com/a.png"}', "content_type": "application/json"}),
        (413, {"data": b"0" * 200_000, "content_type": "image/png"}),
        (400, {"data": b"[" * 9_000, "content_type": "application/json"}),
        (415, {"data": b"hello", "content_type": "text/plain"}),
        (422, {"data": b"", "content_type": "image/png"}),
        (405, {"method": "PUT", "data": b""}),
    ],
)
def test_problems_conform(make_client, specification, status, request_):
    client = make_client(max_upload=100_000, allow_links=status == 400)
    response = client.open("/api/predict", **{"method": "POST", **request_})
    assert response.status_code == status
    conforms(specification, response, "/api/predict", "post")


def test_kinds_of_images(client):
    for kind, declared in (("PNG", "image/png"), ("JPEG", "image/jpeg"), ("JPEG", "application/octet-stream")):
        told = post(client, image_bytes(90, kind=kind), declared).get_json()
        assert told["image"]["format"] == kind
        assert told["answers"][0]["decision"] == "dark"
        assert told["answers"][0]["map"] is told["answers"][0]["picture"] is None


def test_several_models_and_sizes_answer_side_by_side(make_client):
    client = make_client(BrightEngine(), BrightEngine(name="wide", image_size=(8, 64)), BrightEngine(heat_maps=None))
    answers = post(client, image_bytes(), query="?maps=true").get_json()["answers"]
    assert [answer["model"] for answer in answers] == ["model-1", "model-2", "model-3"]
    assert image_of(answers[1]["map"]["image"]).size == (64, 8)
    assert answers[2]["map"] is None


@pytest.mark.parametrize(("fit", "size"), [("stretch", (40, 30)), ("pad", (768, 576)), ("crop", (768, 576))])
def test_a_picture_shows_what_the_model_was_given(make_client, fit, size):
    client = make_client(BrightEngine(fit=fit))
    assert (
        image_of(post(client, image_bytes(), query="?pictures=true").get_json()["answers"][0]["picture"]).size == size
    )


def test_the_map_over_the_picture_is_the_overlay(client):
    content = image_bytes(100, size=(32, 24))
    answer = post(client, content, query="?maps=true&pictures=true").get_json()["answers"][0]
    grey, heat = image_of(answer["picture"]), image_of(answer["map"]["image"]).convert("RGBA")
    # The page shows the map at an opacity of a half.
    half = np.asarray(heat, np.float32)
    alpha = half[..., 3:] / 255 * 0.5
    shown = np.asarray(grey.convert("RGB"), np.float32) * (1 - alpha) + half[..., :3] * alpha
    pixels = np.asarray(grey)
    assert np.abs(shown - overlay(pixels, pixels / 255, strength=0.5)).max() <= 1.5


def test_a_map_is_on_the_scale_of_the_model_whatever_the_image(make_client, specification):
    client = make_client(BrightEngine(heat_maps=replace(KNOWN, highest=4.0, unit="grey")))
    found = {}
    for value in (235, 107, 0):
        response = post(client, image_bytes(value, size=(32, 24)), query="?maps=true")
        conforms(specification, response, "/api/predict", "post")
        found[value] = response.get_json()["answers"][0]["map"]
    opacity = {value: np.asarray(image_of(one["image"]).convert("RGBA"))[..., 3] for value, one in found.items()}
    assert opacity[235].max() == 64 and opacity[107].max() == 32, "a quarter and an eighth of the scale"
    assert found[235]["peak"] == 1.0 and found[107]["peak"] == pytest.approx(127 / 255)
    assert {one["highest"] for one in found.values()} == {4.0} and {one["unit"] for one in found.values()} == {"grey"}
    assert not opacity[0].any() and found[0]["peak"] == 0
    assert [one["faint"] for one in found.values()] == [False, False, True]
    assert found[0]["words"] == "This map is empty: the method finds no place that speaks for the answer."
    assert found[235]["words"] == "The highest value of this map is 1; the scale ends at 4."


def test_a_map_that_fails_its_checks_says_so(make_client, specification):
    client = make_client(BrightEngine(heat_maps=FAILING), BrightEngine())
    response = post(client, image_bytes(0, size=(32, 24)), query="?maps=true")
    conforms(specification, response, "/api/predict", "post")
    failing, passing = (answer["map"] for answer in response.get_json()["answers"])
    assert (failing["badge"], failing["sentence"]) == ("fails", FAILING.sentence)
    assert (passing["badge"], passing["sentence"]) == ("passes", KNOWN.sentence)
    picture = np.asarray(image_of(failing["image"]))
    assert picture.shape == (576, 768, 4)
    assert (picture[[0, -1]] == [215, 25, 28, 255]).all() and picture[288, 384, 3] == 0, "an empty map in its frame"
    assert not np.asarray(image_of(passing["image"]).convert("RGBA"))[..., 3].any()
    response = client.get("/api/models")
    conforms(specification, response, "/api/models")
    first, _ = response.get_json()["models"]
    assert HeatMaps.from_json(first["heat_maps"]) == FAILING
    page = client.get("/").get_data(as_text=True)
    assert "heat maps: <strong>fails</strong>" in page and "heat maps: <strong>passes</strong>" in page
    assert "The map stays &lt;b&gt;alike&lt;/b&gt;." in page and "<b>alike" not in page


def test_abstention_and_refusal_in_words(make_client):
    client = make_client(BrightEngine(limit=0.6, refusal_threshold=3.0))
    answer = post(client, image_bytes(127, size=(40, 30)), query="?maps=true").get_json()["answers"][0]
    assert answer["abstained"] and answer["decision"] is None and answer["set"] == ["dark", "bright"]
    assert "abstains" in answer["words"] and answer["map"]
    answer = post(client, image_bytes(0), query="?maps=true").get_json()["answers"][0]
    assert answer["refused"] and answer["decision"] is None and answer["map"] is None
    assert "does not look like the chest radiographs" in answer["words"]
    metrics = client.get("/metrics").get_data(as_text=True)
    assert 'chestxray_answers_total{model="model-1",outcome="abstained"} 1.0' in metrics
    assert 'chestxray_answers_total{model="model-1",outcome="refused"} 1.0' in metrics


def test_metrics_count_by_route(client):
    post(client, image_bytes())
    client.get("/jane-doe/1950-01-01")
    text = client.get("/metrics").get_data(as_text=True)
    assert 'chestxray_requests_total{route="/api/predict",status="200"} 1.0' in text
    assert 'chestxray_requests_total{route="unknown",status="404"} 1.0' in text
    assert "jane" not in text and "process_resident_memory_bytes" in text


def test_the_card_of_a_stranger(make_client, tmp_path):
    card = tmp_path / "MODEL_CARD.html"
    card.write_bytes(
        b"\xff<script>alert(1)</script><meta http-equiv=refresh content='0;url=//elsewhere.example'>"
        b"<img src=//elsewhere.example/x onerror=alert(1)><form action=//elsewhere.example>"
        b"<base href=//elsewhere.example>"
    )
    client = make_client(models=(Served("model", BrightEngine(), card),))
    response = client.get("/models/model/card")
    assert response.status_code == 200
    said = dict(part.partition(" ")[::2] for part in response.headers["Content-Security-Policy"].split("; "))
    assert said["script-src"] == said["connect-src"] == said["form-action"] == said["base-uri"] == "'none'"
    assert said["default-src"] == said["style-src"] == "'none'"
    assert said["img-src"] == "data:"
    # Without scripts and without leave to refresh itself.
    assert said["sandbox"] == "allow-popups"
    with card.open("wb") as file:
        file.truncate(200_000_000_000)
    with pytest.raises(DataError, match="larger than the 50,000,000 bytes"):
        make_client(models=(Served("model", BrightEngine(), card),))


def test_the_page_and_the_card(make_client, tmp_path):
    card = tmp_path / "MODEL_CARD.html"
    card.write_text("<style>\nb { color: red }\n</style><b>card</b>", encoding="utf-8")
    client = make_client(models=(Served("model", BrightEngine(name="<b>x</b>"), card),))
    page = client.get("/").get_data(as_text=True)
    assert "&lt;b&gt;x&lt;/b&gt;" in page and "<b>x</b>" not in page
    assert page.count("Research use only. Not a medical device; not for diagnosis.") == 2
    assert "style=" not in page and "<style" not in page and "onclick" not in page
    assert "http://" not in page and "Or the web address" not in page
    response = client.get("/models/model/card")
    assert "<b>card</b>" in response.get_data(as_text=True)
    assert "style-src 'sha256-" in response.headers["Content-Security-Policy"]
    assert "sandbox" not in client.get("/").headers["Content-Security-Policy"]
    assert client.get("/models/other/card").status_code == 404
    assert client.get("/api/models").get_json()["models"][0]["card"] == "/models/model/card"


def test_three_classes(make_client):
    client = make_client(BrightEngine(classes=("a", "b", "c")))
    told = client.get("/api/models").get_json()["models"][0]
    assert told["positive"] is None and set(told["thresholds"]) == {"a", "b", "c"}
    assert post(client, image_bytes(250)).get_json()["answers"][0]["decision"] == "c"


def test_an_unknown_value_of_a_parameter(client):
    response = post(client, image_bytes(), query="?maps=maybe")
    assert response.status_code == 422
    assert json.loads(response.data)["error"] == {"code": "parameter", "message": "maps must be true or false."}
