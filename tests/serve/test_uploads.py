"""Hostile and broken uploads: refused with a reason, before pixels are allocated, and never with 500."""

import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from serve.fakes import image_bytes, post


def png_claiming(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG whose header claims a size; one bit a pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def dicom(syntax=ExplicitVRLittleEndian, preamble=bytes(128), frame: bytes | None = None, **changes) -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    data = FileDataset("", {}, file_meta=meta, preamble=preamble)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = "Doe^Jane", "12345"
    data.Rows, data.Columns, data.SamplesPerPixel = 30, 40, 1
    data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.PixelData = np.full((30, 40), 220, np.uint8).tobytes() if frame is None else encapsulate([frame])
    for name, value in changes.items():
        setattr(data, name, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # With a time of its own: names of tests are made of these bytes, and must be alike in every process.
        archive.writestr(zipfile.ZipInfo("../../escape.txt", (2020, 1, 1, 0, 0, 0)), "x" * 1000)
    return buffer.getvalue()


def refused(client, content, kind="application/octet-stream"):
    response = post(client, content, kind)
    assert response.mimetype == "application/json"
    told = response.get_json()
    assert "answers" not in told and "Traceback" not in response.get_data(as_text=True)
    return response.status_code, told["error"]["code"]


def test_dicom_is_answered(client):
    response = post(client, dicom(), "application/dicom")
    assert response.status_code == 200
    assert response.get_json()["answers"][0]["decision"] == "bright"
    assert "Jane" not in response.get_data(as_text=True) and "12345" not in response.get_data(as_text=True)


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"GIF89a/*" + b"0" * 500,
        b"%PDF-1.7\n" + b"0" * 500,
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<!doctype html><script>alert(1)</script>",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"II*\0" + b"0" * 500,
        b"\x1f\x8b\x08" + b"0" * 500,
        b"\x80\x04\x95" + b"0" * 500,
        zipped(),
        image_bytes(kind="BMP"),
        image_bytes(kind="TIFF"),
        image_bytes(kind="GIF"),
    ],
    ids=lambda content: repr(content[:8]),
)
def test_what_is_none_of_the_kinds(client, content):
    assert refused(client, content) == (415, "not_an_image")


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/html",
        "image/gif",
        "image/svg+xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ],
)
def test_wrong_content_types(client, kind):
    assert refused(client, image_bytes(), kind) == (415, "content_type")


def test_content_that_is_not_what_its_type_says(client):
    assert refused(client, image_bytes(kind="JPEG"), "image/png") == (415, "mismatch")
    assert refused(client, image_bytes(), "application/dicom") == (415, "mismatch")


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/dicom", "application/octet-stream"])
def test_zero_bytes(client, kind):
    assert refused(client, b"", kind) == (422, "empty")


