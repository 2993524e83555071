"""The web application: the page, the JSON API, health check and metrics."""

from __future__ import annotations

import io
import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, Response, g, jsonify, render_template, request
from flask.json.provider import DefaultJSONProvider
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from chestxray._version import RESEARCH_ONLY, VERSION
from chestxray.serve import headers, uploads
from chestxray.serve.decoding import Decoders, Undecoded
from chestxray.serve.errors import RequestProblem
from chestxray.serve.json_logs import log
from chestxray.serve.loading import Served, card_text
from chestxray.serve.prediction import Gate, answer_image
from chestxray.serve.prometheus import Measures
from chestxray.serve.rate_limit import Limit, client_of
from chestxray.serve.settings import Settings
from chestxray.serve.url_fetch import Links


@dataclass(frozen=True)
class Work:
    """The parts of an application that hold threads and processes, the gate and the decoders; and its measures."""

    gate: Gate
    decoders: Decoders
    measures: Measures

    def close(self, *, wait: bool = True) -> None:
        """Accept no more work and end fetching and decoding; by default, wait for running models."""
        self.gate.close(wait=False)
        self.decoders.close()
        if wait:
            self.gate.close()


def create_app(
    models: Sequence[Served],
    settings: Settings,
    links: Links | None = None,
    decoders: Decoders | None = None,
    limit: Limit | None = None,
) -> Flask:
    """Return the WSGI application that serves `models`.

    `links` fetches images by URL, where `settings` allow it; `decoders` decodes them. `limit` is that of requests a
    minute, where several processes share one.
    ``app.extensions["chestxray"]`` is its `Work`, which must be closed at the end.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_upload
    app.url_map.merge_slashes = False
    app.json = _StrictJson(app)
    gate, measures = Gate(settings), Measures()
    limit = limit or Limit(settings.per_minute)
    measures.models(models)
    fetching = links or Links(settings.max_upload, seconds=min(10.0, settings.timeout))
    decoders = decoders or Decoders(settings)
    app.extensions["chestxray"] = Work(gate, decoders, measures)
    _add_frame(app, settings, measures)
    _add_pages(app, models, settings, measures)

    @app.post("/api/predict")
    def predict() -> Response:
        limit.take(client_of(request.remote_addr or ""))
        content, link = _asked(settings)
        maps, pictures = _flag("maps"), _flag("pictures")

        def work(deadline: float) -> dict[str, Any]:
            found, declared = (fetching.fetch(link), _ANY) if link else (content, request_type)
            kind = uploads.check_content(found, declared)
            return answer_image(
                found, kind, models, decoders, settings.max_pixels, deadline, maps=maps, pictures=pictures
            )

        request_type = _ANY if link else request.mimetype
        if not link:
            # Invalid content is rejected without waiting for a slot.
            uploads.check_content(content, request_type)
        with measures.busy.track_inprogress():
            answered = gate.run(work)
        for answer in answered["answers"]:
            measures.answer(answer)
        return jsonify({"request_id": g.request_id, "research_only": RESEARCH_ONLY, **answered})

    return app


_ANY = "application/octet-stream"


class _StrictJson(DefaultJSONProvider):
    """JSON without NaN, which JSON does not have: it raises ValueError instead of writing an invalid document."""

    sort_keys = False

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Return `obj` as text."""
        return super().dumps(obj, **kwargs, allow_nan=False)


def _asked(settings: Settings) -> tuple[bytes, str | None]:
    """Return the image in the request's body, or the link to one."""
    if request.mimetype != uploads.LINK:
        uploads.check_type(request.mimetype, links=settings.allow_links)
        return _body(settings), None
    if not settings.allow_links:
        raise RequestProblem(403, "links_off", "This server follows no links: send the image itself.")
    return b"", uploads.link(request.get_data(cache=False))


def _body(settings: Settings) -> bytes:
    """Return the request's body, without another copy of what waitress has in memory."""
    source, length = request.environ["wsgi.input"], request.content_length or 0
    if isinstance(source, io.BytesIO) and length <= settings.max_upload and len(source.getbuffer()) == length:
        return source.getvalue()
    return request.get_data(cache=False)


def _flag(name: str) -> bool:
    value = request.args.get(name, "false")
    if value not in ("true", "false"):
        raise RequestProblem(422, "parameter", f"{name} must be true or false.")
    return value == "true"


