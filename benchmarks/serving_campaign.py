"""A long load on a server of several processes: what is lost, how long answers take, what memory does.

    python -m benchmarks.serving_campaign [--seconds 600] [--clients 64] [--workers 2] [--model mobilenetv3small]

A network, briefly trained on phantoms, is exported to ONNX and served by `chestxray serve --workers`. Clients, threads
of another process, send JPEG files of about 1,000 pixels a side with ``?maps=true``, each the next one as soon as it
has an answer. The models are loaded anew (SIGHUP) every `--reload-every` seconds under this load, and the server is
stopped (SIGTERM) under it at the end. Everything runs on `--cores` of the machine, the clients too.

It says how many requests the clients sent, had answered and lost, and how many the server's log tells it answered:
nothing is lost if no client waited in vain and both counts agree. The memory of the workers, and of these with the
processes that decode, is measured every ten seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.serving import alone, exported

AGAIN = (sys.executable, "-m", "benchmarks.serving_campaign")
SERVE = (sys.executable, "-c", "from chestxray.cli.main import main; main()", "serve")


@dataclass(frozen=True)
class Load:
    """What is asked of the server. ``seconds``: of load; ``reload_every``: seconds between reloads."""

    seconds: float
    clients: int
    workers: int
    reload_every: float


def campaign(model: Path, load: Load) -> None:
    """Serve `model` under `load`; print what was found."""
    films = sorted(map(str, (model.parent / "films").iterdir()))
    print(f"load average before: {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores")
    before = alone(model, films)
    log = model.parent / "serve.log"
    with served(model, load, log) as (master, port):
        asked = [*AGAIN, "--load", str(port), "--films", str(Path(films[0]).parent), "--clients", str(load.clients)]
        clients = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)
        memory = watched(master, load)
        master.send_signal(signal.SIGTERM)
        found = json.loads(clients.communicate()[0])
        status = master.wait()
    tell(found, log, memory, before, max(before, alone(model, films)), status)


@contextlib.contextmanager
def served(model: Path, load: Load, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the server; yield its master and port."""
    options = ["--workers", load.workers, "--waiting", load.clients, "--connections", 100, "--per-minute", 0]
    with log.open("wb") as file:
        command = [*SERVE, str(model), "--port", "0", "--grace", "25", *map(str, options)]
        master = subprocess.Popen(command, stderr=file)
        try:
            while not (found := re.search(r"Serving on http://127.0.0.1:(\d+)", log.read_text())):
                if master.poll() is not None:
                    raise RuntimeError(log.read_text())
                time.sleep(0.1)
            yield master, int(found[1])
        finally:
            master.terminate()
            master.wait()


def watched(master: subprocess.Popen[bytes], load: Load) -> list[tuple[float, float]]:
    """Reload now and then until the time is over; return the memory of the workers, without and with decoders."""
    start, reloads, memory = time.monotonic(), 0, []
    while (now := time.monotonic() - start) < load.seconds:
        if load.reload_every and now > (reloads + 1) * load.reload_every and load.seconds - now > 10:
            reloads += 1
            master.send_signal(signal.SIGHUP)
        elif load.reload_every == 0 or now % load.reload_every > 20:
            # Not while two generations of workers are there.
            workers = children(master.pid)
            memory.append((sum(map(resident, workers)), sum(map(resident, family(master.pid)))))
        time.sleep(10)
    print(f"reloads under load: {reloads}")
    return memory


def tell(found: dict, log: Path, memory: list[tuple[float, float]], before: float, alone_: float, status: int) -> None:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    told = Counter(line["status"] for line in lines if line.get("route") == "/api/predict")
    worse = [line for line in lines if line["level"] != "info"]
    taken = np.array(found["milliseconds"])
    rate = len(taken) / found["seconds"]
    print(f"sent {found['sent']:,}; answered {found['answered']}; lost {found['lost']}; refused {found['refused']}")
    print(f"answered by the server's log: {dict(told)}; warnings and errors in it: {len(worse)} {worse[:3]}")
    print(f"the server ended with {status}; models: {found['models']}")
    print(f"{rate:.1f} images/s; engine alone {before:.1f} before, best {alone_:.1f}: {rate / alone_:.2f} of it")
    p50, p99 = np.percentile(taken, [50, 99])
    print(f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, slowest {taken.max():.0f} ms")
    for name, share in (("a tenth", 0.1), ("half", 0.5), ("the end", 1.0)) if memory else ():
        workers, everything = memory[min(len(memory) - 1, int(share * len(memory)))]
        print(f"memory at {name}: workers {workers:.0f} MB, all processes {everything:.0f} MB")
    print(f"load average after: {os.getloadavg()[0]:.1f}")


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def family(pid: int) -> list[int]:
    """Return `pid` and all its descendants."""
    return [pid, *(other for child in children(pid) for other in family(child))]


def resident(pid: int) -> float:
    """Return the resident memory of a process in MB, 0 if it has ended."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()):
            return int(found[1]) / 1024
    return 0.0


class Client:
    """A thread that sends one request after another until the server refuses connections."""

    def __init__(self, port: int, films: list[bytes], number: int, step: int) -> None:
        self.port, self.films, self.at, self.step = port, films, number, step
        self.answered: Counter[int] = Counter()
        self.models: Counter[str] = Counter()
        self.milliseconds: list[float] = []
        self.sent = self.lost = self.refused = 0

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            while not self.refused:
                try:
                    if connection.sock is None:
                        connection.connect()
                except OSError:
                    self.refused += 1
                    return
                self.ask(connection)

    def ask(self, connection: http.client.HTTPConnection) -> None:
        """Send one request; count its answer, or that there is none."""
        body, begun = self.films[self.at % len(self.films)], time.perf_counter()
        self.at += self.step
        self.sent += 1
        try:
            connection.request("POST", "/api/predict?maps=true", body, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self.lost += 1
            connection.close()
            return
        self.answered[response.status] += 1
        if response.status == 200:
            self.milliseconds.append(1000 * (time.perf_counter() - begun))
            self.models[json.loads(content)["answers"][0]["fingerprint"]] += 1


def ask(port: int, films: list[bytes], count: int) -> dict:
    """Send requests by `count` clients until the server has stopped."""
    clients = [Client(port, films, number, count) for number in range(count)]
    threads = [threading.Thread(target=client.run) for client in clients]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "seconds": time.perf_counter() - start,
        "milliseconds": [value for client in clients for value in client.milliseconds],
        "answered": sum((client.answered for client in clients), Counter()),
        "models": sum((client.models for client in clients), Counter()),
        **{name: sum(getattr(client, name) for client in clients) for name in ("sent", "lost", "refused")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reload-every", type=float, default=60.0, help="seconds; 0: never")
    parser.add_argument("--model", default="mobilenetv3small")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--onnx", type=Path, help="an exported model, with JPEG files in films/ beside it")
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--films", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        films = [path.read_bytes() for path in sorted(options.films.iterdir())]
        print(json.dumps(ask(options.load, films, options.clients)))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    load = Load(options.seconds, options.clients, options.workers, options.reload_every)
    with tempfile.TemporaryDirectory() as name:
        campaign(options.onnx or exported(options.model, options.image_size, Path(name)), load)


if __name__ == "__main__":
    main()
