"""Writes a new plugin package that can be installed, passes its tests and runs without changes."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Literal

import jinja2

from chestxray import registry
from chestxray._version import VERSION
from chestxray.errors import InputError, OutputError
from chestxray.storage.files import explained

Kind = Literal["model", "source", "metric", "loss", "augmentation", "explanation"]

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST = 40


def new_plugin(name: str, folder: Path | None = None, kind: Kind = "model") -> list[Path]:
    """Write a plugin package called `name` to `folder` and return the paths of its files.

    `folder` must be new or empty; None: ``chestxray-<name>`` in the working directory.

    >>> new_plugin("my_model", Path("my_model"))  # doctest: +SKIP

    Raises:
        InputError: the name is not a valid module name, or another plugin has it.
        OutputError: the folder is not empty or cannot be written to.
    """
    _check_name(name, kind)
    distribution = f"chestxray-{name.replace('_', '-')}"
    folder = Path(distribution) if folder is None else folder
    _check_folder(folder)
    files = _rendered(name, distribution, kind)
    with explained(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(f"The folder {folder} cannot be made: a part of its path is a file.") from error
        # Written to a temporary folder first, so that a full disk leaves no partial package.
        with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as aside:
            for path, text in files.items():
                target = Path(aside) / path
                target.parent.mkdir(exist_ok=True)
                target.write_text(text, encoding="utf-8")
            for item in sorted(Path(aside).iterdir()):
                item.rename(folder / item.name)
    return [folder / path for path in files]


def _check_name(name: str, kind: Kind) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise InputError(
            f"The name of a plugin must be lower-case letters, digits and single underscores, begin with a "
            f"letter and have at most {_LONGEST} characters, such as my_model. Received: {name!r}."
        )
    for entry in registry.entries(registry.GROUPS[kind]):
        if entry.name == name:
            raise InputError(f"The name {name} is taken by {entry.distribution} {entry.version}. Choose another.")


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; it must be a folder that is new or empty.")
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"The folder {folder} holds something already; choose another with --path.")


def _rendered(name: str, distribution: str, kind: Kind) -> dict[str, str]:
    """Return the text of each file by its path in the package."""
    module = f"chestxray_{name}"
    values = {
        "name": name,
        "distribution": distribution,
        "module": module,
        "version": ".".join(VERSION.split(".")[:2]),
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        f"{module}.py": "module.py",
        f"tests/test_{name}.py": "test.py",
        "README.md": "README.md",
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("chestxray.testing"),
        autoescape=False,  # noqa: S701 - Python, TOML and Markdown, from names checked above
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return {
        path: environment.get_template(f"{kind}/{template}.jinja").render(values)
        for path, template in templates.items()
    }