@pytest.mark.parametrize("content", [image_bytes(), image_bytes(kind="JPEG"), dicom()], ids=["PNG", "JPEG", "DICOM"])
def test_truncated_at_every_place(client, content):
    for length in sorted({*range(1, min(len(content), 60)), 132, 200, len(content) // 2, len(content) - 30}):
        if length < len(content):
            assert refused(client, content[:length])[0] in (415, 422)


@pytest.mark.parametrize("content", [image_bytes(), image_bytes(kind="JPEG"), dicom()], ids=["PNG", "JPEG", "DICOM"])
def test_damaged_bytes_never_give_500(make_client, content):
    client = make_client(per_minute=0)
    rng = np.random.default_rng(0)
    for _ in range(120):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 3):
            damaged[at] = rng.integers(0, 256)
        assert post(client, bytes(damaged), "application/octet-stream").status_code in (200, 413, 415, 422)


@pytest.mark.parametrize("tail", [zipped(), b"<script>alert(1)</script>", b"%PDF-1.7", b"\x7fELF"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_follows_an_image_is_never_read_nor_sent_back(client, kind, tail):
    response = post(client, image_bytes(kind=kind) + tail, "application/octet-stream", query="?pictures=true&maps=true")
    assert response.status_code == 200
    assert response.get_json()["image"]["format"] == kind
    assert response.get_json() | {"request_id": ""} == post(
        client, image_bytes(kind=kind), "application/octet-stream", query="?pictures=true&maps=true"
    ).get_json() | {"request_id": ""}


@pytest.mark.parametrize("start", [b"MZ", b"\x7fELF", b"#!/bin/sh\n", b"<html>", b"%PDF-1.7", b"PK\x03\x04"])
def test_dicom_with_a_program_in_its_preamble(client, start):
    assert refused(client, dicom(preamble=start.ljust(128, b"\0"))) == (415, "not_an_image")


def test_a_dicom_that_is_a_tiff_too_is_read_as_dicom(client):
    assert post(client, dicom(preamble=b"II*\0".ljust(128, b"\0")), "application/dicom").status_code == 200


def test_bytes_are_counted_before_they_are_read(make_client):
    client = make_client(max_upload=1000)
    assert refused(client, b"\x89PNG\r\n\x1a\n" + b"0" * 1000) == (413, "too_large")


def test_pixels_are_counted_before_they_are_allocated(client):
    # 2.5 GB as a grey image, 300 MB as bits; 300 kB here.
    bomb = png_claiming(50_000, 50_000, bytes(6251) * 50_000)
    assert len(bomb) < 400_000
    tracemalloc.start()
    try:
        assert refused(client, bomb) == (413, "too_many_pixels")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_the_limit_of_pixels_is_the_operators(make_client):
    assert refused(make_client(max_pixels=1199), image_bytes(size=(40, 30))) == (413, "too_many_pixels")
    assert post(make_client(max_pixels=1200), image_bytes(size=(40, 30))).status_code == 200
    assert refused(make_client(max_pixels=1199), dicom()) == (413, "too_many_pixels")


def test_a_png_whose_text_unpacks_without_end(client):
    packed = zlib.compress(bytes(50_000_000))
    content = b"Comment\0\0" + packed
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    plain = image_bytes()
    assert refused(client, plain[:33] + chunk + plain[33:])[0] == 422


def test_a_deflated_dicom_is_not_unpacked(client):
    bomb = dicom(DeflatedExplicitVRLittleEndian, ImageComments=" " * 10_000)
    assert refused(client, bomb) == (422, "unreadable")


def test_a_dicom_whose_jpeg_is_larger_than_its_header_says(client):
    large = image_bytes(size=(4000, 3000), kind="JPEG")
    assert refused(client, dicom(JPEGBaseline8Bit, frame=large)) == (422, "unreadable")
    fits = image_bytes(size=(40, 30), kind="JPEG")
    assert post(client, dicom(JPEGBaseline8Bit, frame=fits), "application/dicom").status_code == 200


def test_animations_and_pages(client):
    frames = [Image.new("L", (40, 30), value) for value in (0, 100, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    assert refused(client, buffer.getvalue()) == (422, "unreadable")
    assert refused(client, dicom(NumberOfFrames=2, PixelData=bytes(2400))) == (422, "unreadable")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_an_image_is_is_decided_once(client, kind):
    # A PNG or JPEG with DICM where a DICOM file has it: it was told to be the one, and read as the other.
    plain = image_bytes(kind=kind)
    text = bytes(128 - 41) + b"DICM" + bytes(100) if kind == "PNG" else bytes(128 - 6) + b"DICM" + bytes(100)
    if kind == "PNG":
        chunk = struct.pack(">I", len(text)) + b"juNk" + text + struct.pack(">I", zlib.crc32(b"juNk" + text))
        content = plain[:33] + chunk + plain[33:]
    else:
        content = plain[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + plain[2:]
    assert content[128:132] == b"DICM"
    told = post(client, content, "application/octet-stream").get_json()
    assert told["image"] == {"format": kind, "width": 40, "height": 30}
    assert told["answers"][0]["decision"] == "bright"


def test_messages_offer_only_what_is_taken(client, make_client):
    contents = [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"hello",
        image_bytes()[:40],
        bytes(128) + b"DICM" + b"x" * 40,
    ]
    for content in contents:
        message = post(client, content, "application/octet-stream").get_json()["error"]["message"]
        assert not any(kind in message for kind in ("TIFF", "BMP", "MPO")), message
    offered = [
        post(each, b"x", "text/plain").get_json()["error"]["message"]
        for each in (client, make_client(allow_links=True))
    ]
    assert "application/json" not in offered[0] and "application/json" in offered[1]
