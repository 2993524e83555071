"""Files of runs of findings: their outputs are the run's, whichever format, and say which findings have a map."""

import functools
import json
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chestxray import workflow
from chestxray.errors import DataError
from chestxray.evaluation.decision.finding_rule import FindingDecision
from chestxray.explanation.library_maps import gradcam
from chestxray.explanation.methods import enlarged
from chestxray.export import FORMATS, export, quantisation, verification
from chestxray.export.source_run import SourceRun
from chestxray.inference import export_metadata, run_heat_maps
from chestxray.inference.onnx_engine import OnnxEngine
from chestxray.recipe import Recipe

FINDINGS = ("Edema", "Mass", "Fracture", "Nodule")
OUTPUTS = ("probabilities", "map", "mapped", "distance")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """96 films of 96 patients; each finding brightens a quarter of the film, and is not known of every ninth."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    states = (rng.random((96, 4)) < 0.4).astype(int)
    rows = []
    for i, present in enumerate(states):
        pixels = rng.normal(90, 20, (16, 16))
        for k in np.flatnonzero(present):
            pixels[8 * (k // 2) :, 8 * (k % 2) :][:8, :8] += 70
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03}.png")
        known = {name: "" if (i + k) % 9 == 0 else present[k] for k, name in enumerate(FINDINGS)}
        rows.append({"path": f"{i:03}.png", "patient": f"p{i}"} | known)
    pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
    recipe = Recipe(
        model="shallow_cnn", data=(f"manifest:{folder / 'labels.csv'}",), image_size=16, epochs=2, batch_size=8,
        data_option=(f"finding_columns={','.join(FINDINGS)}",), test_share=0.3, validation_share=0.3, replicates=100,
        heatmaps=1, map_checks="none", controls=False, refuse=0.05, augment="none",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHESTXRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        return workflow.run(recipe, output=tmp_path_factory.mktemp("runs") / "findings")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """A function that exports the run once in each format."""
    folder = tmp_path_factory.mktemp("exported")
    return functools.cache(lambda form: export(run.folder, form, output=folder / FORMATS[form]))


@pytest.fixture
def pixels(run):
    """The first test images."""
    return np.stack([np.asarray(Image.open(path)) for path in run.finding_predictions.of("test").rows["path"][:20]])


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_answers_as_the_model_and_describes_itself(run, exported, form):
    made = exported(form)
    path = made.path
    assert made.outputs == (("probabilities",) if form == "keras" else OUTPUTS)
    assert set(made.checked.differences) == set(made.outputs)
    assert all(made.checked.differences[name] < made.checked.tolerances[name] for name in made.outputs)
    assert made.checked.images == "16 test images of the run"
    if form == "savedmodel":
        text = (path / "assets.extra" / export_metadata.FILE).read_text(encoding="utf-8")
    elif form == "onnx":
        import onnx

        text = {item.key: item.value for item in onnx.load(path).metadata_props}[export_metadata.KEY]
    else:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(export_metadata.FILE).decode()
    described = export_metadata.Description.parse(text, path)
    assert isinstance(described.decision, FindingDecision)
    assert described.decision == run.finding_decision
    assert described.decision.classes == FINDINGS


def test_onnx_and_litert_give_the_documented_order(exported, pixels):
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    given = pixels[:5, ..., np.newaxis]
    session = onnxruntime.InferenceSession(exported("onnx").path)
    assert [item.name for item in session.get_outputs()] == list(OUTPUTS)
    of_onnx = dict(zip(OUTPUTS, session.run(None, {"pixels": given}), strict=True))
    interpreter = Interpreter(model_path=str(exported("litert").path))
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], given.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
    interpreter.invoke()
    by_place = [interpreter.get_tensor(item["index"]) for item in interpreter.get_output_details()]
    assert [value.shape for value in by_place] == [(5, 4), (5, 3, 16, 16), (5, 3), (5,)]
    for name, value in zip(OUTPUTS, by_place, strict=True):
        assert value.dtype == of_onnx[name].dtype, name
        np.testing.assert_allclose(value, of_onnx[name], atol=1e-4)


def test_the_engine_answers_as_the_run_does(run, exported, pixels):
    engine = OnnxEngine(exported("onnx").path, threads=1)
    assert (engine.classes, engine.heat_maps) == (FINDINGS, run_heat_maps.of_run(run))
    assert engine.decision == run.finding_decision
    given = engine.run(pixels, maps=True)
    wanted = run.finding_predictions.of("test").rows[:20]
    np.testing.assert_allclose(given.probabilities, wanted[[f"probability_{name}" for name in FINDINGS]], atol=1e-5)
    np.testing.assert_array_equal(given.mapped, np.argsort(-given.probabilities, axis=1, kind="stable")[:, :3])
    images = pixels[..., np.newaxis].astype(np.float32)
    raw = [gradcam(run.model, run.cam_layer[0], images, numbers, finished=False) for numbers in given.mapped.T]
    expected = np.stack([enlarged(maps, (16, 16)) for maps in raw], axis=1)
    np.testing.assert_allclose(given.maps, expected, atol=1e-3 * expected.max())
    assert expected.max() > 0
    refused = given.distances > engine.refusal_threshold
    np.testing.assert_array_equal(refused, wanted["refused"] == "true")
    without = engine.run(pixels)
    assert without.maps is None and without.mapped is None
    np.testing.assert_allclose(without.probabilities, given.probabilities, atol=1e-6)


def test_maps_of_other_findings_are_noticed(run, pixels):
    subject = SourceRun.of(run, "onnx")
    answers = {name: value.numpy() for name, value in subject.compiled(pixels[..., np.newaxis]).items()}
    right = verification.compare(subject, pixels[..., np.newaxis], answers)
    assert right["map"] < 1e-4 and right["mapped"] == 0
    wrong = verification.compare(subject, pixels[..., np.newaxis], answers | {"map": answers["map"][:, ::-1]})
    assert wrong["map"] > verification.TOLERANCE["map"]
    turned = {"map": answers["map"][:, ::-1], "mapped": answers["mapped"][:, ::-1]}
    wrong = verification.compare(subject, pixels[..., np.newaxis], answers | turned)
    assert wrong["mapped"] > verification.TOLERANCE["mapped"]


def test_the_engine_needs_no_tensorflow(exported):
    path = exported("onnx").path
    code = (
        "import sys, numpy as np; from pathlib import Path; from chestxray.inference.onnx_engine import OnnxEngine\n"
        f"print(OnnxEngine(Path({str(path)!r})).run(np.zeros((2, 16, 16), np.uint8), maps=True).mapped.shape)\n"
        "print([m for m in ('tensorflow', 'keras', 'pandas', 'scipy', 'sklearn', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["(2, 3)", "[]"]


@pytest.fixture
def file(exported):
    """An exported file as protobuf, whose metadata a test replaces."""
    import onnx

    return onnx.load(exported("onnx").path)


def _none(rule):
    rule["findings"] = {}


def _another_name(rule):
    rule["findings"] = {f"{name}\nTraceback": one for name, one in rule["findings"].items()}


def _damaged(rule):
    rule["findings"] = {f"{name}\nTraceback": {} for name in rule["findings"]}


def _other_layers(rule):
    rule["findings"]["Mass"]["features"] = "elsewhere"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_none, "findings must be one or more"),
        (_another_name, "positive must be the finding"),
        (_damaged, r"'Edema\\nTraceback'.calibration is missing"),
        (_other_layers, "features must be the same layer"),
        (lambda rule: rule.pop("findings"), "findings is missing"),
        (lambda rule: rule.update(task="\n"), "calibration is missing"),
    ],
)
def test_hostile_metadata_are_one_line(file, change, words, tmp_path):
    described = _described(file)
    change(described["decision"])
    _refused(file, described, words, tmp_path)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["probabilities", "map"], "outputs must have mapped"),
        (["probabilities", "mapped"], "outputs must have mapped"),
        (["probabilities", "map", "mapped", "mapped\n"], "outputs"),
    ],
)
def test_maps_of_findings_come_with_their_numbers(file, outputs, words, tmp_path):
    _refused(file, _described(file) | {"outputs": outputs}, words, tmp_path)


def test_a_file_of_fewer_findings_than_its_maps_have_is_refused(file, tmp_path):
    described = _described(file)
    del described["decision"]["findings"]["Nodule"], described["decision"]["findings"]["Fracture"]
    path = _written(file, described, tmp_path)
    with pytest.raises(DataError, match="not those of findings numbered 0 to 1") as error:
        OnnxEngine(path).run(np.zeros((2, 16, 16), np.uint8), maps=True)
    assert len(str(error.value).splitlines()) == 1


def _described(file):
    return json.loads(file.metadata_props[0].value)


def _written(file, described, folder):
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(file)
    onnx.helper.set_model_props(changed, {export_metadata.KEY: json.dumps(described)})
    onnx.save(changed, folder / "m.onnx")
    return folder / "m.onnx"


def _refused(file, described, words, folder):
    with pytest.raises(DataError, match=words) as error:
        OnnxEngine(_written(file, described, folder))
    assert len(str(error.value).splitlines()) == 1


def test_int8_is_tested_on_the_mean_over_findings(run, tmp_path, monkeypatch):
    monkeypatch.setattr(quantisation, "SECONDS", 0.2)
    made = export(run.folder, "onnx", output=tmp_path / "m.onnx", int8=True, force=True, cache=tmp_path / "cache")
    test = run.finding_predictions.of("test")
    pixels = np.stack([np.asarray(Image.open(path)) for path in test.rows["path"]])
    given = OnnxEngine(made.path).run(pixels, maps=True)
    rule = FindingDecision.read(run.folder / "decision.json")
    differ = (rule.decided(given.probabilities) != rule.decided(test.probabilities)).any(axis=1)
    assert made.quantised.changed == differ.sum()
    assert (made.quantised.tested, made.quantised.gap.value is None) == (len(test.rows), False)
    assert given.mapped.shape == (len(pixels), 3)
