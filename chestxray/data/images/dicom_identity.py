"""Whose film an image is, for DICOM files that are made from it: patient, study and source instance.

Needs the extra ``dicom`` (pydicom). Nothing of what is read here may reach a picture, a table, a JSON or a log.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, generate_uid

from chestxray.data.images.dicom import BoundedFile
from chestxray.data.images.pixels import UnreadableImage
from chestxray.data.images.reading import Radiograph
from chestxray.errors import first_line

#: The elements by which a PACS files an image with its patient and study (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2), and what
#: an image of the same place as the film keeps of it (C.7.6.1).
FILED_BY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientIdentityRemoved",
    "DeidentificationMethod", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "StudyDescription", "ReferringPhysicianName", "TimezoneOffsetFromUTC", "PatientOrientation",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
#: The elements that say which instance the film is, when it was taken, and whether names are written in its pixels.
_OF_THE_FILM = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ContentDate", "ContentTime", "AcquisitionDate",
    "AcquisitionTime", "SeriesDate", "SeriesTime", "BurnedInAnnotation", "FrameOfReferenceUID", "PixelSpacing",
    "ImagerPixelSpacing",
)  # fmt: skip
#: Maximum number of bytes of an element: those here have at most 64 characters, names three times as many.
_MOST = 1_024
#: Compression that loses detail -> its name in LossyImageCompressionMethod (C.7.6.1.1.5.1).
_LOSSY = {
    JPEGBaseline8Bit: "ISO_10918_1",
    JPEGExtended12Bit: "ISO_10918_1",
    JPEGLSNearLossless: "ISO_14495_1",
}


def identity(path: Path, film: Radiograph) -> Dataset:
    """Return the patient, study and instance of the image at `path`, read as `film`, in Unicode.

    A DICOM file's are those of its header; what is longer than the standard allows is left out. Another file, and a
    DICOM file without a study, gets a study of its own whose UID is derived from the file's content. Another file's
    patient has an id derived in the same way, and no name. ``SOPInstanceUID`` is there where the film is an instance
    that others can refer to.

    Raises:
        UnreadableImage: the header cannot be read.
    """
    if film.format == "DICOM":
        found = _of_header(path)
    else:
        found = Dataset()
        found.PatientID = f"CHESTXRAY-{film.file_hash}"
        if film.format in ("JPEG", "MPO"):
            found.LossyImageCompression, found.LossyImageCompressionMethod = "01", "ISO_10918_1"
    if not all(found.get(keyword) for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID")):
        found.pop("SOPInstanceUID", None)
    if not found.get("StudyInstanceUID"):
        found.StudyInstanceUID = generate_uid(entropy_srcs=["chestxray study of", film.file_hash])
    if found.get("LossyImageCompression") == "01" and not found.get("LossyImageCompressionRatio"):
        # Required beside the method. Of what is shown: 8 bits a pixel.
        ratio = film.width * film.height / path.stat().st_size
        found.LossyImageCompressionRatio = f"{max(ratio, 1):.2f}"
    return found


def _of_header(path: Path) -> Dataset:
    found, keywords = Dataset(), (*FILED_BY, *_OF_THE_FILM)
    with warnings.catch_warnings():
        # pydicom warns about values that the standard does not allow. They are kept: a PACS compares them.
        warnings.simplefilter("ignore")
        try:
            header = pydicom.dcmread(BoundedFile(path.read_bytes()), stop_before_pixels=True, specific_tags=[*keywords])
            for keyword in keywords:
                raw = header.get_item(Tag(keyword))
                if raw is None or (isinstance(raw.value, bytes) and len(raw.value) > _MOST):
                    continue
                value = header[keyword].value
                several = isinstance(value, MultiValue)
                setattr(found, keyword, [str(one) for one in value] if several else str(value or ""))
        except UnreadableImage:
            raise
        # pydicom may raise any exception for malformed bytes.
        except Exception as error:
            raise UnreadableImage(f"DICOM whose header cannot be read: {first_line(error)}") from error
    lossy = _LOSSY.get(UID(header.file_meta.TransferSyntaxUID))
    if lossy and found.get("LossyImageCompression") != "01":
        found.LossyImageCompression, found.LossyImageCompressionMethod = "01", lossy
    return found
