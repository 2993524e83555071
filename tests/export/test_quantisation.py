"""`chestxray export --quantise int8`: what the file computes, what is said of it, and when it is refused."""

import dataclasses
import shutil

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import roc_auc_score

from chestxray import workflow
from chestxray.cli.export import _print_check
from chestxray.cli.main import group
from chestxray.cli.output import quoted
from chestxray.errors import ExportError, InputError
from chestxray.evaluation.intervals import Figure
from chestxray.export import export, quantisation
from chestxray.inference.onnx_engine import OnnxEngine
from chestxray.recipe import Recipe
from chestxray.runs.run_folder import Run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two classes that differ in brightness."""
    root = tmp_path_factory.mktemp("films")
    generator = np.random.default_rng(0)
    for k, label in enumerate(("normal", "sick")):
        (root / label).mkdir()
        for n in range(30):
            pixels = generator.normal(generator.normal(90 + 20 * k, 20), 25, (16, 16)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{label}{n:03d}.png")
    return root


@pytest.fixture(scope="module")
def run(films, cache, tmp_path_factory):
    recipe = Recipe(
        model="shallow_cnn", data=(f"folder:{films}",), image_size=16, epochs=3, batch_size=8, test_share=0.3,
        replicates=100, heatmaps=1, map_checks="none", augment="none", controls=False,
    )  # fmt: skip
    return workflow.run(recipe, output=tmp_path_factory.mktemp("runs") / "tiny", cache=cache)


@pytest.fixture(scope="module")
def made(run, cache, tmp_path_factory):
    """The file, forced: no file has an AUROC that is higher by 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantisation, "SECONDS", 0.2)
        patch.setattr(quantisation, "LARGEST_LOSS", -2.0)
        path = tmp_path_factory.mktemp("int8") / "m.onnx"
        found = export(run.folder, "onnx", output=path, int8=True, force=True, cache=cache)
        assert found.quantised.too_large
    return found


@pytest.fixture
def tested(run):
    """The test of the run, and its pixels."""
    test = Run(run.folder).predictions.of("test")
    return test, np.stack([np.asarray(Image.open(name)) for name in test.rows["path"]])


def test_the_engine_opens_it_and_it_says_nearly_what_the_model_says(made, tested):
    assert "QuantizeLinear" in [node.op_type for node in onnx.load(made.path).graph.node]
    test, pixels = tested
    engine = OnnxEngine(made.path)
    given = engine.run(pixels, maps=True)
    assert (engine.classes, given.maps.shape) == (("normal", "sick"), pixels.shape)
    assert 0 < np.abs(given.probabilities - test.probabilities).max() < 0.1
    assert engine.heat_maps.badge == "not checked" and "8-bit integers" in engine.heat_maps.sentence


def test_what_is_said_is_measured(made, tested, run, capsys):
    cost = made.quantised
    test, pixels = tested
    engine = OnnxEngine(made.path)
    probabilities = engine.run(pixels).probabilities
    sick = test.rows["label"] == "sick"
    auroc = [roc_auc_score(sick, scores[:, 1]) for scores in (probabilities, test.probabilities)]
    assert cost.gap.value == pytest.approx(auroc[0] - auroc[1], abs=1e-9)
    decided = engine.decision.decided(probabilities) != engine.decision.decided(test.probabilities)
    assert (cost.changed, cost.tested) == (decided.sum(), len(test.rows))
    assert cost.calibrated_on == (run.index.rows["split"] == "train").sum()
    assert cost.megabytes[1] * 1e6 == made.path.stat().st_size
    _print_check(made)
    said = capsys.readouterr().out
    assert f"Change of the AUROC on {cost.tested} test images: {quoted(cost.gap.to_json())}" in said
    assert f"{cost.megabytes[1] / cost.megabytes[0]:.2f} of the size" in said
    assert f"{cost.rates[1] / cost.rates[0]:.2f} of the speed" in said


def test_the_last_dense_layer_stays_in_float32(made):
    graph = onnx.load(made.path).graph
    weights = {item.name: item.dims for item in graph.initializer}
    (last,) = (n for n in graph.node if n.op_type in ("MatMul", "Gemm") and weights.get(n.input[1], [0])[-1] == 2)
    assert next(item for item in graph.initializer if item.name == last.input[1]).data_type == onnx.TensorProto.FLOAT


def test_too_large_a_loss_is_refused(run, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(quantisation, "SECONDS", 0.2)
    monkeypatch.setattr(quantisation, "LARGEST_LOSS", -2.0)
    arguments = ["--format", "onnx", "--quantise", "int8", "--output", str(tmp_path / "m.onnx"), "--cache", str(cache)]
    with pytest.raises(ExportError, match=r"In int8 the AUROC on the run's \d+ test images changes by [+-]0\.\d{4}"):
        CliRunner().invoke(group, ["export", str(run.folder), *arguments], catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_a_loss_that_cannot_be_computed_is_too_large():
    made = quantisation.Quantised((1, 1), (1, 1), Figure(None, None, None), "t", 1, 0, 1)
    assert made.too_large
    assert not dataclasses.replace(made, gap=Figure(-0.01, None, None)).too_large
    assert dataclasses.replace(made, gap=Figure(-0.011, None, None)).too_large


def test_images_that_are_gone_are_said_to_be(run, films, tmp_path):
    away = films.with_name("away")
    shutil.move(films, away)
    try:
        with pytest.raises(InputError, match=r"int8 is calibrated on .* are gone. The first: "):
            export(run.folder, "onnx", output=tmp_path / "m.onnx", int8=True, cache=tmp_path / "empty")
    finally:
        shutil.move(away, films)


def test_int8_is_of_onnx_alone(run, tmp_path):
    with pytest.raises(InputError, match="int8 is for the format onnx"):
        export(run.folder, "keras", output=tmp_path / "m.keras", int8=True)
    with pytest.raises(InputError, match="force is for int8"):
        export(run.folder, "onnx", output=tmp_path / "m.onnx", force=True)
