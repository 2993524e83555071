"""Heat maps as DICOM files, read back with pydicom and highdicom: `chestxray explain --dicom`."""

import errno
import json
import re
import resource
import shutil
import sqlite3
import sys
import warnings

import highdicom
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom.uid import ParametricMapStorage, SecondaryCaptureImageStorage

from chestxray.cli.main import group
from chestxray.data.images.pixels import ORIENTATION
from chestxray.inference.explaining import at_image
from chestxray.storage.files import write_json
from image_bytes import dicom, saved
from run_folders import SIZE, write_run

FILM = np.random.default_rng(5).integers(0, 256, (24, 30), dtype=np.uint8)

#: What a hospital writes into headers, each to be found again only where it belongs.
IDENTIFIERS = {
    "PatientName": "Zzyzx^Quentin=山田^太郎",
    "PatientID": "MRN-77120934",
    "IssuerOfPatientID": "KLINIKUM-Q",
    "PatientBirthDate": "19310307",
    "PatientSex": "O",
    "AccessionNumber": "ACC-5566778",
    "StudyID": "STUDY-90210",
    "StudyDate": "20190509",
    "StudyTime": "101112",
    "StudyDescription": "Thorax ap Überwachung",
    "ReferringPhysicianName": "Xylander^Ottilie",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.1111",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.2222",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.3333",
}
#: What is not needed to file an image, and goes nowhere.
OTHERS = {
    "PatientAddress": "17 Wexford Lane",
    "PatientTelephoneNumbers": "+49-555-0199",
    "OtherPatientIDs": "SSN-078-05-1120",
    "InstitutionName": "Sanktmariahilf",
    "OperatorsName": "Quibble^Tamsin",
    "PatientComments": "famouspatient",
    "RequestAttributesSequence": [],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("explained") / "run")


@pytest.fixture
def film(tmp_path):
    pixels = np.random.default_rng(5).integers(0, 4096, (40, 56), dtype=np.uint16)
    path = tmp_path / "film.dcm"
    tags = {"SpecificCharacterSet": "ISO_IR 192", "PixelSpacing": [0.2, 0.2], "PatientOrientation": ["L", "F"]}
    path.write_bytes(dicom(pixels, "MONOCHROME1", bits=12, **tags, **IDENTIFIERS, **OTHERS))
    return path


def called(*arguments):
    done = CliRunner().invoke(group, ["explain", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def written(folder):
    """The record of each map with its Secondary Capture and its Parametric Map."""
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        yield record, *(pydicom.dcmread(folder / record["dicom"][kind]) for kind in ("picture", "map"))


def real_world(path):
    """The values of a Parametric Map as highdicom understands them."""
    read = highdicom.imread(path)
    assert read.pixel_array.dtype == np.float32
    found = read.get_frame(1, apply_real_world_transform=True)
    for held in vars(read).values():
        if isinstance(held, sqlite3.Connection):  # highdicom leaves it open
            held.close()
    return found


def test_the_files_have_the_pixels_of_the_picture_and_the_values_of_the_map(run, film, tmp_path):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, SIZE, dtype=np.uint8)).save(tmp_path / "film.png")
    output = tmp_path / "maps"
    called(run, film, tmp_path / "film.png", "--class", "all", "--method", "gradcam", "--method", "saliency",
           "--output", output, "--dicom")  # fmt: skip
    found = list(written(output))
    assert len(found) == 2 * 2 * 2
    for record, picture, values in found:
        assert (picture.pixel_array == np.asarray(Image.open(output / record["picture"]))).all()
        raw = np.load(output / record["raw"])
        shape = (40, 56) if record["path"].endswith(".dcm") else SIZE
        assert values.pixel_array.dtype == np.float32 and values.pixel_array.shape == shape
        np.testing.assert_array_equal(values.pixel_array, at_image(raw, shape, "stretch"))
        if shape == SIZE:
            np.testing.assert_array_equal(values.pixel_array, raw)
        np.testing.assert_allclose(real_world(output / record["dicom"]["map"]), values.pixel_array)
        (shared,) = values.SharedFunctionalGroupsSequence
        (mapping,), (window,) = shared.RealWorldValueMappingSequence, shared.FrameVOILUTSequence
        assert mapping.LUTExplanation == record["unit"]
        assert mapping.MeasurementUnitsCodeSequence[0].CodeMeaning == "no units"
        assert window.WindowWidth == pytest.approx(record["scale"]["highest"])
        assert values.ContentDescription == f"{record['method']}: {record['explained']['class']}"
    instances = [file.SOPInstanceUID for _, *files in found for file in files]
    series = {(file.SeriesInstanceUID, file.StudyInstanceUID) for _, *files in found for file in files}
    assert len(set(instances)) == 16 and len(series) == 2 * 2 * 2
    assert len({study for _, study in series}) == 2


