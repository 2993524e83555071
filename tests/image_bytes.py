"""Files of images, as bytes."""

import io

import numpy as np
from PIL import Image


def saved(image, kind, **options):
    """`image`, an array or Pillow's, as a file of that kind."""
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def dicom(pixels, kind="MONOCHROME2", bits=None, **tags):
    """A DICOM file's bytes, uncompressed unless `jpeg` is given."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import (
        DigitalXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
        JPEGBaseline8Bit,
        generate_uid,
    )

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = JPEGBaseline8Bit if "jpeg" in tags else ExplicitVRLittleEndian
    data = FileDataset("x.dcm", {}, file_meta=meta, preamble=b"\0" * 128)
    data.PatientName = "Roentgen^Wilhelm"
    data.PatientID = "18450327"
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = kind
    data.BitsAllocated = pixels.dtype.itemsize * 8
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = 0
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    if "jpeg" in tags:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=tags.pop("jpeg"))
        data.PixelData = encapsulate([buffer.getvalue()])
    else:
        data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
