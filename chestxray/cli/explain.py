"""`chestxray explain`: draws where in image files the score of a class comes from."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chestxray.cli.places import READ_MODEL
from chestxray.errors import InputError, OutputError, require
from chestxray.progress.bars import progress
from chestxray.recipe import EXPLANATIONS, GRADCAM, PIXEL_EXPLANATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chestxray.inference.explanation_files import Files
    from chestxray.runs.run_folder import Run

log = logging.getLogger("chestxray")

#: Most rows of a panel: an image with a class each.
ROWS = 40


@click.command(name="explain")
@click.argument("run", type=READ_MODEL, metavar="RUN|PLUGIN:WEIGHTS")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=(GRADCAM,),
    show_default=True,
    metavar="METHOD",
    help=f"How the map is made: {', '.join(EXPLANATIONS)}, or the name of a plugin's. May be given several times.",
)
@click.option(
    "--class",
    "wanted",
    default="top",
    show_default=True,
    metavar="NAME|top|all",
    help="The class or finding that is explained; top: the class decided on, of findings the most probable one.",
)
@click.option("--layer", metavar="NAME", help="Layer of feature maps [default: that of the architecture].")
@click.option("--recursive", is_flag=True, help="Search the folders below a folder too.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("explanations"),
    show_default=True,
    metavar="DIR",
    help="Folder for the pictures, raw maps and JSON files.",
)
@click.option(
    "--panel",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help=f"Draw all maps into one figure with their colour bars, up to {ROWS} rows.",
)
@click.option(
    "--dicom",
    is_flag=True,
    help="Write each picture as a DICOM Secondary Capture too, and each raw map as a Parametric Map at the size of the "
    "image; both name the patient and study of a DICOM image. Needs chestxray[dicom-output].",
)
def command(
    run: Path,
    images: tuple[Path, ...],
    methods: tuple[str, ...],
    wanted: str,
    layer: str | None,
    recursive: bool,
    output: Path,
    panel: Path | None,
    dicom: bool,
) -> None:
    """Explain the answers of RUN, the folder of a finished run or a ready model, for image files or folders: where in
    the image the score of a class comes from.

    \b
        chestxray explain runs/x film.png
        chestxray explain runs/x films --class pneumonia --method gradcam --method occlusion --panel panel.png
        chestxray explain runs/x film.dcm --class all --method integrated-gradients --output maps
        chestxray explain runs/x film.dcm --dicom

    Writes three files for each image, class and method to --output: a PNG, the image at its own resolution with the map
    over it; an NPY, the raw map, float32 at the size of the model's input and in the unit of the method; and a JSON
    with the answer and what the map says; with --dicom two files for a PACS as well. All maps of a method share one
    scale, that of RUN's report where its maps are by this method, so that a faint map stays faint.

    A heat map is no outline of a disease, and a plausible one is no evidence that the answer is right.
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    methods = tuple(dict.fromkeys(methods))
    _check_places(output, panel)
    if dicom:
        require("--dicom", "highdicom")
    if panel is not None:
        require("A figure", "matplotlib")
    from chestxray.data.images import listing
    from chestxray.inference import opening

    if opening.is_onnx(run):
        raise InputError(f"A run or a ready model is explained. Received: the ONNX file {run}.")
    from chestxray.models import startup

    startup.require_tensorflow("Explaining")
    startup.start()  # before the first import of Keras, so that TensorFlow is quiet
    from chestxray.inference import explaining
    from chestxray.inference.explanation_files import Files
    from chestxray.report import map_checks_wording
    from chestxray.runs.run_folder import Run

    engine = explaining.engine_of(run)
    explaining.check(engine, methods, wanted, layer)
    paths = listing.listed(images, recursive=recursive)
    known = Run(run)
    own = layer in (None, engine.layer)
    # At another layer than the run's, the maps are others than those that were checked.
    badges = {name: one["badge"] for name, one in known.map_checks.items()} if own else {}
    files = Files(
        output, engine, opening.max_pixels(run), layer, badges, dicom, stated=_scale(known, methods) if own else {}
    )
    _check_images_stay(files, paths, methods, panel)
    new = not output.exists()
    try:
        unreadable = _explain(files, paths, methods, wanted)
        with progress("Drawing", len(files.entries)) as advance:
            for _ in files.finish():
                advance(1)
    except BaseException:  # Ctrl-C too
        files.discard()
        if new:
            with suppress(OSError):  # it has maps that are whole, or was not made
                output.rmdir()
        raise
    if panel is not None and files.entries:
        _draw(files, methods, panel)
    _summarise(files, methods, unreadable)
    for method in methods if own else ():
        log.info(map_checks_wording.sentence(known, method))
    if not own:
        log.info("The maps at the layer %s were not checked: the checks of the run are of its own layer.", layer)
    log.info("Research use only. Not a medical device; not for diagnosis.")
    if unreadable == len(paths):
        raise SystemExit(1)


