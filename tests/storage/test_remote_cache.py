import fsspec
import numpy as np
import pytest

from chestxray.data import decoded as decoding
from chestxray.data.sources import load_index
from chestxray.data.sources.phantom import drawn_files
from chestxray.recipe import Recipe
from chestxray.storage import cache


@pytest.fixture(params=["file", "memory"])
def address(request, tmp_path):
    if request.param == "file":
        return f"file://{tmp_path}/store"
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return "memory://bucket"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that moves to a machine of that name, which has a cache of its own at the same path."""
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    at = None

    def move(name):
        nonlocal at
        if at is not None:
            home.rename(tmp_path / at)
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name).rename(home)
        at = name

    return move


def prepared(address):
    """Draw and decode a set with the cache at the address; return its pixels and whether they were there."""
    root = cache.root(address)
    index = load_index(Recipe(data="phantom:images=6,size=32"), root)
    found = decoding.decode(index, (8, 8), "stretch", root)
    return np.array(found.pixels), found.reused


def test_what_one_machine_made_another_fetches(address, machine, monkeypatch):
    machine("first")
    pixels, reused = prepared(address)
    assert not reused
    machine("second")
    monkeypatch.setattr(drawn_files, "_draw_set", lambda *_: pytest.fail("drawn again"))
    monkeypatch.setattr(decoding, "_fill", lambda *_: pytest.fail("decoded again"))
    again, reused = prepared(address)
    assert reused
    np.testing.assert_array_equal(again, pixels)
    machine("first")
    assert prepared(address)[1]


@pytest.mark.parametrize("which", ["pixels.npy", "chestxray-files"])
def test_an_entry_that_is_damaged_there_or_not_complete_is_made_anew_and_put_there(address, machine, which, caplog):
    machine("first")
    pixels, _ = prepared(address)
    store, root = fsspec.core.url_to_fs(address)
    (place,) = [name for name in store.find(root) if "/decoded/" in name and which in name]
    content = bytearray(store.cat_file(place))
    content[-3] ^= 1
    store.pipe_file(place, bytes(content))
    machine("second")
    again, reused = prepared(address)
    assert not reused
    np.testing.assert_array_equal(again, pixels)
    assert ("is damaged" in caplog.text) == (which == "pixels.npy")
    machine("third")
    assert prepared(address)[1]


def test_the_order_and_the_deletion_are_of_the_local_copy(address, machine):
    machine("first")
    prepared(address)
    root = cache.root(address)
    assert {entry.kind for entry in cache.entries(root)} == {"phantom", "decoded"}
    assert cache.root(address) == root != cache.root(f"{address}/other")
