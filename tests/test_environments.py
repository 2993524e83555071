"""The environments of the tests: a name without a section would run the whole suite again, and none is forgotten."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environments():
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "tox.ini", encoding="utf-8")
    return settings, settings["tox"]["env_list"].split()


def test_each_has_a_section():
    settings, names = environments()
    assert len(names) > 10
    assert [name for name in names if f"testenv:{name}" not in settings] == []


def test_the_workflow_runs_each():
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^ +env: \[(.*)\]$", workflow, re.MULTILINE)
    assert listed.split(", ") == environments()[1]


def test_folders_with_an_environment_of_their_own_are_left_out_of_the_suite():
    settings, _ = environments()
    own = re.findall(
        r"tests/(\w+)(?![\w./])", " ".join(settings[name].get("commands", "") for name in settings.sections()[1:])
    )
    left_out = re.findall(r"--ignore=tests/(\w+)", settings["testenv"]["elsewhere"])
    folders = {name for name in own if (ROOT / "tests" / name).is_dir()}
    assert folders == set(left_out)