def _add_pages(app: Flask, models: Sequence[Served], settings: Settings, measures: Measures) -> None:
    """Add the routes that only read: page, models, cards, API description, health check and metrics."""
    described = _described(json.loads((Path(__file__).parent / "openapi.json").read_text(encoding="utf-8")), settings)
    cards = {model.key: card_text(model.card) for model in models if model.card}
    listed = [model.to_json() for model in models]
    bounds = {"max_upload": settings.max_upload, "max_pixels": settings.max_pixels, "links": settings.allow_links}

    @app.get("/")
    def page() -> str:
        return render_template("page.html", models=listed, research_only=RESEARCH_ONLY, version=VERSION, **bounds)

    @app.get("/api/models")
    def list_models() -> Response:
        return jsonify({"research_only": RESEARCH_ONLY, "version": VERSION, "limits": bounds, "models": listed})

    @app.get("/models/<key>/card")
    def card(key: str) -> Response:
        if key not in cards:
            raise RequestProblem(404, "not_found", "There is no such model card.")
        return Response(
            cards[key], mimetype="text/html", headers={"Content-Security-Policy": headers.card_policy(cards[key])}
        )

    @app.get("/openapi.json")
    def openapi() -> Response:
        return jsonify(described)

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify({"status": "ok", "version": VERSION, "models": len(models)})

    @app.get("/readyz")
    def readyz() -> Response:
        stopping = request.environ.get("chestxray.stopping", False)
        serving = {model.key: model.fingerprint for model in models}
        response = jsonify({"status": "stopping" if stopping else "ready", "version": VERSION, "models": serving})
        response.status_code = 503 if stopping else 200
        return response

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(measures.text(), content_type="text/plain; version=0.0.4; charset=utf-8")


def _described(specification: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI description for `settings`: without links where they are not allowed."""
    body = specification["paths"]["/api/predict"]["post"]["requestBody"]
    if not settings.allow_links:
        del body["content"][uploads.LINK], specification["components"]["schemas"]["Link"]
    return specification


def _add_frame(app: Flask, settings: Settings, measures: Measures) -> None:
    """Add to every request an id, security headers, a line in the log, and error messages."""

    @app.before_request
    def begin() -> None:
        g.request_id, g.begun = uuid.uuid4().hex, time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        for name, value in (headers.HEADERS | {"Content-Security-Policy": headers.policy()}).items():
            response.headers.setdefault(name, value)
        response.headers["X-Request-ID"] = g.request_id
        if not request.path.startswith("/static/"):
            response.headers["Cache-Control"] = "no-store"
        route = request.url_rule.rule if request.url_rule else "unknown"
        seconds = time.perf_counter() - g.begun
        measures.request(route, response.status_code, seconds)
        fields = {
            "request_id": g.request_id,
            "method": request.method if request.method in _METHODS else "other",
            "route": route,
            "status": response.status_code,
            "seconds": round(seconds, 4),
            "bytes": request.content_length or 0,
        }
        quiet = route in ("/healthz", "/readyz", "/metrics") and response.status_code == 200
        log.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": fields})
        return response

    app.register_error_handler(RequestProblem, _problem)
    app.register_error_handler(RequestEntityTooLarge, partial(_too_large, settings))
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _defect)


_METHODS = ("GET", "HEAD", "POST", "OPTIONS")


def _problem(problem: RequestProblem) -> Response:
    error = {"code": problem.code, "message": problem.message}
    response = jsonify({"request_id": g.request_id, "research_only": RESEARCH_ONLY, "error": error})
    response.status_code = problem.status
    if problem.retry_after is not None:
        response.headers["Retry-After"] = str(problem.retry_after)
    return response


def _too_large(settings: Settings, _: Exception) -> Response:
    return _problem(RequestProblem(413, "too_large", f"An image file may have {settings.max_upload:,} bytes."))


def _http(error: HTTPException) -> Response:
    response = _problem(RequestProblem(error.code or 500, error.name.lower().replace(" ", "_"), f"{error.name}."))
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _defect(error: Exception) -> Response:
    fields = {"request_id": g.request_id}
    if isinstance(error, Undecoded):
        log.error("defect", extra={"fields": {**fields, "exception": error.kind, "raised": error.raised}})
    else:
        log.error("defect", exc_info=error, extra={"fields": fields})
    return _problem(
        RequestProblem(500, "defect", "Something went wrong here. The request's id helps to find out what.")
    )
