"""What mkdocs does beyond its settings: pages of commands, pages from outside docs/, links, no foreign resources.

Links in a page are written as they work on GitHub, relative to the file. Here those to other pages of the site
become links within it, those to other files of the repository links to GitHub; what is neither fails the build.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# mkdocs runs this file by its path.
sys.path.insert(0, str(ROOT))
from chestxray.cli.main import group  # noqa: E402
from docs.command_pages import page as command_page  # noqa: E402

REPOSITORY = "https://github.com/chestxray/chestxray"
#: Files of the repository that are pages of the site -> their address there.
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
} | {f"benchmarks/{page.name}": f"benchmarks/{page.name}" for page in sorted((ROOT / "benchmarks").glob("*.md"))}

_OPTIONS = re.compile(r"^<!-- options of chestxray (\w+) -->$", re.MULTILINE)
_FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
#: What a browser would fetch by itself when it opens a page.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=["']((?:https?:)?//[^"']+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon))[^>]*?\bhref=["']((?:https?:)?//[^"']+)"""
    r"""|url\(["']?((?:https?:)?//[^"')]+)"""
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for path, address in OUTSIDE.items():
        files.append(File.generated(config, address, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in the options of commands, and turn links between files of the repository into links between pages."""
    markdown = _OPTIONS.sub(lambda match: _options(match[1]), markdown)
    addresses = {str(ROOT / path): address for path, address in OUTSIDE.items()}
    addresses |= {file.abs_src_path: file.src_uri for file in files if file.abs_src_path}
    assert page.file.abs_src_path is not None
    folder = Path(page.file.abs_src_path).parent
    here = Path(page.file.src_uri).parent

    def rewritten(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            return match[0]
        path = os.path.normpath(folder / target)
        if path in addresses:
            return Path(os.path.relpath(addresses[path], here)).as_posix() + anchor
        if Path(path).exists() and Path(path).is_relative_to(ROOT) and not Path(path).is_relative_to(ROOT / "docs"):
            kind = "tree" if Path(path).is_dir() else "blob"
            return f"{REPOSITORY}/{kind}/main/{Path(path).relative_to(ROOT).as_posix()}{anchor}"
        return match[0]  # to a page that is not there: mkdocs says so, and fails

    pieces, end = [], 0
    for fence in _FENCE.finditer(markdown):
        pieces += [_LINK.sub(rewritten, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, _LINK.sub(rewritten, markdown[end:])])


def _options(name: str) -> str:
    command = group.get_command(click.Context(group), name)
    if command is None:
        raise PluginError(f"There is no command chestxray {name}.")
    return command_page(command, f"chestxray {name}")


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """Fail where a page or a style sheet would make a browser ask another host."""
    found = {}
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css"):
            fetched = ["".join(match) for match in _FETCHED.findall(path.read_text(encoding="utf-8"))]
            found |= dict.fromkeys(fetched, path)
    if found:
        told = ", ".join(f"{address} in {path.name}" for address, path in sorted(found.items()))
        raise PluginError(f"The site may load nothing from other hosts. Received: {told}.")
