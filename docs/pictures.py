"""Every picture of the documentation, made anew by small runs on phantoms and a comparison of them.

    python -m docs.pictures                  # all of them; some minutes on two cores
    python -m docs.pictures --runs FOLDER    # keep the runs there, and take those that are finished

Needs the plugin `chestxray-baselines` and Chromium or Chrome, which draws the pages ($CHESTXRAY_CHROMIUM, or the
first that is found). `tox -e pictures` has the former.
"""

import argparse
import io
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

import chestxray
from chestxray.cli.main import group
from chestxray.errors import InputError

DOCS = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FILMS = "phantom:images=900,classes=NORMAL+PNEUMONIA"
COMMON = {"image_size": 64, "batch_size": 16, "epochs": 14, "heatmaps": 2}
#: Name of a run -> its recipe. Small networks, which make mistakes: a perfect score would show a reader little.
RUNS = {
    "shallow_cnn": {"model": "shallow_cnn", "data": FILMS, **COMMON},
    "shallow_cnn, seed 1": {"model": "shallow_cnn", "data": FILMS, **COMMON, "seed": 1, "split_seed": 0},
    "deep_fc": {"model": "deep_fc", "data": FILMS, **COMMON},
    "marked": {"model": "shallow_cnn", "data": f"{FILMS},marker=0.9", **COMMON},
}
COMPARED = ("shallow_cnn", "shallow_cnn, seed 1", "deep_fc")
#: Picture -> the run, the sections of its report that are shown, how many pixels of them at most.
SECTIONS = {
    "report.png": ("shallow_cnn", ("summary", "results"), 1150),
    "results.png": ("shallow_cnn", ("results",), 920),
    "thresholds.png": ("shallow_cnn", ("operating_points",), 640),
    "heatmaps.png": ("shallow_cnn", ("heatmaps",), 860),
    "controls.png": ("marked", ("controls",), 560),
}
WIDTH = 960


def trained(folder: Path) -> dict[str, Path]:
    """The folders of `RUNS` below `folder`; what is not finished there is trained."""
    found = {}
    for name, fields in RUNS.items():
        path = folder / name
        try:
            chestxray.load(path)
        except InputError:
            chestxray.run(output=path, overwrite=path.exists(), **fields)
        found[name] = path
    return found


def browser() -> str:
    """The program that draws pages. Raises InputError where none is installed."""
    path = os.environ.get("CHESTXRAY_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        raise InputError(f"The pictures need a browser: one of {', '.join(BROWSERS)}, or $CHESTXRAY_CHROMIUM.")
    return path


def photographed(page: str, path: Path, most: int) -> None:
    """Write what a browser shows of the HTML `page` to `path`, at most `most` pixels high, without empty margins."""
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "page.html"), Path(scratch, "page.png")
        source.write_text(page, encoding="utf-8")
        arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
        ]
        size = f"--window-size={WIDTH},{most + 200}"
        command = [browser(), *arguments, size, f"--screenshot={target}", source.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603 - our own page
        image = Image.open(io.BytesIO(target.read_bytes())).convert("RGB").crop((0, 0, WIDTH, most))
    used = np.asarray(image).min(axis=2) < 250
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    edge = 16
    box = (columns[0] - edge, rows[0] - edge, columns[-1] + edge, rows[-1] + edge)
    left, top, right, bottom = (int(n) for n in box)
    cut = image.crop((max(left, 0), max(top, 0), min(right, WIDTH), min(bottom, most)))
    cut.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def of_report(folder: Path, sections: tuple[str, ...]) -> str:
    """The report in `folder` with these sections alone, in light colours."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    shown = ", ".join(f"#{name}" for name in sections)
    style = (
        f"nav, footer, .skip, main > section:not({shown}) {{ display: none !important; }}"
        "body { display: block !important; max-width: none; padding: 0 24px; } main { padding: 0; }"
        "section { border: 0 !important; }"
    )
    return page.replace("</head>", f"<style>{style}</style></head>").replace("light dark", "light")


#: Bands of the drawing of the flow: name, colour, steps with what each leaves.
FLOW = (
    ("Data", "#dfe9f3", (
        ("source", "image files"), ("index", "a row an image"), ("decoded", "one array"),
        ("split", "by patient"), ("audit", "leaks stop here"),
    )),
    ("Training", "#e3efe3", (("model", "one Keras graph"), ("training", "epoch by epoch"))),
    ("Holdout", "#f6ead8", (("validation", "chooses everything"), ("test", "predicted once"))),
    ("Result", "#ece4f1", (
        ("results", "with intervals"), ("controls", "see no lungs"), ("explanation", "heat maps"),
        ("report", "one page"),
    )),
)  # fmt: skip


def flow() -> str:
    """The steps of a run as SVG, a row for each band."""
    box, gap, left, height, row = 116, 22, 96, 56, 92
    width = left + 5 * box + 4 * gap + 16
    total = len(FLOW) * row + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" role="img" '
        'font-family="system-ui, sans-serif" font-size="14">',
        "<title>The flow of a run, from the recipe to the report</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#545d69"/></marker></defs>',
        f'<rect width="{width}" height="{total}" rx="8" fill="#ffffff"/>',
        f'<text x="{left}" y="30" fill="#1b1f24"><tspan font-weight="600">recipe</tspan>'
        '<tspan fill="#545d69"> every choice, settled before anything is read</tspan></text>',
    ]
    line = 'fill="none" stroke="#545d69" stroke-width="1.5" marker-end="url(#tip)"'
    for number, (name, colour, steps) in enumerate(FLOW):
        y = 52 + number * row
        parts.append(f'<text x="16" y="{y + 33}" font-weight="600" fill="#545d69">{escape(name)}</text>')
        for place, (step, leaves) in enumerate(steps):
            x = left + place * (box + gap)
            middle = x + box / 2
            parts += [
                f'<rect x="{x}" y="{y}" width="{box}" height="{height}" rx="6" fill="{colour}" stroke="#8a94a0"/>',
                f'<text x="{middle}" y="{y + 24}" text-anchor="middle" font-weight="600" fill="#1b1f24">{step}</text>',
                f'<text x="{middle}" y="{y + 43}" text-anchor="middle" font-size="11" fill="#3d444d">{leaves}</text>',
            ]
            if place:
                parts.append(f'<path d="M{x - gap} {y + height / 2}H{x - 1}" {line}/>')
        if number + 1 < len(FLOW):
            last = left + (len(steps) - 1) * (box + gap) + box / 2
            below = y + height + (row - height) / 2
            first = left + box / 2
            parts.append(f'<path d="M{last} {y + height}V{below}H{first}V{y + row - 1}" {line}/>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Make every picture."""
    parser = argparse.ArgumentParser(description=re.split(r"\n\n", __doc__ or "")[0])
    parser.add_argument("--runs", type=Path, help="Folder of the runs [default: a temporary one].")
    given = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as scratch:
        folder = given or Path(scratch)
        runs = trained(folder)
        for name, (run, sections, most) in SECTIONS.items():
            photographed(of_report(runs[run], sections), DOCS / name, most)
        compared = folder / "comparison"
        shutil.rmtree(compared, ignore_errors=True)
        group(["compare", *(str(runs[name]) for name in COMPARED), "--output", str(compared)], standalone_mode=False)
        shutil.copyfile(compared / "forest.png", DOCS / "comparison.png")
        shutil.copyfile(runs["shallow_cnn"] / "figures" / "reliability.png", DOCS / "calibration.png")
    (DOCS / "flow.svg").write_text(flow(), encoding="utf-8")


if __name__ == "__main__":
    main()
