"""A run in a notebook: typed parts, and a page that runs nothing of what it names."""

import dataclasses
import os

import pytest

import chestxray as cx
from chestxray._version import RESEARCH_ONLY
from chestxray.api.displays import MOST
from chestxray.api.results import Controls
from chestxray.errors import InputError
from chestxray.report.formatting import title
from chestxray.storage.files import write_json, write_text
from made_runs import AUDIT, HOSTILE, TWO, Page, index_of, write_run

FIGURE = {"value": 0.7, "low": 0.61, "high": 0.79}
ITEM = {
    "name": "border",
    "title": "The border",
    "sees": "A frame.",
    "kind": "leak",
    "auroc": FIGURE,
    "share": FIGURE,
    "learnt": {"class": None, "auroc": FIGURE},
    "state": "fires",
    "fires": True,
    "says": "From <b>the border</b>.",
}
CONTROLS = {"verdict": "Part of <i>the score</i>.", "finding": "part", "fires": ["border"], "controls": [
    ITEM, ITEM | {"name": "thumbnail", "title": "The thumbnail", "kind": "likeness", "state": "undecided",
                  "fires": False, "learnt": None, "auroc": {"value": None, "low": None, "high": None}}]}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return cx.load(write_run(tmp_path / "run", TWO))


def page_of(run, tmp_path):
    path = tmp_path / "page.html"
    write_text(path, run._repr_html_())
    return Page(path)


def test_the_page_has_figures_with_intervals_and_what_weakens_them(run, tmp_path):
    page = page_of(run, tmp_path)
    auroc = run.evaluation.test["auroc"]
    for told in (
        "AUROC",
        f"{auroc.value:.3f} {auroc.low:.3f} {auroc.high:.3f}",
        run.limitations[0].title,
        RESEARCH_ONLY,
    ):
        assert told in page.text
    assert run.limitations[0].weight == "serious", "drawn data"
    shown = [caution for caution in run.limitations if caution.title in page.text]
    assert len(shown) >= min(MOST, len(run.limitations))
    assert page.all("a") == [], "no report, no link"


def test_the_report_is_linked_from_below_the_working_directory(run, tmp_path, monkeypatch):
    odd = tmp_path / 'a "quoted" & <i>folder'
    run.folder.rename(odd)
    run = cx.load(odd)
    write_text(odd / "report.html", "<p>")
    assert page_of(run, tmp_path).all("a")[0]["href"].startswith("file:///")
    monkeypatch.chdir(tmp_path)
    found = page_of(cx.load(os.path.relpath(odd)), tmp_path)
    assert found.all("a")[0]["href"] == "a%20%22quoted%22%20%26%20%3Ci%3Efolder/report.html"
    assert not found.all("i")


def test_names_of_classes_and_files_are_not_run(tmp_path):
    index = index_of(HOSTILE)
    rows = index.rows.assign(path=index.rows["path"].str.replace("/home/someone", "/home/<img src=x>"))
    notes = {"notes": ["<script>alert(2)</script>"], "unreadable": [{"path": "<img src=y>.png", "reason": "<b>"}]}
    findings = [{"severity": "warning", "kind": "<u>", "count": 1, "sentence": "<u>odd"}]
    run = cx.load(
        write_run(tmp_path / "odd", HOSTILE, index=index.replace(rows), audit=AUDIT | notes | {"findings": findings})
    )
    write_json(run.folder / "controls.json", CONTROLS)
    for shown in (run, run.index, run.audit, run.controls, run.evaluation):
        html = shown._repr_html_()
        assert not any(tag in html for tag in ("<script", "<img", "<u>", "<i>", "<b>the"))
    assert "&lt;script&gt;alert(1)" in run._repr_html_()


def test_controls_have_a_row_each(run):
    assert (len(run.controls), run.controls.finding) == (0, "unknown")
    assert run.controls.verdict == "No controls were run."
    write_json(run.folder / "controls.json", CONTROLS)
    found = cx.load(run.folder).controls
    frame = found.to_frame()
    assert frame.index.tolist() == ["border", "thumbnail"]
    assert frame.loc["border", ["value", "low", "high", "verdict"]].tolist() == [0.7, 0.61, 0.79, "fires"]
    assert frame["value"].isna().tolist() == [False, True]
    assert [one.learnt is None for one in found] == [False, True]
    assert found.finding == "part" and "fires" in found._repr_html_()
    assert Controls.from_json({}).to_frame().empty


def test_parts_are_frozen(run):
    for part in (run, run.audit, run.environment, run.controls, run.evaluation, run.recipe):
        name = dataclasses.fields(part)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, None)
    with pytest.raises(TypeError):
        run.environment.packages["keras"] = "4"
    assert run.environment.seconds["train"] == 84.0
    offered = (
        "recipe",
        "index",
        "predictions",
        "evaluation",
        "by_source",
        "by_group",
        "controls",
        "audit",
        "environment",
    )
    assert not [name for name in offered if isinstance(getattr(run, name), dict)]


def test_sources_and_groups_have_evaluations(run):
    content = run.evaluation.to_json()
    write_json(run.folder / "by_source.json", {"a": content, "b": content})
    write_json(run.folder / "by_group.json", {"sex": {"F": content}})
    again = cx.load(run.folder)
    assert again.by_source["a"] == again.by_group["sex"]["F"] == run.evaluation
    assert not run.by_source or run.by_source["a"] == run.evaluation


def test_what_was_not_audited_says_so(tmp_path):
    run = cx.load(write_run(tmp_path / "bare", TWO, audit=None))
    with pytest.raises(InputError, match="Nothing was audited in"):
        _ = run.audit
    assert title("auroc") in run._repr_html_()
