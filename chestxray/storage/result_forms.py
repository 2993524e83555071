"""The schema of each JSON file that evaluation writes to a run's folder; docs/run-folder.md explains the fields.

Fields may be missing from files that only some runs have, and from those of earlier versions; a field that is
present has the type given here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from chestxray.storage.schema import Count, Share, Within


class FigureJson(TypedDict):
    """A number with its confidence interval; null if it cannot be computed."""

    value: float | None
    low: NotRequired[float | None]
    high: NotRequired[float | None]


Figures = dict[str, FigureJson]


class _Confusion(TypedDict):
    classes: list[str]
    counts: list[list[Count]]


class _Interval(TypedDict):
    level: Share
    method: str
    replicates: Count


class _CalibrationError(TypedDict):
    corrected: FigureJson
    plain: float | None
    noise: float | None
    noise_up_to: float | None


class _CalibrationMeasures(TypedDict):
    intercept: FigureJson
    slope: FigureJson
    ece: _CalibrationError
    per_class: dict[str, Figures]


class _Published(TypedDict):
    title: str
    meaning: str
    better: Literal["higher", "lower"]
    reference: str
    distribution: str
    version: str


class Metrics(TypedDict):
    """``metrics.json``."""

    test: Figures
    per_class: dict[str, Figures]
    confusion: _Confusion
    rows: Count
    patients: NotRequired[Count | None]
    images_of_unknown_patients: NotRequired[Count]
    positive: str | None
    interval: NotRequired[_Interval]
    calibration: NotRequired[_CalibrationMeasures]
    published: NotRequired[dict[str, _Published]]


class SomeMetrics(TypedDict, total=False):
    """The fields of `Metrics` that a table of several test sets shows."""

    test: Figures
    per_class: dict[str, Figures]
    confusion: _Confusion
    rows: Count
    patients: Count | None
    images_of_unknown_patients: Count
    positive: str | None


class _Plugin(TypedDict, total=False):
    name: str
    distribution: str
    version: str
    reference: str
    licence: str
    weights_licence: str


class _Method(TypedDict):
    kind: str
    name: str
    distribution: str
    version: str
    reference: str
    licence: str
    weights: NotRequired[str]


class _Data(TypedDict):
    name: str
    images: NotRequired[Count]
    fingerprint: NotRequired[str]
    licence: NotRequired[str]
    citation: NotRequired[str]
    decoded: NotRequired[str]
    films: NotRequired[str]


class _PublishedWeights(TypedDict):
    name: str
    url: str
    sha256: str
    trained_on: list[str]


class _PublishedHead(TypedDict):
    name: str
    features: str


class _Model(TypedDict, total=False):
    parameters: Count
    trained_parameters: Count
    image_size: list[Count]
    images_per_second: float | None
    published_weights: _PublishedWeights
    published_head: _PublishedHead
    calibrated_from: str


class Environment(TypedDict):
    """``environment.json``."""

    chestxray: NotRequired[str]
    python: NotRequired[str]
    platform: NotRequired[str]
    packages: NotRequired[dict[str, str]]
    backend: NotRequired[str]
    devices: NotRequired[list[str]]
    deterministic: NotRequired[bool]
    plugin: NotRequired[_Plugin]
    methods: NotRequired[list[_Method]]
    data: _Data
    model: NotRequired[_Model]
    started: NotRequired[str]
    finished: NotRequired[str]
    seconds: NotRequired[dict[str, float]]


class _LookAlike(TypedDict):
    paths: list[str]
    correlation: float
    across_splits: bool


class _Groups(TypedDict, total=False):
    groups: list[list[str]]
    across_splits: list[list[str]]
    searched: bool
    reason: str
    correlations: list[Any]
    look_alikes: list[_LookAlike]
    false_alarms: str


class _Patients(TypedDict, total=False):
    across_splits: list[dict[str, Any]]


class _Finding(TypedDict):
    severity: Literal["critical", "warning", "note"]
    kind: str
    count: Count
    sentence: str


class _Conflict(TypedDict):
    kind: str
    labels: dict[str, str]


class _Confound(TypedDict):
    name: str
    association: float | None
    p: float | None
    p_holm: NotRequired[float | None]
    flagged: bool
    sentence: str
    severity: NotRequired[str]
    finding: NotRequired[str]


class _Contradiction(TypedDict):
    path: str
    labels: str


class _Reason(TypedDict):
    path: str
    reason: str


class Audit(TypedDict, total=False):
    """``audit.json``."""

    severity: Literal["critical", "warning", "note"] | None
    findings: list[_Finding]
    exact_duplicates: _Groups
    near_duplicates: _Groups
    patients: _Patients
    conflicting_labels: list[_Conflict]
    contradictory_labels: list[_Contradiction]
    confounds: list[_Confound]
    small_validation: list[str]
    unreadable: list[_Reason]
    dropped: list[_Reason]
    on_leak: str
    notes: list[str]


class _Learnt(TypedDict):
    auroc: FigureJson


class _Control(TypedDict):
    name: str
    title: str
    sees: NotRequired[str]
    says: NotRequired[str]
    kind: Literal["leak", "likeness", "source"]
    auroc: FigureJson
    accuracy: NotRequired[FigureJson]
    # None for the control by source, which is no input of the model.
    share: NotRequired[FigureJson | None]
    learnt: NotRequired[_Learnt | None]
    widened_low: NotRequired[float | None]
    up_to: NotRequired[float | None]
    state: NotRequired[Literal["fires", "undecided", "excluded"]]
    fires: bool
    inherited: NotRequired[str]
    # Of the control that shows the model itself films without their lungs.
    lungs_only: NotRequired[FigureJson]
    films: NotRequired[Count]
    unknown: NotRequired[Count]


class _Named(TypedDict):
    name: str
    reason: str


class _Rule(TypedDict):
    limit: float
    share: float
    excluded: NotRequired[float]
    figures: NotRequired[Count]


class Controls(TypedDict):
    """``controls.json``."""

    verdict: str
    finding: NotRequired[Literal["shortcut", "part", "likeness", "undecided", "none", "unknown"]]
    fires: NotRequired[list[str]]
    model: NotRequired[Figures]
    controls: list[_Control]
    left_out: NotRequired[list[_Named]]
    rule: NotRequired[_Rule]
    rows: NotRequired[dict[str, Count]]
    inherited: NotRequired[list[str]]


class _Picture(TypedDict):
    file: str
    path: str
    label: str
    predicted: str
    probability: float
    right: bool
    group: NotRequired[str]
    explained: NotRequired[str]
    kinds: NotRequired[list[str]]


class _MapScale(TypedDict):
    lowest: float
    highest: Annotated[float, Within(0)]
    beyond: Count
    unit: str


class _GradcamScale(TypedDict):
    highest: Annotated[float, Within(0)]
    beyond: Count
    unit: str
    images: Count


class Heatmaps(TypedDict):
    """``heatmaps/index.json``."""

    layer: str | None
    reason: str
    method: NotRequired[str]
    #: That all maps share; absent where each is scaled to its own maximum.
    scale: NotRequired[_MapScale]
    #: The scale of Grad-CAM's maps, where the panel is by another method or without images.
    gradcam: NotRequired[_GradcamScale]
    images: NotRequired[list[_Picture]]


class _MapCheck(TypedDict):
    name: str
    verdict: Literal["passes", "doubtful", "fails"]
    sentence: str
    figures: dict[str, Any]


class _MapsOfMethod(TypedDict):
    method: str
    badge: Literal["passes", "doubtful", "fails", ""]
    reason: str
    images: Count
    checks: list[_MapCheck]


class MapChecks(TypedDict):
    """``heatmaps/checks.json``."""

    methods: list[_MapsOfMethod]


class _Side(TypedDict, total=False):
    name: str
    rows: Count
    patients: NotRequired[Count | None]
    images_of_unknown_patients: NotRequired[Count]


class _GapOfFinding(TypedDict):
    internal: FigureJson
    external: FigureJson
    gap: FigureJson
    p: Share | None
    p_holm: Share | None


class _Corrected(TypedDict):
    tests: Count
    p: Share | None
    p_holm: Share | None


class GeneralisationGap(TypedDict, total=False):
    """``generalisation_gap.json``."""

    internal: _Side
    external: _Side
    figures: dict[str, Figures]
    findings: NotRequired[dict[str, _GapOfFinding]]
    not_compared: NotRequired[dict[str, str]]
    corrected: NotRequired[_Corrected]
    reason: NotRequired[str]


class CalibrationFile(TypedDict, total=False):
    """``calibration.json``."""

    method: str
    temperature: float
    offsets: dict[str, float]
    at_bound: bool
    worse: list[str]
    test: dict[str, Figures]
    validation: NotRequired[dict[str, Figures]]


class _AtPrevalence(TypedDict):
    prevalence: Share
    ppv: FigureJson
    npv: FigureJson


class _AtThreshold(TypedDict, total=False):
    sensitivity: FigureJson
    specificity: FigureJson
    precision: FigureJson
    npv: FigureJson
    accuracy: FigureJson
    balanced_accuracy: FigureJson
    sensitivity_of_patients: FigureJson
    at_prevalence: _AtPrevalence
    optimism: dict[str, float]


class _Point(TypedDict, total=False):
    label: str
    threshold: float
    chosen_by: str
    decides: NotRequired[bool]
    test: _AtThreshold
    validation: _AtThreshold


class _SpecificityAt(TypedDict):
    sensitivity: Share
    specificity: FigureJson


class _PartialArea(TypedDict):
    most_false: Share
    figure: FigureJson


class _Regions(TypedDict):
    label: str
    specificity_at: list[_SpecificityAt]
    partial_auroc: _PartialArea


class OperatingPoints(TypedDict, total=False):
    """``operating_points.json``."""

    rule: str
    points: list[_Point]
    roc: list[_Regions]


class _CurvePoint(TypedDict):
    threshold: Share
    model: FigureJson
    everyone: FigureJson
    gain: FigureJson


class _Curve(TypedDict):
    prevalence: Share
    useful: list[float] | None
    points: list[_CurvePoint]


class DecisionCurve(TypedDict):
    """``decision_curve.json``."""

    label: str
    test: _Curve
    stated: NotRequired[_Curve]


class _OfPatients(TypedDict):
    test: Figures
    confusion: _Confusion


class PatientLevel(TypedDict):
    """``patient_level.json``."""

    images: Count
    patients: Count
    with_several_images: Count
    most_images: Count
    left_out: Count
    mean: _OfPatients
    highest: NotRequired[_OfPatients]


class _Estimated(TypedDict):
    maximisation: Figures
    confusion: Figures


class Prevalence(TypedDict):
    """``prevalence.json``."""

    assumption: str
    validation: dict[str, Share]
    estimated: _Estimated
    labels: Figures
    corrected: dict[str, Figures]


class _Judges(TypedDict, total=False):
    patients: Count
    rows: Count
    spread: list[float]


class Abstention(TypedDict, total=False):
    """``abstention.json``."""

    coverage: Share
    empty_promise: bool
    patients_needed: Count
    validation: _Judges
    test: Figures
    by_class: Figures


class _Refused(TypedDict, total=False):
    pictures: Count
    refused: FigureJson


class _Threshold(TypedDict, total=False):
    pictures: Count
    refused: FigureJson
    patients: Count
    least_allowed: Share
    capped: bool
    patients_needed: Count


class Refusal(TypedDict, total=False):
    """``refusal.json``."""

    validation: _Threshold
    test: _Refused
    others: _Refused
    by_kind: dict[str, _Refused]


class _Tested(TypedDict):
    p: Share | None
    p_holm: Share | None


class _Gap(FigureJson):
    p: Share | None
    p_holm: Share | None


class _GapsOfFigure(TypedDict):
    against: str
    groups: dict[str, _Gap]
    interaction: _Tested


class Gaps(TypedDict):
    """``gaps.json``."""

    method: str
    interaction: str
    tests: Count
    columns: dict[str, dict[str, _GapsOfFigure]]
    left_out: NotRequired[list[str]]


#: Schema by file name. Other files may hold any JSON.
FORMS: dict[str, Any] = {
    "metrics.json": Metrics,
    "by_source.json": dict[str, SomeMetrics],
    "by_group.json": dict[str, dict[str, SomeMetrics]],
    "gaps.json": Gaps,
    "environment.json": Environment,
    "audit.json": Audit,
    "controls.json": Controls,
    "index.json": Heatmaps,
    "checks.json": MapChecks,
    "generalisation_gap.json": GeneralisationGap,
    "calibration.json": CalibrationFile,
    "operating_points.json": OperatingPoints,
    "decision_curve.json": DecisionCurve,
    "patient_level.json": PatientLevel,
    "prevalence.json": Prevalence,
    "abstention.json": Abstention,
    "refusal.json": Refusal,
}
