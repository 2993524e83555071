"""Metadata of installed packages, sound and damaged."""

import importlib
import os
import subprocess
import sys

import pytest

from chestxray import distributions, registry

SOUND = {
    "METADATA": b"Metadata-Version: 2.1\nName: strange-net\nVersion: 1.0\n",
    "entry_points.txt": "".join(f"[{group}]\nstrange = strange_net:plugin\n" for group in registry.KIND).encode(),
}


@pytest.fixture
def lay(tmp_path, monkeypatch):
    """Installs `strange-net` with some of its files replaced and returns its folder."""

    def lay(**replaced):
        info = tmp_path / "strange_net-1.0.dist-info"
        info.mkdir()
        for name, content in (SOUND | replaced).items():
            (info / name).write_bytes(content)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        return info

    return lay


def listed(points):
    return sorted((point.group, point.name, point.value, name, version) for point, name, version in points)


@pytest.mark.parametrize("group", registry.KIND)
def test_reading_one_by_one_gives_what_the_library_gives(lay, group):
    lay()
    every = listed(distributions.points(group))
    assert every
    assert listed(distributions._readable_points(group)) == every
    assert distributions.damaged() == []


def test_a_package_that_is_shadowed_by_another_of_its_name_has_no_entry_points(lay, tmp_path, monkeypatch):
    lay()
    other = tmp_path / "first" / "Strange.Net-2.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_bytes(SOUND["METADATA"].replace(b"1.0", b"2.0").replace(b"strange-net", b"Strange.Net"))
    monkeypatch.syspath_prepend(other.parent)
    importlib.invalidate_caches()
    assert listed(distributions._readable_points(registry.MODELS)) == listed(distributions.points(registry.MODELS))
    assert "strange" not in [point.name for point, *_ in distributions.points(registry.MODELS)]


DAMAGED = [
    ("METADATA", b"Metadata-Version: 2.1\nName: strange-net\nVersion: 1.0\nAuthor: \xff\xfe\n"),
    ("entry_points.txt", b"[chestxray.models]\nstrange\n"),
    ("entry_points.txt", b"\xff\xfe"),
]


@pytest.mark.parametrize(("name", "content"), DAMAGED)
def test_damage_costs_that_package_alone(lay, name, content):
    others = {point.name for point, *_ in distributions.points(registry.MODELS)}
    info = lay(**{name: content})
    assert {point.name for point, *_ in distributions.points(registry.MODELS)} == others
    (found,) = distributions.damaged()
    assert found["path"] == str(info)
    assert found["why"].startswith(("UnicodeDecodeError: ", "TypeError: "))


def test_a_package_of_damaged_metadata_is_as_good_as_absent(lay):
    lay(METADATA=DAMAGED[0][1])
    assert distributions.find("strange-net") is None
    assert distributions.find("absent-net") is None
    assert distributions.find("numpy").version


def test_metadata_without_a_name_or_a_version_are_read(lay):
    lay(METADATA=b"Metadata-Version: 2.1\n")
    (entry,) = [entry for entry in registry.entries(registry.MODELS) if entry.name == "strange"]
    assert (entry.distribution, entry.version) == ("", "")


def test_commands_survive_a_damaged_package(lay):
    info = lay(METADATA=DAMAGED[0][1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(info.parent), os.environ.get("PYTHONPATH", "")])}
    for arguments in (["models", "--json"], ["doctor"]):
        command = [sys.executable, "-c", "from chestxray.cli.main import main; main()", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert "Traceback" not in done.stderr
        if arguments[0] == "doctor":
            assert "strange_net-1.0.dist-info cannot be read: UnicodeDecodeError" in done.stdout
        else:
            assert (done.returncode, "shallow_cnn" in done.stdout) == (0, True), done.stderr
