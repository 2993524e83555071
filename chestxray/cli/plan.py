"""`chestxray plan`: computes the required size of a test set before it is collected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from chestxray.errors import InputError

if TYPE_CHECKING:
    from chestxray.evaluation.clinical.sample_size import Predictor

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_WIDTH = click.FloatRange(0, min_open=True)


@click.command(name="plan", context_settings={"show_default": True})
@click.option("--prevalence", type=_SHARE, required=True, help="Share of the patients with the finding.")
@click.option(
    "--auroc",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    required=True,
    help="Expected AUROC, such as that of an earlier test.",
)
@click.option(
    "--patients",
    type=click.IntRange(4, 10**9),
    multiple=True,
    default=(100, 300, 1000),
    help="Patients of the test; repeated: a column each.",
)
@click.option("--images", type=click.FloatRange(1, 10**6), default=1.0, help="Images a patient, on average.")
@click.option(
    "--shared",
    type=click.FloatRange(0, 1),
    default=0.5,
    help="How alike images of a patient are (intraclass correlation): 0 as of two patients, 1 the same.",
)
@click.option("--sensitivity", type=_SHARE, help="Expected [default: where both are alike, by the AUROC].")
@click.option("--specificity", type=_SHARE, help="Expected [default: where both are alike, by the AUROC].")
@click.option(
    "--predictor",
    type=(float, float),
    metavar="MEAN SD",
    help="Mean and standard deviation of the logit of the predicted probability, over all patients "
    "[default: normal within each class, by AUROC and prevalence].",
)
@click.option("--threshold", type=_SHARE, help="Threshold probability of the net benefit; without it, none is planned.")
@click.option("--difference", type=_WIDTH, default=0.03, help="Difference of two AUROCs that the test is to detect.")
@click.option("--margin", type=_WIDTH, default=0.05, help="Margin of non-inferiority of an AUROC.")
@click.option(
    "--correlation",
    type=click.FloatRange(-1, 1, max_open=True),
    default=0.5,
    help="Correlation of the two models' AUROCs over tests on the same images.",
)
@click.option(
    "--widths",
    type=(float, float, float, float),
    default=(0.2, 0.2, 0.1, 0.2),
    metavar="RATIO SLOPE AUROC BENEFIT",
    help="Wished widths of 95% intervals: observed / expected, calibration slope, AUROC, standardised net benefit.",
)
@click.option(
    "--promise",
    type=(float, float),
    default=(0.95, 0.95),
    metavar="SENSITIVITY CONFIDENCE",
    help="Sensitivity that validation is to promise, as --sensitivity and --confidence of `chestxray run`.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")  # fmt: skip
def command(
    prevalence: float,
    auroc: float,
    patients: tuple[int, ...],
    images: float,
    shared: float,
    sensitivity: float | None,
    specificity: float | None,
    predictor: tuple[float, float] | None,
    threshold: float | None,
    difference: float,
    margin: float,
    correlation: float,
    widths: tuple[float, float, float, float],
    promise: tuple[float, float],
    as_json: bool,
) -> None:
    """Plan the size of a test: expected intervals, statistical power and the number of patients needed.

    \b
        chestxray plan --auroc 0.9 --prevalence 0.3 --patients 200 --patients 500 --images 3
        chestxray plan --auroc 0.8 --prevalence 0.018 --predictor -5 2.5 --widths 1 0.2 0.1 0.2
    """  # noqa: D301 - click reads the backspace as "keep these lines"
    from scipy import stats

    from chestxray.evaluation.clinical import sample_size
    from chestxray.evaluation.clinical.sample_size import Design, Predictor
    from chestxray.evaluation.decision import conformal_quantile, operating_point

    if auroc + difference >= 1:
        raise InputError(f"auroc + difference must be below 1. Received: {auroc:g} + {difference:g}.")
    if min(widths) <= 0:
        raise InputError(f"widths must be above 0. Received: {', '.join(f'{width:g}' for width in widths)}.")
    if not (0 < promise[0] < 1 and 0 < promise[1] < 1):
        raise InputError(f"promise must be two shares above 0 and below 1. Received: {promise[0]:g} {promise[1]:g}.")
    if predictor is not None and predictor[1] <= 0:
        raise InputError(f"The standard deviation of --predictor must be above 0. Received: {predictor[1]:g}.")
    middle = float(stats.norm.cdf(stats.norm.ppf(auroc) / 2**0.5))
    sensitivity, specificity = (middle if value is None else value for value in (sensitivity, specificity))
    scores = Predictor.binormal(auroc, prevalence) if predictor is None else Predictor.normal(*predictor)
    sizes = {
        "observed / expected": (widths[0], sample_size.size_for_ratio(prevalence, widths[0])),
        "calibration slope": (widths[1], sample_size.size_for_slope(scores, widths[1])),
        "AUROC": (widths[2], sample_size.size_for_auroc(auroc, prevalence, widths[2])),
    }
    if threshold is not None:
        at = sample_size.size_for_net_benefit(sensitivity, specificity, prevalence, threshold, widths[3])
        sizes["standardised net benefit"] = (widths[3], at)
    designs = [Design(count, prevalence, images, shared) for count in patients]
    needed = operating_point.patients_needed(*promise)
    content = {
        "assumed": {
            "prevalence": prevalence, "auroc": auroc, "sensitivity": sensitivity, "specificity": specificity,
            "images": images, "shared": shared, "correlation": correlation,
        },
        "expected": [_expected(design, auroc, sensitivity, specificity, scores) for design in designs],
        "power": [
            {"patients": design.patients, "difference": design.power(auroc, difference, correlation),
             "non_inferiority": design.non_inferiority_power(auroc, margin, correlation)}
            for design in designs
        ],
        "needed": {
            name: {"width": width, "images": size, "patients": _patients(size, images, shared)}
            for name, (width, size) in sizes.items()
        },
        "validation": {
            "promise": {"sensitivity": promise[0], "confidence": promise[1], "patients_with_the_finding": needed},
            "conformal": {f"{level:g}": conformal_quantile.patients_needed(level) for level in (0.9, 0.95, 0.99)},
        },
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(content, indent=2))
        return
    _tell(content, difference, margin)


def _expected(
    design: Any, auroc: float, sensitivity: float, specificity: float, scores: Predictor
) -> dict[str, dict[str, float | None] | int]:
    return {
        "patients": design.patients,
        "AUROC": design.auroc(auroc).to_json(),
        "sensitivity": design.share(sensitivity, design.prevalence).to_json(),
        "specificity": design.share(specificity, 1 - design.prevalence).to_json(),
        "observed / expected": design.ratio().to_json(),
        "calibration slope": design.slope(scores).to_json(),
    }


def _patients(size: int, images: float, shared: float) -> int:
    """Return the number of patients with `images` images each that is equivalent to `size` patients with one image."""
    return -int(-size * (1 + (images - 1) * shared) // images)


def _tell(content: dict[str, Any], difference: float, margin: float) -> None:
    from chestxray.cli.output import quoted, table

    assumed, expected = content["assumed"], content["expected"]
    heads: Sequence[str] = [f"{item['patients']:,} patients" for item in expected]
    click.echo(
        f"\nExpected 95% intervals, at a prevalence of {assumed['prevalence']:g} and {assumed['images']:g} images a "
        f"patient (intraclass correlation {assumed['shared']:g}):"
    )
    names = [name for name in expected[0] if name != "patients"]
    table(("figure", *heads), [(name, *(quoted(item[name]) for item in expected)) for name in names])
    click.echo(f"\nPower, two models on the same images (correlation of their AUROCs {assumed['correlation']:g}):")
    rows = [
        (f"to tell an AUROC of {assumed['auroc']:g} from {assumed['auroc'] + difference:g} (p < .05)", "difference"),
        (f"to show an equal one to be worse by less than {margin:g} (one-sided .025)", "non_inferiority"),
    ]
    table(("", *heads), [(text, *(f"{item[key]:.2f}" for item in content["power"])) for text, key in rows])
    click.echo("\nNeeded for intervals of these widths (Riley et al. 2021):")
    table(
        ("figure", "width", "patients", "images, were all of different patients"),
        [
            (name, f"{item['width']:g}", f"{item['patients']:,}", f"{item['images']:,}")
            for name, item in content["needed"].items()
        ],
    )
    promised = content["validation"]["promise"]
    levels = ", ".join(f"{level} from {count}" for level, count in content["validation"]["conformal"].items())
    click.echo(
        f"\nValidation must have {promised['patients_with_the_finding']} patients with the finding to promise a "
        f"sensitivity of {promised['sensitivity']:g} with confidence {promised['confidence']:g}, all of them found. "
        f"Conformal coverage can be promised of {levels} validation patients on."
    )
