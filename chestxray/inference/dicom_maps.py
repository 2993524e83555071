"""Heat maps as DICOM: a Secondary Capture of the picture, and a Parametric Map of the raw values (PS3.3 A.8, A.75).

Needs the extra ``dicom-output`` (highdicom). Both are new series of the film's own study. The same map of the same film
gives the same file, byte by byte: UIDs are derived from the content, and no element has the time of writing.
"""

from __future__ import annotations

import datetime
import io
import sqlite3
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from chestxray._version import RESEARCH_ONLY, VERSION
from chestxray.data.images.dicom_identity import FILED_BY
from chestxray.explanation.overlay import WARNING
from chestxray.storage.files import write_bytes

#: The date of films without one. ContentDate may not be empty.
_NO_DATE, _NO_TIME = datetime.date(1900, 1, 1), datetime.time(0)
#: Numbers of the two series: viewers sort by them, and these come after those that a modality gives.
_PICTURES, _MAPS = 9801, 9802
#: Elements that highdicom sets by the clock.
_CLOCK = ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture")
_UTF8 = "ISO_IR 192"
#: Maximum number of characters of the value representations LO and ST.
_LONG_STRING, _SHORT_TEXT = 64, 1024


@dataclass(frozen=True)
class MapOf:
    """What the files of a map say of it.

    ``name``: the explained class or finding; ``method``, ``layer``, ``unit``; ``model``: name and hash of the model;
    ``fails``: whether the method fails its checks; ``highest``: the end of the scale; ``number``: of the instance.
    """

    name: str
    method: str
    layer: str | None
    unit: str
    model: str
    fails: bool
    highest: float
    number: int


def write_picture(path: Path, picture: np.ndarray, film: Dataset, about: MapOf) -> None:
    """Write `picture`, uint8 (height, width, 3), as a Secondary Capture of `film`, as `dicom_identity.identity` reads
    it.

    Raises:
        OutputError: `path` cannot be written.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values in the film's header that the standard does not allow
        content = _encoded(_picture(picture, film, about), film, about, "heat map")
    write_bytes(path, content)


def write_map(path: Path, raw: np.ndarray, film: Dataset, about: MapOf) -> None:
    """Write `raw`, float32 (height, width) at the size of the film in pixels, as a Parametric Map. Arguments and
    errors otherwise as of `write_picture`.

    A film has no coordinates in the patient, so that the map has neither position nor orientation. That a value belongs
    to the film's pixel of the same row and column is said by SpatialLocationsPreserved (C.7.6.16.2.6).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values in the film's header that the standard does not allow
        content = _encoded(_map(raw, film, about), film, about, "raw map")
    write_bytes(path, content)


