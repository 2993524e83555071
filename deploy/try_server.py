"""Starts a server in an environment of its own and asks it for an answer: `try_server.py CHESTXRAY MODEL.onnx`."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request

from PIL import Image

ABSENT = ("tensorflow", "keras", "matplotlib", "pyarrow", "datasets", "pip")
PATIENCE = 30.0


def main(command: str, model: str) -> None:
    """Raises `SystemExit` with what is wrong."""
    if present := [name for name in ABSENT if importlib.util.find_spec(name)]:
        raise SystemExit(f"installed and not needed: {', '.join(present)}")
    begun = time.perf_counter()
    with subprocess.Popen([command, "serve", model, "--port", "0"], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            said = server.stderr.readline()
            if not said.startswith("Serving on "):
                raise SystemExit(f"it did not start: {said}{server.stderr.read()}")
            root = said.split()[-1]
            _health(root, begun)
            print(f"started in {time.perf_counter() - begun:.2f} s")
            _answer(root)
        finally:
            server.terminate()
    if server.returncode != 0:
        raise SystemExit(f"it did not stop as it was told to: {server.returncode}")


def _health(root: str, begun: float) -> None:
    while time.perf_counter() - begun < PATIENCE:
        try:
            with urllib.request.urlopen(f"{root}/healthz", timeout=5):
                return
        except urllib.error.URLError:
            time.sleep(0.02)
    raise SystemExit(f"no answer within {PATIENCE:g} seconds")


def _answer(root: str) -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").save(buffer, "PNG")
    request = urllib.request.Request(
        f"{root}/api/predict?maps=true", buffer.getvalue(), {"Content-Type": "image/png"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)["answers"][0]
    total = sum(answer["probabilities"].values())
    if abs(total - 1) > 1e-3:
        raise SystemExit(f"the probabilities add up to {total}")
    print(f"answers: {answer['words']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
