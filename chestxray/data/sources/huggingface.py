"""`hf:OWNER/NAME` or `hf:DIR`: a data set of the Hugging Face hub, or a clone of one, read with `datasets`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from chestxray.data.index import Index
from chestxray.data.sources.folder import SPLIT_NAMES
from chestxray.data.sources.materialised import Contents, Item, converted, first_line, of_the_disk
from chestxray.errors import DataError, InputError
from chestxray.plugin import SourceOptions, SourcePlugin
from chestxray.storage.files import content as content_of
from chestxray.storage.files import explained

T = TypeVar("T")
#: Maximum size in bytes of an image that a set names by its path.
_MOST = 1_000_000_000

OPTIONS = {
    "config": "configuration of the set",
    "revision": "branch, tag or commit; pin one to get the same set every time",
    "data_dir": "folder within the repository",
    "splits": "splits to read, as NAME or NAME=train, NAME=validation, NAME=test, separated by commas; default: all",
    "image_column": "column of the image; default: the only one there is",
    "label_column": "column of the class; default: label or labels, else the only column of classes",
    "patient_column": "column of the patient; default: none",
}


def load(address: str, options: SourceOptions) -> Index:
    """Write a set's images to the cache as their original files, and return an index with its official splits.

    A set that was written before is reused without asking the hub: pin a revision if it matters which
    one is used, and empty the cache (`chestxray cache clear --kind huggingface`) to download it again.

    Raises:
        InputError: an address, a configuration, a split or a column that does not exist.
        DataError: it cannot be downloaded or read.
    """
    folder = Path(address).expanduser()
    local = bool(address) and folder.is_dir()
    if not local and (address.count("/") > 1 or not address.strip("/")):
        raise InputError(f"hf: needs OWNER/NAME, or the folder of a clone. Received: {address!r}.")
    identity: dict[str, object] = {"address": address, **options.extra}
    if local:
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        changed = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        identity |= {"address": str(folder.absolute()), "files": changed}
    name = folder.name if local else address.replace("/", "-")
    return converted("huggingface", name, identity, options, lambda: _contents(address, options))


def _contents(address: str, options: SourceOptions) -> Contents:
    extra = options.extra
    sets = _explained(
        address, lambda: _load(address, extra.get("config"), extra.get("revision"), extra.get("data_dir"))
    )
    info = next(iter(sets.values())).info
    return Contents(_items(sets, address, options), licence=info.license or "", citation=info.citation or "")


def _items(sets: Any, address: str, options: SourceOptions) -> Iterator[Item]:
    from datasets import Image

    extra = options.extra
    splits = _splits(sets, extra.get("splits"), address)
    for split, official in splits.items():
        data = sets[split]
        image = _image_column(data, extra.get("image_column"), address)
        label, names = _label_column(data, extra.get("label_column"), address)
        patient = extra.get("patient_column")
        if patient is not None and patient not in data.column_names:
            raise InputError(
                f"{address} has no column {patient!r} (patient_column). Its columns: {', '.join(data.column_names)}."
            )
        # The original file, without decoding and encoding it again.
        for row in data.cast_column(image, Image(decode=False)):
            value = row[label]
            if value is None or value == "" or (names and value == -1):
                raise DataError(f"{address} has an image without a class in split {split}.")
            yield (
                official,
                names[value] if names else str(value),
                str(row[patient] or "") if patient else "",
                *_file(row[image]),
            )


def _load(address: str, config: str | None, revision: str | None, data_dir: str | None) -> Any:
    import datasets

    # Its progress bars would be drawn over those of chestxray.
    datasets.disable_progress_bars()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return datasets.load_dataset(address, config, revision=revision, data_dir=data_dir)


def _explained(address: str, step: Callable[[], T]) -> T:
    """Return the result of a step of `datasets`, raising `DataError` in place of its exceptions.

    These come from httpx, fsspec, pyarrow and `datasets` itself, some wrapped in others, and all mean that
    the set cannot be obtained. Raises `OutputError` if the disk is full or cannot be written.
    """
    with explained(Path("the cache of datasets")):
        try:
            return step()
        except Exception as error:
            # `datasets` wraps the error of a full disk in its own errors.
            if refused := of_the_disk(error):
                raise refused from error
            raise _failed(address, error) from error


def _failed(address: str, error: BaseException) -> DataError:
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {type(item).__name__ for item in chain}
    statuses = {getattr(getattr(item, "response", None), "status_code", None) for item in chain}
    login = "log in with `hf auth login` and accept the set's terms on its page, or give a copy with --path."
    # In `datasets`, only the message says why access was refused.
    if names & {"RevisionNotFoundError"} or "Revision " in str(error):
        reason = "it has no such revision. Check --data-option revision=NAME."
    elif names & {"GatedRepoError"} or 403 in statuses or "gated dataset" in str(error):
        reason = f"access is forbidden (403); {login}"
    elif names & {"RepositoryNotFoundError"} or statuses & {401, 404} or "cannot be accessed" in str(error):
        reason = f"it does not exist or is private (401 or 404). Check the name, OWNER/NAME; if it is private, {login}"
    elif names & _NO_CONNECTION:
        reason = "no connection to the hub. Try again with one, or give a copy on disk with --path."
    elif "scripts are no longer supported" in str(error):
        reason = (
            "it is a loading script, which datasets refuses to run. Its Parquet conversion may be there: "
            "--data-option revision=refs/convert/parquet."
        )
    else:
        reason = first_line(error)
    return DataError(f"hf:{address} could not be had: {reason}")


_NO_CONNECTION = frozenset(
    {"ConnectError", "ConnectTimeout", "ReadTimeout", "ReadError", "RemoteProtocolError", "OfflineModeIsEnabled",
     "ConnectionError", "LocalEntryNotFoundError", "MaxRetryError", "ConnectionRefusedError"}
)  # fmt: skip


def _splits(sets: Any, asked: str | None, address: str) -> dict[str, str]:
    """Return the official split in the index for each split of the set that is read."""
    if asked is None:
        return {name: SPLIT_NAMES.get(str(name).lower(), "") for name in sets}
    chosen = {}
    for part in filter(None, (part.strip() for part in asked.split(","))):
        name, sign, official = part.partition("=")
        known = SPLIT_NAMES.get((official if sign else name).lower(), "" if not sign else None)
        if name not in sets or known is None:
            raise InputError(
                f"splits must be NAME or NAME=train, validation or test, of the splits of {address}: "
                f"{', '.join(map(str, sets))}. Received: {part!r}."
            )
        chosen[name] = known
    return chosen


def _image_column(data: Any, asked: str | None, address: str) -> str:
    from datasets import Image

    found = [name for name, feature in data.features.items() if isinstance(feature, Image)]
    return _one(found, asked, "image", "image_column", address)


def _label_column(data: Any, asked: str | None, address: str) -> tuple[str, list[str]]:
    from datasets import ClassLabel, Value

    classes = [name for name, feature in data.features.items() if isinstance(feature, ClassLabel)]
    texts = [
        n for n, f in data.features.items() if isinstance(f, Value) and f.dtype in ("string", "large_string", "int64")
    ]
    usual = [name for name in ("label", "labels") if name in (*classes, *texts)]
    column = _one(usual[:1] or classes or texts, asked, "class", "label_column", address, allowed=[*classes, *texts])
    feature = data.features[column]
    return column, list(feature.names) if isinstance(feature, ClassLabel) else []


def _one(
    found: list[str], asked: str | None, what: str, option: str, address: str, allowed: list[str] | None = None
) -> str:
    if asked is not None and asked in (allowed or found):
        return asked
    if asked is None and len(found) == 1:
        return found[0]
    raise InputError(
        f"Which column of {address} is the {what}? Name it with --data-option {option}=NAME, one of "
        f"{', '.join(allowed or found) or 'none'}. Received: {asked or 'nothing'}."
    )


def _file(value: dict[str, Any] | None) -> tuple[str, bytes]:
    """Return the original file name, or ``""``, and the content of an undecoded image."""
    value = value or {}
    called = value.get("path") or ""
    content = value.get("bytes")
    if content is None and called:
        content = content_of(Path(called), _MOST)
    return called, content or b""


plugin = SourcePlugin(load=load, address_help="OWNER/NAME on Hugging Face, or the folder of a clone", options=OPTIONS)