def _picture(picture: np.ndarray, film: Dataset, about: MapOf) -> SCImage:
    series, instance = _uids("picture", film, about, picture)
    made = SCImage(
        pixel_array=np.ascontiguousarray(picture),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        # Asked for, and replaced by the film's own in `_encoded`.
        patient_orientation=("L", "F"),
        study_instance_uid=film.StudyInstanceUID,
        series_instance_uid=series,
        series_number=_PICTURES,
        sop_instance_uid=instance,
        instance_number=about.number,
        manufacturer="chestxray",
        manufacturer_model_name="chestxray explain",
        software_versions=VERSION,
        content_date=_NO_DATE,
        content_time=_NO_TIME,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    made.ConversionType = "WSD"
    made.BodyPartExamined = "CHEST"
    made.ContentQualification = "RESEARCH"
    if "BurnedInAnnotation" in film:
        # chestxray writes nothing of a patient. Whether the film does is known to its header alone.
        made.BurnedInAnnotation = film.BurnedInAnnotation
    if "SOPInstanceUID" in film:
        source = Dataset()
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = film.SOPClassUID, film.SOPInstanceUID
        source.SpatialLocationsPreserved = "YES"
        source.PurposeOfReferenceCodeSequence = [_coded(codes.DCM.SourceImageForImageProcessingOperation)]
        made.SourceImageSequence = [source]
    return made


def _map(raw: np.ndarray, film: Dataset, about: MapOf) -> ParametricMap:
    series, instance = _uids("map", film, about, raw)
    end = about.highest or 1.0
    made = ParametricMap(
        source_images=[_stand_in(film, raw.shape[0], raw.shape[1])],
        pixel_array=np.ascontiguousarray(raw, np.float32),
        series_instance_uid=series,
        series_number=_MAPS,
        sop_instance_uid=instance,
        instance_number=about.number,
        manufacturer="chestxray",
        manufacturer_model_name="chestxray explain",
        software_versions=VERSION,
        device_serial_number=_line(about.model),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            RealWorldValueMapping(
                lut_label="RAW",
                lut_explanation=_line(about.unit),
                unit=codes.UCUM.NoUnits,
                value_range=(0.0, max(end, float(raw.max()))),
            )
        ],
        # LINEAR needs a width of 1 and more.
        voi_lut_transformations=[VOILUTTransformation(end / 2, end, voi_lut_function="LINEAR_EXACT")],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        image_flavor="STATIC",
        content_label="HEAT_MAP",
        content_description=_line(f"{about.method}: {about.name}"),
        content_date=_NO_DATE,
        content_time=_NO_TIME,
    )
    _mend_references(made, film)
    _take_out_of_patient(made, film, about)
    return made


def _stand_in(film: Dataset, rows: int, columns: int) -> Dataset:
    """Return what highdicom asks of a source. Patient and study are filled in by `_encoded`, since highdicom refuses
    values that films have, such as names without a caret.
    """
    source = Dataset()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(source, keyword, None)
    source.StudyDate = source.StudyTime = None
    source.StudyInstanceUID = film.StudyInstanceUID
    source.SeriesInstanceUID = film.get("SeriesInstanceUID") or _uid("series", film.StudyInstanceUID)
    # A class that highdicom knows, whatever the film's is.
    source.SOPClassUID = SecondaryCaptureImageStorage
    source.SOPInstanceUID = film.get("SOPInstanceUID") or _uid("instance", film.StudyInstanceUID)
    source.Rows, source.Columns = rows, columns
    source.FrameOfReferenceUID = film.get("FrameOfReferenceUID") or _uid("plane", source.SOPInstanceUID)
    # highdicom makes no Parametric Map without coordinates. `_take_out_of_patient` removes these.
    source.ImagePositionPatient, source.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    source.PixelSpacing, source.SliceThickness = [1, 1], 1
    return source


def _mend_references(made: ParametricMap, film: Dataset) -> None:
    """Give the references to the source the film's own class, or take them out where the film is no DICOM file."""
    if "SOPInstanceUID" not in film:
        for keyword in ("SourceImageSequence", "ReferencedSeriesSequence"):
            made.pop(keyword, None)
        for frame in made.PerFrameFunctionalGroupsSequence:
            frame.pop("DerivationImageSequence", None)
    for element in made.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = film.SOPClassUID
        elif element.keyword == "DimensionOrganizationUID":
            # highdicom draws a random one.
            element.value = _uid("dimensions", made.SOPInstanceUID)


