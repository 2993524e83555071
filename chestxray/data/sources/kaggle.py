"""`kaggle:OWNER/NAME[/versions/N]`: a data set of Kaggle, downloaded with kagglehub into its cache."""

from __future__ import annotations

import dataclasses
import logging
import re
import zipfile
from pathlib import Path

from chestxray.data.images.reading import SUFFIXES
from chestxray.data.index import Index
from chestxray.data.sources import folder, manifest
from chestxray.data.sources.materialised import first_line
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.storage.files import explained

log = logging.getLogger(__name__)

_HANDLE = re.compile(r"\w[\w.-]*/\w[\w.-]*(/versions/[1-9]\d*)?")

OPTIONS = {
    "manifest": "path of a CSV file within the set, read as manifest: reads it",
    "subfolder": "folder within the set to read; default: the set's own, without wrapping folders",
    **folder.plugin.options,  # type: ignore[dict-item]
    **manifest.OPTIONS,
}


def load(address: str, options: SourceOptions) -> Index:
    """Download a set, unless it is in kagglehub's cache, and return its index, as `folder` or `manifest` does.

    Raises:
        InputError: an address that is not OWNER/NAME or OWNER/NAME/versions/N; no such subfolder.
        DataError: it cannot be downloaded; as `folder` and `manifest`.
    """
    root = download(address)
    if name := options.extra.get("manifest"):
        index = manifest.load(str(_within(root, name)), options)
    else:
        inner = options.extra.get("subfolder")
        index = folder.load(str(_within(root, inner) if inner else _unwrapped(root)), options)
    name = address.split("/")[1]
    return dataclasses.replace(index.replace(index.rows.assign(source=name)), name=name)


def download(address: str) -> Path:
    """Return the folder of a set in kagglehub's cache, after downloading it if it is not there yet.

    An interrupted download is continued if the server allows it, and restarted otherwise. If the
    server cannot be reached, an address without a version gets the newest version in the cache.

    Raises:
        InputError: an address that is not OWNER/NAME or OWNER/NAME/versions/N.
        DataError: it cannot be downloaded.
        OutputError: the disk is full.
    """
    if not _HANDLE.fullmatch(address):
        raise InputError(f"kaggle: needs OWNER/NAME or OWNER/NAME/versions/N. Received: {address!r}.")
    if found := cached(address):
        return found
    import kagglehub
    import requests
    from kagglehub import exceptions

    with explained(Path("kagglehub's cache")):
        try:
            return Path(kagglehub.dataset_download(address))
        except requests.HTTPError as error:
            raise DataError(_refused(address, error)) from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            newest = cached(address, newest=True)
            if newest is None:
                raise DataError(
                    f"kaggle:{address} could not be downloaded: no connection to Kaggle, or it broke off "
                    f"({type(error).__name__}). Run the command again to go on, or give a copy on disk with --path."
                ) from error
            log.warning("No connection to Kaggle: going on with the copy in the cache, %s.", newest)
            return newest
        except exceptions.UnauthenticatedError as error:
            raise DataError(f"kaggle:{address} needs a login. {_LOGIN}") from error
        except (exceptions.DataCorruptionError, zipfile.BadZipFile, ValueError, EOFError) as error:
            if "credentials" in str(error):
                raise DataError(f"kaggle:{address} could not be downloaded: {first_line(error)} {_LOGIN}") from error
            _forget_archive(address)
            what = first_line(error).rstrip(":.")
            raise DataError(
                f"kaggle:{address} arrived damaged ({what}) and was deleted. Run the command again."
            ) from error


def cached(address: str, *, newest: bool = False) -> Path | None:
    """Return the folder of a set that kagglehub has downloaded completely, or None.

    For an address without a version this is None, or with `newest` the newest version in the cache.
    """
    from kagglehub.cache import Cache
    from kagglehub.config import get_cache_folder
    from kagglehub.handle import parse_dataset_handle

    handle = parse_dataset_handle(address)
    if handle.is_versioned():
        found = Cache().load_from_cache(handle)
        return Path(found) if found else None
    if not newest:
        return None
    versions = Path(get_cache_folder()) / "datasets" / handle.owner / handle.dataset / "versions"
    numbers = sorted((int(v.name) for v in versions.glob("*") if v.name.isdigit()), reverse=True)
    found_all = (Cache().load_from_cache(handle.with_version(number)) for number in numbers)
    return next((Path(found) for found in found_all if found), None)


_LOGIN = "Set KAGGLE_USERNAME and KAGGLE_KEY (from your account's settings at Kaggle) or give a copy with --path."


def _refused(address: str, error: object) -> str:
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if status == 401:
        return f"kaggle:{address} could not be downloaded: the login was refused (401). {_LOGIN}"
    if status == 403:
        return (
            f"kaggle:{address} could not be downloaded: access is forbidden (403). Accept the set's terms on its "
            f"page. {_LOGIN}"
        )
    if status == 404:
        return f"kaggle:{address} does not exist (404), or not in that version. Allowed: OWNER/NAME[/versions/N]."
    return f"kaggle:{address} could not be downloaded: the server answered {status}. Try again later."


def _forget_archive(address: str) -> None:
    """Delete a damaged archive, which kagglehub would otherwise always take for a complete download."""
    from kagglehub.cache import get_cached_archive_path
    from kagglehub.config import get_cache_folder
    from kagglehub.handle import parse_dataset_handle

    handle = parse_dataset_handle(address)
    if handle.is_versioned():
        Path(get_cached_archive_path(handle)).unlink(missing_ok=True)
        return
    for archive in (Path(get_cache_folder()) / "datasets" / handle.owner / handle.dataset).glob("*.archive"):
        archive.unlink()


def _within(root: Path, name: str) -> Path:
    place = (root / name).resolve()
    if not place.is_relative_to(root.resolve()) or not place.exists():
        inside = ", ".join(sorted(child.name for child in root.iterdir())[:10])
        raise InputError(f"No {name!r} in the set. It holds: {inside}.")
    return place


def _unwrapped(root: Path) -> Path:
    """Return the folder that contains the class or split folders, skipping folders that contain only one folder."""
    here = root
    while True:
        children = [child for child in here.iterdir() if not child.name.startswith((".", "__MACOSX"))]
        folders = [child for child in children if child.is_dir()]
        images = any(child.suffix.lower() in SUFFIXES for child in children)
        if len(folders) != 1 or images or not any(child.is_dir() for child in folders[0].iterdir()):
            return here
        here = folders[0]


plugin = SourcePlugin(load=load, address_help="OWNER/NAME[/versions/N] on Kaggle", options=OPTIONS)
