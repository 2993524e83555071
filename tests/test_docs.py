"""The pages agree with the program. `tox -e docs` builds them, and checks their links and anchors."""

import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import click
import pytest
from PIL import Image

from chestxray.cli.main import COMMANDS, group
from chestxray.testing.results import chosen
from chestxray.testing.source_suite import SOURCE_CHECKS, run_source_checks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.rglob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]
TERMS = (
    "Index", "Holdout", "Control", "Refusal", "Abstention", "Leak", "Group", "Finding", "Operating point",
    "Calibration", "Temperature", "Promise", "External validation", "Fold", "Ensemble", "Phantom", "Audit", "Recipe",
    "Plugin", "Source",
)  # fmt: skip


def named(page):
    return page.relative_to(ROOT).as_posix()


def command_lines(text):
    """The lines of a page's shell blocks that call chestxray, each as its arguments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:&&|\||>)\s", line.strip()):
            # Not what says how a program is started, such as `docker run ... chestxray run`.
            if part.startswith("chestxray ") and "..." not in part:
                yield shlex.split(part, comments=True)[1:]


def parse(arguments):
    """Follow `arguments` into the command they call. Raises click's errors for unknown commands and options."""
    command, context = group, click.Context(group, info_name="chestxray")
    while isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(context, arguments)
        context = click.Context(command, info_name=name, parent=context)
    values, left, _ = command.make_parser(context).parse_args(list(arguments))
    for parameter in command.params:
        given = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice):
            for value in given if isinstance(given, list) else [given]:
                assert value in (None, *parameter.type.choices), f"{parameter.name} {value}"
    assert not left, f"{name} takes no {left}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_command_lines_are_taken_by_the_program(page):
    for arguments in command_lines(page.read_text(encoding="utf-8")):
        try:
            parse(arguments)
        except (click.ClickException, AssertionError) as error:
            pytest.fail(f"chestxray {shlex.join(arguments)}: {error}")


def test_a_command_line_with_an_unknown_option_is_found():
    (found,) = command_lines("```sh\nls && chestxray run --modle vgg16 | less  # no such option\n```\n")
    assert found == ["run", "--modle", "vgg16"]
    with pytest.raises(click.NoSuchOption):
        parse(found)
    with pytest.raises(click.UsageError):
        parse(["no-such-command"])
    with pytest.raises(AssertionError):
        parse(["run", "--fit", "squeeze"])


def test_every_command_has_a_page():
    assert {page.stem for page in (DOCS / "commands").glob("*.md")} == {"index", *COMMANDS}
    table = (DOCS / "commands" / "index.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| \[`chestxray (\w+)`\]\(\1\.md\) \| (.*) \|$", table, re.MULTILINE)) == COMMANDS


def test_pages_of_commands_need_neither_tensorflow_nor_pandas():
    # The site is built where only the core is installed.
    heavy = ("tensorflow", "keras", "pandas", "scipy", "matplotlib")
    code = (
        "import sys; from chestxray.cli.main import COMMANDS, group; "
        "[group.get_command(None, name) for name in COMMANDS]; "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_glossary_has_the_terms_of_the_interface_in_order():
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    found = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert not set(TERMS) - set(found)
    assert found == sorted(found, key=str.casefold)


@pytest.mark.parametrize("page", [page for page in sorted(DOCS.glob("*.md")) if page.name != "python.md"], ids=named)
def test_pages_link_to_the_glossary(page):
    assert page.name == "glossary.md" or "(glossary.md" in page.read_text(encoding="utf-8")


def test_the_training_page_lists_our_architectures():
    text = (DOCS / "train.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| \[(\w+)\]\(\.\./plugins/\1/README\.md\) \| (.*?) \|", text, re.MULTILINE))
    for path in ROOT.glob("plugins/*/pyproject.toml"):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        if models := project["entry-points"].get("chestxray.models"):
            assert set(re.findall(r"`(\w+)`", rows.pop(path.parent.name))) == set(models)
    assert not rows


def test_the_readme_fits_on_a_screen():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 45


def test_the_page_for_authors_of_sources_lists_every_check():
    page = (DOCS / "write-a-source.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page[page.index("## 3.") :], re.MULTILINE) == [
        check.name for check in chosen(SOURCE_CHECKS, None)
    ]


def sources_on_the_page():
    """The plugins that the page for authors of sources shows, in order."""
    page = (DOCS / "write-a-source.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for code in blocks:
        if "plugin = SourcePlugin" in code:
            names = {"__name__": "on_the_page"}
            exec(compile(code, "write-a-source.md", "exec"), names)
            yield names["plugin"]


def require_conforming(plugin, address):
    cheap = [check.name for check in SOURCE_CHECKS if check.name != "import"]
    results = run_source_checks(plugin, address, only=cheap, module="chestxray.plugin")
    assert [(r.name, r.reason) for r in results if r.outcome == "failed"] == []


def test_the_source_of_files_on_the_page_for_authors_passes(tmp_path):
    lines = ["file,label,patient"]
    for number in range(4):
        Image.new("L", (32, 32), 50 * number).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{'normal' if number % 2 else 'pneumonia'},p{number}")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    of_files, _ = sources_on_the_page()
    require_conforming(of_files, str(tmp_path))


def test_the_source_of_an_archive_on_the_page_for_authors_passes(tmp_path):
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        for number in range(4):
            Image.new("L", (32, 32), 50 * number).save(tmp_path / f"{number}.png")
            archive.write(tmp_path / f"{number}.png", f"{'normal' if number % 2 else 'pneumonia'}/p{number}_0.png")
    _, of_archive = sources_on_the_page()
    require_conforming(of_archive, str(tmp_path / "films.zip"))
