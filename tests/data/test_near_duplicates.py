import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from chestxray.data import near_duplicates, neighbours
from chestxray.data.decoded import decode, readable
from chestxray.data.descriptors import _sampling
from chestxray.data.grouping import dependent_groups
from chestxray.data.image_registration import SIDE, correlations, placement
from chestxray.data.near_duplicates import mark, pairs
from chestxray.data.sources import folder
from chestxray.plugin import SourceOptions
from chestxray.runs.provenance import fingerprint
from made import make_index


def film(seed, size=96):
    """Noise that falls with the frequency as in a radiograph: no two are alike."""
    rng = np.random.default_rng(seed)
    down, right = np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij")
    amplitude = np.maximum(np.hypot(down, right), 1 / size) ** -1.5
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * amplitude, s=(size, size))
    return np.clip(120 + 35 * noise / noise.std(), 0, 255).astype(np.uint8)


def edit(change):
    """A change of a pillow image as one of an array."""
    return lambda image: np.asarray(change(Image.fromarray(image)))


def jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def resized(image):
    size = image.shape[0]
    return np.asarray(Image.fromarray(image).resize((round(0.9 * size),) * 2).resize((size, size)))


def cropped(image, share=0.03):
    size = image.shape[0]
    edge = share * size
    return np.asarray(Image.fromarray(image).resize((size, size), box=(edge, edge, size - edge, size - edge)))


