"""Groups of people by a column of the data, found by its heading."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from chestxray.data.index import Index
from chestxray.errors import ChestXrayError
from chestxray.evaluation.subgroups import OUT_OF_RANGE, age_bands, groups, plain_ages
from chestxray.report.facts.data import people


def rows_with(kinds=None, **columns):
    """An index with these further columns."""
    count = len(next(iter(columns.values())))
    table = pd.DataFrame({"path": [f"/{n:03}.png" for n in range(count)], "label": "x", **columns})
    return Index.from_records(table.to_dict("records"), name="made", kinds=kinds)


def test_numbers_are_binned_categories_are_not_and_paths_and_boxes_are_refused():
    plain = rows_with(dose=list(range(40)))
    assert groups(plain, "dose").nunique() == 4
    kinds = {"dose": "number", "ward": "category", "outline": "path"}
    columns = {"dose": [*range(39), None], "ward": list(map(str, range(40))), "outline": "/o.png", "boxes": ""}
    index = rows_with(kinds, **{k: [v] * 40 if isinstance(v, str) else v for k, v in columns.items()})
    assert groups(index, "ward").nunique() == 40
    assert sorted(groups(index, "dose").value_counts().tolist()) == [1, 9, 10, 10, 10]
    assert groups(rows_with({"dose": "number"}, dose=["1", "2.50", ""]), "dose").tolist() == ["1", "2.5", ""]
    for refused in ("outline", "boxes"):
        with pytest.raises(ChestXrayError, match=rf"{refused} has a (path|boxes) for each.*Allowed: dose, ward\. Rec"):
            groups(index, refused)


def test_groups_are_values_bands_of_age_or_quarters():
    rows = rows_with(age=["5", "17", "18", "64", "65", ""] * 6 + [""] * 4, dose=range(40), sex=["F", " "] * 20)
    assert groups(rows, "age")[:6].tolist() == ["0 to 17", "0 to 17", "18 to 39", "40 to 64", "65 up", ""]
    assert groups(rows, "dose").value_counts().tolist() == [10] * 4
    assert set(groups(rows, "sex")) == {"F", ""}
    with pytest.raises(ChestXrayError, match=r"Did you mean sex.*Received: 'sexe'"):
        groups(rows, "sexe")


@pytest.mark.parametrize("heading", ["age", "Age", "Patient Age", "patient_age", "PatientAge", "AGE (years)"])
@pytest.mark.parametrize("asked", ["age", "Patient Age", "patient_age"])
def test_the_column_of_ages_is_found_by_any_usual_heading(heading, asked):
    assert groups(rows_with(**{heading: ["030Y", "70"]}), asked).tolist() == ["18 to 39", "65 up"]


def test_another_column_is_found_in_any_spelling():
    rows = rows_with(**{"Follow-up #": ["a", "b"], "sex": ["F", "M"]})
    assert groups(rows, "follow_up").tolist() == ["a", "b"]
    assert groups(rows, "Patient Gender").tolist() == ["F", "M"]
    with pytest.raises(ChestXrayError, match="by must be a column"):
        groups(rows, "path")


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("058Y", "40 to 64"), ("58", "40 to 64"), ("58.0", "40 to 64"), ("17,9", "0 to 17"), ("011M", "0 to 17"),
        ("30 years", "18 to 39"), ("6 months", "0 to 17"), ("003W", "0 to 17"), ("000D", "0 to 17"),
        ("65 yrs old", "65 up"),
        ("413", OUT_OF_RANGE), ("413Y", OUT_OF_RANGE), ("-1", OUT_OF_RANGE), ("120", "65 up"), ("121", OUT_OF_RANGE),
        ("50+", ""), ("90+", "65 up"), (">89", "65 up"), ("unknown", ""), ("", ""), ("58 cm", ""), ("1e1", ""),
    ],
)  # fmt: skip
def test_ages_as_public_tables_write_them(text, band):
    assert age_bands(pd.Series([text, "20", "30"])).tolist() == [band, "18 to 39", "18 to 39"]


def test_groups_of_age_that_the_user_made_stay():
    own = pd.Series(["20-29", "30-39", "20-29", ""])
    assert age_bands(own) is None
    assert groups(rows_with(age=own), "age").tolist() == own.tolist()
    assert groups(rows_with(age=["", ""]), "age").tolist() == ["", ""]
    # Numbers and gaps, as a source of its own may give them.
    assert groups(rows_with(age=[20.0, np.nan]), "age").tolist() == ["18 to 39", ""]


def test_ages_as_plain_numbers_for_a_report():
    values = pd.Series(["058Y", "006M", "413", "-3", "50+", "", "7,5"])
    assert plain_ages(values).tolist() == ["58", "0.5", "", "", "", "", "7.5"]
    own = pd.Series(["20-29", "30-39"])
    assert plain_ages(own).tolist() == own.tolist()


def test_a_report_tells_ages_in_years_and_what_is_none_as_not_known():
    ages = [f"{n:03d}Y" for n in range(20, 60)] + ["413Y", ""]
    record = SimpleNamespace(used=rows_with(split=["train"] * 42, age=ages, gender=["F", "M"] * 21).rows)
    assert people(record) == [
        "Sex: train F 21, M 21.",
        "Age: train median 39.5, 20 to 59, not known of 2.",
    ]


@pytest.mark.real_data
def test_every_age_of_nih(real_data):
    ages = pd.read_csv(real_data / "nih-1000" / "Data_Entry_2017_v2020.csv.gz", dtype=str)["Patient Age"]
    bands = age_bands(ages)
    assert set(bands) == {"0 to 17", "18 to 39", "40 to 64", "65 up"}
    assert (age_bands(ages.str.zfill(3) + "Y") == bands).all()
