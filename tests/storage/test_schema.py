import json
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from chestxray.errors import DataError
from chestxray.evaluation.decision.rule import Decision
from chestxray.inference.export_metadata import Description
from chestxray.storage import schema
from chestxray.storage.schema import Share, Within

DECISION = {
    "classes": ["NORMAL", "PNEUMONIA"],
    "positive": "PNEUMONIA",
    "calibration": {"temperature": 1.5, "offsets": [0.1, -0.1], "method": "none"},
    "thresholds": {"PNEUMONIA": 0.4},
    "chosen_by": "Youden's index",
    "priors": [],
    "coverage": None,
    "limit": None,
    "features": None,
}


class Form(TypedDict):
    name: str
    size: Annotated[int, Within(1, 8)]
    share: NotRequired[Share | None]
    kind: NotRequired[Literal["a", "b"]]
    inner: NotRequired[dict[str, list[float]]]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "the whole must be a table"),
        ({"size": 1}, "name is missing"),
        ({"name": 1, "size": 1}, "name must be text. Received: 1"),
        ({"name": "a\0", "size": 1}, "without null bytes"),
        ({"name": "\ud800", "size": 1}, "lone surrogates"),
        ({"name": "a", "size": 9}, "size must be a number from 1 to 8. Received: 9"),
        ({"name": "a", "size": True}, "size must be a whole number. Received: True"),
        ({"name": "a", "size": 1.0}, "size must be a whole number"),
        ({"name": "a", "size": 1, "share": 1.01}, "share must be a number from 0 to 1"),
        ({"name": "a", "size": 1, "share": 10**5000}, "share must be a finite number. Received: a value of kind int"),
        ({"name": "a", "size": 1, "share": float("nan")}, "share must be a finite number"),
        ({"name": "a", "size": 1, "share": False}, "share must be a number"),
        ({"name": "a", "size": 1, "kind": "c"}, "kind must be one of a, b"),
        ({"name": "a", "size": 1, "kind": []}, "kind must be one of a, b"),
        ({"name": "a", "size": 1, "inner": {"x": [1, "2"]}}, r"inner\.x\.1 must be a number. Received: '2'"),
        ({"name": "x" * 1000, "size": "y" * 1000}, r"Received: 'y{56}\.\.\.$"),
    ],
)
def test_what_is_of_another_form_is_named_with_its_place(value, words):
    with pytest.raises(ValueError, match=words):
        schema.conform(value, Form)


def test_what_is_of_the_form_is_kept_and_what_it_does_not_name_too():
    given = {"name": "a", "size": 2, "share": 1, "later": [None, {}]}
    found = schema.conform(given, Form)
    assert found == given
    assert isinstance(found["share"], float)
    assert schema.conform({"name": "a", "size": 2, "share": None}, Form)["share"] is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"NaN", b'{"a": Infinity}', b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"9" * 5000, b"\0" * 10],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_json_is_one_line(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json is damaged: ") as error:
        schema.read(tmp_path / "x.json")
    assert len(str(error.value).splitlines()) == 1


def test_a_file_that_is_too_large_or_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "LARGEST", 10)
    (tmp_path / "x.json").write_text("[" + " " * 10 + "]")
    with pytest.raises(DataError, match="more than 10 bytes"):
        schema.read(tmp_path / "x.json", Any)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        schema.read(tmp_path)


#: What a decision may not be, and the word that tells it.
WRONG = [
    ({"thresholds": {"PNEUMONIA": float("nan")}}, "finite number|not a valid JSON"),
    ({"thresholds": {"PNEUMONIA": 1.5}}, "from 0 to 1"),
    ({"thresholds": {"PNEUMONIA": "0.4"}}, "must be a number"),
    ({"thresholds": {"PNEUMONIA": 0.4, "COVID": 0.4}}, "only the classes NORMAL, PNEUMONIA. Received: COVID"),
    ({"thresholds": {}}, "the positive class"),
    ({"thresholds": []}, "table of names"),
    ({"classes": []}, "two printable names"),
    ({"classes": ["PNEUMONIA", "PNEUMONIA"]}, "each once"),
    ({"classes": ["a\nb", "PNEUMONIA"]}, "printable"),
    ({"classes": "NORMAL"}, "a list"),
    ({"positive": "COVID"}, "positive must be one of two"),
    ({"classes": ["NORMAL", "PNEUMONIA", "COVID"]}, "positive must be one of two"),
    ({"priors": [1.0]}, "one for each of 2 classes. Received: 1"),
    ({"priors": [1.0, 0.0]}, "priors.1 must be a number from"),
    ({"calibration": {"temperature": 0, "offsets": [], "method": ""}}, "temperature must be a number at least"),
    ({"calibration": {"temperature": -1.0, "offsets": [], "method": ""}}, "temperature must be a number at least"),
    ({"calibration": {"temperature": 1.0, "offsets": [0.1], "method": ""}}, "offsets must have no numbers, or one"),
    ({"calibration": {"temperature": 1.0, "offsets": [1e999, 0], "method": ""}}, "finite number|not a valid JSON"),
    ({"calibration": []}, "calibration must be a table"),
    ({"limit": -1}, "limit must be a number from 0 to 1"),
    ({"coverage": True}, "coverage must be a number"),
    ({"features": 3}, "features must be text"),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_decision_that_decides_nothing_is_not_obeyed(tmp_path, change, words):
    (tmp_path / "decision.json").write_text(json.dumps(DECISION | change))
    with pytest.raises(DataError, match=words):
        Decision.read(tmp_path / "decision.json")
    about = {"name": "run", "model": "m", "image_size": [8, 8], "fit": "pad", "outputs": ["probabilities"]}
    about |= {"decision": DECISION, "refusal_threshold": None}
    assert Description.parse(json.dumps(about), tmp_path).decision.thresholds == {"PNEUMONIA": 0.4}
    with pytest.raises(DataError, match=words):
        Description.parse(json.dumps(about | {"decision": DECISION | change}), tmp_path)


def test_a_decision_without_one_of_its_parts(tmp_path):
    for name in DECISION:
        content = {key: value for key, value in DECISION.items() if key != name}
        (tmp_path / "decision.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=f"{name} is missing"):
            Decision.read(tmp_path / "decision.json")


@pytest.mark.parametrize(
    "change",
    [{"image_size": [8]}, {"image_size": [8, 10**12]}, {"image_size": [8, 0]}, {"image_size": None}, {"fit": "bend"},
     {"outputs": ["secrets"]}, {"outputs": {}}, {"refusal_threshold": float("inf")}, {"name": 3}, {"decision": []},
     {"preprocessing": []}, {"preprocessing": {"resize": 3}}],
)  # fmt: skip
def test_a_description_of_other_kinds(tmp_path, change):
    about = {"name": "run", "model": "m", "image_size": [8, 8], "fit": "pad", "outputs": ["probabilities"]}
    about |= {"decision": DECISION, "refusal_threshold": None}
    with pytest.raises(DataError, match="damaged: its metadata"):
        Description.parse(json.dumps(about | change), tmp_path)
    with pytest.raises(DataError, match="nested too deeply"):
        Description.parse("[" * 100_000, tmp_path)
