"""Findings: what is known of each of several findings in an image, beside the task of one class an image.

An image may show several findings at once. Of each, a table of labels says that it is present, absent or uncertain,
or nothing: then it is not known, never absent. The index has a column ``finding:NAME`` with one of the `STATES` for
each finding; the recipe's choice for uncertain ones (`Uncertain`) turns states into what is trained on and tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import pandas as pd

from chestxray.errors import InputError, nearest

#: Prefix of the columns of an index that hold states.
FINDING = "finding:"
PRESENT, ABSENT, UNCERTAIN, UNKNOWN = 1, 0, -1, -2
STATES = (PRESENT, ABSENT, UNCERTAIN, UNKNOWN)
WORDS = {PRESENT: "present", ABSENT: "absent", UNCERTAIN: "uncertain", UNKNOWN: "not known"}
#: What the tables of the field call an image in which every finding that is known is absent.
NO_FINDING = "No Finding"
#: Between the names of the findings of an image, as NIH ChestX-ray14 writes them.
SEPARATOR = "|"

Choice = Literal["ignore", "positive", "negative", "soft"]
#: Target in training of an uncertain finding under ``soft``: the mean of the interval .55 to .85 from which
#: Pham et al. (2021, Neurocomputing 437) drew theirs for CheXpert.
SOFT = 0.7


@dataclass(frozen=True)
class Uncertain:
    """What is done with uncertain findings: ``general``, or by finding in ``own``.

    ``ignore``: as if not known; ``positive``, ``negative``: as present, as absent; ``soft``: trained on with the
    target `SOFT` and, as nobody knows the truth, not tested on.
    """

    general: Choice = "ignore"
    own: Mapping[str, Choice] | None = None

    @classmethod
    def parse(cls, items: Iterable[str], findings: Sequence[str]) -> Uncertain:
        """Return the choices that `items` state, each CHOICE or FINDING=CHOICE.

        Raises:
            InputError: another choice, a finding that is none of `findings`, or two choices for one.

        >>> Uncertain.parse(["negative", "Edema=positive"], ["Edema", "Mass"]).of("Edema")
        'positive'
        """
        general: list[Choice] = []
        own: dict[str, Choice] = {}
        for item in items:
            name, sign, choice = item.rpartition("=")
            if choice not in get_args(Choice):
                allowed = ", ".join(get_args(Choice))
                raise InputError(f"uncertain must be one of {allowed}, or FINDING=one of them. Received: {item!r}.")
            if not sign:
                general.append(cast(Choice, choice))
            elif name not in findings:
                raise InputError(
                    f"uncertain names a finding that the data do not have: {name!r}.{nearest(name, findings)} "
                    f"Allowed: {', '.join(findings)}."
                )
            elif own.setdefault(name, cast(Choice, choice)) != choice:
                raise InputError(f"uncertain has two choices for {name}: {own[name]} and {choice}.")
        if len(set(general)) > 1:
            raise InputError(f"uncertain has two choices for all findings. Received: {', '.join(general)}.")
        return cls(general[0] if general else "ignore", own)

    def to_items(self) -> list[str]:
        """Return what `parse` reads."""
        return [self.general, *(f"{name}={choice}" for name, choice in (self.own or {}).items())]

    def of(self, finding: str) -> Choice:
        """The choice for `finding`."""
        return (self.own or {}).get(finding, self.general)

    def targets(self, states: np.ndarray, findings: Sequence[str]) -> np.ndarray:
        """Return what is trained on, float32 (rows, findings): 1 present, 0 absent, `SOFT` uncertain, NaN not known.

        `states`: one of `STATES` for each row and finding, int (rows, findings).
        """
        value = {"ignore": np.nan, "positive": 1.0, "negative": 0.0, "soft": SOFT}
        found = np.where(states < 0, np.nan, states).astype(np.float32)
        unsure = np.array([value[self.of(name)] for name in findings], dtype=np.float32)
        return np.where(states == UNCERTAIN, unsure, found).astype(np.float32)

    def truth(self, states: np.ndarray, findings: Sequence[str]) -> np.ndarray:
        """Return what is tested on, float32 (rows, findings): 1 present, 0 absent, NaN where the truth is not known."""
        targets = self.targets(states, findings)
        soft = np.array([self.of(name) == "soft" for name in findings], dtype=bool)
        return np.where((states == UNCERTAIN) & soft, np.float32(np.nan), targets)


#: Uncertain findings count as not known.
IGNORED = Uncertain()


def columns(findings: Iterable[str]) -> list[str]:
    """Return the columns of an index that hold the states of `findings`."""
    return [FINDING + name for name in findings]


def of_columns(rows: pd.DataFrame) -> tuple[str, ...]:
    """Return the findings of which `rows` has a column of states, in the order of the columns."""
    return tuple(str(name).removeprefix(FINDING) for name in rows.columns if str(name).startswith(FINDING))


def labels(states: np.ndarray, findings: Sequence[str]) -> list[str]:
    """Return the label of each row for people: the findings that are present, joined by `SEPARATOR`.

    Without any it is `NO_FINDING`, or ``""`` where no finding is known. `states`: int (rows, findings).

    >>> labels(np.array([[1, 1], [0, -2], [-2, -2], [-1, 0]]), ["Mass", "Edema"])
    ['Mass|Edema', 'No Finding', '', '']
    """
    names = np.asarray(findings, dtype=object)
    present = states == PRESENT
    # An uncertain finding leaves open whether there is one.
    none = (states == ABSENT).any(axis=1) & ~(states == UNCERTAIN).any(axis=1)
    return [
        SEPARATOR.join(names[row]) if some else NO_FINDING if free else ""
        for row, some, free in zip(present, present.any(axis=1), none, strict=True)
    ]


def absent(finding: str) -> str:
    """Return the name of the class "absent" where one finding is looked at as a task of two classes.

    >>> absent("Edema"), absent("No Finding")
    ('no Edema', 'not No Finding')
    """
    return f"{'not' if finding.lower().startswith('no ') else 'no'} {finding}"
