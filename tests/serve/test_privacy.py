"""What browsers are told to forbid, and what is neither logged, kept nor sent: names, pictures, stack traces."""

import io
import json
import logging
import tempfile

import pytest

from chestxray.serve import json_logs
from serve.fakes import BrightEngine, image_bytes, post

SECRET = "Doe_Jane_1950-01-01"


@pytest.fixture
def logged():
    """The log's stream, from here to the end of the test."""
    names = ("chestxray.serve", "waitress")
    kept = {name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in names}
    stream = io.StringIO()
    json_logs.speak(stream)
    yield stream
    for name, (handlers, propagate) in kept.items():
        logging.getLogger(name).handlers, logging.getLogger(name).propagate = handlers, propagate
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "path", ["/", "/api/models", "/healthz", "/readyz", "/metrics", "/nowhere", "/static/page.css", "/openapi.json"]
)
def test_every_answer_has_the_headers(client, path):
    with client.get(path) as response:
        headers = response.headers
        policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "unsafe" not in headers["Content-Security-Policy"] and "http" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == "DENY"
        assert "Access-Control-Allow-Origin" not in headers and "Set-Cookie" not in headers


def test_answers_are_kept_by_no_browser(client):
    assert post(client, image_bytes()).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/%2fetc/passwd", "/models/../../etc/passwd/card"]
)
def test_no_path_leads_out_of_the_static_files(client, path):
    assert client.get(path).status_code == 404


def test_a_line_of_json_a_request_without_what_it_is_about(client, logged):
    response = post(
        client,
        image_bytes(),
        query=f"?maps=true&patient={SECRET}",
        headers={
            "X-Filename": SECRET,
            "Content-Disposition": f'attachment; filename="../{SECRET}.png"',
            "User-Agent": SECRET,
        },
    )
    client.get(f"/patients/{SECRET}")
    client.open("/", method=SECRET.upper())
    first, *others = lines(logged)
    assert len(others) == 2
    assert first["request_id"] == response.get_json()["request_id"]
    assert (first["route"], first["status"], first["method"]) == ("/api/predict", 200, "POST")
    assert first["seconds"] >= 0 and first["bytes"] == len(image_bytes()) and first["time"].endswith("Z")
    assert "Doe" not in logged.getvalue() and "127.0.0.1" not in logged.getvalue() and "base64" not in logged.getvalue()


def test_a_link_is_not_logged(make_client, logged):
    client = make_client(allow_links=True)
    assert client.post("/api/predict", json={"url": f"http://127.0.0.1/{SECRET}.png"}).status_code == 422
    assert "Doe" not in logged.getvalue()


def test_a_defect_is_told_to_the_log_without_its_message_and_to_nobody_else(make_client, logged):
    class Broken(BrightEngine):
        def run(self, pixels, *, maps=False):
            raise RuntimeError(f"cannot compute {SECRET}")

    response = post(make_client(Broken()), image_bytes())
    assert response.status_code == 500
    assert response.get_json()["error"]["code"] == "defect"
    body = response.get_data(as_text=True)
    assert SECRET not in body and "Traceback" not in body and "RuntimeError" not in body
    defect = lines(logged)[0]
    assert defect["level"] == "error" and defect["exception"] == "RuntimeError"
    assert any("test_privacy.py" in place and place.endswith(" run") for place in defect["raised"])
    assert defect["request_id"] == response.get_json()["request_id"]
    assert SECRET not in logged.getvalue()


def test_a_name_in_a_form_makes_no_file(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    content = (io.BytesIO(image_bytes()), "../../escape.png")
    response = client.post("/api/predict", data={"file": content}, content_type="multipart/form-data")
    assert response.status_code == 415
    assert post(client, image_bytes(size=(2000, 1500)), query="?pictures=true&maps=true").status_code == 200
    assert list(tmp_path.rglob("*")) == []
