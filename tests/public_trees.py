"""Trees with the layouts of the public sets, traps included, drawn from phantoms."""

import csv
import functools
import itertools
from pathlib import Path

from PIL import Image

from chestxray.data.sources.phantom.drawing import draw

_numbers = itertools.count()


@functools.cache
def phantom(number: int, finding: str = "clear") -> Image.Image:
    """A phantom of 32 pixels: another patient for every number."""
    return Image.fromarray(draw(seed=5, patient=number, image=0, finding=finding, size=32).pixels)


def film(path: Path, number: int | None = None, mode: str = "L") -> Path:
    """Write a phantom, a new one unless a number is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    phantom(next(_numbers) if number is None else number).convert(mode).save(path, kind)
    return path


def kermany(root: Path) -> Path:
    """Split and class folders, the same again one level down, and a Mac's shadow of everything."""
    inner = root / "chest_xray"
    names = {
        "train": ("NORMAL/IM-0117-0001.jpeg", "NORMAL/NORMAL2-IM-0117-0001.jpeg", "NORMAL/IM-0119-0001.JPEG",
                  "PNEUMONIA/person1_bacteria_1.jpeg", "PNEUMONIA/person1_bacteria_2.jpeg",
                  "PNEUMONIA/person2_virus_3.jpeg", "PNEUMONIA/person3_virus_4.jpeg"),
        "val": ("NORMAL/NORMAL2-IM-1427-0001.jpeg", "PNEUMONIA/person1946_bacteria_4874.jpeg"),
        "test": ("NORMAL/IM-0001-0001.jpeg", "PNEUMONIA/person1_virus_6.jpeg", "PNEUMONIA/person3_virus_15.jpeg"),
    }  # fmt: skip
    for split, files in names.items():
        for name in files:
            number = next(_numbers)
            film(inner / split / name, number)
            film(inner / "chest_xray" / split / name, number)
            shadow = inner / "__MACOSX" / split / name
            shadow.parent.mkdir(parents=True, exist_ok=True)
            shadow.with_name(f"._{shadow.name}").write_bytes(b"\0\5\26\7" + b"Mac OS X" * 8)
    (inner / "train" / ".DS_Store").write_bytes(b"\0")
    (inner / "train" / "NORMAL" / "Thumbs.db").write_bytes(b"\0")
    return root


def roboflow(root: Path) -> Path:
    """Kermany's films under Roboflow's names, split by image: a patient is on both sides."""
    for split, patients in {"train": (1, 2, 3), "valid": (3,), "test": (4,)}.items():
        for patient in patients:
            film(root / split / "NORMAL" / f"IM-{patient:04d}-0001_jpeg.rf.0a{patient}.jpg")
            film(root / split / "PNEUMONIA" / f"person{patient}_virus_{split}_jpeg.rf.1b.jpg")
    return root


def covid_radiography(root: Path, *, flat: bool = False, each: int = 3) -> Path:
    """Class folders with images and masks of the same names; flat in early versions."""
    inner = root / "COVID-19_Radiography_Dataset"
    for label in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        for n in range(1, each + 1):
            name = f"{label}-{n}.png"
            film(inner / label / name if flat else inner / label / "images" / name)
            if not flat:
                film(inner / label / "masks" / name, mode="RGB")
    (inner / "README.md.txt").write_text("readme")
    (inner / "COVID.metadata.xlsx").write_bytes(b"PK")
    return root


def four_class(root: Path) -> Path:
    """A misspelt class, mixed suffixes, and names with spaces and letters of other alphabets."""
    for split in ("train", "test", "val"):
        film(root / split / "COVID19" / "COVID19(1).jpg")
        film(root / split / "NORMAL" / "NORMAL2-IM-0001 рентген.JPeG")
        film(root / split / "PNEUMONIA" / "person 1 virüs 肺.PNG")
        film(root / split / "TURBERCULOSIS" / "Tuberculosis-1.png", mode="RGB")
    return root


def covid_chestxray(root: Path) -> Path:
    """metadata.csv and images; CT slices, findings that are no class, rows without a finding."""
    heads = ("patientid", "sex", "age", "finding", "view", "modality", "filename", "clinical notes")
    rows = [
        ("2", "M", "65", "COVID-19", "PA", "X-ray", "a 1.jpeg", 'says "hello", twice'),
        ("2", "M", "65", "COVID-19", "PA", "X-ray", "a2.jpg", "seen\nagain"),
        ("4", "F", "", "COVID-19, ARDS", "AP", "X-ray", "b.png", ""),
        ("5", "F", "30", "SARS", "PA", "X-ray", "c.jpg", ""),
        ("6", "F", "30", "Streptococcus", "PA", "X-ray", "d.jpg", ""),
        ("7", "M", "41", "No Finding", "PA", "X-ray", "e.jpg", ""),
        ("8", "M", "41", "ARDS", "PA", "X-ray", "f.jpg", ""),
        ("9", "M", "41", "", "PA", "X-ray", "g.jpg", ""),
        ("10", "M", "41", "COVID-19", "Axial", "CT", "volume.nii.gz", ""),
    ]
    for row in rows[:8]:
        film(root / "images" / row[6])
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([heads, *rows])
    return root


def covid_xray_10000(root: Path, *, each: int = 3) -> Path:
    for label in ("covid", "normal"):
        for n in range(each):
            film(root / "dataset" / label / f"{n}.jpg")
    return root


def covid19_train_test(root: Path, *, each: int = 1) -> Path:
    for split in ("train", "test"):
        for label in ("NORMAL", "PNEUMONIA"):
            for n in range(each):
                film(root / "xray_dataset_covid19" / split / label / f"{n}.jpeg")
    return root


def circle(root: Path) -> Path:
    """A folder of two classes with links that lead back to it."""
    for label in ("a", "b"):
        film(root / label / "x.png")
    (root / "a" / "back").symlink_to(root)
    (root / "b" / "self").symlink_to(root / "b")
    return root


def too_deep(folder):
    """A film so far below `folder` that its path is longer than the operating system takes; the first folder."""
    import os

    name = "d" * 200
    # Relative to the folder that was made last: the whole path could not be made at once.
    handle = os.open(folder, os.O_RDONLY)
    for _ in range(25):
        os.mkdir(name, dir_fd=handle)
        inner = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    target = os.open("film.png", os.O_WRONLY | os.O_CREAT, dir_fd=handle)
    os.write(target, b"no matter")
    os.close(target)
    os.close(handle)
    return folder / name
