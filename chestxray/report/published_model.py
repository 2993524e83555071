"""The model card of a ready model, and what weakens its answers: it was trained, and is described, by its publisher."""

from __future__ import annotations

from chestxray.report.caution import Caution
from chestxray.report.model_card import HTML, markdown
from chestxray.report.templating import render
from chestxray.runs.run_folder import Run
from chestxray.storage.files import write_text


def caution(run: Run) -> Caution:
    """Return what a reader of any answer or figure of the ready model `run` must know."""
    seen = run.environment["model"]["published_weights"]["trained_on"]
    on = f" It was trained on {', '.join(seen)}: a test on films of these is not external." if seen else ""
    text = (
        f"{run.published} is its publisher's model, with the head and the operating points that its publisher states. "
        "Its probabilities are the sigmoid of the network's outputs, calibrated on no films of yours; each compares "
        f"with the threshold of its own finding alone. {how_to_calibrate(run)}{on}"
    )
    return Caution("serious", "By its publisher, and calibrated on none of your films", text)


def how_to_calibrate(run: Run) -> str:
    """Return the command that calibrates the model, in a sentence."""
    return f"Calibrate it on films of yours: chestxray calibrate {run.published} --data FILMS."


def write_card(run: Run) -> None:
    """Write MODEL_CARD.md and MODEL_CARD.html into the folder of a ready model.

    Raises:
        OutputError: the folder cannot be written to.
    """
    for name in ("MODEL_CARD.md", HTML):
        template = "published_card.html.jinja" if name == HTML else "published_card.md.jinja"
        write_text(run.folder / name, _filled_in(template, run))


def _filled_in(template: str, run: Run) -> str:
    weights, plugin = (run.environment["model"]["published_weights"], run.environment["plugin"])
    height, width = run.environment["model"]["image_size"]
    facts = {
        "Weights": weights["name"],
        "Fetched from": weights["url"],
        "SHA-256": weights["sha256"],
        "Licence of the weights": plugin["weights_licence"] or "not stated",
        "Trained on": ", ".join(weights["trained_on"]) or "not stated",
        "Reference": plugin["reference"] or "not stated",
        "Network by": f"{plugin['distribution']} {plugin['version']} ({plugin['licence'] or 'licence not stated'})",
        "Input": f"one film, grey, {height} by {width} pixels ({run.recipe.fit})",
    }
    found = caution(run)
    return render(
        template,
        {"md": markdown},
        title=run.published,
        caution=found,
        calibrate=how_to_calibrate(run),
        facts=facts,
        findings=[
            (name, one.threshold, one.chosen_by) for name, one in run.finding_decision.findings.items()
        ],
    )  # fmt: skip
