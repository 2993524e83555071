"""`tfds:NAME[/CONFIG]` or `tfds:DIR`: a data set of tensorflow-datasets, by name or as prepared on disk."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import sys
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chestxray.data.index import Index
from chestxray.data.sources.folder import SPLIT_NAMES
from chestxray.data.sources.materialised import Contents, Item, converted, first_line, of_the_disk
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.storage import cache_use, seal
from chestxray.storage.files import explained

log = logging.getLogger(__name__)

OPTIONS = {
    "data_dir": "folder of prepared sets; default: below the cache",
    "image": "name of the image feature; default: the only one there is",
    "label": "name of the class feature; default: label, else the only one there is",
    "patient": "name of the patient feature; default: patient where there is one",
    "names": "names of the classes in the order of their numbers, separated by commas",
}


def load(address: str, options: SourceOptions) -> Index:
    """Write a set's images to the cache as their original files, and return an index with its official splits.

    A set given by name is downloaded and prepared by tensorflow-datasets, unless it was before; a folder
    is read as by `tfds.builder_from_directory`.

    Raises:
        InputError: no such set or feature.
        DataError: it cannot be downloaded or read.
    """
    if not address:
        raise InputError("tfds:NAME must name a set of tensorflow-datasets, such as tfds:pneumonia_mnist.")
    folder = Path(address).expanduser()
    prepared = (folder / "dataset_info.json").is_file()
    data_dir = Path(options.extra.get("data_dir") or options.cache / "tensorflow_datasets").expanduser()
    identity: dict[str, object] = {"address": address, **options.extra}
    if prepared:
        status = (folder / "dataset_info.json").stat()
        identity |= {"address": str(folder.absolute()), "changed": status.st_mtime_ns}
    name = folder.parent.name if prepared and folder.name[:1].isdigit() else folder.name
    return converted("tfds", name, identity, options, lambda: _contents(address, data_dir, prepared, options))


def _contents(address: str, data_dir: Path, prepared: bool, options: SourceOptions) -> Contents:
    with quiet():
        builder = _builder(address, data_dir, prepared, own="data_dir" not in options.extra)
        info = builder.info
        licence = info.redistribution_info.license or "" if info.redistribution_info else ""
    return Contents(_read(builder, options), licence=licence.strip(), citation=(info.citation or "").strip())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress output of tensorflow-datasets within the block that a user can do nothing about.

    Its import and its use of TensorFlow cause warnings, and it prints to the standard output, which is for results.
    """
    loud = [logging.getLogger("absl"), logging.getLogger("urllib3.connectionpool")]
    levels = [logger.level for logger in loud]
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        for logger in loud:
            logger.setLevel(logging.ERROR)
        try:
            import tensorflow_datasets as tfds

            tfds.disable_progress_bar()
            yield
        finally:
            for logger, level in zip(loud, levels, strict=True):
                logger.setLevel(level)


def _builder(address: str, data_dir: Path, prepared: bool, own: bool) -> Any:
    import tensorflow_datasets as tfds

    if prepared:
        return _explained(address, lambda: tfds.builder_from_directory(str(Path(address).expanduser())))
    try:
        builder = tfds.builder(address, data_dir=str(data_dir))
    except tfds.core.registered.DatasetNotFoundError as error:
        raise InputError(
            f"tensorflow-datasets knows no set {address!r}, and there is no prepared one in {data_dir} or in a "
            "folder of that name. The catalogue's is tfds:pneumonia_mnist."
        ) from error
    except ValueError as error:
        raise InputError(f"tfds:{address} cannot be used: {first_line(error)}") from error
    if not own:
        _prepare(address, builder)
        return builder
    with cache_use.held(data_dir / builder.name):
        home = Path(builder.data_dir)
        if (home / seal.FILE).is_file() and (wrong := seal.damage(home)):
            log.warning("Damaged in the cache: %s (%s). It is prepared again.", home, wrong[0])
            shutil.rmtree(home)
        if _prepare(address, builder):
            seal.write(home)
    return builder


