"""Requests that `openapi.json` allows and others, made by schemathesis, to the application in this process."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.specs.openapi.checks import response_schema_conformance

from chestxray.serve.app import create_app
from chestxray.serve.decoding import Decoders
from chestxray.serve.settings import Settings
from fuzz.mutation import mutated
from serve.fakes import BrightEngine, image_bytes, served

#: Requests of one case.
_EACH = 5


def prepare(_: Path, stack: contextlib.ExitStack) -> Callable[[random.Random], int]:
    """A case of a few requests to one operation, or of changed images to the one that takes them."""
    chosen = Settings(threads=1, per_minute=0, max_pixels=1_000_000, max_upload=2_000_000, timeout=20.0)
    decoders = Decoders(chosen)
    decoders.start()
    stack.callback(decoders.close)
    decoders.decode(image_bytes(), [((8, 8), "stretch")], (), 10_000, time.monotonic() + 200)
    app = create_app(served(BrightEngine(refusal_threshold=1.0, limit=0.5)), chosen, None, decoders)
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    client = app.test_client()

    def case(rng: random.Random) -> int:
        if rng.random() < 0.4:
            _image(rng, client)
            return 1
        return _requests(rng, rng.choice(operations))

    return case


def _image(rng: random.Random, client: Any) -> None:
    kind = rng.choice(("PNG", "JPEG", "TIFF", "BMP"))
    content = mutated(rng, image_bytes(kind=kind))
    answer = client.post(
        rng.choice(("/api/predict", "/api/predict?maps=true", "/api/predict?pictures=true&maps=true")),
        data=content,
        content_type=rng.choice(
            ("image/png", "image/jpeg", "application/octet-stream", "application/dicom", "text/html")
        ),
    )
    # 503 is said of a machine that has no time.
    assert answer.status_code in (200, 413, 415, 422, 503), answer.text
    assert answer.is_json, answer.text[:500]


def _requests(rng: random.Random, operation: Any) -> int:
    sent = 0

    @seed(rng.getrandbits(32))
    @settings(
        max_examples=_EACH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        nonlocal sent
        sent += 1
        answer = case.call()
        assert answer.status_code in (503, *range(200, 500)), f"{answer.status_code}: {answer.text}"
        case.validate_response(answer, checks=[response_schema_conformance])

    check()
    return sent
