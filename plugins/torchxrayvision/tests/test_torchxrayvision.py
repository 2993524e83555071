import keras
import numpy as np
import pytest
from chestxray_torchxrayvision import FINDINGS, WEIGHTS, densenet121, resnet50, scale


def whole(plugin, classes):
    pixels = keras.Input((*plugin.minimum_size, 1))
    return keras.Model(pixels, plugin.head(plugin.build(plugin.scale(pixels), None), classes))


@pytest.mark.parametrize(
    # torchvision's 7,978,856 and 25,557,032 for three channels and 1,000 classes, less two channels of the stem;
    # and Keras counts the moving averages.
    ("plugin", "parameters", "last"),
    [(densenet121, 7_978_856, 1024), (resnet50, 25_557_032, 2048)],
)
def test_at_the_smallest_size_it_has_the_published_number_of_weights_and_a_map(plugin, parameters, last):
    model = whole(plugin, 1000)
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters - 2 * 7 * 7 * 64
    assert model.get_layer(plugin.cam_layer).output.shape == (None, 1, 1, last)
    assert plugin.finetune_from in [layer.name for layer in model.layers]


def test_grey_levels_are_mapped_to_the_published_range():
    pixels = np.float32([0, 127.5, 255]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(np.ravel(scale(pixels)), [-1024, 0, 1024], atol=1e-3)


def test_each_file_has_its_findings_thresholds_and_sets():
    assert len(WEIGHTS) == 8
    for name, facts in WEIGHTS.items():
        assert facts.url.endswith(".pt") and facts.trained_on, name
        assert all(given in ("", own) for given, own in zip(facts.findings, FINDINGS, strict=True)), name
        for finding, threshold in zip(facts.findings, facts.thresholds, strict=True):
            assert threshold is None or (finding and 0 < threshold < 1), name
    assert WEIGHTS["densenet121-res224-all"].findings == FINDINGS
    rsna = WEIGHTS["densenet121-res224-rsna"].findings
    assert [finding for finding in rsna if finding] == ["Pneumonia", "Lung Opacity"]
    assert set(densenet121.weights) | set(resnet50.weights) == set(WEIGHTS)