def padded(image):
    size = image.shape[0]
    whole = Image.new("L", (size, size))
    whole.paste(Image.fromarray(image).resize((round(0.9 * size),) * 2, Image.Resampling.BILINEAR), (size // 20,) * 2)
    return np.asarray(whole)


def brighter(image):
    return np.clip(image * 1.2 + 15.0, 0, 255).astype(np.uint8)


def turned(degrees):
    return edit(lambda image: image.rotate(degrees, Image.Resampling.BILINEAR))


def with_text(image):
    changed = Image.fromarray(image)
    ImageDraw.Draw(changed).text((6, 4), "AP 14:32", fill=255, font=ImageFont.load_default(size=9))
    return np.asarray(changed)


EDITS = {"jpeg": jpeg, "resize": resized, "crop": cropped, "brighter": brighter}
FURTHER = {
    "crop_5": lambda image: cropped(image, 0.05),
    "padded": padded,
    "mirrored": edit(ImageOps.mirror),
    "upside_down": edit(ImageOps.flip),
    "inverted": edit(ImageOps.invert),
    "mirrored_and_inverted": edit(lambda image: ImageOps.invert(ImageOps.mirror(image))),
    "padded_and_inverted": lambda image: 255 - padded(image),
    "equalised": edit(ImageOps.equalize),
    "text": with_text,
    "mirrored_turned_jpeg": lambda image: jpeg(turned(3)(image[:, ::-1].copy())),
    **{f"turned_{degrees}": turned(degrees) for degrees in (-5, -2, 2, 5)},
}


@pytest.mark.parametrize("edit", (EDITS | FURTHER).values(), ids=EDITS | FURTHER)
def test_edited_copies_are_found_and_nothing_else(edit):
    own = [film(seed) for seed in range(30)]
    pixels = np.stack([*own, *(edit(image) for image in own[:10])])
    found = pairs(pixels, np.arange(40))
    assert list(zip(found["first"], found["second"], strict=True)) == [(i, 30 + i) for i in range(10)]
    assert (found["correlation"] > near_duplicates.CONFIRMED).all()


def test_in_a_set_of_two_as_well():
    pixels = np.stack([film(0), cropped(film(0))])
    assert len(pairs(pixels, np.arange(2))) == 1


def test_blank_pages_are_no_copies_of_each_other():
    blank = np.full((96, 96), 200, np.uint8)
    assert pairs(np.stack([film(0), blank, blank + 1, np.zeros_like(blank)]), np.arange(4)).empty


def test_blocks_give_what_one_block_gives(monkeypatch):
    own = [film(seed) for seed in range(20)]
    pixels = np.stack([*own, *(jpeg(image) for image in own)])
    whole = pairs(pixels, np.arange(40))
    assert list(zip(whole["first"], whole["second"], strict=True)) == [(n, n + 20) for n in range(20)]
    monkeypatch.setattr(near_duplicates, "_BLOCK", 7)
    parts = pairs(pixels, np.arange(40))
    assert parts["first"].tolist() == whole["first"].tolist()
    assert parts["second"].tolist() == whole["second"].tolist()
    # A product of other shape is rounded otherwise, and of two shifts that are all but alike the other may be taken.
    assert np.allclose(parts["correlation"], whole["correlation"], atol=5e-3)


def test_cells_find_what_comparing_with_every_film_finds(monkeypatch):
    own = [film(seed) for seed in range(200)]
    edits = list((EDITS | FURTHER).values())
    pixels = np.stack([*own, *(edits[n % len(edits)](image) for n, image in enumerate(own))])
    plain = pairs(pixels, np.arange(400), least=0.5)
    assert len(neighbours.cells(np.eye(500, dtype=np.float32)).centres) == 1
    monkeypatch.setattr(neighbours, "EVERY", 100)
    monkeypatch.setattr(neighbours, "_PROBED", 16)
    assert len(neighbours.cells(np.eye(500, dtype=np.float32)).centres) > 16
    # In what pose a copy is found may differ, and with it how well it is aligned.
    pd.testing.assert_frame_equal(pairs(pixels, np.arange(400), least=0.5), plain, atol=0.05)
    assert list(zip(plain["first"], plain["second"], strict=True)) == [(n, n + 200) for n in range(200)]


def test_between_two_sets_is_found_what_is_found_in_both_together():
    own = [film(seed) for seed in range(20)]
    here = np.stack([*own, jpeg(own[0])])
    there = np.stack([film(99), *(edit(own[i]) for i, edit in enumerate(EDITS.values())), own[7]])
    found = near_duplicates.pairs_between(here, np.arange(21), there, np.arange(len(there)))
    both = pairs(np.concatenate([here, there]), np.arange(21 + len(there)))
    across = both[(both["first"] < 21) & (both["second"] >= 21)]
    assert set(zip(found["first"], found["second"], strict=True)) == {
        (row.first, row.second - 21) for row in across.itertuples()
    }
    assert {(i, i + 1) for i in range(4)} | {(20, 1), (7, 5)} == set(zip(found["first"], found["second"], strict=True))
    some = near_duplicates.pairs_between(here, np.array([7, 3]), there, np.array([5, 4]))
    assert set(zip(some["first"], some["second"], strict=True)) == {(7, 5), (3, 4)}


def test_copies_in_place_have_the_correlation_that_alignment_gives(monkeypatch):
    own = np.stack([film(seed, SIDE) for seed in range(12)])
    copies = np.stack([(brighter if n % 2 else jpeg)(image) for n, image in enumerate(own)])
    quick = correlations(own, copies)
    monkeypatch.setattr("chestxray.data.image_registration._IN_PLACE", 2.0)
    np.testing.assert_allclose(correlations(own, copies), quick, atol=5e-3)
    assert 0 < (quick > 0.95).sum() < 12


def test_every_pair_is_looked_at_once():
    many = np.stack([jpeg(np.clip(film(0) + n, 0, 255).astype(np.uint8)) for n in range(12)])
    found = pairs(many, np.arange(12))
    assert len(found) == 12 * 11 // 2
    assert (found["first"] < found["second"]).all()


def test_correlation_is_of_the_aligned_pictures():
    large = film(3, SIDE + 8).astype(np.float32)
    here, there = large[2:-6, 3:-5], 200 - 0.0 * large[4:-4, 4:-4]
    shifted = 0.5 * large[4:-4, 4:-4] + 60
    alike = correlations(np.stack([here] * 3), np.stack([shifted, there, film(4, SIDE).astype(np.float32)]))
    assert alike[0] > 0.95
    assert alike[1] == 0
    assert alike[2] < 0.5


@pytest.mark.parametrize("rotation", [-4.0, 4.0])
@pytest.mark.parametrize("scale", [0.93, 1.0])
def test_a_turned_window_lies_where_its_placement_says(monkeypatch, rotation, scale):
    monkeypatch.setattr("chestxray.data.image_registration._STAGES", ())
    own = np.stack([film(seed, SIDE) for seed in range(6)])
    window = _sampling(rotation, scale)
    copies = np.stack([(window @ one.ravel()).reshape(SIDE, SIDE) for one in own]).astype(np.uint8)
    where = [placement(np.full(6, turn), np.full(6, scale)) for turn in (rotation, -rotation)]
    assert (correlations(own, copies, where[0]) > 0.8).all()
    assert (correlations(own, copies, where[1]) < 0.6).all()


def test_what_is_black_or_white_is_not_compared():
    own = np.stack([film(seed, SIDE) for seed in range(8)])
    bright = np.clip(own * 1.3 + 60.0, 0, 255).astype(np.uint8)
    assert 0.2 < (bright == 255).mean() < 0.8
    assert (correlations(own, bright) > 0.9).all()


@pytest.fixture
def marked():
    """Films 0 and 1 are copies, and of 0 there is an exact one too; 4 cannot be read."""
    pixels = np.stack([film(0), jpeg(film(0)), film(1), film(0), np.zeros((96, 96), np.uint8), film(2)])
    index = make_index(["a", "b"] * 3, hashes=["x", "y", "z", "x", "", "w"])
    return mark(index.replace(index.rows.assign(unreadable=["", "", "", "", "empty", ""])), pixels)


def test_marks_name_whole_groups(marked):
    rows = marked.rows
    assert (rows["near_group"] != "").tolist() == [True, True, False, True, False, False]
    assert rows["near_group"][rows["near_group"] != ""].nunique() == 1
    assert rows["near_correlation"].notna().tolist() == [True, True, False, True, False, False]
    assert rows["brightness"].isna().tolist() == [False] * 4 + [True, False]
    assert rows["brightness"][0] == pytest.approx(film(0).mean())


def test_films_that_are_nearly_one_are_named_unless_they_are_known_to_be_of_one_patient(monkeypatch):
    monkeypatch.setattr(near_duplicates, "CONFIRMED", 0.999)
    pixels = np.stack([film(0), jpeg(film(0)), film(1), cropped(film(1)), film(2), film(2) + 1])
    patients = ["a", "b", "c", "c", "", ""]
    rows = mark(make_index(["a", "b"] * 3, patients=patients), pixels).rows
    assert (rows["near_group"] != "").tolist() == [False] * 4 + [True] * 2
    assert rows["look_alike"].tolist() == [rows["path"][1], rows["path"][0], "", "", "", ""]
    assert rows["look_alike_correlation"][:2].between(near_duplicates.ADVISED, 0.999).all()
    assert rows["look_alike_correlation"][2:].isna().all()
    unknown = mark(make_index(["a", "b"] * 3), pixels).rows
    assert (unknown["look_alike"] != "").tolist() == [True] * 4 + [False] * 2


def test_splits_keep_near_copies_together(marked):
    codes = dependent_groups(marked.rows[marked.rows["unreadable"] == ""])
    assert codes[0] == codes[1] == codes[3]
    assert len(set(codes)) == 3


@pytest.mark.parametrize("size", [64, 512])
def test_a_jpeg_and_its_png_are_one_film_at_every_size(tmp_path, size):
    for name, seed in (("a", 0), ("b", 1)):
        (tmp_path / name).mkdir()
        Image.fromarray(film(seed, 512)).save(tmp_path / name / "film.jpg")
    Image.open(tmp_path / "a" / "film.jpg").save(tmp_path / "a" / "film.png")
    index = folder.load(str(tmp_path), SourceOptions(cache=tmp_path))
    decoded = decode(index, (size, size), "stretch", tmp_path / "cache")
    index = mark(readable(index, decoded, 0), decoded.pixels)
    assert (index.rows["near_group"] != "").tolist() == [True, True, False]
    # Whichever size the films were decoded to, they are the same data.
    other = decode(index, (96, 96), "stretch", tmp_path / "cache")
    assert fingerprint(readable(index, other, 0)) == fingerprint(index)


def test_drawn_images_are_not_searched():
    index = make_index(["a", "b"])
    index = index.replace(index.rows.assign(drawn=True))
    rows = mark(index, np.stack([film(0), jpeg(film(0))])).rows
    assert "near_group" not in rows
    assert rows["brightness"].notna().all()


def test_a_source_called_phantom_is_searched():
    index = make_index(["a", "b"])
    index = index.replace(index.rows.assign(source="phantom"))
    rows = mark(index, np.stack([film(0), jpeg(film(0))])).rows
    assert (rows["near_group"] != "").all()
