"""Throughput of the server in images per second, compared with the engine alone on the same cores.

    python -m benchmarks.serving [--seconds 600] [--clients 8] [--model mobilenetv3small] [--cores 2]

A network, trained for one epoch on a few phantoms, is exported to ONNX and served by `chestxray serve` in
a process of its own. JPEG files of about 1,000 pixels a side are generated. The engine alone decodes and computes
probabilities and maps, in batches over all cores or with one image per thread, whichever is faster. Then
clients, threads of another process, send the same files with ``?maps=true`` for the given seconds, each the
next one as soon as it has an answer. Engine, server and clients are restricted to the same cores. The memory
of the server's process is measured after a tenth of the time, and at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.table import Row, show, write
from chestxray.data.images import reading
from chestxray.explanation.overlay import colours
from chestxray.inference import batch_prediction
from chestxray.inference.onnx_engine import OnnxEngine

BAR = 0.6
#: Largest allowed ratio of the memory at the end to that at the beginning; an allocator varies a little.
GROWTH = 1.05
#: The command that runs this file in a separate process.
AGAIN = (sys.executable, "-m", "benchmarks.serving")


def measure(
    seconds: float = 45.0, clients: int = 8, model: str = "mobilenetv3small", image_size: int = 224, cores: int = 2
) -> list[Row]:
    """Return rows for the throughput, the slowest answers and the memory."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:cores])
    try:
        with tempfile.TemporaryDirectory() as name:
            path = exported(model, image_size, Path(name))
            films = sorted(map(str, (path.parent / "films").iterdir()))
            return measured(path, films, seconds, clients)
    finally:
        os.sched_setaffinity(0, allowed)


def exported(model: str, image_size: int, folder: Path) -> Path:
    """Write an ONNX file of `model`, briefly trained, and JPEG files in ``films`` beside it; return its path.

    The export needs TensorFlow: it runs in another process, so that it takes no memory here.
    """
    command = [*AGAIN, "--export", str(folder), "--model", model, "--image-size", str(image_size)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / f"{model}.onnx"


def measured(model: Path, films: list[str], seconds: float, clients: int) -> list[Row]:
    """Return the rows for an exported `model` and JPEG files."""
    folder = str(Path(films[0]).parent)
    with served(model) as (port, pid):
        ask(port, [Path(films[0]).read_bytes()], 2.0, clients)
        before = alone(model, films)
        load = subprocess.Popen(
            [*AGAIN, "--load", str(port), "--films", folder, "--seconds", str(seconds), "--clients", str(clients)],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(seconds / 10)
        early = megabytes(pid)
        found = json.loads(load.communicate()[0])
        late = megabytes(pid)
        plain = max(before, alone(model, films))
    taken = np.array(found["milliseconds"])
    said = f"{len(taken):,} answers, p50 {np.percentile(taken, 50):.0f} ms, {found['failed']} failed"
    return [
        Row(f"HTTP, {clients} clients, {model.stem}", plain, len(taken) / found["seconds"], "images/s", BAR, said),
        Row("p99 of an answer beside its fair share", 1000 * clients / plain, float(np.percentile(taken, 99)), "ms"),
        Row(f"memory of the server over {seconds:g} s of load", early, late, "MB", round(1 / GROWTH, 3)),
    ]


@contextlib.contextmanager
def served(model: Path):
    """Run `chestxray serve` in a process; yield its port and process id."""
    command = [sys.executable, "-c", "from chestxray.cli.main import main; main()", "serve", str(model), "--port", "0"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen([*command, "--per-minute", "0"], stderr=subprocess.PIPE, stdout=log, text=True) as server,
    ):
        first = server.stderr.readline()
        found = re.search(r":(\d+)$", first.strip())
        if found is None:
            raise RuntimeError(first + server.stderr.read())
        # The log is read continuously, so that a full pipe never blocks the server.
        threading.Thread(target=lambda: [None for _ in server.stderr], daemon=True).start()
        try:
            yield int(found[1]), server.pid
        finally:
            server.terminate()


def alone(model: Path, films: list[str], rounds: int = 2) -> float:
    """Return images per second of the engine: files decoded, probabilities and maps computed, maps coloured."""
    cores = len(os.sched_getaffinity(0))
    wide, narrow = OnnxEngine(model), OnnxEngine(model, threads=1)

    def batches() -> None:
        for batch in batch_prediction.predicted(wide, films, batch_size=16, maps=True):
            for heat in batch.outputs.maps:
                colours(wide.heat_maps.on_scale(heat))

    def one(path: str) -> None:
        pixels = reading.read(Path(path), size=narrow.image_size, fit=narrow.fit).pixels
        colours(narrow.heat_maps.on_scale(narrow.run(pixels[np.newaxis], maps=True).maps[0]))

    def each() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(one, films))

    best = 0.0
    for _ in range(rounds):
        for way in (batches, each):
            start = time.perf_counter()
            way()
            best = max(best, len(films) / (time.perf_counter() - start))
    return best


def ask(port: int, films: list[bytes], seconds: float, clients: int) -> dict:
    """Send requests from `clients` threads for `seconds`; return the milliseconds per answer and the failures."""
    taken, failed = [], [0]
    start = time.perf_counter()

    def client(number: int) -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            at = number
            while (begun := time.perf_counter()) - start < seconds:
                body = films[at % len(films)]
                connection.request("POST", "/api/predict?maps=true", body, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    taken.append(1000 * (time.perf_counter() - begun))
                else:
                    failed[0] += 1
                at += clients

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"milliseconds": taken, "failed": failed[0], "seconds": time.perf_counter() - start}


def megabytes(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024


def export(folder: Path, model: str, size: int, films: int = 200) -> None:
    """Write an ONNX file of `model`, briefly trained, and images to send."""
    from benchmarks.bulk import drawn
    from chestxray import workflow
    from chestxray.export import export as write_export
    from chestxray.recipe import Recipe

    recipe = Recipe(
        model=model,
        data=("phantom:images=48",),
        image_size=(size, size),
        weights="none",
        epochs=1,
        augment="none",
        controls=False,
        replicates=100,
        heatmaps=1,
    )
    run = workflow.run(recipe, output=folder / "run", cache=folder / "cache")
    write_export(run.folder, "onnx", output=folder / f"{model}.onnx")
    drawn(folder / "films", films)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--model", default="mobilenetv3small")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here too")
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--films", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        export(options.export, options.model, options.image_size)
        return
    if options.load:
        films = [path.read_bytes() for path in sorted(options.films.iterdir())]
        print(json.dumps(ask(options.load, films, options.seconds, options.clients)))
        return
    rows = measure(options.seconds, options.clients, options.model, options.image_size, options.cores)
    show(rows)
    if options.json:
        write(rows, options.json)


if __name__ == "__main__":
    main()
