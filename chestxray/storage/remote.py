"""Folders at an address of fsspec, such as ``s3://bucket/folder``, each with a working copy on the local disk.

Programs read and write the copy, since arrays are mapped from files. At the address lie the files under their names,
and a list of them with their checksums, which is written after they are: what it does not name was not copied to its
end, and is not used. A file that changes is first written beside the one in the list, and takes its name when the
folder is complete. The list alternates between two names, so that one that was cut off leaves the list before it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

from chestxray.errors import DataError, InputError, MissingPackageError, OutputError, first_line, require
from chestxray.storage import cache, cache_use, checked_json, checksums
from chestxray.storage.files import replacing

log = logging.getLogger(__name__)

#: How often files are looked at until all are as they were at one moment.
ATTEMPTS = 50
#: Seconds between two looks for files that have changed.
INTERVAL = 3.0
_LISTS = ("chestxray-files-0.json", "chestxray-files-1.json")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.+")
#: Protocols of stores that have folders, which must be made.
_WITH_FOLDERS = frozenset({"file", "local", "sftp", "ssh", "smb", "ftp", "hdfs", "arrow_hdfs", "webhdfs"})
#: Working copies that are open -> their addresses.
_OPEN: dict[Path, str] = {}


class Listed(TypedDict):
    """A file in the list: the name that it is kept under, its size in bytes, XXH3 of its content, and when it was
    changed, in nanoseconds, by which the cache knows the images that it was decoded from.
    """

    object: str
    bytes: int
    checksum: str
    modified: int


def is_address(place: object) -> bool:
    """Return whether `place` is an address and no path: ``PROTOCOL://...``."""
    return isinstance(place, str) and _ADDRESS.fullmatch(place) is not None


def shown(folder: Path) -> str:
    """Return the address whose open working copy `folder` is, otherwise the path itself."""
    return _OPEN.get(folder, str(folder))


def fetched(address: str) -> Path:
    """Return a local copy of the folder at `address`, of which only what has changed is copied.

    Raises:
        InputError: nothing of chestxray is there, or the store cannot be reached.
        DataError: a file there is not what was written.
    """
    mirror, entry = Mirror(address), _entry("fetched", address)
    if not mirror.files:
        raise InputError(f"There is no folder of chestxray at {address}. Allowed: what --output wrote there.")
    with cache_use.held(entry):
        mirror.fetch(entry / mirror.name)
    return entry / mirror.name


@contextmanager
def at(place: str | Path | None) -> Iterator[Path | None]:
    """Yield the path `place`, or of an address a working copy, as `working`; None of None."""
    if place is None or not is_address(place):
        yield None if place is None else Path(place)
        return
    with working(str(place)) as folder:
        yield folder


def opened(place: str | Path) -> Path:
    """Return the path `place`, or of an address a local copy, as `fetched`."""
    return fetched(str(place)) if is_address(place) else Path(place)


@contextmanager
def working(address: str, *, must_exist: bool = False) -> Iterator[Path]:
    """Yield a local folder with what is at `address`; its files are copied there while they change, and at the end.

    A second process with the same address waits for this one. An error of the store during the block is a warning,
    and copying is tried again.

    Raises:
        InputError: the store cannot be reached; with `must_exist`, nothing of chestxray is there.
        OutputError: the files cannot be copied at the end, or the address holds other files.
        DataError: a file there is not what was written.
    """
    entry = _entry("outputs", address)
    with cache_use.held(entry):
        mirror = Mirror(address)
        if must_exist and not mirror.files:
            raise InputError(f"There is no folder of chestxray at {address}. Allowed: what --output wrote there.")
        mirror.require_own()
        folder = entry / mirror.name
        entry.mkdir(exist_ok=True)
        mirror.fetch(folder)
        if not mirror.files:
            # Empty folders of a run that is no longer at the address.
            shutil.rmtree(folder, ignore_errors=True)
        if not mirror.generation:
            # A store that cannot be written is known before hours of work.
            mirror.claim()
        stop = threading.Event()
        copying = threading.Thread(target=_copy, args=(mirror, folder, stop), name="chestxray-remote", daemon=True)
        copying.start()
        _OPEN[folder] = address
        try:
            yield folder
        finally:
            stop.set()
            copying.join()
            del _OPEN[folder]
            _finish(mirror, folder, failed=sys.exc_info()[0] is not None)


