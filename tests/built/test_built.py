"""Wheels and source distributions of the core, of every plugin and of the example: complete, well described, and
enough by themselves: `tox -e built`, which installs from the package index.
"""

import json
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = (ROOT, *sorted((ROOT / "plugins").glob("*/")), ROOT / "examples" / "third_party_plugin")
PLUGINS = PROJECTS[1:]
#: The README's first command, made small: InceptionV3 on drawn films, trained for an epoch.
FIRST = ("run", "--model", "inceptionv3", "--image-size", "75", "--epochs", "1")


@dataclass(frozen=True)
class Built:
    """The files of one project: ``direct`` is the wheel built from the tree, ``wheel`` that built from ``sdist``."""

    sdist: Path
    wheel: Path
    direct: Path


def run(*command, cwd=None, timeout=600):
    """Standard output of `command`, which must succeed."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def uv(*arguments):
    return run(sys.executable, "-m", "uv", *arguments, "--quiet")


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """The folder of all wheels, each built from its source distribution."""
    return tmp_path_factory.mktemp("dist")


@pytest.fixture(scope="session")
def built(dist, tmp_path_factory):
    """Project -> its files."""
    found = {}
    for project in PROJECTS:
        direct = tmp_path_factory.mktemp("direct")
        before = set(dist.iterdir())
        uv("build", project, "--out-dir", dist)
        uv("build", "--wheel", project, "--out-dir", direct)
        new = {path.suffix: path for path in set(dist.iterdir()) - before if path.name != ".gitignore"}
        found[project] = Built(new[".gz"], new[".whl"], next(direct.glob("*.whl")))
    return found


@pytest.fixture(scope="session")
def clean(tmp_path_factory, dist, built):
    """A function that makes an environment and installs `requirements` of our wheels: the path of its Python."""

    def make(*requirements):
        place = tmp_path_factory.mktemp("environment") / "venv"
        uv("venv", "--python", sys.executable, place)
        python = place / "bin" / "python"
        uv("pip", "install", "--python", python, "--find-links", dist, *requirements)
        uv("pip", "check", "--python", python)
        return python

    return make


@pytest.fixture(scope="session")
def alone(clean, built, dist):
    """A function that leaves no other plugin than that of `project` in an environment: the path of its Python.

    It is one environment, so that TensorFlow is not installed anew for every plugin.
    """
    python = clean(f"{name_of(ROOT)}[train]")

    def installed(project):
        uv("pip", "uninstall", "--python", python, *map(name_of, PLUGINS))
        uv("pip", "install", "--python", python, "--find-links", dist, built[project].wheel)
        uv("pip", "check", "--python", python)
        return python

    return installed


def name_of(project):
    """The name of the distribution that `project` builds."""
    return tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]


def contents(wheel):
    """Path in the wheel -> bytes, without what the build says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def sources(project):
    """The paths of files that git knows of below `project`, or would with the next commit."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=project).split("\0")
    return {name for name in listed if name and (project / name).is_file()}


@pytest.fixture(scope="session", autouse=True)
def checkout():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: there is no list of files to compare with")


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_wheel_has_every_file_of_the_package_and_no_other(project, built):
    known = sources(project)
    wanted = {name for name in known if name.startswith("chestxray/")} if project == ROOT else module_of(project)
    found = contents(built[project].wheel)
    assert set(found) == wanted
    assert {name for name in wanted if found[name] != (project / name).read_bytes()} == set()
    assert contents(built[project].direct) == found


def module_of(project):
    told = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return set(told["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_a_source_distribution_has_every_file(project, built):
    with tarfile.open(built[project].sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    # hatchling adds the list of what git ignores, also where it stands further up.
    assert found - {"PKG-INFO", ".gitignore"} == sources(project) - {".gitignore"}


def test_an_index_would_take_them_and_show_their_pages(built, dist):
    said = run(sys.executable, "-m", "twine", "check", "--strict", *dist.glob("*.whl"), *dist.glob("*.gz"))
    assert said.count("PASSED") == 2 * len(PROJECTS)


@pytest.mark.parametrize("project", PROJECTS, ids=lambda path: path.name)
def test_it_says_where_it_is_at_home_and_what_it_is_for(project, built):
    told = metadata(built[project].wheel)
    for line in ("Project-URL: ", "License-Expression: ", "Requires-Python: ", "Classifier: ", "Keywords: "):
        assert f"\n{line}" in told, line
    assert "research use only" in told.lower()


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name).decode()


def test_the_readmes_first_command_works_where_one_plugin_was_installed(clean, tmp_path):
    # Neither the core nor TensorFlow is asked for by name: the plugin brings them.
    command = clean("chestxray-inceptionv3").with_name("chestxray")
    said = run(command, *FIRST, "--output", "x", cwd=tmp_path)
    assert "95% interval" in said
    assert (tmp_path / "x" / "report.html").is_file()


@pytest.mark.parametrize("project", PLUGINS, ids=lambda path: path.name)
def test_every_plugin_brings_what_it_registers(project, alone):
    command = alone(project).with_name("chestxray")
    told = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (group,) = told["entry-points"]
    listing = ("models",) if group == "chestxray.models" else ("plugin", "list")
    listed = [one for one in json.loads(run(command, *listing, "--json")) if one["distribution"] != "chestxray"]
    assert {one["name"] for one in listed} == set(told["entry-points"][group])
    assert {one["distribution"] for one in listed} == {told["name"]}
    assert not any(one["broken"] for one in listed)


@pytest.mark.parametrize("project", PLUGINS, ids=lambda path: path.name)
def test_a_plugin_asks_for_what_training_needs(project, built):
    assert "\nRequires-Dist: chestxray[train]>=" in metadata(built[project].wheel)


def test_the_core_alone_has_statistics_and_no_tensorflow(clean):
    python = clean("chestxray")
    heavy = ("tensorflow", "keras", "matplotlib", "pyarrow", "flask")
    said = run(
        python,
        "-c",
        "import importlib.util, chestxray\n"
        f"print([name for name in {heavy!r} if importlib.util.find_spec(name)])\n"
        "table = chestxray.evaluate([0, 1, 0, 1] * 9, [.2, .7, .4, .6] * 9, replicates=50).to_frame()\n"
        "print(table.loc['auroc', 'value'])\n",
    )
    assert said.split() == ["[]", "1.0"]
