"""The example of Kubernetes: its files by the schemas, and its command under the constraints that it asks for."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.31", "1.34")
CONFINED = ROOT / "deploy" / "run_confined.sh"
PATIENCE = 120


def documents():
    return [(path.name, yaml.safe_load(path.read_text(encoding="utf-8"))) for path in sorted(FOLDER.glob("*.yaml"))]


def of_kind(kind):
    (found,) = [document for _, document in documents() if document["kind"] == kind]
    return found


def server():
    (container,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "document"), documents(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_file_fits_the_schema(name, document, version):
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_is_a_test():
    broken = of_kind("Deployment")
    broken["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_the_files_agree_with_each_other_and_with_the_image():
    deployment, budget, policy = (of_kind(kind) for kind in ("Deployment", "PodDisruptionBudget", "NetworkPolicy"))
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == of_kind("Service")["spec"]["selector"]
    assert budget["spec"]["selector"]["matchLabels"] == labels == policy["spec"]["podSelector"]["matchLabels"]
    scaled = of_kind("HorizontalPodAutoscaler")["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert budget["spec"]["minAvailable"] < scaled["minReplicas"] <= deployment["spec"]["replicas"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    pod = deployment["spec"]["template"]["spec"]
    assert f"USER {pod['securityContext']['runAsUser']}\n" in dockerfile
    assert f"EXPOSE {server()['ports'][0]['containerPort']}\n" in dockerfile
    for container in (*pod["containers"], *pod["initContainers"]):
        confined = container["securityContext"]
        assert confined["readOnlyRootFilesystem"] and not confined["allowPrivilegeEscalation"]
        assert confined["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= {volume["name"] for volume in pod["volumes"]}


def test_the_seconds_of_a_stop_and_the_memory_add_up():
    arguments, pod = server()["args"], of_kind("Deployment")["spec"]["template"]["spec"]
    waits = server()["lifecycle"]["preStop"]["sleep"]["seconds"]
    from chestxray.serve.settings import Settings

    given = {name.lstrip("-"): value for name, value in pairwise(arguments)}
    settings = Settings(threads=int(given["threads"]), grace=float(given["grace"]))
    assert waits + settings.last + 5 <= pod["terminationGracePeriodSeconds"]
    # A worker and its model, uploads, and decoding processes with what they have at their start; and the master.
    worker = 150e6 + settings.held_bytes + settings.threads * (settings.decoder_memory + 100e6)
    most = int(given["workers"]) * worker + 60e6
    limit = server()["resources"]["limits"]["memory"]
    assert most < float(limit.removesuffix("Gi")) * 2**30


def confinable():
    return (
        shutil.which("unshare") and not subprocess.run([CONFINED, "true"], capture_output=True, check=False).returncode
    )


@pytest.mark.skipif(not confinable(), reason="this machine lets nobody make namespaces")
def test_the_command_serves_under_these_constraints(model):
    # Users who may not read the interpreter, as that of an image may not where it is in root's home, keep their own.
    other = os.environ | ({} if readable(sys.executable) and readable(model) else {"RUN_AS": str(os.getuid())})
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1])
    given = [str(model) if argument == "/models/model.onnx" else argument for argument in server()["args"]]
    program = [sys.executable, "-B", "-c", "from chestxray.cli.main import main; main()", *entry[1:], *given]
    # A free port of every address, as tests run beside others.
    program += ["--port", "0", "--host", "127.0.0.1"]
    with subprocess.Popen([CONFINED, *program], stderr=subprocess.PIPE, text=True, env=other) as confined:
        try:
            said = confined.stderr.readline()
            assert said.startswith("Serving on "), said + confined.stderr.read()
            root = said.split()[-1]
            # Process 1 of its namespace, which the signals of a container go to.
            (first,) = Path(f"/proc/{confined.pid}/task/{confined.pid}/children").read_text().split()
            for path in (server()["readinessProbe"], server()["livenessProbe"]):
                assert get(root + path["httpGet"]["path"])[0] == 200
            before = json.loads(get(f"{root}/readyz")[1])["models"]
            assert b'chestxray_model_workers{fingerprint="' in get(f"{root}/metrics")[1]
            os.kill(int(first), signal.SIGHUP)
            deadline = time.monotonic() + PATIENCE
            lines = (json.loads(line) for line in confined.stderr if line.startswith("{"))
            serving = [next(line for line in lines if line["message"] == "serving") for _ in range(2)]
            assert time.monotonic() < deadline and [line["models"] for line in serving] == [before, before]
            os.kill(int(first), signal.SIGTERM)
            assert confined.wait(PATIENCE) == 0
        finally:
            confined.kill()


def readable(path):
    """Whether a user other than root can reach `path`."""
    resolved = Path(path).resolve()
    return os.getuid() != 0 or all(part.stat().st_mode & 0o005 == 0o005 for part in [*resolved.parents])


def get(address):
    with contextlib.closing(urllib.request.urlopen(address, timeout=PATIENCE)) as response:
        return response.status, response.read()
