import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chestxray.data import lung_boxes
from chestxray.data.boxes import box
from chestxray.data.images.pixels import fitted
from chestxray.data.images.reading import read
from chestxray.data.sources.label_layouts.nih import listed_boxes
from chestxray.data.sources.mask_folders import with_masks
from chestxray.data.sources.phantom.source import load
from chestxray.errors import DataError, InputError
from chestxray.explanation.localisation.masks import box_mask, films_of, masks_of
from chestxray.explanation.localisation.overlap import area, iou, pointing, share_inside
from chestxray.explanation.map_priors import centre
from chestxray.plugin import SourceOptions

SIZE = (32, 32)


def write(path, mask):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return str(path)


def patch(size=(64, 48), rows=slice(10, 30), columns=slice(5, 25)):
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    return mask


def boxed(*boxes, **columns):
    return pd.DataFrame([{"path": "a.png", "boxes": json.dumps(list(boxes)), **columns}])


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_box_lies_where_its_drawing_lies(fit):
    """A box of the index and the mask of the same place are fitted alike, however large the file is."""
    drawn = patch((640, 480), slice(220, 400), slice(100, 260))
    film = np.asarray(fitted(Image.fromarray(drawn.astype(np.uint8) * 255), SIZE, fit)) > 127
    one = box("Mass", (100, 220, 160, 180), (480, 640))
    for own in ((480, 640), (240, 320), None):
        found = box_mask(one, SIZE, fit, own=own)
        assert (found != film).sum() <= 0.15 * film.sum()
    assert film.sum() > 30


def test_the_bars_beside_a_padded_film_are_no_part_of_it(tmp_path):
    rows = pd.DataFrame(
        [{"path": "a.png", "width": 64, "height": 32, "mask": write(tmp_path / "m.png", patch((32, 64)))}]
    )
    films = films_of(rows, SIZE, "pad")
    assert films[0].any(axis=1).sum() == 16 and films[0].all(axis=1).sum() == 16
    assert films_of(rows, SIZE, "stretch").all() and films_of(rows[["path"]], SIZE, "pad").all()
    masks = masks_of(rows, SIZE, "pad")
    # A map that only avoids the bars knows nothing of the film.
    maps = np.where(films, 1.0, 0.0)
    chance = area(masks, films)
    assert chance == pytest.approx(2 * area(masks))
    assert pointing(maps, masks, films) == share_inside(maps, masks, films) == iou(maps, masks, 0.5, films) == chance
    assert share_inside(np.zeros_like(maps), masks, films) == pointing(np.zeros_like(maps), masks, films) == chance
    # What lies on the bars is not of the film.
    assert share_inside(maps + 9.0 * ~films, masks, films) == chance == pointing(maps + 9.0 * ~films, masks, films)


def test_an_empty_cell_of_a_table_hides_no_mask(tmp_path):
    drawn = write(tmp_path / "mask.png", patch())
    rows = pd.DataFrame([{"path": "a.png", "mask:Mass": np.nan, "mask": drawn}])
    assert masks_of(rows, SIZE, findings=["Mass"]).any()


def test_boxes_of_the_explained_finding_count_and_no_others():
    mass, node = box("Mass", (0, 0, 16, 16), (64, 64)), box("Nodule", (48, 48, 16, 16), (64, 64))
    rows = boxed(mass, node)
    both, one = masks_of(rows, SIZE), masks_of(rows, SIZE, findings=["Nodule"])
    assert both[0, 0, 0] and both[0, 31, 31] and both.sum() == 2 * 64
    assert one[0, 31, 31] and one.sum() == 64
    with pytest.raises(InputError, match="is not known"):
        masks_of(rows, SIZE, findings=["Effusion"])


def test_boxes_of_the_file_itself_need_its_size():
    rows = boxed(box("Mass", (10, 10, 20, 20), None), width=40, height=40)
    assert masks_of(rows, SIZE).sum() == 16 * 16
    with pytest.raises(DataError, match="whose size is not known"):
        masks_of(rows.drop(columns=["width", "height"]), SIZE)


def test_a_tiny_box_marks_a_pixel():
    assert masks_of(boxed(box("Nodule", (500, 500, 3, 3), (1024, 1024))), SIZE).sum() == 1


@pytest.mark.parametrize(
    ("sides", "said"),
    [((5, 5, 0, 10), "is empty"), ((5, 5, 10, -1), "is empty"), ((64, 0, 5, 5), "outside"), ((-9, 0, 9, 5), "outside")],
)
def test_a_box_that_is_empty_or_outside_is_named(sides, said):
    with pytest.raises(DataError, match=said) as error:
        masks_of(boxed(box("Mass", sides, (64, 64))), SIZE)
    assert "a.png" in str(error.value) and "\n" not in str(error.value)