def _finish(mirror: Mirror, folder: Path, *, failed: bool) -> None:
    """Copy what is left. After an error the files may go on to change names, so that they are copied as they are."""
    kept = f"All files are kept in {folder}."
    try:
        done = mirror.push(folder, complete=not failed)
    except InputError as error:
        if not failed:
            raise OutputError(f"{error} {kept}") from error
        log.warning("%s %s", error, kept)
        return
    if done:
        log.info("Copied to %s", mirror.address)


def _copy(mirror: Mirror, folder: Path, stop: threading.Event) -> None:
    """Copy files that have changed, until `stop` is set."""
    warned = False
    while not stop.wait(INTERVAL):
        try:
            mirror.push(folder)
            warned = False
        except InputError as error:
            if not warned:
                log.warning("%s Copying is tried again.", error)
            warned = True


def _entry(kind: str, address: str) -> Path:
    digest = hashlib.blake2b(address.rstrip("/").encode(), digest_size=8).hexdigest()
    return cache.root() / kind / digest


class Mirror:
    """A folder at an address. ``generation`` counts its lists: 0 where there is none."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.store, self.root = _opened(address)
        self.name = PurePosixPath(self.root.rstrip("/")).name or "folder"
        self.files: dict[str, Listed] = {}
        self.generation = 0
        #: Sizes and times of the files as they were when they were copied.
        self._copied: dict[str, tuple[int, int]] = {}
        for name in _LISTS:
            with self._explained("read"):
                found = self._content(name)
            if found is not None and found["generation"] > self.generation:
                self.generation, self.files = found["generation"], found["files"]

    def require_own(self) -> None:
        """Raise `OutputError` if files are at the address that chestxray did not write."""
        with self._explained("read"):
            others = not self.generation and self.store.exists(self.root) and self.store.ls(self.root, detail=False)
        if others:
            raise OutputError(f"{self.address} holds files that are not of chestxray; choose another address.")

    def claim(self) -> None:
        """Write a list of no files."""
        self._list({})

    def fetch(self, folder: Path) -> None:
        """Make the files in `folder` those of the list."""
        for name, listed in self.files.items():
            path = folder / name
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise DataError(f"{self.address} is damaged: it lists a file outside of itself, {name!r}.")
            if not _same(path, listed):
                with replacing(path) as temporary:
                    with self._explained("read"):
                        self.store.get_file(self._place(listed["object"]), str(temporary))
                    if not _same(temporary, listed):
                        raise DataError(f"{self.address}/{listed['object']} is damaged: its checksum is another.")
                os.utime(path, ns=(listed["modified"], listed["modified"]))
        for name in _states(folder).keys() - self.files.keys():
            (folder / name).unlink()
        self._copied = _states(folder)

    def push(self, folder: Path, *, complete: bool = False) -> bool:
        """Copy the files that have changed, as they all were at one moment, and return whether that succeeded: not if
        they never stood still. With `complete`, all get their own names at the address.
        """
        states = _states(folder)
        if not self._copied and {name: (f["bytes"], f["modified"]) for name, f in self.files.items()} == states:
            self._copied = states
        if states == self._copied and (self._named() or not complete):
            return bool(self.generation)
        with tempfile.TemporaryDirectory(prefix=".copied-", dir=folder.parent) as name:
            aside = Path(name) / "0"
            # Where epochs take a part of a second, files change between two looks at them.
            for attempt in range(ATTEMPTS):
                aside = Path(name) / str(attempt)
                states = _states(folder)
                if _all_linked(states, folder, aside) and _states(folder) == states:
                    break
            else:
                return False
            files = {relative: self._put(aside / relative, relative, complete) for relative in states}
            # What is written into and not replaced, such as a log, may have grown: its turn is the next time.
            after = _states(aside)
            for relative in [relative for relative in states if after.get(relative) != states[relative]]:
                del files[relative], states[relative]
        self._list(files)
        self._copied = states
        # The names of files that have changed were in the list until now.
        return self.push(folder, complete=True) if complete and not self._named() else True

    def _named(self) -> bool:
        return all(name == listed["object"] for name, listed in self.files.items())

    def _put(self, path: Path, name: str, complete: bool) -> Listed:
        """Copy a file unless it is there, and return what is to be listed of it."""
        size, modified = path.stat().st_size, path.stat().st_mtime_ns
        known = self.files.get(name)
        if known is None or (known["bytes"], known["modified"]) != (size, modified):
            digest = checksums.of(path)
            there = known is not None and (known["bytes"], known["checksum"]) == (size, digest)
        else:
            digest, there = known["checksum"], True
        if known is not None and there and not (complete and known["object"] != name):
            return {**known, "modified": modified}
        taken = {listed["object"] for listed in self.files.values()}
        kept = name if name not in taken else f"{name}.{digest[:12]}"
        if kept not in taken:
            with self._explained("written"):
                self.store.put_file(str(path), self._with_folder(kept))
        return {"object": kept, "bytes": size, "checksum": digest, "modified": modified}

    def _list(self, files: dict[str, Listed]) -> None:
        """Write the list of `files`, and then delete what only the list before it named."""
        before = {listed["object"] for listed in self.files.values()}
        generation = self.generation + 1
        with self._explained("written"):
            place = self._with_folder(_LISTS[generation % 2])
            self.store.pipe_file(place, checked_json.dumped({"generation": generation, "files": files}))
            self.generation, self.files = generation, files
            for name in before - {listed["object"] for listed in files.values()}:
                self.store.rm_file(self._place(name))

    def _content(self, name: str) -> dict[str, Any] | None:
        try:
            return checked_json.parsed(self.store.cat_file(self._place(name)))
        except FileNotFoundError:
            return None

    def _place(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _with_folder(self, name: str) -> str:
        """Return the place of a file that is to be written, with its folder made where the store has folders. In
        others, making one would make the bucket, also of a name that was mistyped.
        """
        place = self._place(name)
        protocols = self.store.protocol
        if _WITH_FOLDERS.intersection([protocols] if isinstance(protocols, str) else protocols):
            self.store.makedirs(place.rpartition("/")[0], exist_ok=True)
        return place

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        # The libraries of stores raise errors of many kinds, all of which mean that it cannot be reached.
        try:
            yield
        except Exception as error:
            raise InputError(f"{self.address} cannot be {what}: {_reason(error)}") from error


def _opened(address: str) -> tuple[Any, str]:
    """Return the store of fsspec at an address, and the path in it."""
    require("An address such as s3://bucket/folder", "fsspec")
    import fsspec

    try:
        store, root = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise MissingPackageError(
            f"{address} cannot be reached: {first_line(error)}. What S3 needs: pip install 'chestxray[remote]'"
        ) from error
    except Exception as error:
        raise InputError(
            f"{address} cannot be reached: {_reason(error)} Allowed: a path, or an address of fsspec such as "
            "s3://bucket/folder."
        ) from error
    return store, str(root)


def _reason(error: BaseException) -> str:
    text = first_line(error) or type(error).__name__
    kind = "" if isinstance(error, (OSError, ValueError)) and " " in text else f"{type(error).__name__}: "
    return f"{kind}{text.rstrip('.')}."


def _all_linked(names: Iterable[str], folder: Path, aside: Path) -> bool:
    """Link files into another folder: links hold what a name stands for at this moment, since files are replaced.
    Return False if one has gone.
    """
    aside.mkdir()
    for name in names:
        link = aside / name
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / name, link)
        except FileNotFoundError:
            return False
        except OSError:  # a file system without links
            shutil.copy2(folder / name, link)
    return True


def _same(path: Path, listed: Listed) -> bool:
    return path.is_file() and path.stat().st_size == listed["bytes"] and checksums.of(path) == listed["checksum"]


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of the files in a folder, by relative path, without temporary ones."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".part-") or path.suffix == ".lock" or not path.is_file():
            continue
        try:
            status = path.stat()
        except FileNotFoundError:  # replaced or deleted at this moment
            continue
        found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found
