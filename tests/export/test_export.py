import dataclasses
import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from chestxray import workflow
from chestxray.cli.main import group
from chestxray.data.images import reading
from chestxray.data.images.pixels import fitted
from chestxray.errors import DataError, ExportError, InputError, OutputError
from chestxray.evaluation.decision.out_of_distribution import FeatureDistribution
from chestxray.explanation.inference_graph import Graph
from chestxray.export import FORMATS, export, formats, verification
from chestxray.export.source_run import SourceRun, single_precision
from chestxray.inference import export_metadata, keras_engine
from chestxray.inference.onnx_engine import OnnxEngine
from chestxray.models.assembly import build
from chestxray.recipe import Recipe
from chestxray.runs import run_folder
from chestxray.storage import checksums
from heads import KNOWN

OUTPUTS = ("probabilities", "map", "distance")


def trained(folder, data, **choices):
    recipe = Recipe(
        data=(f"folder:{data}",), image_size=16, epochs=3, batch_size=8, test_share=0.3, replicates=100, heatmaps=1,
        map_checks="none",
        augment="none", controls=False,
        **{"model": "shallow_cnn", "refuse": 0.05, "sensitivity": 0.9, "confidence": 0} | choices,
    )  # fmt: skip
    return workflow.run(recipe, output=folder)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two classes that differ in brightness."""
    root = tmp_path_factory.mktemp("films")
    generator = np.random.default_rng(0)
    for k, label in enumerate(("normal", "sick")):
        (root / label).mkdir()
        for n in range(30):
            pixels = generator.normal(80 + 60 * k, 25, (16, 16)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{label}{n:03d}.png")
    return root


@pytest.fixture(scope="module")
def run(films, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHESTXRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        return trained(tmp_path_factory.mktemp("runs") / "tiny", films)


@pytest.fixture
def pixels(films):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(films.glob("*/*.png"))[:40:2]])


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_written_checked_and_describes_itself(run, form, tmp_path):
    path = tmp_path / FORMATS[form]
    made = export(run.folder, form, output=path)
    assert made.path == path
    assert made.outputs == (("probabilities",) if form == "keras" else OUTPUTS)
    assert set(made.checked.differences) == set(made.outputs)
    assert all(made.checked.differences[name] < made.checked.tolerances[name] for name in made.outputs)
    assert made.checked.images == "16 test images of the run"
    assert min(made.checked.rate, made.checked.tensorflow_rate, made.megabytes) > 0
    if form == "savedmodel":
        text = (path / "assets.extra" / export_metadata.FILE).read_text(encoding="utf-8")
    elif form == "onnx":
        import onnx

        text = {item.key: item.value for item in onnx.load(path).metadata_props}[export_metadata.KEY]
    else:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(export_metadata.FILE).decode()
    found = json.loads(text)
    assert found["decision"] == json.loads((run.folder / "decision.json").read_text(encoding="utf-8"))
    assert found["data"]["fingerprint"] == run.environment["data"]["fingerprint"]
    assert found["refusal_threshold"] == FeatureDistribution.read(run.folder / "refusal.npz").threshold
    assert "not for diagnosis" in found["research_use"]
    described = export_metadata.Description.parse(text, path)
    assert (described.model, described.image_size, described.fit) == ("shallow_cnn", (16, 16), run.recipe.fit)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]  # nothing of the writing is left


def test_onnx_and_litert_give_the_documented_order(run, tmp_path):
    """For those who go by place: the first output is the answer."""
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    path = export(run.folder, "onnx", output=tmp_path / "m.onnx").path
    assert [item.name for item in onnxruntime.InferenceSession(path).get_outputs()] == list(OUTPUTS)
    interpreter = Interpreter(model_path=str(export(run.folder, "litert", output=tmp_path / "m.tflite").path))
    interpreter.allocate_tensors()
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    by_place = [interpreter.get_tensor(item["index"]) for item in interpreter.get_output_details()]
    by_name = interpreter.get_signature_runner("serve")(pixels=pixels)
    assert [value.shape for value in by_place] == [(1, 2), (1, 16, 16), (1,)]
    for name, value in zip(OUTPUTS, by_place, strict=True):
        np.testing.assert_array_equal(value, by_name[name])


def as_the_file_says(path, described):
    """Grey pixels of an image file by what an exported file says of itself, with Pillow and no chestxray."""
    size = described["image_size"][::-1]
    resize = described["preprocessing"]["resize"]
    assert described["preprocessing"]["order"] == ["jpeg", "orientation", "grey", "depth", "resize"]
    image = Image.open(path)
    if image.format == "JPEG":
        image.draft("L", tuple(size))
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float32)
        scaled = (values - values.min()) * np.float32(255 / (values.max() - values.min()))
        image = Image.fromarray(np.round(scaled).astype(np.uint8))
    elif image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    method = Image.Resampling[resize["filter"].upper()]
    fit = {
        "stretch": lambda: image.resize(size, method),
        "pad": lambda: ImageOps.pad(image, size, method=method, color=0),
        "crop": lambda: ImageOps.fit(image, size, method=method),
    }
    image = image.convert("L")
    return np.asarray(fit[resize["fit"]]())


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_stranger_prepares_images_by_the_file_alone(run, fit, tmp_path):
    import onnxruntime

    folder = copied(run, tmp_path / "run")
    recipe = folder / run_folder.RECIPE
    recipe.write_text(recipe.read_text(encoding="utf-8").replace('fit = "stretch"', f'fit = "{fit}"'), encoding="utf-8")
    path = export(folder, "onnx").path
    session = onnxruntime.InferenceSession(path)
    described = json.loads(session.get_modelmeta().custom_metadata_map["chestxray"])
    generator = np.random.default_rng(3)
    coarse = Image.fromarray(generator.integers(0, 256, (9, 7, 4), dtype=np.uint8))
    large = coarse.resize((170, 130), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    large.convert("RGB").save(tmp_path / "large.jpg")
    large.convert("RGB").save(tmp_path / "turned.jpg", exif=turned)
    large.save(tmp_path / "transparent.png")
    Image.fromarray(generator.integers(900, 4000, (40, 50), dtype=np.uint16)).save(tmp_path / "deep.png")
    for file in sorted([*tmp_path.glob("*.png"), *tmp_path.glob("*.jpg")]):
        theirs = as_the_file_says(file, described)
        ours = reading.read(file, size=(16, 16), fit=fit).pixels
        np.testing.assert_array_equal(theirs, ours, err_msg=file.name)
        (given,) = session.run(None, {"pixels": theirs[np.newaxis, ..., np.newaxis]})[:1]
        expected = OnnxEngine(path).run(ours[np.newaxis]).probabilities
        np.testing.assert_allclose(given, expected, atol=1e-6)
    # What Pillow is told to do stands there as a call, too.
    image = Image.open(tmp_path / "deep.png").convert("L")
    call = eval(described["preprocessing"]["resize"]["pillow"], {"image": image, "Image": Image, "ImageOps": ImageOps})
    np.testing.assert_array_equal(np.asarray(call), np.asarray(fitted(image, (16, 16), fit)))


def test_a_file_with_another_resize_filter_is_refused(run, tmp_path):
    import onnx

    path = export(run.folder, "onnx", output=tmp_path / "m.onnx").path
    model = onnx.load(path)
    described = json.loads(model.metadata_props[0].value)
    described["preprocessing"]["resize"]["filter"] = "bicubic"
    onnx.helper.set_model_props(model, {export_metadata.KEY: json.dumps(described)})
    onnx.save(model, path)
    with pytest.raises(DataError, match="resized with the filter bicubic; this version of chestxray has bilinear"):
        OnnxEngine(path)


def test_the_engine_answers_as_the_run_does(run, pixels, tmp_path):
    engine = OnnxEngine(export(run.folder, "onnx", output=tmp_path / "m.onnx").path, threads=1)
    subject = SourceRun.of(run, "onnx")
    given = engine.run(pixels, maps=True)
    answers = {"probabilities": given.probabilities, "map": given.maps, "distance": given.distances}
    differences = verification.compare(subject, pixels[..., np.newaxis], answers)
    assert differences["probabilities"] < 1e-5
    assert differences["map"] < 1e-4
    assert differences["distance"] < 1e-4
    without = engine.run(pixels)
    assert without.maps is None
    np.testing.assert_allclose(without.probabilities, given.probabilities, atol=1e-6)
    assert (engine.name, engine.classes) == ("tiny", ("normal", "sick"))
    assert engine.decision == subject.decision


def test_the_file_has_the_maps_the_scale_and_the_badge_of_the_run(run, tmp_path, pixels):
    folder = copied(run, tmp_path / "judged")
    check = {"name": "stability", "verdict": "fails", "sentence": "It moves.", "figures": {}}
    record = {"method": "gradcam", "badge": "fails", "reason": "", "images": 9, "checks": [check]}
    (folder / "heatmaps" / "checks.json").write_text(json.dumps({"methods": [record]}))
    of_run, of_file = keras_engine.load_engine(folder), OnnxEngine(export(folder, "onnx").path)
    assert of_file.heat_maps == of_run.heat_maps and of_file.heat_maps.badge == "fails"
    assert of_file.heat_maps.highest == run.heatmaps["scale"]["highest"] > 0
    shown = [engine.heat_maps.on_scale(engine.run(pixels, maps=True).maps) for engine in (of_run, of_file)]
    np.testing.assert_allclose(shown[1], shown[0], atol=1e-4)
    peaks = shown[1].max(axis=(1, 2))
    assert peaks.min() < 0.9 * peaks.max(), "no map is stretched to the end of the scale"


def test_a_file_without_a_scale_is_to_be_exported_again(run, tmp_path):
    import onnx

    path = export(run.folder, "onnx", output=tmp_path / "m.onnx").path
    model = onnx.load(path)
    described = json.loads(model.metadata_props[0].value)
    for maps, words in ((None, "states no scale of its heat maps.* Export the run again"), ({}, "heat_maps.badge is")):
        onnx.helper.set_model_props(model, {export_metadata.KEY: json.dumps(described | {"heat_maps": maps})})
        onnx.save(model, path)
        with pytest.raises(DataError, match=words) as error:
            OnnxEngine(path)
        assert len(str(error.value).splitlines()) == 1


def test_the_engine_needs_no_tensorflow(run, tmp_path):
    path = export(run.folder, "onnx", output=tmp_path / "m.onnx").path
    code = (
        "import sys, numpy as np; from pathlib import Path; from chestxray.inference.onnx_engine import OnnxEngine\n"
        f"print(OnnxEngine(Path({str(path)!r})).run(np.zeros((2, 16, 16), np.uint8), maps=True).maps.shape)\n"
        "print([m for m in ('tensorflow', 'keras', 'pandas', 'scipy', 'sklearn', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["(2, 16, 16)", "[]"]


def test_a_run_without_map_and_distance_says_so(films, tmp_path):
    run = trained(tmp_path / "flat", films, model="shallow_fc", refuse=0.0, sensitivity=None, confidence=None)
    made = export(run.folder, "onnx")
    assert made.path == run.folder / "export" / "model.onnx"
    assert made.outputs == ("probabilities",)
    assert "No map: the architecture has no" in made.notes[0]
    assert "refuses nothing" in made.notes[1]
    engine = OnnxEngine(made.path)
    assert engine.heat_maps is None
    with pytest.raises(InputError, match="no heat maps"):
        engine.run(np.zeros((1, 16, 16), np.uint8), maps=True)


def test_a_head_without_closed_form_keeps_its_map_in_a_savedmodel_alone(run, tmp_path, monkeypatch, tiny):
    def gated(features, classes):
        x = keras.layers.Dense(8, activation="gelu")(keras.layers.GlobalAveragePooling2D()(features))
        return keras.layers.Dense(classes, name="logits")(x)

    folder = copied(run, tmp_path / "gated")
    build(dataclasses.replace(tiny, head=gated), 2, (16, 16)).model.save(folder / run_folder.MODEL)
    set_layer(folder, "last")
    set_features(folder, None)
    made = export(folder, "onnx")
    assert made.outputs == ("probabilities",)
    assert "gelu" in made.notes[0]
    assert export(folder, "savedmodel").outputs == ("probabilities", "map")


def test_half_precision_is_exported_in_single(run, tmp_path, tiny):
    folder = copied(run, tmp_path / "half")
    half = build(tiny, 2, (16, 16), mixed_precision=True).model
    half.save(folder / run_folder.MODEL)
    set_layer(folder, "last")
    set_features(folder, None)
    assert export(folder, "onnx").checked.tolerances == {
        name: verification.HALVED[name] for name in ("probabilities", "map")
    }
    whole = single_precision(half)
    assert {layer.compute_dtype for layer in whole.layers} == {"float32"}
    assert all((np.asarray(a) == np.asarray(b)).all() for a, b in zip(whole.weights, half.weights, strict=True))


def test_distances_that_rounding_decides_are_left_out(run, tmp_path):
    folder = copied(run, tmp_path / "constant")
    distribution = FeatureDistribution.read(folder / "refusal.npz")
    dataclasses.replace(distribution, scale=distribution.scale * 1e-8).write(folder / "refusal.npz")
    made = export(folder, "onnx")
    assert "distance" not in made.outputs
    assert "rounding" in made.notes[0]


def test_images_that_have_gone_are_drawn(run, tmp_path):
    folder = copied(run, tmp_path / "moved")
    index = run.index.replace(run.index.rows.assign(path="/nowhere/" + run.index.rows["label"]))
    index.write(folder / "index.parquet")
    assert "phantoms" in export(folder, "savedmodel").checked.images


def test_a_file_that_answers_otherwise_is_deleted(run, tmp_path, monkeypatch):
    def write_another(subject, path):
        for variable in subject.graph.probe.variables:
            variable.assign(variable * 1.5)
        formats.write_onnx(subject, path)
        for variable in subject.graph.probe.variables:
            variable.assign(variable / 1.5)

    monkeypatch.setitem(formats.WRITERS, "onnx", write_another)
    with pytest.raises(ExportError, match="was deleted: probabilities differ by"):
        export(run.folder, "onnx", output=tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("head", KNOWN)
def test_maps_of_every_known_head_can_be_converted(tiny, head, monkeypatch):
    import onnxruntime
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    graph = Graph(build(dataclasses.replace(tiny, head=head), 3, (16, 24)).model, "last")
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 1), dtype=np.uint8)
    signature = [tf.TensorSpec((None, 16, 24, 1), tf.uint8, name="pixels")]
    compiled = tf.function(
        lambda pixels: graph.compute(tf.cast(pixels, tf.float32)), input_signature=signature, autograph=False
    )
    expected = compiled(images)
    names = list(expected)
    # Both ways of giving large kernels to the converter; the first convolution's counts as one of them.
    monkeypatch.setattr(formats, "LARGE", 400 if head is KNOWN[0] else 10_000)
    model = formats.onnx_model(graph)
    assert [item.name for item in model.graph.input] == ["pixels"]
    assert len(model.SerializeToString()) < 1.1 * 4 * graph.probe.count_params() + 50_000
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    runner = Interpreter(model_content=formats.litert_model(graph.probe, compiled)).get_signature_runner("serve")
    for given in (dict(zip(names, session.run(names, {"pixels": images}), strict=True)), runner(pixels=images)):
        np.testing.assert_allclose(given["probabilities"], expected["probabilities"], atol=1e-5)
        np.testing.assert_allclose(given["map"], expected["map"], atol=1e-4 * np.max(expected["map"]))


def test_what_a_format_cannot_hold_is_named(tiny):
    def strange(features, classes):
        x = keras.ops.erfinv(keras.ops.tanh(keras.layers.GlobalAveragePooling2D()(features)))
        return keras.layers.Dense(classes, name="logits")(x)

    graph = Graph(build(dataclasses.replace(tiny, head=strange), 2, (16, 16)).model, None)
    with pytest.raises(ExportError, match="no counterpart to the operations Erfinv"):
        formats.onnx_model(graph)


def test_what_exists_is_kept_unless_asked(run, tmp_path):
    path = tmp_path / "m.keras"
    path.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        export(run.folder, "keras", output=path)
    assert path.read_text() == "mine"
    export(run.folder, "keras", output=path, overwrite=True)
    assert path.stat().st_size > 1000
    with pytest.raises(OutputError, match="folder with other content"):
        export(run.folder, "savedmodel", output=tmp_path, overwrite=True)
    with pytest.raises(InputError, match=r"must end with \.keras"):
        export(run.folder, "keras", output=tmp_path / "m.h5")


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_that_is_no_run_is_refused(form, tmp_path):
    with pytest.raises(InputError, match="is not a run"):
        export(tmp_path, form)


def test_a_run_without_weights_is_refused(run, tmp_path):
    folder = copied(run, tmp_path / "predictions")
    (folder / run_folder.MODEL).unlink()
    with pytest.raises(InputError, match="no weights"):
        export(folder, "onnx")


def test_a_run_without_decision_is_refused(run, tmp_path):
    folder = copied(run, tmp_path / "old")
    (folder / "decision.json").unlink()
    with pytest.raises(InputError, match=r"decision\.json"):
        export(folder, "onnx")


def test_a_damaged_model_is_told(run, tmp_path):
    folder = copied(run, tmp_path / "damaged")
    (folder / run_folder.MODEL).write_bytes(b"no model")
    with pytest.raises(DataError, match="cannot be loaded"):
        export(folder, "onnx")
    checksums.write(folder, [run_folder.MODEL])
    (folder / run_folder.MODEL).write_bytes(b"another")
    with pytest.raises(DataError, match="not the file that was written there"):
        export(folder, "onnx")


def test_an_unknown_format_is_told_with_the_nearest(run):
    with pytest.raises(InputError, match="Did you mean onnx"):
        export(run.folder, "onxx")


@pytest.mark.parametrize(("form", "module"), [("onnx", "tf2onnx"), ("litert", "ai_edge_litert")])
def test_what_is_not_installed_is_told_with_the_command(run, form, module, monkeypatch, tmp_path):
    known = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == module else known(name))
    with pytest.raises(InputError, match=rf"needs {module}: pip install 'chestxray\[export\]'"):
        export(run.folder, form, output=tmp_path / "m")


def test_an_engine_of_a_wrong_file_says_so(tmp_path):
    import onnx

    with pytest.raises(InputError, match="No such file"):
        OnnxEngine(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(DataError, match="is not an ONNX file"):
        OnnxEngine(tmp_path / "text.onnx")
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [
        onnx.helper.make_tensor_value_info("y", 1, [1])
    ])  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(DataError, match="not made by `chestxray export`"):
        OnnxEngine(tmp_path / "other.onnx")
    onnx.helper.set_model_props(model, {export_metadata.KEY: '{"name": "x"}'})
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(DataError, match="damaged"):
        OnnxEngine(tmp_path / "other.onnx")


def test_the_command_prints_the_check(run, tmp_path):
    path = tmp_path / "phone.tflite"
    result = CliRunner().invoke(group, ["export", str(run.folder), "--format", "litert", "--output", str(path)])
    assert result.exit_code == 0, result.output
    for part in ("16 test images of the run", "probabilities", "images/s", "TensorFlow", "Research use only"):
        assert part in result.output
    assert path.is_file()
    result = CliRunner().invoke(group, ["export", str(run.folder), "--format", "tflite"])
    assert isinstance(result.exception, InputError)


def copied(run, folder):
    """A copy of the run without what is large, and without checksums: its files are changed on purpose."""
    import shutil

    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("export", "figures", checksums.FILE))
    return folder


def set_layer(folder, layer):
    path = folder / "heatmaps" / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"layer": layer}), encoding="utf-8")


def set_features(folder, layer):
    path = folder / "decision.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"features": layer}), encoding="utf-8")
