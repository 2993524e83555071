import subprocess
import sys

import pytest
from click.testing import CliRunner

from chestxray.cli.main import group
from chestxray.data.sources.phantom import plugin
from chestxray.plugin import SourceOptions
from chestxray.storage import cache


def call(*arguments):
    """Call ``chestxray cache`` and return its output and exit code."""
    result = CliRunner().invoke(group, ["cache", *arguments], standalone_mode=False, catch_exceptions=False)
    return result.output, result.return_value


def phantoms(root, seed):
    """Draw a set in a process that ends, so that it is not in use."""
    code = (
        "import sys; from pathlib import Path; from chestxray.data.sources.phantom import plugin\n"
        "from chestxray.plugin import SourceOptions\n"
        "plugin.load(f'images=4,size=32,seed={sys.argv[2]}', SourceOptions(cache=Path(sys.argv[1])))"
    )
    before = {entry.path for entry in cache.entries(root)}
    subprocess.run([sys.executable, "-c", code, str(root), str(seed)], check=True, timeout=120)
    (made,) = {entry.path for entry in cache.entries(root)} - before
    return made


def test_show_and_clear(tmp_path):
    root = cache.root(tmp_path / "c")
    (root / "decoded" / "x").mkdir(parents=True)
    (root / "decoded" / "x" / "pixels.npy").write_bytes(b"0" * 2_000_000)
    (line, _) = call("show", "--cache", str(root))[0].splitlines()
    assert line.split() == ["2.0", "MB", "unknown", "decoded/x"]
    assert "Freed 2.0 MB" in call("clear", "--cache", str(root), "--kind", "decoded")[0]
    assert not (root / "decoded" / "x").exists()


def test_verify_names_what_is_damaged_and_deletes_it_on_request(tmp_path):
    root = cache.root(tmp_path / "c")
    whole, damaged = phantoms(root, 1), phantoms(root, 2)
    assert call("verify", "--cache", str(root)) == (f"2 whole, in {root}\n", 0)
    film = next(damaged.rglob("*.png"))
    content = bytearray(film.read_bytes())
    content[len(content) // 2] ^= 1
    film.write_bytes(content)
    output, code = call("verify", "--cache", str(root))
    assert code == 1
    assert f"damaged: phantom/{damaged.name}: {film.relative_to(damaged)} has other content" in output
    assert "1 damaged, 1 whole" in output
    output, code = call("verify", "--delete", "--cache", str(root))
    assert code == 0
    assert "; deleted" in output
    assert [entry.path for entry in cache.entries(root)] == [whole]


def test_what_is_no_entry_of_ours_and_what_is_incomplete_is_said(tmp_path):
    root = cache.root(tmp_path / "c")
    (root / "tensorflow_datasets" / "downloads").mkdir(parents=True)
    (root / "decoded" / "y.partial").mkdir(parents=True)
    output, code = call("verify", "--cache", str(root))
    assert code == 0
    assert "unsealed: tensorflow_datasets/downloads" in output
    assert "incomplete: decoded/y.partial" in output


def test_prune_deletes_what_was_not_used_for_longest(tmp_path, monkeypatch):
    root = cache.root(tmp_path / "c")
    made = [phantoms(root, seed) for seed in (1, 2, 3)]
    (root / "decoded" / "left.partial").mkdir(parents=True)
    # The oldest is used again, by a process that is still running when pruning starts: this one.
    assert plugin.load("images=4,size=32,seed=1", SourceOptions(cache=root)).rows["path"][0].startswith(str(made[0]))
    size = {entry.path: entry.bytes for entry in cache.entries(root)}
    output, _ = call("prune", "--cache", str(root), "--keep-gb", str((size[made[0]] + size[made[2]]) / 1e9))
    assert [line.split("MB")[1].split()[0] for line in output.splitlines()[:-1]] == [
        "decoded/left.partial:",
        f"phantom/{made[1].name}:",
    ]
    assert {entry.path for entry in cache.entries(root)} == {made[0], made[2]}
    output, _ = call("prune", "--cache", str(root), "--keep-gb", "0")
    assert f"phantom/{made[0].name}: kept, since a running process uses it" in output
    assert {entry.path for entry in cache.entries(root)} == {made[0]}


def test_the_order_of_uses_does_not_depend_on_the_clock(tmp_path, monkeypatch):
    root = cache.root(tmp_path / "c")
    first, second = phantoms(root, 1), phantoms(root, 2)
    record = root / ".use" / "phantom" / f"{first.name}.json"
    # As noted while the clock was years ahead.
    record.write_text(record.read_text().replace('"when": "20', '"when": "29'))
    call("prune", "--cache", str(root), "--keep-gb", "0.00001")
    assert second.exists() >= first.exists()
    assert not first.exists()


@pytest.mark.parametrize("command", [["prune", "--keep-gb", "0"], ["clear"]])
def test_a_folder_that_is_no_cache_is_left_alone(tmp_path, command):
    (tmp_path / "thesis.txt").write_text("years of work")
    result = CliRunner().invoke(group, ["cache", *command, "--cache", str(tmp_path)])
    assert "nothing was deleted" in str(result.exception)
    assert (tmp_path / "thesis.txt").exists()
