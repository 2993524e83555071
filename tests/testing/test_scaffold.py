"""What `chestxray plugin new` writes installs, passes its own tests and is refused where it must be."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from chestxray import registry
from chestxray.errors import InputError, OutputError
from chestxray.testing.scaffold import new_plugin

KINDS = ("model", "source", "metric", "loss", "augmentation", "explanation")


@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_package(kind, tmp_path):
    written = new_plugin("my_plugin", tmp_path / "made" / "here", kind)
    root = tmp_path / "made" / "here"
    names = ["README.md", "chestxray_my_plugin.py", "pyproject.toml", "tests/test_my_plugin.py"]
    assert sorted(p.relative_to(root).as_posix() for p in written) == names
    assert sorted(p.name for p in root.iterdir()) == ["README.md", "chestxray_my_plugin.py", "pyproject.toml", "tests"]
    for path in written:
        text = path.read_text()
        assert text.endswith("\n") and "{{" not in text
    assert "Research use" in (root / "README.md").read_text()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["name"] == "chestxray-my-plugin"
    assert project["entry-points"] == {registry.GROUPS[kind]: {"my_plugin": "chestxray_my_plugin:plugin"}}


@pytest.mark.parametrize("kind", KINDS)
def test_the_module_is_under_forty_lines(kind, tmp_path):
    new_plugin("my_plugin", tmp_path / "new", kind)
    lines = (tmp_path / "new" / "chestxray_my_plugin.py").read_text().splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 88


def test_the_folder_is_named_after_the_distribution_unless_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_plugin("my_plugin")[0] == Path("chestxray-my-plugin/pyproject.toml")


def test_an_empty_folder_will_do(tmp_path):
    new_plugin("my_plugin", tmp_path)
    assert (tmp_path / "pyproject.toml").is_file()


@pytest.mark.parametrize(
    "name", ["", "My_Model", "my-model", "2fast", "_x", "x_", "a__b", "ünet", "x/../y", "a b", "a" * 41]
)
def test_a_name_that_cannot_be_a_modules_is_refused(name, tmp_path):
    with pytest.raises(InputError, match="lower-case letters") as raised:
        new_plugin(name, tmp_path / "new")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "new").exists()


def test_a_name_that_is_taken_is_refused_for_its_kind(tmp_path):
    with pytest.raises(InputError, match="phantom is taken by chestxray"):
        new_plugin("phantom", tmp_path / "new", "source")
    new_plugin("phantom", tmp_path / "new", "model")


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds something"):
        new_plugin("my_plugin", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        new_plugin("my_plugin", tmp_path / "file")
    with pytest.raises(OutputError, match="part of its path is a file"):
        new_plugin("my_plugin", tmp_path / "file" / "below")


def test_a_disk_that_fills_up_leaves_nothing_half_made(tmp_path, monkeypatch):
    calls = []
    write = Path.write_text

    def full(self, *arguments, **options):
        calls.append(self)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return write(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="disk is full"):
        new_plugin("my_plugin", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_built_installed_and_passes_its_own_tests(kind, tmp_path):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel, where there is no network to get it from")
    package, site = tmp_path / "package", tmp_path / "site-packages"
    new_plugin("my_plugin", package, kind)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=package, check=True, capture_output=True, timeout=400)
    (wheel,) = (tmp_path / "dist").iterdir()
    # Unpacking is all that installing a pure wheel comes to.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (package / "chestxray_my_plugin.py").unlink()  # what is tested is what was installed
    code = (
        "import sys, pytest\n"
        "from chestxray import registry\n"
        f"registry.load_plugin('{registry.GROUPS[kind]}', 'chestxray-my-plugin:my_plugin')\n"
        "assert 'keras' not in sys.modules, 'listing models would have to wait for keras'\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider']))"
    )
    tested = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "1 passed" in tested.stdout
