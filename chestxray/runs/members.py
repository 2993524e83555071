"""The members of an ensemble, which its ``ensemble.json`` lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from chestxray.errors import DataError
from chestxray.runs.run_folder import MODEL, RECIPE, Run
from chestxray.storage import checksums, schema
from chestxray.storage.files import refusal

ENSEMBLE = "ensemble.json"
#: Most runs of an ensemble in all.
MOST = 100


class _Member(TypedDict):
    folder: str
    checksum: str


class _Content(TypedDict):
    members: list[_Member]


def listing(runs: Mapping[str, Run], folder: Path) -> dict[str, Any]:
    """Return the content of ``ensemble.json`` in `folder` for `runs` by their names.

    A member within `folder` is named by its path from there, so that the whole can be moved; another by its absolute
    path. The checksum is that of its weights.
    """
    members = []
    for name, run in runs.items():
        place, here = run.folder.absolute(), folder.absolute()
        named = place.relative_to(here).as_posix() if place.is_relative_to(here) else str(place)
        members.append({"name": name, "folder": named, "model": run.recipe.model, "checksum": _checksum(place)})
    return {"mean": "probabilities", "members": members}


def folders(folder: Path) -> list[Path]:
    """Return the folders of the members of the ensemble in `folder`.

    Raises:
        DataError: the list is damaged, or names a member that cannot be reached.
    """
    path = folder / ENSEMBLE
    members = [folder / member["folder"] for member in _read(folder)]
    for member in members:
        if reason := refusal(member / RECIPE):
            raise DataError(f"{path} names a member that cannot be reached, {str(member)[:200]}: {reason}.")
    places = [member.resolve() for member in members]
    if not 2 <= len(set(places)) == len(places) <= MOST:
        raise DataError(f"{path} is damaged: members must be 2 to {MOST} runs, each once. Received: {len(places)}.")
    return members


def check_unchanged(folder: Path) -> None:
    """Raise `DataError` where a member of the ensemble in `folder` has other weights than when it was made: it would
    answer otherwise than its report says.
    """
    for member in _read(folder):
        if _checksum(place := folder / member["folder"]) != member["checksum"]:
            raise DataError(
                f"{place} is a member of the ensemble {folder}, and its weights are no longer those that the ensemble "
                "was made of and evaluated with. Make the ensemble again."
            )


def _read(folder: Path) -> list[_Member]:
    content: _Content = schema.read(folder / ENSEMBLE, _Content)
    return content["members"]


def _checksum(place: Path) -> str:
    """Return the checksum of the weights of a run, or of the list of an ensemble's members, which has theirs; "" of a
    run of predictions alone.
    """
    return next((checksums.known(place / name) for name in (MODEL, ENSEMBLE) if (place / name).is_file()), "")