def _explain(files: Files, paths: Sequence[str], methods: Sequence[str], wanted: str) -> int:
    """Write the raw maps of `paths`; return how many cannot be read, each with a warning."""
    from chestxray.inference import explaining
    from chestxray.inference.explaining import Explained

    unreadable, last = 0, ""
    with progress("Explaining", len(paths)) as advance:
        for one in explaining.explained(
            files.engine, paths, methods=methods, wanted=wanted, layer=files.layer, max_pixels=files.max_pixels
        ):
            if not isinstance(one, Explained):
                unreadable += 1
                log.warning("%s cannot be read: %s.", one.path, one.unreadable)
                advance(1)
                continue
            files.add(one)
            if one.answer.path != last:
                last = one.answer.path
                advance(1)
    return unreadable


def _scale(run: Run, methods: Sequence[str]) -> dict[str, float]:
    """Return the end of the scale that the run states, by method: without it, the map of one faint film would be
    stretched to a full one.
    """
    stated = {}
    for method in methods:
        # The run states none of methods that its report does not show.
        if (scale := run.map_scale(method)) is None:
            continue
        if scale["highest"] > 0:
            stated[method] = scale["highest"]
        else:
            log.warning("%s: the run's own maps are all empty and give no scale: these have their own.", method)
    return stated


def _check_places(output: Path, panel: Path | None) -> None:
    if output.exists() and not output.is_dir():
        raise OutputError(f"--output must be a folder. Received: the file {output}.")
    if panel is None:
        return
    if panel.suffix.lower() != ".png":
        raise OutputError(f"--panel must be a PNG file, with the suffix .png. Received: {panel}.")
    if panel.is_dir():
        raise OutputError(f"--panel must be a PNG file. Received: the folder {panel}.")
    above = next((folder for folder in panel.parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise OutputError(f"--panel must be in a folder. Received: {panel}, where {above} is a file.")


def _check_images_stay(files: Files, paths: Sequence[str], methods: Sequence[str], panel: Path | None) -> None:
    """Raise `OutputError` where a file that is written would replace an image, or the panel a file of a map."""
    if panel is not None and panel.exists():
        for path in paths:
            if Path(path).exists() and panel.samefile(path):
                raise OutputError(f"--panel would overwrite {path}, which is among the images. Choose another name.")
    folder = files.folder.resolve()
    inside = [path for path in paths if Path(path).resolve().parent == folder]
    in_folder = panel is not None and panel.resolve().parent == folder
    if not inside and not in_folder:
        return
    # Of a folder that was written to before, the pictures may be among the images.
    written = files.names(paths, methods)
    for path in inside:
        if Path(path).resolve().name in written:
            raise OutputError(f"--output would overwrite {path}, which is among the images. Choose another folder.")
    if in_folder and panel is not None and panel.resolve().name in written:
        raise OutputError(f"--panel has the name of a picture in --output. Choose another name. Received: {panel}.")


def _draw(files: Files, methods: Sequence[str], panel: Path) -> None:
    from chestxray.explanation.published_explanations import unit_of
    from chestxray.report.figures.explanations import explanation_panel
    from chestxray.report.figures.style import save

    rows = files.panel(methods, ROWS)
    said = {one: f"{one}: fails its checks" if files.badges.get(one) == "fails" else one for one in methods}
    save(explanation_panel(rows, [(said[one], unit_of(one), files.highest(one)) for one in methods]), panel)
    total = len(files.entries) // len(methods)
    if total > len(rows):
        log.warning("%s has the first %d of %d rows.", panel, len(rows), total)


def _summarise(files: Files, methods: Sequence[str], unreadable: int) -> None:
    from chestxray.explanation.published_explanations import unit_of

    for method in methods:
        if count := sum(entry.method == method for entry in files.entries):
            log.info(
                "%s: %d map%s in %s, on one scale from 0 to %.3g (%s).",
                method, count, "" if count == 1 else "s", files.folder, files.highest(method), unit_of(method),
            )  # fmt: skip
            if faint := files.faint(method):
                log.warning("%s: %d of %d maps are empty, or nearly so on this scale.", method, faint, count)
        if even := files.even[method]:
            of_layer = method in EXPLANATIONS and method not in PIXEL_EXPLANATIONS
            hint = " A layer that is one cell at this image size gives such maps." if of_layer else ""
            log.warning(
                "%s: %d of %d maps have one value everywhere, and show no place.%s", method, even, count, hint
            )  # fmt: skip
    if unreadable:
        log.warning("%d unreadable.", unreadable)