def _take_out_of_patient(made: ParametricMap, film: Dataset, about: MapOf) -> None:
    """Remove the coordinates of `_stand_in`; the only frame is indexed by its label instead. Say what is seen."""
    (shared,), (frame,) = made.SharedFunctionalGroupsSequence, made.PerFrameFunctionalGroupsSequence
    frame.pop("PlanePositionSequence", None)
    # Position and orientation of a derived frame may be absent (C.7.6.16.2.3, C.7.6.16.2.4); programs look for the
    # sequences.
    shared.PlanePositionSequence, shared.PlaneOrientationSequence = [Dataset()], [Dataset()]
    measures = Dataset()
    if spacing := film.get("PixelSpacing") or film.get("ImagerPixelSpacing"):
        measures.PixelSpacing = spacing
    shared.PixelMeasuresSequence = [measures]
    chest = Dataset()
    chest.FrameLaterality = "U"
    chest.AnatomicRegionSequence = [_coded(codes.SCT.Chest)]
    shared.FrameAnatomySequence = [chest]
    (index,) = made.DimensionIndexSequence
    index.DimensionIndexPointer, index.FunctionalGroupPointer = Tag("FrameLabel"), Tag("FrameContentSequence")
    index.DimensionDescriptionLabel = "Frame Label"
    frame.FrameContentSequence[0].FrameLabel = _line(about.name)
    frame.FrameContentSequence[0].DimensionIndexValues = [1]


def _encoded(made: Dataset, film: Dataset, about: MapOf, kind: str) -> bytes:
    """Return `made` as a file's bytes, with the film's patient and study and with what it is.

    Not written by pydicom, whose errors of a full disk do not say so.
    """
    made.SpecificCharacterSet = _UTF8
    made.PatientOrientation = None
    for keyword in FILED_BY:
        if keyword in film:
            setattr(made, keyword, film[keyword].value)
    for keyword in _CLOCK:
        made.pop(keyword, None)
    for equipment in made.get("ContributingEquipmentSequence", []):
        equipment.pop("ContributionDateTime", None)
    made.ContentDate, made.ContentTime = _when(film)
    failing = ", fails checks" if about.fails else ""
    made.SeriesDescription = _line(f"Research only{failing}: {kind} by {about.method}")
    made.ImageComments = f"{f'{WARNING.capitalize()}. ' if about.fails else ''}{RESEARCH_ONLY}"
    at = f" at {about.layer}" if about.layer else ""
    made.DerivationDescription = _line(
        f"chestxray {VERSION}, {about.method}{at}, model {about.model}, {about.name}, "
        f"scale 0 to {about.highest:.6g} ({about.unit})",
        most=_SHORT_TEXT,
    )
    content = io.BytesIO()
    made.save_as(content, enforce_file_format=True)
    for held in vars(made).values():
        # highdicom keeps a database in memory of a Parametric Map's frames, and leaves it open.
        if isinstance(held, sqlite3.Connection):
            held.close()
    return content.getvalue()


def _when(film: Dataset) -> tuple[str, str]:
    """Return the date and time of the film: those of its content, or of what it is a part of."""
    for of in ("Content", "Acquisition", "Series", "Study"):
        if date := film.get(f"{of}Date"):
            return date, film.get(f"{of}Time") or f"{_NO_TIME:%H%M%S}"
    return f"{_NO_DATE:%Y%m%d}", f"{_NO_TIME:%H%M%S}"


def _uids(kind: str, film: Dataset, about: MapOf, content: np.ndarray) -> tuple[str, str]:
    """Return the UIDs of series and instance: a series for each series of films, model, method and layer."""
    drawn_by = (VERSION, about.model, about.method, about.layer or "", str(about.fails))
    series = _uid(kind, film.StudyInstanceUID, film.get("SeriesInstanceUID", ""), *drawn_by)
    pixels = xxhash.xxh3_128_hexdigest(np.ascontiguousarray(content).data)
    return series, _uid(series, film.get("SOPInstanceUID", ""), about.name, f"{about.highest!r}", pixels)


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=["\0".join(("chestxray", *parts))]))


def _line(text: str, most: int = _LONG_STRING) -> str:
    """Return `text` as DICOM's long strings are: one line of so many characters, in which a backslash parts values."""
    printable = (character if character.isprintable() else " " for character in text.replace("\\", "/"))
    return " ".join("".join(printable).split())[:most]


def _coded(code: Iterable[str]) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = list(code)[:3]
    return item
