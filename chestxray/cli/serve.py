"""`chestxray serve`: serves finished runs and exported models on a web page and as JSON."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chestxray._version import RESEARCH_ONLY
from chestxray.cli.places import READ_MODEL
from chestxray.errors import InputError, require

if TYPE_CHECKING:
    import socket

    from chestxray.serve.settings import Settings


@click.command(name="serve")
@click.argument("models", nargs=-1, required=True, type=READ_MODEL, metavar="RUN|FILE.onnx|PLUGIN:WEIGHTS...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0: any that is free.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that serve, under gunicorn; SIGHUP loads the models anew [default: this process alone].",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 256),
    help="Images that a process computes at once [default: one per processor, shared among the processes].",
)
@click.option(
    "--waiting",
    type=click.IntRange(0, 1000),
    default=16,
    show_default=True,
    help="Images that may wait to be computed, for each process.",
)
@click.option(
    "--timeout", type=click.FloatRange(0.1, 600), default=30, show_default=True, help="Seconds until an answer."
)
@click.option(
    "--upload-timeout",
    type=click.FloatRange(1, 3600),
    default=60,
    show_default=True,
    help="Seconds a request may take to arrive.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0.1, 3600),
    default=5,
    show_default=True,
    help="Seconds that requests that have begun have when the server stops.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 100),
    default=20,
    show_default=True,
    help="Connections of one client to each process.",
)
@click.option(
    "--per-minute",
    type=click.IntRange(0),
    default=120,
    show_default=True,
    help="Images of one client a minute, by all processes together; 0: any number.",
)
@click.option(
    "--max-upload-mb",
    type=click.FloatRange(0.001, 1000),
    default=25,
    show_default=True,
    help="Maximum size of a file in megabytes.",
)
@click.option(
    "--max-pixels",
    type=click.IntRange(1),
    default=40_000_000,
    show_default=True,
    help="Maximum number of pixels of an image.",
)
@click.option("--allow-links", is_flag=True, help="Accept images by web address too, from public hosts alone.")
@click.option(
    "--behind-proxy", is_flag=True, help="Take the client's address from the proxy in front (X-Forwarded-For)."
)
def command(
    models: tuple[Path, ...],
    host: str,
    port: int,
    workers: int | None,
    threads: int | None,
    waiting: int,
    timeout: float,
    upload_timeout: float,
    grace: float,
    connections: int,
    per_minute: int,
    max_upload_mb: float,
    max_pixels: int,
    allow_links: bool,
    behind_proxy: bool,
) -> None:
    """Serve models on a web page and as JSON.

    \b
        chestxray serve runs/x
        chestxray serve model.onnx --host 0.0.0.0 --port 8000
        chestxray serve runs/x runs/y --allow-links
        chestxray serve torchxrayvision:densenet121-res224-all
        chestxray serve model.onnx --workers 4

    Answers of several models are shown side by side. Ctrl-C stops the server. docs/serve.md describes the interface.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    require("serve", "flask", "waitress", "prometheus_client", *(("gunicorn",) if workers else ()))
    from chestxray.serve.server import bound
    from chestxray.serve.settings import Settings, cores

    settings = Settings(
        threads=threads or max(1, cores() // (workers or 1)),
        waiting=waiting,
        timeout=timeout,
        upload_timeout=upload_timeout,
        grace=grace,
        connections=connections,
        per_minute=per_minute,
        max_upload=round(max_upload_mb * 1_000_000),
        max_pixels=max_pixels,
        allow_links=allow_links,
        behind_proxy=behind_proxy,
    )
    with contextlib.closing(bound(host, port)) as listener:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        if workers is None:
            _alone(models, settings, listener, address)
        else:
            _several(models, settings, listener, address, workers)


def _alone(models: tuple[Path, ...], settings: Settings, listener: socket.socket, address: str) -> None:
    """Serve in this process."""
    from chestxray.serve.app import create_app
    from chestxray.serve.connections import Server
    from chestxray.serve.decoding import Decoders
    from chestxray.serve.json_logs import speak
    from chestxray.serve.loading import open_models
    from chestxray.serve.server import serve_until_stopped

    # The decoder processes start while the models load.
    decoders = Decoders(settings)
    decoders.start()
    try:
        app = create_app(open_models(models, settings.timeout), settings, decoders=decoders)
    except BaseException:
        decoders.close()
        raise
    server = Server(app, settings, listener)
    _announce(address)
    speak()
    serve_until_stopped(server, app.extensions["chestxray"])


def _several(models: tuple[Path, ...], settings: Settings, listener: socket.socket, address: str, workers: int) -> None:
    """Serve in `workers` processes, which this one starts and watches."""
    if not hasattr(os, "fork"):
        raise InputError("--workers needs an operating system that can fork processes, such as Linux or macOS.")
    from chestxray.serve.json_logs import speak
    from chestxray.serve.shared_folder import shared_folder

    with shared_folder() as folder:
        # Imported here: the metrics of several processes are counted in that folder.
        from chestxray.serve.loading import open_models
        from chestxray.serve.master import serve

        speak()
        serve(
            partial(open_models, models, settings.timeout), settings, listener, workers, folder,
            partial(_announce, address),
        )  # fmt: skip


def _announce(address: str) -> None:
    click.echo(f"Serving on {address}", err=True)
    click.echo(RESEARCH_ONLY, err=True)
