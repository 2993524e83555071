from click.testing import CliRunner

from chestxray.cli.main import group
from chestxray.storage import cache


def test_show_and_clear(tmp_path):
    root = cache.root(tmp_path / "c")
    (root / "decoded" / "x").mkdir(parents=True)
    (root / "decoded" / "x" / "pixels.npy").write_bytes(b"0" * 2_000_000)
    shown = CliRunner().invoke(group, ["cache", "show", "--cache", str(root)])
    assert "2.0 MB  decoded/x" in shown.output
    cleared = CliRunner().invoke(group, ["cache", "clear", "--cache", str(root), "--kind", "decoded"])
    assert "Freed 2.0 MB" in cleared.output
    assert not (root / "decoded" / "x").exists()