def test_a_pacs_files_them_with_the_study_of_the_film(run, film, tmp_path):
    called(run, film, "--output", tmp_path / "maps", "--dicom")
    ((record, picture, values),) = written(tmp_path / "maps")
    source = pydicom.dcmread(film)
    assert picture.SOPClassUID == SecondaryCaptureImageStorage and values.SOPClassUID == ParametricMapStorage
    for made in (picture, values):
        for keyword in IDENTIFIERS.keys() - {"SeriesInstanceUID", "SOPInstanceUID"}:
            assert made[keyword].value == source[keyword].value, keyword
        assert made.SeriesInstanceUID != source.SeriesInstanceUID and made.SOPInstanceUID != source.SOPInstanceUID
        (referred,) = made.SourceImageSequence
        assert referred.ReferencedSOPClassUID == source.SOPClassUID
        assert referred.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert made.ContentQualification == "RESEARCH" and "not for diagnosis" in made.ImageComments
        assert re.fullmatch(
            rf"chestxray \S+, gradcam at last, model run [0-9a-f]{{16}}, {record['explained']['class']}, scale 0 to .*",
            made.DerivationDescription,
        )
        assert made.PatientOrientation == ["L", "F"]
        assert made.ContentDate == source.StudyDate
        assert not OTHERS.keys() & set(made.dir())
    assert "BurnedInAnnotation" not in picture and values.BurnedInAnnotation == "NO"
    (referred,) = values.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence
    assert referred.ReferencedSOPClassUID == source.SOPClassUID and referred.SpatialLocationsPreserved == "YES"
    assert values.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing == [0.2, 0.2]
    assert not any(element.keyword == "ImagePositionPatient" for element in values.iterall())


def test_nothing_of_the_header_is_in_pictures_tables_records_names_and_messages(run, film, tmp_path):
    output = tmp_path / "maps"
    said = called(run, film, "--class", "all", "--output", output, "--dicom", "--panel", output / "panel.png")
    plain = [path for path in output.iterdir() if path.suffix != ".dcm"]
    assert sorted(path.suffix for path in plain) == [".json", ".json", ".npy", ".npy", ".png", ".png", ".png"]
    names = "\n".join(path.name for path in output.iterdir())
    public = b"\n".join([*(path.read_bytes() for path in plain), names.encode(), said.encode()])
    for value in filter(None, {**IDENTIFIERS, **OTHERS}.values()):
        # Single letters are everywhere.
        for part in (part for part in re.split(r"[\^=\\]", value) if len(part) > 2):
            assert part.encode() not in public, part
    for path in plain:
        if path.suffix == ".png" and path.name != "panel.png":
            with Image.open(path) as picture:
                assert not picture.info
    # What was looked for is what the DICOM files have, but for what is not needed to file them.
    filed = b"\n".join(path.read_bytes() for path in output.glob("*.dcm"))
    assert all(value.encode() in filed for value in IDENTIFIERS.values() if value)
    assert not any(value.encode() in filed for value in OTHERS.values() if value)


def test_the_same_map_is_the_same_file(run, film, tmp_path):
    for name in ("one", "two"):
        called(run, film, "--output", tmp_path / name, "--dicom")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 5
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_film_without_a_header_has_a_patient_and_a_study_of_its_own(run, tmp_path):
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30), dtype=np.uint8)
        (tmp_path / f"f{number}.jpg").write_bytes(saved(pixels, "JPEG"))
    called(run, tmp_path / "f0.jpg", tmp_path / "f1.jpg", "--output", tmp_path / "maps", "--dicom")
    found = list(written(tmp_path / "maps"))
    for _, picture, values in found:
        assert picture.PatientID == values.PatientID and picture.StudyInstanceUID == values.StudyInstanceUID
        for made in (picture, values):
            assert re.fullmatch("CHESTXRAY-[0-9a-f]{32}", made.PatientID) and not made.PatientName
            assert made.LossyImageCompression == "01" and made.LossyImageCompressionRatio >= 1
            assert not [element for element in made.iterall() if element.keyword.startswith("Referenced")]
    assert len({picture.StudyInstanceUID for _, picture, _ in found}) == 2
    assert len({picture.PatientID for _, picture, _ in found}) == 2


