"""Fetches a published file of weights, once, and knows the file again."""

from __future__ import annotations

import hashlib
import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from chestxray.errors import WeightsError
from chestxray.models.weights import keras_cache, named_weights
from chestxray.plugin import PublishedWeights
from chestxray.storage.files import explained, write_text

log = logging.getLogger(__name__)


def known_sha256(weights: PublishedWeights) -> str:
    """Return the SHA-256 that the file must have, as published or recorded; ``""`` before its first use."""
    record = _record(_path(weights))
    return weights.sha256 or (record.read_text(encoding="utf-8").strip() if record.is_file() else "")


def _path(weights: PublishedWeights) -> Path:
    return Path(keras_cache(weights.url)).expanduser()


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


@contextmanager
def fetched(weights: PublishedWeights) -> Iterator[tuple[Path, str]]:
    """Yield the path of the file in the folder of Keras's weights, and its SHA-256; it is fetched if it is not there.

    Where the publisher states no checksum, that of the first file that the block can load is recorded in a file beside
    it, and compared from then on. A file that the block cannot load is deleted until a checksum is known.

    Raises:
        WeightsError: the file cannot be fetched, or is not the one that was published or recorded.
    """
    path = _path(weights)
    record, known = _record(path), known_sha256(weights)
    if not path.is_file():
        _fetch(weights.url, path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if known and found != known:
        of = "published" if weights.sha256 else f"recorded in {record} when it was first used"
        raise WeightsError(
            f"The weights {path} from {weights.url} are not those {of}: their SHA-256 must be {known}. Received: "
            f"{found}. Delete the file{'' if weights.sha256 else ', or the record if you trust the new one'}."
        )
    try:
        yield path, found
    except WeightsError as error:
        if known:
            raise
        path.unlink(missing_ok=True)  # the next try fetches it again
        raise WeightsError(f"{error} It came from {weights.url} and is deleted.") from error
    if not known:
        with explained(record):
            write_text(record, f"{found}\n")
        log.warning(
            "The publisher of %s states no checksum. The file's SHA-256, %s, is recorded in %s, and another file is "
            "refused from now on.", weights.url, found, record,
        )  # fmt: skip


def _fetch(url: str, path: Path) -> None:
    """Fetch `url` to `path`, which is there only once it is whole."""
    import keras

    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Keras would take what an interrupted download left for the file,
        # and would show its progress among the lines of a result.
        progress = redirect_stdout(sys.stderr)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder, named_weights(url), progress:
            file = keras.utils.get_file(path.name, url, cache_dir=folder, cache_subdir="")
            Path(file).replace(path)
