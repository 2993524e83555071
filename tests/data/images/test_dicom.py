"""DICOM files as a screen shows them."""

import io
import subprocess
import sys

import numpy as np
import pytest

from chestxray.data.images.pixels import UnreadableImage
from chestxray.data.images.reading import decode, read
from image_bytes import dicom

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")

FILM = np.linspace(0, 4095, 40 * 30).reshape(40, 30).astype(np.uint16)
EIGHT = (FILM >> 4).astype(np.uint8)


def test_twelve_bits_are_scaled_by_their_range():
    image = decode(dicom(FILM // 2 + 100, bits=12))
    assert (image.pixels.min(), image.pixels.max()) == (0, 255)
    assert (image.width, image.height, image.mode, image.format) == (30, 40, "MONOCHROME2/12", "DICOM")


def test_eight_bits_stay_as_they_are_and_monochrome1_is_inverted():
    low = EIGHT // 2
    assert (decode(dicom(low)).pixels == low).all()
    assert (decode(dicom(low, "MONOCHROME1")).pixels == 255 - low).all()


def test_one_film_stored_both_ways_is_one_picture():
    both = decode(dicom(FILM, bits=12)), decode(dicom(4095 - FILM, "MONOCHROME1", bits=12))
    assert np.abs(both[0].pixels.astype(int) - both[1].pixels).max() <= 1


def test_the_window_and_the_rescaling_are_applied():
    # Half of the stored values are air beyond the window: the window alone sets the contrast.
    window = decode(dicom(FILM, bits=12, WindowCenter=1024, WindowWidth=1024)).pixels.astype(int)
    assert (window[FILM < 500] == 0).all()
    assert (window[FILM > 1600] == 255).all()
    turned = decode(dicom(FILM, bits=12, RescaleSlope=-1, RescaleIntercept=4095)).pixels
    assert (turned[0, 0], turned[-1, -1]) == (255, 0)


def test_a_lookup_table_is_applied():
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = np.arange(65535, -1, -257, dtype=np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    found = decode(dicom(EIGHT, VOILUTSequence=[table])).pixels
    assert found[0, 0] > found[-1, -1]


def test_colour_becomes_grey():
    colour = np.repeat(EIGHT[..., None], 3, axis=2)
    assert np.abs(decode(dicom(colour, "RGB")).pixels.astype(int) - EIGHT).max() <= 1


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"NumberOfFrames": 7}, "DICOM with 7 frames; allowed: one"),
        ({"Rows": 65535, "Columns": 65535}, "65535x65535 is more pixels"),
        ({"Rows": 200}, "cannot be decoded"),
        ({"PhotometricInterpretation": "XYZ"}, "DICOM of kind XYZ"),
        ({"Rows": 0}, "0 pixels"),
    ],
)
def test_reasons(tags, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(dicom(FILM, bits=12, **tags))


def test_half_a_file_is_no_image():
    content = dicom(FILM, bits=12)
    for share in (0.1, 0.5, 0.95):
        with pytest.raises(UnreadableImage):
            decode(content[: int(len(content) * share)])


def test_a_file_without_an_image():
    data = pydicom.dcmread(io.BytesIO(dicom(FILM)))
    for name in ("PixelData", "Rows", "Columns"):
        delattr(data, name)
    buffer = io.BytesIO()
    data.save_as(buffer)
    with pytest.raises(UnreadableImage, match="DICOM without an image"):
        decode(buffer.getvalue())


def test_nothing_of_the_patient_comes_along():
    image = decode(dicom(FILM, bits=12))
    assert not any(word in repr(image) for word in ("Roentgen", "Wilhelm", "18450327"))


def test_without_pydicom_the_reason_says_what_to_install():
    code = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from chestxray.data.images.reading import *\n"
        "try: decode(b'\\0' * 128 + b'DICM')\n"
        "except UnreadableImage as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'chestxray[dicom]'" in done.stdout


@pytest.mark.real_data
def test_the_clinical_files(real_data):
    folder = real_data / "clinical-formats"
    (ordinary,) = folder.glob("1.2.276*.dcm")
    two, one = read(ordinary), read(folder / "Fake_MONOHR1.dcm")
    assert (two.mode, one.mode) == ("MONOCHROME2/8", "MONOCHROME1/8")
    # The second file is the first with another tag and the same stored values: its picture is the
    # exact negative, and a film that was really stored both ways is one picture.
    assert (one.pixels == 255 - two.pixels).all()
    again = decode(dicom(255 - two.pixels, "MONOCHROME1", jpeg=95))
    assert np.abs(again.pixels.astype(int) - two.pixels).mean() < 2
    # Lungs are darker than the middle.
    assert two.pixels[300:600, 200:350].mean() < two.pixels[300:600, 480:560].mean()
