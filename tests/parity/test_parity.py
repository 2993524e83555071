"""Networks written for PyTorch and ours give the same numbers from the same file of weights.

Runs where torch, timm and torchxrayvision are installed, in tox's environment `parity`.
"""

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from chestxray import registry
from chestxray.models import assembly
from chestxray.models.weights import load_weights

torch = pytest.importorskip("torch", reason="torch is installed in tox's environment parity only")
timm = pytest.importorskip("timm", reason="timm is installed in tox's environment parity only")

MEAN = np.float32([0.485, 0.456, 0.406])
DEVIATION = np.float32([0.229, 0.224, 0.225])


def random_network(name):
    """timm's network with random values in every variable; none is left at 0 or 1, hiding a branch."""
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if tensor.ndim != 1:
                continue
            if key.endswith((".weight", ".gamma", ".running_var")):
                # The last factor of a bottleneck is small: without that a stack of 66 grows to 1e12.
                tensor.copy_((torch.rand_like(tensor) * 0.6 + 0.7) * (0.2 if key.endswith("bn3.weight") else 1))
            else:
                tensor.copy_(torch.randn_like(tensor) * 0.1)
    return network.eval()


def pictures(size):
    pixels = np.random.default_rng(1).integers(0, 256, (3, *size, 3)).astype("float32")
    scaled = (pixels / 255 - MEAN) / DEVIATION
    return pixels, torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy())


def ours(name, size, network, folder):
    """Our network with the weights of timm's, by way of a safetensors file; features and logits."""
    plugin = registry.load_plugin(registry.MODELS, name)
    pixels = keras.Input((*size, 3))
    features = plugin.build(plugin.scale(pixels), None)
    model = keras.Model(pixels, [features, plugin.head(features, 1000)])
    arrays = {key: tensor.contiguous().numpy() for key, tensor in network.state_dict().items()}
    save_file(arrays, folder / "model.safetensors")
    load_weights(model, folder / "model.safetensors", convert=plugin.convert)
    return model


@pytest.mark.parametrize("size", [(96, 96), (75, 101)])
@pytest.mark.parametrize("name", ["resnet18", "resnet200d"])
def test_logits_are_those_of_timm(name, size, tmp_path):
    network = random_network(name)
    pixels, scaled = pictures(size)
    with torch.no_grad():
        expected = network(scaled).numpy()
    _, logits = ours(name, size, network, tmp_path)(pixels)
    difference = np.abs(np.asarray(logits) - expected).max()
    print(f"{name} {size}: logits of up to {np.abs(expected).max():.2f} differ by at most {difference:.1e}")
    assert np.abs(expected).max() > 0.1
    assert difference < 1e-4


@pytest.mark.parametrize("size", [(96, 96), (75, 101)])
def test_features_of_convnext_are_those_of_timm(size, tmp_path):
    network = random_network("convnext_tiny")
    pixels, scaled = pictures(size)
    with torch.no_grad():
        # As in keras.applications, the head's normalisation stands before the pooling here.
        expected = network.head.norm(network.forward_features(scaled)).numpy().transpose(0, 2, 3, 1)
    features, _ = ours("convnexttiny", size, network, tmp_path)(pixels)
    difference = np.abs(np.asarray(features) - expected).max()
    print(f"convnexttiny {size}: features of up to {np.abs(expected).max():.2f}, by {difference:.1e}")
    assert difference < 1e-4


def random_xray_network(name):
    """torchxrayvision's DenseNet, or (its ResNet is torchvision's, with one channel) timm's, with random values."""
    xrv = pytest.importorskip("torchxrayvision", reason="torchxrayvision is installed in tox's environment parity only")
    torch.manual_seed(0)
    of_xrv = name == "torchxrayvision_densenet121"
    network = xrv.models.DenseNet() if of_xrv else timm.create_model("resnet50", in_chans=1, num_classes=18)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key.endswith((".weight", ".running_var")) and tensor.ndim == 1:
                tensor.copy_((torch.rand_like(tensor) * 0.6 + 0.7) * (0.2 if key.endswith("bn3.weight") else 1))
            elif tensor.ndim == 1:
                tensor.copy_(torch.randn_like(tensor) * 0.1)
        # The first normalisation takes pixels of up to 1024 to numbers near 1, as in a trained network.
        first = network.features.norm0 if of_xrv else network.bn1
        first.running_var *= 1024**2
    return network.eval()


def xray_features(network, scaled):
    if hasattr(network, "features2"):  # torchxrayvision's, before its classifier
        return torch.relu(network.features(scaled)), network.features2(scaled)
    features = network.forward_features(scaled)
    return features, features.mean((2, 3))


@pytest.mark.parametrize(
    ("name", "size", "old_format"),
    [
        ("torchxrayvision_densenet121", (224, 224), True),
        ("torchxrayvision_densenet121", (120, 151), False),
        ("torchxrayvision_resnet50", (512, 512), True),
        ("torchxrayvision_resnet50", (75, 101), False),
    ],
)
def test_features_and_logits_are_those_of_torchxrayvision(name, size, old_format, tmp_path):
    """The file is what torch.save makes of a whole DenseNet and of the state of a ResNet, as they are published."""
    network = random_xray_network(name)
    saved = network if name == "torchxrayvision_densenet121" else network.state_dict()
    torch.save(saved, tmp_path / "best.pt", _use_new_zipfile_serialization=not old_format)
    pixels = np.random.default_rng(1).integers(0, 256, (2, *size, 1)).astype("float32")
    # As torchxrayvision.utils.normalize has it.
    scaled = torch.from_numpy(((2 * (pixels / 255) - 1.0) * 1024).transpose(0, 3, 1, 2).copy())
    plugin = registry.load_plugin(registry.MODELS, name)
    built = assembly.build(plugin, 18, size, task="findings", weights=str(tmp_path / "best.pt"))
    model = keras.Model(
        built.model.input, [built.model.get_layer(layer).output for layer in (plugin.cam_layer, "pool", "logits")]
    )
    with torch.no_grad():
        expected = [*xray_features(network, scaled), network(scaled)]
    expected[0] = expected[0].permute(0, 2, 3, 1)
    for what, ours, theirs in zip(("map", "features", "logits"), model(pixels), expected, strict=True):
        difference = np.abs(np.asarray(ours) - theirs.numpy()).max()
        print(f"{name} {size} {what}: up to {theirs.abs().max():.3g}, by {difference:.1e}")
        assert theirs.abs().max() > 0.1
        assert difference < 1e-4