def _prepare(address: str, builder: Any) -> bool:
    """Download and prepare a set unless it is prepared; return whether that was needed."""
    if builder.is_prepared():
        return False
    _check_connection(address, builder)
    _explained(address, builder.download_and_prepare)
    return True


def _check_connection(address: str, builder: Any) -> None:
    """Raise `DataError` at once if there is no network: the downloader would retry for minutes."""
    if urllib.request.getproxies():
        # With a proxy, the proxy resolves host names.
        return
    for url in list(builder.url_infos)[:1]:
        host = urllib.parse.urlsplit(url).hostname or ""
        try:
            socket.getaddrinfo(host, 443)
        except OSError as error:
            raise _failed(address, ConnectionError(f"no connection to {host}")) from error


def _explained(address: str, step: Any) -> Any:
    """Return the result of a step of tensorflow-datasets, raising `DataError` in place of its exceptions.

    Its downloader raises exceptions of many kinds (of requests, of etils, its own), all of which mean that
    the set cannot be obtained. Raises `OutputError` if the disk is full or cannot be written.
    """
    with explained(Path(address)):
        try:
            return step()
        except Exception as error:
            if refused := of_the_disk(error):
                raise refused from error
            raise _failed(address, error) from error


def _failed(address: str, error: Exception) -> DataError:
    return DataError(
        f"tfds:{address} could not be had: {first_line(error)} Try again when the network is there, or give a folder "
        "in which it is prepared (--data-option data_dir=DIR, or --path)."
    )


def _read(builder: Any, options: SourceOptions) -> Iterator[Item]:
    with quiet():
        yield from _rows(builder, options)


def _rows(builder: Any, options: SourceOptions) -> Iterator[Item]:
    import tensorflow_datasets as tfds

    features = dict(builder.info.features.items())
    image = _feature(features, tfds.features.Image, options.extra.get("image"), "image", "image")
    label = _feature(
        features, (tfds.features.ClassLabel, tfds.features.Text), options.extra.get("label"), "label", "label"
    )
    names = _names(features[label], options.extra.get("names"))
    patient = options.extra.get("patient") or ("patient" if "patient" in features else None)
    if patient is not None and patient not in features:
        raise InputError(f"No feature {patient!r} (patient). Features: {', '.join(features)}.")
    for split in builder.info.splits:
        official = SPLIT_NAMES.get(split.lower(), "")
        decoders = {image: tfds.decode.SkipDecoding()}
        for row in builder.as_dataset(split=split, decoders=decoders, shuffle_files=False).as_numpy_iterator():
            value = row[label]
            name = names[int(value)] if names else value.decode()
            yield official, name, row[patient].decode() if patient else "", "", bytes(row[image])


def _feature(features: dict[str, Any], kind: Any, asked: str | None, usual: str, what: str) -> str:
    fitting = sorted(name for name, feature in features.items() if isinstance(feature, kind))
    if asked is not None and asked in fitting:
        return asked
    if asked is None and usual in fitting:
        return usual
    if asked is None and len(fitting) == 1:
        return fitting[0]
    raise InputError(
        f"Which feature is the {what}? Name it with --data-option {what}=NAME, one of {', '.join(fitting) or 'none'}. "
        f"Received: {asked or 'nothing'}."
    )


def _names(feature: Any, asked: str | None) -> list[str]:
    known = list(getattr(feature, "names", None) or [])
    if asked is None:
        return known
    names = [name.strip() for name in asked.split(",")]
    if len(names) != len(known):
        raise InputError(f"names must name the {len(known)} classes {', '.join(known)}. Received: {', '.join(names)}.")
    return names


plugin = SourcePlugin(
    load=load,
    address_help="NAME of a set of tensorflow-datasets, or the folder of a prepared one",
    options=OPTIONS,
    path_options=("data_dir",),
)
