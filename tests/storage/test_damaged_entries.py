"""A byte that changed anywhere in any kind of cache entry is never used: it is noticed, and the entry made anew."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import public_trees
from chestxray.data.decoded import decode
from chestxray.data.sources.materialised import Contents, converted
from chestxray.data.sources.phantom import plugin
from chestxray.errors import DataError
from chestxray.models import xla_compilation
from chestxray.plugin import SourceOptions
from chestxray.storage import cache, cache_check, checked_json, row_checksums, seal

FLIPS = 12


def png(number):
    buffer = io.BytesIO()
    public_trees.phantom(number).resize((24, 24)).save(buffer, format="PNG")
    return buffer.getvalue()


def phantom(root):
    """What a run takes from a set of phantoms: every row, and every byte of every file."""
    rows = plugin.load("images=6,size=32", SourceOptions(cache=root)).rows
    return rows.to_csv(), b"".join(Path(path).read_bytes() for path in rows["path"])


def materialised(root):
    """The same of a set that was written to the cache as image files."""
    items = [("train", "ab"[n % 2], f"p{n}", "", png(n)) for n in range(6)]
    rows = converted("huggingface", "set", {}, SourceOptions(cache=root), lambda: Contents(items)).rows
    return rows.to_csv(), b"".join(Path(path).read_bytes() for path in rows["path"])


@pytest.fixture
def decoded(folder, tmp_path):
    from chestxray.data.sources.folder import load

    index = load(str(folder), SourceOptions(cache=tmp_path))

    def opened(root):
        found = decode(index, (8, 8), "stretch", root)
        return found.facts.to_csv(), np.array(found.pixels).tobytes()

    return opened


def flipped(root, seed):
    """Flip one bit of one byte of the entries, drawn by `seed`; return the file."""
    rng = np.random.default_rng(seed)
    files = sorted(
        path for path in root.glob("*/*/**/*") if path.is_file() and path.stat().st_size and ".use" not in path.parts
    )
    path = files[rng.integers(len(files))]
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["phantom", "materialised", "decoded"])
def test_one_flipped_bit_is_noticed_and_made_anew(kind, tmp_path, caplog, request):
    opened = request.getfixturevalue("decoded") if kind == "decoded" else globals()[kind]
    root = cache.root(tmp_path / "cache")
    whole = opened(root)
    for seed in range(FLIPS):
        caplog.clear()
        file = flipped(root, seed)
        (entry,) = cache.entries(root)
        assert cache_check.verify(entry)[0] == "damaged", file
        assert opened(root) == whole, file
        assert "Damaged in the cache" in caplog.text, file
        assert cache_check.verify(*cache.entries(root)) == ("whole", [])


def test_a_flipped_bit_of_activations_is_noticed_by_row(tmp_path):
    root = cache.root(tmp_path)
    folder = root / "activations" / "x"
    folder.mkdir(parents=True)
    values = np.random.default_rng(0).random((20, 3, 3), np.float32)
    sums = row_checksums.of([values], np.arange(20))
    sums[15:] = 0  # not computed yet
    for seed in range(FLIPS):
        np.save(folder / "0.npy", values)
        np.save(folder / row_checksums.FILE, sums)
        assert cache_check.verify(*cache.entries(root)) == ("whole", [])
        content = bytearray((folder / "0.npy").read_bytes())
        place = 128 + np.random.default_rng(seed).integers(15 * 36)
        content[place] ^= 1
        (folder / "0.npy").write_bytes(content)
        assert cache_check.verify(*cache.entries(root)) == ("damaged", ["1 of 15 rows have other content"])


def test_a_flipped_bit_of_a_timing_is_measured_again(tmp_path):
    root = cache.root(tmp_path)
    file = root / "jit" / "x.json"
    for seed in range(4 * FLIPS):
        checked_json.write(file, {"plain": 1.0, "xla": 0.5, "compiling": 3.0})
        content = bytearray(file.read_bytes())
        rng = np.random.default_rng(seed)
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        file.write_bytes(content)
        assert xla_compilation._read(file) is None
        assert cache_check.verify(*cache.entries(root))[0] == "damaged"


def test_of_a_large_set_what_was_not_hashed_on_opening_is_found_when_it_is_decoded(tmp_path, monkeypatch, caplog):
    root = cache.root(tmp_path)
    items = [("train", "ab"[n % 2], f"p{n}", "", png(n)) for n in range(6)]

    def opened():
        return converted("huggingface", "set", {}, SourceOptions(cache=root), lambda: Contents(items))

    index = opened()
    monkeypatch.setattr(seal, "OPENING", 1500)
    path = root.joinpath(index.rows["path"][1])
    pixels = 255 - np.asarray(Image.open(path))
    size = path.stat().st_size
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:size].ljust(size, b"\0"))
    index = opened()
    assert "Damaged" not in caplog.text, "the file is outside of the sample"
    with pytest.raises(DataError, match=r"1 images of huggingface/set-\w+ in the cache are damaged"):
        decode(index, (8, 8), "stretch", root)
    assert not list(root.glob("decoded/*.partial"))
    monkeypatch.undo()
    again = opened()
    assert "Damaged in the cache" in caplog.text
    assert not decode(again, (8, 8), "stretch", root).reused


def test_files_that_are_missing_or_cut_are_named(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"12345")
    seal.write(tmp_path)
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_bytes(b"123")
    assert seal.damage(tmp_path) == ["a: no such file or directory", "b has 3 bytes of 5"]
