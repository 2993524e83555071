import pytest

from chestxray.errors import InputError
from chestxray.storage import cache


def test_the_environment_moves_it_and_an_argument_moves_it_further(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.ENVIRONMENT, str(tmp_path / "a"))
    assert cache.root() == tmp_path / "a"
    assert cache.root(tmp_path / "b") == tmp_path / "b"


def test_clear_deletes_one_kind_and_says_how_much(tmp_path):
    root = cache.root(tmp_path / "c")
    for kind in ("decoded", "phantom"):
        (root / kind / "x").mkdir(parents=True)
        (root / kind / "x" / "data").write_bytes(b"12345")
    assert [(e.kind, e.bytes) for e in cache.entries(root)] == [("decoded", 5), ("phantom", 5)]
    assert cache.clear(root, "decoded") == (5, [])
    assert [e.kind for e in cache.entries(root)] == ["phantom"]


def test_clear_refuses_a_folder_that_is_not_ours(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="nothing was deleted"):
        cache.clear(cache.root(tmp_path))
    assert (tmp_path / "thesis.txt").exists()
