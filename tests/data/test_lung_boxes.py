"""The box around the lungs, and images that are cut to it when they are decoded."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chestxray.data import data_changes, decoded, lung_boxes
from chestxray.data.decoded import decode, opened, readable
from chestxray.data.images import reading
from chestxray.data.images.pixels import FILTER, corners
from chestxray.data.sources.folder import load
from chestxray.errors import DataError
from chestxray.execution.executor import Executor
from chestxray.plugin import SourceOptions


class Bright:
    """Takes what is brighter than the half for lungs."""

    def __init__(self, identity="bright 1"):
        self.identity = identity
        self.seen = 0

    def boxes(self, films):
        assert films.shape[1:] == (lung_boxes.SIDE, lung_boxes.SIDE)
        self.seen += len(films)
        return [lung_boxes.box_of(film > 127) for film in films]


@pytest.fixture
def index(tmp_path):
    """Films of 60 to 120 pixels with a bright part, and two without."""
    rng = np.random.default_rng(4)
    for number in range(24):
        high, wide = rng.integers(60, 120, 2)
        film = rng.integers(0, 90, (high, wide), dtype=np.uint8)
        if number not in (3, 17):
            film[high // 4 : high // 4 + 30, wide // 5 : wide // 5 + 25] += 130
        path = tmp_path / "films" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(film).save(path)
    return load(str(tmp_path / "films"), SourceOptions(cache=tmp_path))


def plain(index, size):
    """The plain way: each film alone, read whole, cut and resized by Pillow."""
    made = []
    for path in index.rows["path"]:
        film = Image.open(path)
        small = np.asarray(film.resize((lung_boxes.SIDE, lung_boxes.SIDE), FILTER))
        if (box := lung_boxes.box_of(small > 127)) is not None:
            film = film.crop(corners(box, *film.size))
        made.append(np.asarray(film.resize(size[::-1], FILTER)))
    return np.stack(made)


@pytest.mark.parametrize("way", [{"processes": 1}, {"processes": 2}, {"executor": Executor("local", workers=2)}])
def test_images_are_cut_at_their_own_resolution(index, tmp_path, monkeypatch, way, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(decoded, "CHUNK", 5)
    made = decode(index, (16, 12), "stretch", tmp_path, lungs=Bright(), **way)
    np.testing.assert_array_equal(made.pixels, plain(index, (16, 12)))
    assert list(made.facts.index[made.facts[lung_boxes.COLUMN] == ""]) == [
        place for place, path in enumerate(index.rows["path"]) if path[-6:-4] in ("03", "17")
    ]
    assert "No plausible lungs in 2 of 24 images: they are used whole." in caplog.text
    assert made.films.shape == (24, lung_boxes.SIDE, lung_boxes.SIDE), "copies are looked for in whole films"
    np.testing.assert_array_equal(made.films, decoded.whole(index, tmp_path).pixels)
    assert lung_boxes.COLUMN in readable(index, made, 0.0).rows


def test_a_cut_image_is_never_taken_for_a_whole_one_or_for_one_of_another_segmenter(index, tmp_path):
    size, first, second = (16, 12), Bright(), Bright("bright 2")
    whole = decode(index, size, "stretch", tmp_path)
    assert whole.films is whole.pixels and lung_boxes.COLUMN not in whole.facts
    assert opened(index, size, "stretch", tmp_path, lungs=first) is None
    cut = decode(index, size, "stretch", tmp_path, lungs=first)
    assert not cut.reused and (cut.pixels != whole.pixels).any()
    assert not decode(index, size, "stretch", tmp_path, lungs=second).reused
    again = decode(index, size, "stretch", tmp_path, lungs=first)
    assert again.reused and first.seen == 24, "lungs are looked for once"
    pd.testing.assert_frame_equal(again.facts, cut.facts)
    found = opened(index, size, "stretch", tmp_path, lungs=first)
    np.testing.assert_array_equal(found.pixels, cut.pixels)
    np.testing.assert_array_equal(found.films, cut.films)


def test_an_interrupted_search_goes_on_where_it_stopped(index, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "BLOCK", 10)
    lungs, find = Bright(), Bright.boxes

    def stops(self, films):
        if self.seen == 20:
            raise KeyboardInterrupt
        return find(self, films)

    with monkeypatch.context() as patch:
        patch.setattr(Bright, "boxes", stops)
        with pytest.raises(KeyboardInterrupt):
            decode(index, (16, 12), "stretch", tmp_path, lungs=lungs, processes=1)
    made = decode(index, (16, 12), "stretch", tmp_path, lungs=lungs, processes=1)
    assert lungs.seen == 24
    np.testing.assert_array_equal(made.pixels, plain(index, (16, 12)))
    assert not (made.folder / "boxes").exists()


def test_unreadable_images_stay_unreadable(index, tmp_path, caplog):
    Path(index.rows["path"][0]).write_bytes(b"no image")
    made = decode(index, (8, 8), "stretch", tmp_path, lungs=Bright())
    assert not made.pixels[0].any() and made.facts["unreadable"][0]
    assert "in 2 of 23 images" in caplog.text


def test_other_boxes_are_changed_data(index):
    began = index.replace(index.rows.assign(**{lung_boxes.COLUMN: "0.1,0.1,0.9,0.9"}))
    data_changes.require_same(began, began, "the same")
    now = began.rows.copy()
    now.loc[4, lung_boxes.COLUMN] = ""
    with pytest.raises(DataError, match="1 image is cut to other lungs, by another segmenter than before"):
        data_changes.require_same(began, index.replace(now), "the same")


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_jpeg_keeps_the_resolution_of_its_part(tmp_path, orientation):
    """It is decoded at a part of its size where that is enough for the whole image, and not for its box."""
    rows, columns = np.mgrid[:800, :640]
    film = Image.fromarray((127 + 100 * np.sin(rows / 9) * np.sin(columns / 7)).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    film.save(tmp_path / "film.jpg", quality=95, exif=exif)
    box, size = (0.25, 0.5, 0.5, 0.75), (150, 150)
    whole = Image.fromarray(reading.read(tmp_path / "film.jpg").pixels)
    expected = np.asarray(whole.crop(corners(box, *whole.size)).resize(size, FILTER), float)
    found = reading.read(tmp_path / "film.jpg", size=size, box=box)
    assert (found.width, found.height) == (640, 800), "facts are those of the file"
    assert np.abs(found.pixels - expected).mean() < 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2)])
def test_the_smallest_films_have_a_pixel_left(shape, tmp_path):
    Image.fromarray(np.full(shape, 200, np.uint8)).save(tmp_path / "film.png")
    found = reading.read(tmp_path / "film.png", size=(4, 4), box=(0.9999, 0.0, 1.0, 0.0001))
    assert (found.pixels == 200).all()


def test_a_box_has_its_margin_within_the_film():
    mask = np.zeros((128, 128), bool)
    assert lung_boxes.box_of(mask) is None
    mask[0:60, 40:88] = True
    left, top, right, bottom = lung_boxes.box_of(mask)
    assert top == 0 and (right - left) * 128 == pytest.approx(48 * (1 + 2 * lung_boxes.MARGIN), abs=0.05)
    assert bottom * 128 == pytest.approx(60 * (1 + lung_boxes.MARGIN), abs=0.05)


@pytest.mark.parametrize("text", ["0.1,0.2,0.3", "a,b,c,d", "0.5,0,0.4,1", "0,0,1,nan", "-1,0,1,1"])
def test_a_damaged_box_is_told(text):
    with pytest.raises(DataError, match="must be four shares of a film"):
        lung_boxes.from_text(text)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_masks_of_whole_films_are_cut_as_the_films_are(fit, tmp_path):
    drawn = np.zeros((90, 60), bool)
    drawn[30:60, 15:40] = True
    Image.fromarray(np.where(drawn, 255, 0).astype(np.uint8)).save(tmp_path / "film.png")
    box = (0.2, 0.25, 0.8, 0.75)
    expected = reading.read(tmp_path / "film.png", size=(32, 32), fit=fit, box=box).pixels > 127
    small = reading.read(tmp_path / "film.png", size=(128, 128)).pixels > 127
    found = lung_boxes.masks_within(small[None], [box], [(60, 90)], (32, 32), fit)[0]
    assert (found != expected).mean() < 0.05 and expected.mean() > 0.2
