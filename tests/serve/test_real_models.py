"""A run, an ensemble and an exported file behind the server answer as `chestxray predict` does."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chestxray import export
from chestxray.data.images.reading import read
from chestxray.data.index import Index
from chestxray.errors import DataError
from chestxray.inference import keras_engine
from chestxray.inference.answer import answers
from chestxray.serve.loading import open_models
from chestxray.storage.files import write_json, write_text
from run_folders import write_ensemble, write_run
from serve.fakes import image_bytes, post


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("served") / "run", abstain=0.9)
    rows = [{"path": "gone.png", "label": "sick", "patient": "", "split": "test"}]
    Index.from_records(rows, name="noise", classes=("clear", "sick")).write(folder / "index.parquet")
    write_json(folder / "environment.json", {"data": {"name": "noise"}, "packages": {}})
    write_text(folder / "MODEL_CARD.html", "<!doctype html><title>Card</title>")
    return folder


@pytest.fixture(scope="module")
def exported(run):
    return export.export(run, "onnx").path


def test_the_server_answers_as_predict_does(run, exported, make_client, tmp_path):
    ensemble = write_ensemble(tmp_path / "both", [run, shutil.copytree(run, tmp_path / "twin")])
    client = make_client(models=open_models([run, exported, ensemble]))
    engine = keras_engine.load_engine(run)
    for value in (0, 90, 255):
        film = tmp_path / "film.jpg"
        film.write_bytes(image_bytes(value, size=(160, 90), kind="JPEG"))
        pixels = read(film, size=engine.image_size, fit=engine.fit).pixels[np.newaxis]
        expected = answers([""], engine.run(pixels), engine)[0]
        told = post(client, film.read_bytes(), "image/jpeg", query="?maps=true&pictures=true").get_json()["answers"]
        assert [answer["model"] for answer in told] == ["model-1", "model-2", "model-3"]
        for answer in told[:2]:
            assert answer["decision"] == expected.decision and answer["refused"] == expected.refused
            assert answer["abstained"] == expected.abstained
            assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-4)
            assert (answer["map"] is None) == expected.refused
        assert told[2]["probabilities"] == pytest.approx(expected.probabilities, abs=1e-4)


def test_an_export_is_served_without_tensorflow(exported):
    # A process in which nothing of TensorFlow, Keras, pandas or SciPy can be imported.
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'pandas', 'scipy', 'sklearn', 'pyarrow', 'jax', 'datasets'):\n"
        "    sys.modules[name] = None\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from chestxray.serve.loading import open_models\n"
        "from serve.fakes import image_bytes, listening\n"
        "import urllib.request\n"
        "with listening(models=open_models([Path(sys.argv[1])])) as port:\n"
        "    request = urllib.request.Request(f'http://127.0.0.1:{port}/api/predict?maps=true', image_bytes(),\n"
        "        {'Content-Type': 'image/png'})\n"
        "    print(urllib.request.urlopen(request).status)\n"
    )
    tests = Path(__file__).parents[1]
    made = subprocess.run(
        [sys.executable, "-c", code, str(exported), str(tests)], capture_output=True, text=True, check=False
    )
    # waitress says so of a request that comes before its threads have all begun.
    said = [line for line in made.stderr.splitlines() if not line.startswith("Task queue depth")]
    assert (made.stdout.strip(), said) == ("200", [])


def test_damaged_weights_are_told_at_the_start(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "damaged")
    (folder / "model.keras").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be loaded"):
        open_models([folder])


def test_the_card_of_an_export_is_found(run, exported, tmp_path):
    assert open_models([exported])[0].card == run / "MODEL_CARD.html"
    (alone,) = open_models([shutil.copy(exported, tmp_path / "model.onnx")])
    assert alone.card is None
