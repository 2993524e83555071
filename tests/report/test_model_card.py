import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from chestxray.errors import DataError, InputError
from chestxray.report import Record, model_card
from chestxray.report.facts import FACTS
from chestxray.report.guidelines import TEXTS, checklists
from chestxray.report.model_card import BLANK
from chestxray.storage.files import write_json, write_text
from made_runs import AUDIT, ENVIRONMENT, FOUR, HOSTILE, RECIPE, TWO, Page, history, index_of, metrics_of, write_run

CLAIM = [str(number) for number in range(1, 45)]
# Collins et al. 2024: 27 items, those with parts named by letters.
PARTS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}
TRIPOD_AI = [f"{number}{part}" for number in range(1, 28) for part in PARTS.get(number, ("",))]

FIGURE = {"value": 0.717, "low": 0.611, "high": 0.801}
#: Files that only some runs have, as `chestxray run` and `chestxray evaluate` write them.
EXTRAS = {
    "decision": {"calibration": {"method": "temperature", "temperature": 1.71, "offsets": []}},
    "calibration": {
        "method": "temperature",
        "temperature": 1.71,
        "offsets": {},
        "worse": [],
        "at_bound": True,
        "rows": 41,
        "validation": {"before": {"ece": {"value": 0.211}}, "after": {"ece": {"value": 0.052}}},
        "test": {"before": {"ece": {"value": 0.199}}, "after": {"ece": {"value": 0.071}}},
    },
    "operating_points": {
        "rule": "A film is called PNEUMONIA from a calibrated probability of 0.327 on.",
        "points": [{"label": "PNEUMONIA", "threshold": 0.327, "chosen_by": "Youden's index", "decides": True}],
    },
    "abstention": {
        "coverage": 0.9,
        "empty_promise": False,
        "test": {
            "answered": {"value": 0.836, "low": 0.8, "high": 0.9},
            "coverage": {"value": 0.91, "low": 0.88, "high": 0.94},
        },
    },
    "refusal": {"test": {"pictures": 20, "refused": {"value": 0.031, "low": 0.01, "high": 0.1}}},
    "controls": {
        "verdict": "No control explains 0.717.",
        "controls": [{"name": "border", "title": "The border", "kind": "leak", "auroc": FIGURE, "fires": False}],
    },
    "by_source": {"here": {"test": {"auroc": FIGURE}}, "there": {"test": {"auroc": {"value": 0.512}}}},
    "by_group": {"sex": {"F": {"test": {"auroc": FIGURE}}, "M": {"test": {"auroc": {"value": 0.493}}}}},
    "ensemble": {"members": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
}


def with_extras(folder: Path) -> Path:
    for name, content in EXTRAS.items():
        write_json(folder / f"{name}.json", content)
    write_json(folder / "external" / "elsewhere" / "metrics.json", {"test": {"auroc": FIGURE}})
    return folder


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    """A run on phantoms, without what only some runs have."""
    return write_run(tmp_path_factory.mktemp("runs") / "phantom")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A run that differs from `phantom` in everything, on radiographs, with all further files."""
    index = index_of(TWO, per_class=96, drawn=False)
    rows = index.rows.assign(
        sex=np.tile(["F", "M", ""], 64),
        age=np.arange(192) % 60 + 20,
        width=np.arange(192) + 900,
        height=1024,
        format="DICOM",
        source=np.where(np.arange(192) % 3, "here", "there"),
    )
    rows.loc[rows.index[:5], "split"] = ""
    rows.loc[rows.index[5:8], "patient"] = ""
    recipe = RECIPE.replace(
        model="vgg16", data=("folder:here", "folder:there"), image_size=(64, 80), weights="imagenet", seed=7,
        split_seed=8, fit="pad", normalisation="image", drop=("covid",), map=("viral=PNEUMONIA",), max_unreadable=0.2,
        loss="focal", optimizer="sgd", batch_size=8, augment="heavy", mix="mixup", class_weights=False,
    )  # fmt: skip
    environment = ENVIRONMENT | {
        "chestxray": "9.8.7",
        "platform": "Windows-11",
        "devices": ["GPU:0"],
        "plugin": {"distribution": "chestxray-vgg", "version": "3", "licence": "MIT", "weights_licence": "CC BY"},
        "data": {"name": "two hospitals", "fingerprint": "beef", "licence": "CC BY-NC", "citation": "Others 2021"},
        "model": {"parameters": 77, "trained_parameters": 66, "image_size": [64, 80]},
    }
    audit = AUDIT | {
        "unreadable": [{"path": "x", "reason": "cut short"}],
        "dropped": [{"path": "y", "reason": "a copy"}],
        "patients": {"across_splits": [{"patient": "p", "splits": ["train", "test"], "images": 2}]},
        "near_duplicates": {"searched": True, "groups": [["a", "b"]], "across_splits": [["a", "b"]]},
        "on_leak": "drop",
        "notes": ["Split drawn by patient"],
    }
    folder = tmp_path_factory.mktemp("runs") / "other"
    changed = {"index": index.replace(rows.reset_index(drop=True)), "recipe": recipe, "environment": environment}
    write_run(folder, TWO, skill=0.7, audit=audit, history=history().head(5), **changed, metrics=coarser)
    write_json(folder / "heatmaps" / "index.json", {"layer": None, "reason": "no map at all", "images": []})
    return with_extras(folder)


def coarser(metrics: dict) -> dict:
    """The same metrics with another interval."""
    return metrics | {"interval": {"level": 0.9, "method": "percentile bootstrap", "replicates": 777}}


@pytest.fixture
def mine(other, tmp_path) -> Path:
    """A copy of `other` to write to."""
    folder = tmp_path / "run"
    shutil.copytree(other, folder)
    return folder


def answers_of(folder: Path) -> dict[tuple[str, str], model_card.AnsweredItem]:
    """The answers by checklist and number."""
    parts = model_card.answered(Record.read(folder))
    return {(part.checklist.name, answer.item.number): answer for part in parts for answer in part.answers}


def rows_of(markdown: str, heading: str) -> list[tuple[str, str]]:
    """Number and last cell of each row of the tables below a heading of the card."""
    below = markdown.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [re.split(r"(?<!\\)\|", line) for line in below.splitlines() if line.startswith("|")]
    return [(row[1].strip(), row[3].strip()) for row in cells if row[1].strip() not in ("No.", "---")]


@pytest.mark.parametrize("which", ["phantom", "other"])
def test_every_item_of_both_guidelines_stands_there_once(which, request):
    folder = request.getfixturevalue(which)
    model_card.write(Record.read(folder))
    text = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert len(TRIPOD_AI) == 52
    page = Page(folder / "MODEL_CARD.html")
    for name, heading, numbers in (("claim", "CLAIM 2024", CLAIM), ("tripod_ai", "TRIPOD+AI", TRIPOD_AI)):
        rows = rows_of(text, heading)
        assert [number for number, _ in rows] == numbers
        assert all(cell for _, cell in rows)
        section = page.source.split(f'<section id="{name}"')[1].split("</section>")[0]
        assert re.findall(r'<th scope="row" class="number">(\w+)</th>', section) == numbers


def test_items_name_facts_that_exist_and_every_fact_is_used():
    items = [item for checklist in checklists() for item in checklist.items]
    named = [name for item in items for name in item.facts]
    assert set(named) == set(FACTS)
    assert all(item.title and (item.facts or item.author) for item in items)
    assert {item.claim for item in items} <= {"", *CLAIM}


@pytest.mark.parametrize("name", FACTS)
def test_each_fact_comes_from_the_record(name, phantom, other):
    one, two = (FACTS[name](Record.read(folder)) for folder in (phantom, other))
    assert two
    assert not set(one) & set(two)
    assert not re.search(r"\b(None|nan)\b(?!:)", " ".join(one + two))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (("claim", "33"), "Evaluated later on elsewhere: AUROC 0.717 (0.611 to 0.801)."),
        (("claim", "30"), "The border 0.717 (0.611 to 0.801)"),
        (("claim", "27"), "3 models"),
        (("claim", "20"), "the patient is known of 184 of 187 images"),
        (
            ("claim", "20"),
            "1 patient, 0 groups of identical images, 1 group of nearly identical ones; 1 image left out",
        ),
        (("claim", "36"), "Sex: train "),
        (("tripod_ai", "12f"), "Temperature: temperature 1.71; fitted on 41 validation images. It stands at the bound"),
        (("tripod_ai", "24"), "Test, before and after: ECE 0.199 to 0.071."),
        (("tripod_ai", "15"), "PNEUMONIA from a calibrated probability of 0.327"),
        (("tripod_ai", "15"), "promised coverage 0.9"),
        (("tripod_ai", "14"), "AUROC by sex: F 0.717 (0.611 to 0.801), M 0.493."),
        (("tripod_ai", "23b"), "AUROC by source: here 0.717 (0.611 to 0.801), there 0.512."),
        (("tripod_ai", "27a"), "Refused of 20 test radiographs: 0.031 (0.010 to 0.100)."),
    ],
)
def test_further_files_fill_their_items(other, item, words):
    assert words in " ".join(answers_of(other)[item].known)


def test_figures_on_the_card_are_those_of_the_metrics(other):
    auroc = metrics_of(other)["test"]["auroc"]
    told = f"AUROC {auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})"
    answers = answers_of(other)
    assert all(told in " ".join(answers[item].known) for item in (("claim", "37"), ("tripod_ai", "23a")))
    assert f"| AUROC | {auroc['value']:.3f} | {auroc['low']:.3f} to {auroc['high']:.3f} |" in model_card.text(
        Record.read(other)
    )


def test_what_the_run_does_not_know_is_visibly_blank(other):
    record = Record.read(other)
    text, answers = model_card.text(record), answers_of(other)
    assert f"| 44 | Funding | **☐** _{BLANK}: who paid, and what part they took_ |" in text
    assert answers["claim", "44"].state == "blank"
    assert answers["claim", "21"].state == "part"
    assert answers["claim", "20"].state == "filled"
    path = model_card.write(record)
    page = Page(path)
    blanks = [attributes for tag, attributes in page.elements if tag == "p" and attributes.get("class") == "blank"]
    assert len(blanks) == text.count(BLANK) == page.text.count(BLANK) == sum(bool(a.blank) for a in answers.values())
    assert re.search(r"\.blank \{[^}]*border: [^}]*dashed", page.source)
    for part in model_card.answered(record)[1:]:
        assert f"{part.tally}." in text
        states = [answer.state for answer in part.answers]
        assert f"{states.count('filled')} of {len(states)} items filled" in part.tally
        assert part.tally.endswith(f"{states.count('part')} in part, {states.count('blank')} blank")


def test_items_go_blank_with_the_files_that_fill_them(mine):
    before = answers_of(mine)
    for name in EXTRAS:
        (mine / f"{name}.json").unlink()
    shutil.rmtree(mine / "external")
    after = answers_of(mine)
    for item in (("claim", "33"), ("tripod_ai", "12f"), ("tripod_ai", "23b"), ("tripod_ai", "24")):
        assert before[item].state == "filled"
        assert after[item].state == "blank"
    assert after["tripod_ai", "23a"].blank == f"{BLANK}: performance by groups of people"


def test_questions_about_people_do_not_apply_to_phantoms(phantom):
    answers = answers_of(phantom)
    ethics = answers["tripod_ai", "17"]
    assert ethics.known == ("No person was imaged: all 160 images are drawn by a program.",)
    assert ethics.state == "void"
    assert answers["claim", "36"].state == "filled"
    assert answers["claim", "44"].state == "blank"


def test_no_radiograph_is_taken_for_a_drawn_one(other):
    text = model_card.text(Record.read(other))
    assert "phantom" not in text
    assert "drawn by a program" not in text


def test_a_folder_called_phantom_holds_radiographs(tmp_path):
    index = index_of(TWO, drawn=False)
    index = index.replace(index.rows.assign(source="phantom"))
    run = write_run(tmp_path / "run", TWO, index=index, recipe=RECIPE.replace(data=("folder:/films/phantom",)))
    assert Record.read(run).data_name == "phantom"
    assert "drawn by a program" not in model_card.text(Record.read(run))
    assert answers_of(run)["tripod_ai", "17"].state == "blank"


def test_author_fills_blanks_and_rendering_again_keeps_them(mine):
    text = """
    [card]
    authors = "A. Author <a@example.org>"
    [claim]
    44 = "The | Fund"
    21 = "As many as there were."
    [tripod_ai]
    3b = '''Radiographers.
    On two lines.'''
    18b = " "
    """
    write_text(mine / TEXTS, text)
    for _ in range(2):
        page = Page(model_card.write(Record.read(mine)))
    markdown = (mine / "MODEL_CARD.md").read_text(encoding="utf-8")
    claim, tripod = dict(rows_of(markdown, "CLAIM 2024")), dict(rows_of(markdown, "TRIPOD+AI"))
    assert claim["44"] == "**Author:** The \\| Fund"
    assert claim["21"].startswith(f"Tested on {metrics_of(mine)['rows']} images of ")
    assert claim["21"].endswith("**Author:** As many as there were.")
    # Asked by both guidelines, answered once.
    assert tripod["18a"] == claim["44"]
    assert tripod["3b"] == "**Author:** Radiographers. On two lines."
    assert BLANK in tripod["18b"]
    assert "A. Author &lt;a@example.org&gt;" in markdown
    assert "Author: The | Fund" in page.text
    assert (mine / TEXTS).read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[claim]\n45 = 'x'", r"card\.toml: \[claim\] has no item '45'\..* Allowed: 1, 2, .*44\.$"),
        ("[tripod_ai]\n3 = 'x'", r"\[tripod_ai\] has no item '3'\..* Did you mean 3c or 3b or 3a\? Allowed: 1, 2, 3a"),
        (
            "[tripod]\n3a = 'x'",
            r"Did you mean tripod_ai\? Allowed: \[card\], \[claim\], \[tripod_ai\]\. Received: 'tripod'",
        ),
        ("44 = 'x'", r"items must stand below a checklist.* Received: '44'"),
        ("[claim]\n44 = 5", r"item 44 of \[claim\] must be a text in quotes\. Received: 5\."),
        ("[claim\n", r"card\.toml is not valid TOML"),
    ],
)
def test_what_an_author_cannot_have_meant_is_one_clear_line(mine, text, message):
    write_text(mine / TEXTS, text)
    with pytest.raises(InputError, match=message) as caught:
        model_card.write(Record.read(mine))
    assert "\n" not in str(caught.value)


def test_card_is_one_page_that_needs_nothing_from_outside(other):
    page = Page(model_card.write(Record.read(other)))
    assert not page.open
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.elements}
    assert {a["href"] for a in page.all("a") if not a["href"].startswith("#")} == {"report.html"}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= set(ids)
    assert len(ids) == len(set(ids))
    assert "url(" not in page.source
    assert page.text.count("Research use only. Not a medical device; not for diagnosis.") == 2


def test_markdown_is_well_formed(phantom):
    text = model_card.text(Record.read(phantom))
    assert text.startswith("---\nlibrary_name: keras\n")
    assert "**Research use only. Not a medical device; not for diagnosis.**" in text
    assert "| **All classes** | 80 " in text
    assert "{{" not in text
    assert "\n\n\n" not in text
    tables = [line for line in text.splitlines() if line.startswith("| ") and "☐" in line]
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in tables)
    assert "card.toml" in text.split("\n## ")[0]


def test_names_are_escaped(tmp_path):
    record = Record.read(write_run(tmp_path, HOSTILE))
    text, page = model_card.text(record), model_card.page(record)
    assert "<script>" not in text
    assert "<script>" not in page
    assert 'a"b\\|c$d\\_$ &amp; co' in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_folder_with_little_in_it_has_a_card(tmp_path):
    """As of an external evaluation: no training, no history, no audit, no environment."""
    index = index_of(FOUR)
    rows = index.rows[index.rows["split"] == "test"].assign(patient="")
    folder = write_run(tmp_path, index=index.replace(rows), environment=None, audit=None, history=None)
    compared = {"internal": FIGURE, "external": FIGURE, "gap": {"value": 0.104, "low": 0.02, "high": 0.2}}
    write_json(folder / "generalisation_gap.json", {"figures": {"auroc": compared}})
    answers = answers_of(folder)
    assert answers["claim", "6"].known == ("Evaluation alone, on 40 images of other data than it was trained on.",)
    assert "less by 0.104 (0.020 to 0.200) here" in " ".join(answers["claim", "33"].known)
    assert answers["claim", "32"].state == answers["claim", "26"].state == "blank"
    assert "(100%)" in " ".join(answers["claim", "19"].known)


def test_damaged_external_evaluation_is_named(mine):
    (mine / "external" / "elsewhere" / "metrics.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"elsewhere.metrics\.json is damaged"):
        model_card.write(Record.read(mine))
