"""Facts about the model of a run: architecture, training, selection and output."""

from __future__ import annotations

from typing import Any

from chestxray.evaluation.figure_format import number
from chestxray.report import probe_table
from chestxray.report.facts.extras import listing, mapping
from chestxray.report.figures import best_epoch, divided, went_by
from chestxray.report.formatting import plural
from chestxray.report.sections import data_facts, environment_facts
from chestxray.runs.run_folder import Run


def method(run: Run) -> list[str]:
    """The kind of method and the classes it distinguishes."""
    return [
        f"Deep learning: {run.recipe.model}, a network that sorts chest radiographs into "
        f"{plural(len(run.classes), 'class', 'classes')} ({', '.join(run.classes)})."
    ]


def predictors(run: Run) -> list[str]:
    """The input of the model."""
    size = run.environment.get("model", {}).get("image_size") or run.recipe.image_size
    if not size:
        return []
    return [
        f"The {size[0]} by {size[1]} pixels of the radiograph and nothing else: none was selected by hand, none is "
        "assessed by a person."
    ]


def architecture(run: Run) -> list[str]:
    """Name, size, origin and reference of the architecture."""
    made = environment_facts(run)
    origin = [f"{name}: {made[name]}" for name in ("Architecture from", "Reference") if name in made]
    return [f"{data_facts(run)['Architecture']}.", *origin]


def output(run: Run) -> list[str]:
    """The output of the model and its calibration."""
    decision = mapping(run, "decision")
    calibration = decision.get("calibration") or {}
    temperature = calibration.get("temperature") if calibration.get("method") != "none" else None
    softened = f" at temperature {temperature:.3g}" if isinstance(temperature, int | float) else ""
    softened += ", class offsets added" if calibration.get("offsets") else ""
    if run.finding is not None:
        said = f"The probability of {run.finding} (sigmoid{softened}), one of several findings that the model answers"
    else:
        said = f"A probability for each of {', '.join(run.classes)}, adding up to 1 (softmax{softened})"
    return [f"{said}, from the raw pixels; scaling is inside the saved model."]


def thresholds(run: Run) -> list[str]:
    """The rule by which probabilities become a prediction, and when the model abstains."""
    points = mapping(run, "operating_points")
    rule = points.get("rule")
    if not rule:
        positive, classes = run.positive, plural(len(run.classes), "class", "classes")
        return [f"The answer is {positive or 'a class'} where that is the most probable of {classes}."]
    limit = mapping(run, "abstention").get("coverage")
    abstains = f"May abstain: promised coverage {limit:g}." if isinstance(limit, int | float) else ""
    return [line for line in (rule, abstains) if line]


def software(run: Run) -> list[str]:
    """Software versions, platform and devices."""
    environment = run.environment
    versions = {"chestxray": environment.get("chestxray"), "Python": environment.get("python")}
    versions |= environment.get("packages") or {}
    made = environment_facts(run)
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return [
        *([f"{listed}."] if listed else []),
        *(f"{name}: {made[name]}" for name in ("Architecture from", "Platform", "Devices") if name in made),
    ]


def start(run: Run) -> list[str]:
    """Origin and licence of the initial weights."""
    known, made = data_facts(run), environment_facts(run)
    licence = made.get("Licence of the weights")
    own = f" Licence of the weights: {licence}." if licence else ""
    return [f"Initial weights: {known['Initial weights']}; seed {run.recipe.seed}.{own}"]


def training(run: Run) -> list[str]:
    """Loss, optimiser, learning rate schedule, epochs and seed."""
    recipe, history = run.recipe, run.history
    if run.calibrated_from:
        return [f"None in this run: the network is that of {run.calibrated_from}, whose probabilities are calibrated."]
    probe = probe_table.of(run)
    if probe is not None and not probe["followed"]:
        return [f"{probe_table.sentence(probe)} {in_loss(run).capitalize()}.{sampled(run)}"]
    smoothed = f", label smoothing {recipe.label_smoothing:g}" if recipe.label_smoothing else ""
    lines = [
        f"Loss: {recipe.loss}{smoothed}; {in_loss(run)}.{sampled(run)}",
        f"Optimiser: {recipe.optimizer}, {recipe.schedule} schedule, warm-up {recipe.warmup_share:.0%} of the steps, "
        f"weight decay {recipe.weight_decay:g}; batches of {recipe.batch_size}; seed {recipe.seed}.",
    ]
    if probe is not None:
        lines.insert(0, probe_table.sentence(probe))
        _, history = divided(history)
    if not history.empty:
        rates = history.groupby("phase", sort=False)["learning_rate"].max() if "learning_rate" in history else {}
        highest = ", ".join(f"{rate:.2g} ({phase})" for phase, rate in rates.items())
        lines.append(f"{plural(len(history), 'epoch')} run; highest learning rate {highest or 'not recorded'}.")
    return lines


def sampled(run: Run) -> str:
    """How often training images were seen, as a sentence after another; empty where all were seen alike."""
    if run.recipe.sampling == "uniform":
        return ""
    shown = "findings" if _findings(run) else "classes"
    return f" Images of rare {shown} were drawn more often (repeat factors)."


def in_loss(run: Run) -> str:
    """How the loss treats frequent and rare classes, as a clause."""
    recipe = run.recipe
    if _findings(run):
        alike = "present and absent count alike" if recipe.weighs_findings else "present and absent not weighted"
        return f"over the findings that are known, {alike}"
    return "classes weighted" if recipe.class_weights else "classes not weighted"


