"""Folders on the command line: a path, or an address of fsspec such as ``s3://bucket/folder``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

Use = Literal["read", "change", "write"]


class Place(click.ParamType):
    """A path, or an address, which becomes the path of its local copy.

    ``read`` fetches what is there; ``write`` and ``change`` copy what the command does to the folder back while it
    works and at its end, and with ``change`` there must be something there. With ``ready``, the name of a ready model
    is taken as well, which becomes the path of its folder in the cache.
    """

    name = "path"

    def __init__(self, use: Use, *, ready: bool = False) -> None:
        self.use, self.ready = use, ready

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path to work with. Raises `ChestXrayError` if the store of an address cannot be reached."""
        from chestxray.storage import remote

        if not remote.is_address(value) or ctx is None:
            return self._local(value)
        if self.use == "read":
            return remote.fetched(str(value))
        return ctx.with_resource(remote.working(str(value), must_exist=self.use == "change"))

    def _local(self, value: str | Path) -> Path:
        if self.ready:
            from chestxray.inference import ready_names

            if ready_names.is_name(value):
                from chestxray.inference import ready_models

                return ready_models.folder_of(str(value))
        return Path(value)


class CachePlace(click.ParamType):
    """The folder of a cache, or the address of one, which becomes its local folder."""

    name = "path"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the folder. Raises `OutputError` if that of an address cannot be made."""
        from chestxray.storage import cache, remote

        return cache.root(value) if remote.is_address(value) else Path(value)


CACHE = CachePlace()
READ, CHANGE, WRITE = Place("read"), Place("change"), Place("write")
#: Those that take a ready model as well as a run.
READ_MODEL, CHANGE_MODEL = Place("read", ready=True), Place("change", ready=True)