def test_masks_are_read_as_they_are_written(tmp_path):
    rows = pd.DataFrame({"path": ["/x/a.jpeg", "/x/b.jpeg"], "mask": ["", write(tmp_path / "b.png", patch())]})
    found = masks_of(rows, SIZE)
    assert not found[0].any()
    np.testing.assert_array_equal(
        found[1], np.asarray(fitted(Image.fromarray(patch().astype(np.uint8) * 255), SIZE, "stretch")) > 127
    )
    # 0 and 1 are as good as 0 and 255.
    Image.fromarray(patch().astype(np.uint8)).save(tmp_path / "b.png")
    np.testing.assert_array_equal(masks_of(rows, SIZE)[1], found[1])


def test_what_cannot_be_used_is_said_in_a_line(tmp_path):
    rows = pd.DataFrame({"path": ["/x/a.jpeg"]})
    with pytest.raises(InputError, match="no mask and no box"):
        masks_of(rows, SIZE)
    with pytest.raises(InputError, match="no column of masks 'lung_mask'"):
        masks_of(rows, SIZE, column="lung_mask")
    rows["mask"] = write(tmp_path / "a.png", np.zeros((8, 8), bool))
    with pytest.raises(DataError, match=r"a\.png is empty"):
        masks_of(rows, SIZE)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        masks_of(rows, SIZE)


def test_phantoms_know_where_findings_lungs_and_markers_are(tmp_path):
    options = SourceOptions(cache=tmp_path, seed=0)
    rows = load("images=16,size=48,classes=clear+sick,marker=1", options).rows
    sick, marked = (rows["label"] == "sick").to_numpy(), (rows["marker"] == "yes").to_numpy()
    findings, lungs = masks_of(rows, SIZE), masks_of(rows, SIZE, column="lung_mask")
    markers = masks_of(rows, SIZE, column="marker_mask")
    assert lungs.any(axis=(1, 2)).all() and not findings[~sick].any()
    assert findings[sick].any(axis=(1, 2)).all() and (findings & ~lungs).sum() <= 0.1 * findings.sum()
    assert marked.sum() == sick.sum() and (markers.any(axis=(1, 2)) == marked).all()
    assert markers[:, :8, 24:].sum() > 0.8 * markers.sum()


def test_phantoms_of_several_findings_have_a_mask_for_each(tmp_path):
    rows = load("findings-a,images=12,size=48", SourceOptions(cache=tmp_path, seed=0)).rows
    there = (rows["mask:Effusion"] != "").to_numpy()
    found = masks_of(rows, SIZE, findings=["Effusion"] * len(rows))
    assert 0 < there.sum() < len(rows) and (found.any(axis=(1, 2)) == there).all()


@pytest.mark.real_data
def test_masks_of_montgomery_are_lungs(real_data):
    paths = sorted((real_data / "montgomery" / "images").iterdir())[:6]
    rows = with_masks(pd.DataFrame({"path": map(str, paths)}), (), [f"lungs={real_data / 'montgomery' / 'masks'}"])
    found = masks_of(rows, (64, 64), column="lung_mask")
    assert ((found.mean(axis=(1, 2)) > 0.1) & (found.mean(axis=(1, 2)) < 0.5)).all()


@pytest.mark.real_data
def test_a_fixed_blob_beats_chance_on_the_boxes_of_nih(real_data):
    """The figures of the page on these checks: why chance alone is no level to beat."""
    file = real_data / "nih-1000" / "BBox_List_2017.csv.gz"
    names = pd.read_csv(file)["Image Index"].drop_duplicates()
    rows = pd.DataFrame({"path": names, "boxes": listed_boxes(file, names)})
    for finding, covered, inside in (("Pneumonia", 0.09, 0.16), ("Cardiomegaly", 0.18, 0.35)):
        masks = masks_of(rows, (64, 64), findings=[finding] * len(rows))
        masks = masks[masks.any(axis=(1, 2))]
        blob = np.broadcast_to(centre((64, 64)), masks.shape)
        assert area(masks).mean() == pytest.approx(covered, abs=0.01)
        assert share_inside(blob, masks).mean() == pytest.approx(inside, abs=0.01)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_masks_and_boxes_follow_the_part_that_an_image_is_cut_to(fit, tmp_path):
    drawn = patch((640, 480), slice(220, 400), slice(100, 260))
    part = (0.125, 0.25, 0.75, 0.75)
    film = Image.fromarray(drawn.astype(np.uint8) * 255).crop((60, 160, 360, 480))
    expected = np.asarray(fitted(film, SIZE, fit)) > 127
    rows = boxed(box("Mass", (100, 220, 160, 180), None), width=480, height=640, lung_box=lung_boxes.as_text(part))
    found = masks_of(rows, SIZE, fit)[0]
    assert (found != expected).sum() <= 0.15 * expected.sum() and expected.sum() > 30
    path = write(tmp_path / "a.png", drawn)
    np.testing.assert_array_equal(masks_of(rows.assign(mask=path), SIZE, fit)[0], expected)
    np.testing.assert_array_equal(masks_of(rows.assign(lungs=path), SIZE, fit, column="lungs")[0], expected)


def test_a_finding_outside_of_the_part_leaves_no_mask(tmp_path):
    rows = boxed(box("Mass", (0, 0, 30, 30), (480, 640)), lung_box="0.5,0.5,1,1")
    assert not masks_of(rows, SIZE).any()
    path = write(tmp_path / "a.png", patch((640, 480), slice(0, 30), slice(0, 30)))
    assert not masks_of(rows.assign(mask=path), SIZE).any()


