"""``padchest``: PadChest (Bustos 2020), a list of labels an image from a tree of findings."""

from __future__ import annotations

import re

import pandas as pd

from chestxray.data.sources.label_layouts.labels import Given, Labels, column, states_of_lists
from chestxray.errors import DataError

#: Finding -> its kinds, with which it is present, too, as in the set's own tree.
KINDS = {
    "atelectasis": (
        "laminar atelectasis", "lobar atelectasis", "segmental atelectasis", "total atelectasis", "round atelectasis",
        "atelectasis basal",
    ),
    "pleural effusion": ("loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax"),
    "pneumothorax": ("hydropneumothorax",),
    "pneumonia": ("atypical pneumonia",),
    "nodule": ("multiple nodules",),
    "pleural thickening": ("apical pleural thickening", "calcified pleural thickening"),
    "fracture": (
        "rib fracture", "callus rib fracture", "clavicle fracture", "humeral fracture", "vertebral fracture",
    ),
    "infiltrates": (
        "interstitial pattern", "reticular interstitial pattern", "reticulonodular interstitial pattern",
        "ground glass pattern", "miliary opacities", "alveolar pattern", "consolidation", "air bronchogram",
    ),
    "consolidation": ("air bronchogram",),
}  # fmt: skip
#: Labels that are no finding: they say how good a film is, or that it is as the one before, which is not in the table.
_NO_LABELS = frozenset({"unchanged", "suboptimal study"})
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def padchest(given: Given) -> Labels:
    """Read ``PADCHEST_chest_x_ray_images_labels``: labels as a list in text.

    A finding whose kind is listed is present, too. Films that are to be excluded, or that are only unchanged, say
    nothing of any finding. Age is the year of the study less that of birth.
    """
    heading = column(given, "Labels")
    states, contradiction = states_of_lists(given.table[heading], labels)
    if not len(states.columns):
        raise DataError(f"The column {heading} of {given.file} names no finding.")
    table = given.table
    made = {}
    if {"StudyDate_DICOM", "PatientBirth"} <= set(table):
        studied = pd.to_numeric(table["StudyDate_DICOM"].str[:4], errors="coerce")
        age = studied - pd.to_numeric(table["PatientBirth"], errors="coerce")
        made["age"] = age.map(lambda years: "" if pd.isna(years) else str(int(years)))
    if "PatientSex_DICOM" in table:
        made["sex"] = table["PatientSex_DICOM"]
    headings = {"path": column(given, "ImageID"), "patient": column(given, "PatientID")}
    return Labels(table.assign(**made), states, headings, contradiction=contradiction)


def labels(text: str) -> list[str]:
    """Return the findings that a list in text names, with those that they are kinds of; none if it says nothing.

    >>> labels("['unchanged', ' air bronchogram']")
    ['air bronchogram', 'consolidation', 'infiltrates']
    """
    listed = {(one or other).strip().lower() for one, other in _QUOTED.findall(text)} - {""}
    if "exclude" in listed:
        return []
    above = {finding for finding, kinds in KINDS.items() if listed.intersection(kinds)}
    return sorted((listed - _NO_LABELS) | above)
