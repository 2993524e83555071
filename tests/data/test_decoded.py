import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chestxray.data import decoded as decoding
from chestxray.data import decoding_parts
from chestxray.data.decoded import decode, readable
from chestxray.data.sources.folder import load
from chestxray.errors import DataError, InputError
from chestxray.execution.executor import Executor
from chestxray.plugin import SourceOptions


@pytest.fixture
def index(folder, tmp_path):
    return load(str(folder), SourceOptions(cache=tmp_path))


def plain(index, size):
    """The plain way: Pillow, one file after the other."""
    images = [
        Image.open(path).convert("L").resize(size[::-1], Image.Resampling.BILINEAR) for path in index.rows["path"]
    ]
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("processes", [1, 2])
def test_equals_the_plain_way(index, tmp_path, processes, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK", 5)  # enough chunks for processes to be worth starting
    result = decode(index, (16, 12), "stretch", tmp_path, processes=processes)
    assert result.pixels.dtype == np.uint8
    np.testing.assert_array_equal(result.pixels, plain(index, (16, 12)))
    assert result.facts["width"].tolist() == [24] * len(index)
    assert result.facts["pixel_hash"].nunique() == len(index)


def test_equals_the_plain_way_in_parts(index, tmp_path, monkeypatch):
    alone = decode(index, (16, 12), "stretch", tmp_path / "alone")
    monkeypatch.setattr(decoding, "CHUNK", 5)
    monkeypatch.setattr(decoding_parts, "FEWEST", 10)
    result = decode(index, (16, 12), "stretch", tmp_path, executor=Executor("local", workers=2))
    np.testing.assert_array_equal(result.pixels, plain(index, (16, 12)))
    pd.testing.assert_frame_equal(result.facts, alone.facts)


def test_parts_decode_only_what_is_missing(index, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK", 5)
    monkeypatch.setattr(decoding_parts, "FEWEST", 5)
    plain_by, decoded = decoding_parts.decoded_by, []

    def stops(executor, chunks, way):
        for number, done in enumerate(plain_by(executor, chunks, way)):
            decoded.append(done)
            if number == 2:
                raise KeyboardInterrupt
            yield done

    def goes_on(executor, chunks, way):
        for done in plain_by(executor, chunks, way):
            decoded.append(done)
            yield done

    monkeypatch.setattr(decoding, "decoded_by", stops)
    with pytest.raises(KeyboardInterrupt):
        decode(index, (16, 12), "stretch", tmp_path, executor=Executor("local", workers=2))
    monkeypatch.setattr(decoding, "decoded_by", goes_on)
    result = decode(index, (16, 12), "stretch", tmp_path, executor=Executor("local", workers=2))
    assert len(decoded) == -(-len(index) // 5) + 1, "only the chunk that was not kept is decoded twice"
    np.testing.assert_array_equal(result.pixels, plain(index, (16, 12)))


def test_a_node_with_other_images_is_refused(index):
    paths = index.rows["path"].tolist()
    way = decoding_parts.Way((8, 8), "stretch", 10**6)
    sizes = [Path(path).stat().st_size for path in paths]
    with pytest.raises(InputError, match=rf"does not see {re.escape(paths[1])}, but another file there"):
        decoding_parts.decode_share([decoding_parts.Chunk(0, paths)], [[sizes[0], 1, *sizes[2:]]], way)
    with pytest.raises(InputError, match=r"does not see /nowhere\.png, but none: images must be seen"):
        decoding_parts.decode_share([decoding_parts.Chunk(0, ["/nowhere.png"])], [[5]], way)
    ((_, pixels, facts),) = decoding_parts.decode_share([decoding_parts.Chunk(0, ["/nowhere.png"])], [[-1]], way)
    assert not pixels.any()
    assert facts[0][-1], "what the driver does not see either is unreadable"


def test_the_second_time_nothing_is_decoded(index, tmp_path, monkeypatch):
    decode(index, (8, 8), "stretch", tmp_path)
    monkeypatch.setattr(decoding_parts, "read", lambda *_, **__: pytest.fail("decoded again"))
    assert decode(index, (8, 8), "stretch", tmp_path).reused


def test_a_changed_file_is_decoded_again(index, tmp_path, draw):
    before = decode(index, (8, 8), "stretch", tmp_path)
    draw(Path(index.rows["path"][0]), 99, (30, 30))
    after = decode(index, (8, 8), "stretch", tmp_path)
    assert not after.reused
    assert (before.pixels[0] != after.pixels[0]).any()
    np.testing.assert_array_equal(before.pixels[1:], after.pixels[1:])


def test_an_interrupted_decoding_goes_on_where_it_stopped(index, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK", 10)
    read, calls = decoding_parts.read, []

    def stops(path, **options):
        calls.append(path)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return read(path, **options)

    monkeypatch.setattr(decoding_parts, "read", stops)
    with pytest.raises(KeyboardInterrupt):
        decode(index, (8, 8), "stretch", tmp_path, processes=1)
    assert not [path for path in (tmp_path / "decoded").iterdir() if path.is_dir() and path.suffix != ".partial"]
    result = decode(index, (8, 8), "stretch", tmp_path, processes=1)
    assert len(calls) == 25 + len(index) - 20, "the two finished chunks of ten are not decoded again"
    np.testing.assert_array_equal(result.pixels, plain(index, (8, 8)))


def test_unreadable_files_are_named_with_their_reason(index, tmp_path, caplog):
    path = Path(index.rows["path"][3])
    path.write_text("not a picture")
    result = decode(index, (8, 8), "stretch", tmp_path)
    rows = readable(index, result, limit=0.05).rows
    assert rows.loc[rows["unreadable"] != "", "path"].tolist() == [str(path)]
    assert "not an image" in rows["unreadable"][3]
    assert str(path) in caplog.text
    with pytest.raises(DataError, match="1 of 48 images cannot be read"):
        readable(index, result, limit=0.01)


def test_a_class_that_cannot_be_read_at_all_stops(index, tmp_path):
    for path in index.rows.loc[index.rows["label"] == "normal", "path"]:
        Path(path).write_bytes(b"")
    result = decode(index, (8, 8), "stretch", tmp_path)
    with pytest.raises(DataError, match="None of the 24 images of class 'normal' can be read"):
        readable(index, result, limit=1.0)


@pytest.mark.parametrize("name", ["pixels.npy", "facts.parquet", "seal.json"])
@pytest.mark.parametrize("place", [3, 0.5, -1])
def test_what_was_damaged_in_the_cache_is_decoded_again(index, tmp_path, caplog, name, place):
    before = decode(index, (8, 8), "stretch", tmp_path)
    path = before.folder / name
    damaged = bytearray(path.read_bytes())
    damaged[int(place * len(damaged)) if place == 0.5 else place] ^= 1
    path.write_bytes(damaged)
    assert decoding.known(tmp_path, before.folder.name) is None
    after = decode(index, (8, 8), "stretch", tmp_path)
    assert not after.reused
    assert "Damaged in the cache" in caplog.text
    np.testing.assert_array_equal(after.pixels, plain(index, (8, 8)))
    assert after.facts.equals(before.facts)
    assert decode(index, (8, 8), "stretch", tmp_path).reused


@pytest.mark.parametrize("name", ["pixels.npy", "chunks/000000010.parquet", "chunks/000000010.json"])
def test_of_an_interrupted_decoding_a_damaged_chunk_is_decoded_again(index, tmp_path, monkeypatch, name):
    monkeypatch.setattr(decoding, "CHUNK", 10)
    read, calls = decoding_parts.read, []

    def stops(path, **options):
        calls.append(path)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return read(path, **options)

    monkeypatch.setattr(decoding_parts, "read", stops)
    with pytest.raises(KeyboardInterrupt):
        decode(index, (8, 8), "stretch", tmp_path, processes=1)
    (partial,) = tmp_path.glob("decoded/*.partial")
    damaged = bytearray((partial / name).read_bytes())
    damaged[128 + 15 * 64 if name == "pixels.npy" else len(damaged) // 2] ^= 1
    (partial / name).write_bytes(damaged)
    result = decode(index, (8, 8), "stretch", tmp_path, processes=1)
    assert len(calls) == 25 + len(index) - 10, "one of the two finished chunks is as it was"
    np.testing.assert_array_equal(result.pixels, plain(index, (8, 8)))


@pytest.mark.parametrize("times", [1, 9])
def test_a_worker_that_the_system_kills_is_replaced_or_named(index, tmp_path, times):
    """In a process of its own, where the decoding function that workers import can be exchanged."""
    import subprocess
    import sys
    import textwrap

    flag = tmp_path / "flag"
    flag.mkdir()
    code = f"""
    import os, signal, sys
    from pathlib import Path
    from chestxray.data import decoded as decoding
    from chestxray.data.sources.folder import load
    from chestxray.plugin import SourceOptions

    def killed(partial, chunk, way):
        flag = Path({str(flag)!r})
        if chunk.start == 30 and len(list(flag.iterdir())) < {times}:
            (flag / str(len(list(flag.iterdir())))).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(partial, chunk, way)

    plain, decoding._decode_chunk, decoding.CHUNK = decoding._decode_chunk, killed, 5
    root = Path({str(tmp_path)!r})
    index = load(str(root / "xrays"), SourceOptions(cache=root))
    found = decoding.decode(index, (16, 12), "stretch", root, processes=2)
    sys.stdout.buffer.write(found.pixels.tobytes())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=300)
    if times == 1:
        assert done.stdout == plain(index, (16, 12)).tobytes(), done.stderr.decode()
        assert b"was killed" in done.stderr
    else:
        assert b"A process that decodes images was killed 3 times" in done.stderr
        assert len(list(flag.iterdir())) == 3