@pytest.mark.parametrize("part", [None, (0.5, 0.0, 1.0, 1.0)])
@pytest.mark.parametrize("shape", [(100, 200), (64, 64), (50, 100), (400, 300)])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_mask_of_any_size_covers_the_whole_film(fit, shape, part, tmp_path):
    film = patch((100, 200), slice(20, 60), slice(120, 160))
    height, width = shape
    down, across = slice(round(0.2 * height), round(0.6 * height)), slice(round(0.6 * width), round(0.8 * width))
    path = write(tmp_path / "a.png", patch(shape, down, across))
    seen = Image.fromarray(film.astype(np.uint8) * 255).crop((100 if part else 0, 0, 200, 100))
    expected = np.asarray(fitted(seen, SIZE, fit)) > 127
    rows = pd.DataFrame([{"path": "/x/a.jpeg", "mask": path, "lungs": path, "width": 200, "height": 100}])
    if part is not None:
        rows["lung_box"] = lung_boxes.as_text(part)
    for found in (masks_of(rows, SIZE, fit)[0], masks_of(rows, SIZE, fit, column="lungs")[0]):
        # Borders may differ by a pixel of the model's input.
        assert expected.sum() > 30 and (found != expected).sum() <= 0.2 * expected.sum()


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_places_of_a_film_that_its_tag_turns_are_those_of_the_upright_film(fit, tmp_path):
    drawn = np.zeros((100, 200), np.uint8)
    drawn[20:60, 120:160] = 255
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(drawn).save(tmp_path / "film.png", exif=tag)
    film = read(tmp_path / "film.png")
    assert film.pixels.shape == (200, 100) and (film.width, film.height) == (200, 100), "sides are those of the file"
    expected = read(tmp_path / "film.png", size=SIZE, fit=fit).pixels > 127
    small = Image.fromarray(film.pixels).resize((64, 64))
    small.save(tmp_path / "mask.png")
    rows = pd.DataFrame([{"path": str(tmp_path / "film.png"), "width": 200, "height": 100}])
    ys, xs = np.nonzero(film.pixels)
    one = box("Mass", (int(xs.min()), int(ys.min()), 40, 40), None)
    for given in (rows.assign(mask=str(tmp_path / "mask.png")), rows.assign(boxes=json.dumps([one]))):
        found = masks_of(given, SIZE, fit)[0]
        assert expected.sum() > 30 and (found != expected).sum() <= 0.2 * expected.sum()


@pytest.mark.parametrize("labels", [(1, 2), (1, 2, 3), (85, 170, 255), (127, 255), tuple(range(1, 21)), (1, 31)])
def test_all_labels_of_a_mask_count(labels, tmp_path):
    drawn = np.zeros((64, 64), np.uint8)
    for number, label in enumerate(labels):
        drawn[8:40, 2 + 3 * number : 5 + 3 * number] = label
    Image.fromarray(drawn).save(tmp_path / "a.png")
    rows = pd.DataFrame({"path": ["a"], "mask": [str(tmp_path / "a.png")]})
    np.testing.assert_array_equal(masks_of(rows, (64, 64))[0], drawn > 0)


def test_labels_of_16_bits_count(tmp_path):
    drawn = np.zeros((64, 64), np.uint16)
    drawn[8:40, 8:20], drawn[8:40, 30:50] = 1, 2
    Image.fromarray(drawn).save(tmp_path / "a.png")
    rows = pd.DataFrame({"path": ["a"], "mask": [str(tmp_path / "a.png")]})
    np.testing.assert_array_equal(masks_of(rows, (64, 64))[0], drawn > 0)


@pytest.mark.parametrize("quality", [30, 75, 95, 100])
def test_what_compression_leaves_around_a_mask_is_no_part_of_it(quality, tmp_path):
    rows, columns = np.indices((128, 128))
    drawn = (rows - 60) ** 2 + (columns - 71) ** 2 < 30**2
    Image.fromarray(drawn.astype(np.uint8) * 255).save(tmp_path / "a.jpg", quality=quality)
    assert ((read(tmp_path / "a.jpg").pixels > 0) & ~drawn).sum() > 0, "there is something to leave out"
    found = masks_of(pd.DataFrame({"path": ["a"], "mask": [str(tmp_path / "a.jpg")]}), (128, 128))[0]
    assert (found != drawn).sum() <= 0.01 * drawn.sum()


def test_a_smoothed_border_belongs_to_what_most_of_it_is(tmp_path):
    drawn = patch((64, 64), slice(11, 41), slice(9, 37))
    small = Image.fromarray(drawn.astype(np.uint8) * 255).resize((50, 50), Image.Resampling.BICUBIC)
    small.save(tmp_path / "a.png")
    found = masks_of(pd.DataFrame({"path": ["a"], "mask": [str(tmp_path / "a.png")]}), (50, 50))[0]
    np.testing.assert_array_equal(found, np.asarray(small) > 127)