def test_a_method_that_fails_its_checks_is_marked_in_the_picture_and_the_series(run, film, tmp_path):
    failed = shutil.copytree(run, tmp_path / "failed")
    checks = [{"name": "stability", "verdict": "fails", "sentence": "They move.", "figures": {}}]
    judged = {"method": "gradcam", "badge": "fails", "reason": "", "images": 24, "checks": checks}
    write_json(failed / "heatmaps" / "checks.json", {"methods": [judged]})
    called(failed, film, "--output", tmp_path / "maps", "--dicom")
    ((record, picture, values),) = written(tmp_path / "maps")
    assert record["checks"] == "fails"
    for made in (picture, values):
        assert made.SeriesDescription.startswith("Research only, fails checks: ")
        assert made.ImageComments.startswith("Map fails its checks.")
    assert (picture.pixel_array[0, 0] == (215, 25, 28)).all()


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"PatientSex": "unknown", "PatientName": "x" * 70, "PatientBirthDate": "about 1950", "StudyDate": "2020-01-01"},
        {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"},
        {"SpecificCharacterSet": "no such set", "PatientID": "1\\2", "BurnedInAnnotation": "YES"},
        {"PatientName": "y" * 100_000, "SOPClassUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.5"},
    ],
    ids=["empty", "invalid", "latin-1", "several", "too-long"],
)
def test_headers_as_they_are_met(run, header, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of what is written here
        (tmp_path / "film.dcm").write_bytes(dicom(FILM, **header))
    called(run, tmp_path / "film.dcm", "--output", tmp_path / "maps", "--dicom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ((_, picture, values),) = written(tmp_path / "maps")
        for made in (picture, values):
            assert made.StudyInstanceUID and made.ContentDate == header.get("StudyDate", "19000101")
            assert made.get("PatientSex") in (header.get("PatientSex"), "", None)
            name = header.get("PatientName", "Roentgen^Wilhelm")
            assert str(made.PatientName) == (name if len(name) < 1000 else "")
            referred = [element.value for element in made.iterall() if element.keyword == "ReferencedSOPClassUID"]
            assert set(referred) == ({"1.2.3.4"} if "SOPClassUID" in header else set())
    assert picture.get("BurnedInAnnotation") == header.get("BurnedInAnnotation")


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_a_value_lies_on_the_pixel_that_the_model_saw(fit, tmp_path):
    fitted = write_run(tmp_path / "run", fit=fit)
    # A run that states no scale: the map then reaches the end of its own, whatever its values.
    write_json(fitted / "heatmaps" / "index.json", {"layer": "last", "reason": "", "images": []})
    (tmp_path / "film.dcm").write_bytes(dicom(FILM))
    called(fitted, tmp_path / "film.dcm", "--output", tmp_path / "maps", "--dicom")
    ((record, picture, values),) = written(tmp_path / "maps")
    raw = np.load(tmp_path / "maps" / record["raw"])
    np.testing.assert_array_equal(values.pixel_array, at_image(raw, FILM.shape, fit))
    assert picture.pixel_array.shape == (*FILM.shape, 3)
    unchanged = (picture.pixel_array == FILM[..., np.newaxis]).all(axis=-1)
    strong = values.pixel_array > values.pixel_array.max() / 2
    assert unchanged[values.pixel_array == 0].all() and not unchanged[strong].all()


def test_a_film_that_is_turned_for_display_has_its_map_turned(run, tmp_path):
    pixels = np.kron(FILM, np.ones((4, 4), np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    (tmp_path / "film.jpg").write_bytes(saved(pixels, "JPEG", exif=exif))
    called(run, tmp_path / "film.jpg", "--output", tmp_path / "maps", "--dicom")
    ((_, picture, values),) = written(tmp_path / "maps")
    assert values.pixel_array.shape == picture.pixel_array.shape[:2] == pixels.shape[::-1]
    upright = np.rot90(pixels, -1).astype(float)
    assert np.corrcoef(picture.pixel_array.mean(axis=-1).ravel(), upright.ravel())[0, 1] > 0.9


def test_an_empty_map_is_a_file_too(run, tmp_path):
    """What a film of one grey gets from integrated gradients, whose path from black has no length."""
    (tmp_path / "black.dcm").write_bytes(dicom(np.zeros((24, 30), np.uint8)))
    called(run, tmp_path / "black.dcm", "--method", "integrated-gradients", "--output", tmp_path / "maps", "--dicom")
    ((record, picture, values),) = written(tmp_path / "maps")
    assert record["map"]["empty"] and not values.pixel_array.any() and not picture.pixel_array.any()
    assert values.SharedFunctionalGroupsSequence[0].FrameVOILUTSequence[0].WindowWidth == 1


def test_several_frames_are_refused_in_one_line(run, tmp_path):
    (tmp_path / "cine.dcm").write_bytes(dicom(np.zeros((24, 30), np.uint8), NumberOfFrames=3))
    done = CliRunner().invoke(
        group, ["explain", str(run), str(tmp_path / "cine.dcm"), "--dicom", "--output", str(tmp_path / "maps")]
    )
    assert done.exit_code == 1 and "cine.dcm cannot be read: DICOM with 3 frames; allowed: one." in done.output
    assert not (tmp_path / "maps").exists()


def test_a_file_is_written_whole_or_not_at_all(run, tmp_path):
    """A limit of the operating system lies between the sizes of the two DICOM files, 3 and 4 bytes a pixel."""
    (tmp_path / "film.dcm").write_bytes(dicom(np.zeros((400, 400), np.uint8)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (560_000, limits[1]))
    try:
        done = CliRunner().invoke(
            group, ["explain", str(run), str(tmp_path / "film.dcm"), "--dicom", "--output", str(tmp_path / "maps")]
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    # The operating system's own error, by which a full disk is told from a defect.
    assert done.exception.errno == errno.EFBIG
    # Of a map whose files could not all be written there is none.
    assert not (tmp_path / "maps").exists()


def test_without_highdicom_the_command_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    done = CliRunner().invoke(group, ["explain", str(run), "film.dcm", "--dicom", "--output", str(tmp_path / "maps")])
    assert str(done.exception) == "--dicom needs highdicom: pip install 'chestxray[dicom-output]'"
    assert not (tmp_path / "maps").exists()
