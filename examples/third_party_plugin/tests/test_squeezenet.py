"""The conformance suite of chestxray, and the size of the published network."""

import keras
from squeezenet_for_chestxray import build, head, plugin

from chestxray import registry
from chestxray.testing import check_model_plugin


def test_squeezenet_passes_the_conformance_suite():
    check_model_plugin(plugin)


def test_it_has_as_many_weights_as_the_published_network():
    pixels = keras.Input((224, 224, 3))
    logits = head(build(pixels, None), 1000)
    assert keras.Model(pixels, logits).count_params() == 1_235_496


def test_it_is_found_once_it_is_installed():
    entry = registry.find(registry.MODELS, "squeezenet")
    assert entry.distribution == "squeezenet-for-chestxray"
    assert registry.load_entry(registry.MODELS, entry) is plugin