def _findings(run: Run) -> bool:
    """Return whether the model of the run was trained on findings."""
    return run.task == "findings" or run.finding is not None


def augmentation(run: Run) -> list[str]:
    """Random augmentation of the training images."""
    if run.calibrated_from:
        return ["Augmentation: none in this run, which trained nothing."]
    if run.recipe.probe and not run.recipe.epochs_follow_probe:
        return [_views(run)]
    mixed = f", {run.recipe.mix}" if run.recipe.mix != "none" else ", no mixing of images"
    return [f"Augmentation: {run.recipe.augment}{mixed}."]


def _views(run: Run) -> str:
    """What a linear probe has seen of each image."""
    recipe = run.recipe
    if recipe.augment == "none" or not recipe.cached_views:
        return "Augmentation: none, the head was fitted on the images as they are."
    views = plural(recipe.cached_views, "augmented view")
    return f"Augmentation: {recipe.augment}; the head was fitted on each image as it is and in {views}."


def choice(run: Run) -> list[str]:
    """The epoch whose weights were kept, or the strength of a linear probe, and its validation figure."""
    history, probe = run.history, probe_table.of(run)
    if probe is not None and not probe["followed"]:
        return [
            f"Kept is C = {probe['C']:g} of {len(probe['rows'])} strengths of the penalty, {probe['best_in']} "
            f"({probe['value']}). Nothing else was searched for by this run."
        ]
    if probe is not None:
        _, history = divided(history)
    best = None if history.empty else best_epoch(history)
    if best is None:
        return []
    column, best_in = went_by(history)
    kept = (
        f"Kept are the weights of epoch {best + 1} of {len(history)}, {best_in} of the last phase "
        f"({number(float(history[column].iloc[best]))}). One set of hyperparameters was trained; none was "
        "searched for by this run."
    )
    return [kept]


def ensemble(run: Run) -> list[str]:
    """Number of models whose probabilities are combined."""
    members = listing(mapping(run, "ensemble"), "members")
    if members:
        return [f"The probabilities of {plural(len(members), 'model')} are put together."]
    if run.is_ensemble:
        return ["The probabilities of several models are put together; the card of the run names their number."]
    parameters = run.environment.get("model", {}).get("parameters")
    return [] if parameters is None else [f"None: one model of {parameters:,} parameters answers."]


def recalibration(run: Run) -> list[str]:
    """Calibration fitted on the validation images, with the measures before and after it."""
    if not run.recipe.calibrate:
        return [f"None: {run.recipe.model} was left as it was trained (calibrate = false in the recipe)."]
    found = mapping(run, "calibration")
    temperature = found.get("temperature")
    if not isinstance(temperature, int | float):
        return []
    edge = " It stands at the bound of the fit and means little." if found.get("at_bound") else ""
    offsets = found.get("offsets") or {}
    added = "; added to the logits: " + ", ".join(f"{k} {v:+.2f}" for k, v in offsets.items()) if offsets else ""
    lines = [
        f"{str(found.get('method', '')).capitalize()}: temperature {temperature:.3g}{added}; fitted on "
        f"{found.get('rows', 'the')} validation images.{edge}"
    ]
    for split in ("validation", "test"):
        before, after = (mapping(mapping(found, split), when) for when in ("before", "after"))
        changes = [f"{_CALIBRATION.get(name, name)} {_change(before, after, name)}" for name in after]
        if changes:
            lines.append(f"{split.capitalize()}, before and after: {'; '.join(changes)}.")
    return lines


_CALIBRATION = {"slope": "slope", "intercept": "intercept", "ece": "ECE", "brier": "Brier score"}


def _change(before: Any, after: Any, name: str) -> str:
    return " to ".join(number(mapping(figures, name).get("value")) for figures in (before, after))


def repeat(run: Run) -> list[str]:
    """What is needed to repeat the run."""
    version = run.environment.get("chestxray")
    fingerprint = run.environment.get("data", {}).get("fingerprint")
    if not version:
        return []
    data = f"; fingerprint of the data {fingerprint}" if fingerprint else ""
    seed = run.recipe.seed
    return [f"recipe.toml holds every choice and repeats the run with chestxray {version}, seed {seed}{data}."]


def code(run: Run) -> list[str]:
    """The versions and licences of chestxray and of the model plugin."""
    plugin, version = run.environment.get("plugin", {}), run.environment.get("chestxray")
    if not version:
        return []
    licence = f" ({plugin['licence']})" if plugin.get("licence") else ""
    own = " ".join(filter(None, [plugin.get("distribution"), plugin.get("version")]))
    return [f"chestxray {version} (Apache-2.0)" + (f"; {own}{licence}." if own else ".")]


def licences(run: Run) -> list[str]:
    """Licences that the licence of the trained model must be compatible with."""
    made, known = environment_facts(run), data_facts(run)
    of = {
        "architecture": made.get("Licence of the architecture"),
        "initial weights": made.get("Licence of the weights"),
        "data": known.get("Licence of the data"),
    }
    licensed = "; ".join(f"{name}: {text}" for name, text in of.items() if text)
    return [f"Built on {licensed}."] if licensed else []


FACTS = (
    method, predictors, architecture, output, thresholds, software, start, training, augmentation, choice,
    ensemble, recalibration, repeat, code, licences,
)  # fmt: skip
