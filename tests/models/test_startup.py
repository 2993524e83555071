import os
import subprocess
import sys

import numpy as np
import pytest


def test_tensorflow_starts_in_silence_and_other_words_are_passed_on():
    code = (
        "import os; from chestxray.models import startup; startup.start(); import sys\n"
        "assert 'keras' in sys.modules and 'tensorflow' in sys.modules\n"
        "with startup.quiet():\n"
        "    os.write(2, b'I0000 00:00 greeting\\nsomething is wrong\\n')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=400)
    assert (result.returncode, result.stderr) == (0, "something is wrong\n")


@pytest.mark.parametrize(("own", "wanted"), [(None, "1"), ("0", "0")])
def test_onednn_is_on_unless_the_user_says_otherwise(own, wanted):
    code = (
        "import os; from chestxray.models import startup; startup.start()\n"
        "from chestxray.runs import provenance\n"
        "print(os.environ['TF_ENABLE_ONEDNN_OPTS'], provenance.settings()['TF_ENABLE_ONEDNN_OPTS'])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {} if own is None else {"TF_ENABLE_ONEDNN_OPTS": own}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=400)
    assert result.stdout.split() == [wanted, wanted], result.stderr


NETWORK = """
import sys
from chestxray.models import startup
startup.start()
import keras, numpy as np
keras.utils.set_random_seed(0)
inputs = keras.Input((16, 16, 3))
x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
x = keras.layers.BatchNormalization()(x)
model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling2D()(x)))
images = np.random.default_rng(0).normal(size=(12, 16, 16, 3)).astype("float32")
model.compile(optimizer="sgd", loss="categorical_crossentropy")
model.fit(images, np.eye(2, dtype="float32")[np.arange(12) % 2], batch_size=4, epochs=2, shuffle=False, verbose=0)
np.save(sys.argv[1], model.predict(images, verbose=0))
"""


def test_onednn_changes_no_more_than_the_last_bits(tmp_path):
    for value in ("0", "1"):
        environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": value}
        call = [sys.executable, "-c", NETWORK, str(tmp_path / value)]
        subprocess.run(call, check=True, env=environment, timeout=400, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "0.npy"), np.load(tmp_path / "1.npy"), rtol=1e-4, atol=1e-5)
