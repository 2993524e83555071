"""Vision transformers of timm and of Hugging Face's transformers and ours give the same numbers from the same file.

Runs where torch, timm and transformers are installed, in tox's environment `parity`.
"""

from functools import partial

import chestxray_eva_x as eva
import chestxray_vit as vit
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from chestxray.models.weights import load_weights

torch = pytest.importorskip("torch", reason="torch is installed in tox's environment parity only")
timm = pytest.importorskip("timm", reason="timm is installed in tox's environment parity only")
transformers = pytest.importorskip("transformers", reason="transformers is installed in tox's environment parity only")


def randomised(network):
    """`network` with random values in every parameter; none is left at 0 or 1, hiding a branch."""
    torch.manual_seed(0)
    with torch.no_grad():
        for key, tensor in network.named_parameters():
            if tensor.ndim > 1:
                tensor.copy_(torch.randn_like(tensor) * (0.03 if key.endswith("weight") else 0.5))
            elif key.endswith((".weight", ".gamma", ".lambda1")):
                tensor.copy_(torch.rand_like(tensor) * 0.6 + 0.7)
            else:
                tensor.copy_(torch.randn_like(tensor) * 0.1)
    return network.eval()


def pictures(network, size):
    """Pixels, and what PyTorch's network takes of them."""
    pixels = np.random.default_rng(1).integers(0, 256, (2, *size, 3)).astype("float32")
    scaled = (pixels / 255 - np.float32(network.statistics[0])) / np.float32(network.statistics[1])
    return pixels, torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy())


def ours(network, size, path, classes):
    """Our network with the weights of the file at `path`: its features, logits and map of patches."""
    pixels = keras.Input((*size, 3))
    features = vit.build(vit.scale(pixels, network), None, network, "none")
    logits = keras.layers.Dense(classes, name="logits")(features)
    whole = keras.Model(pixels, [features, logits])
    load_weights(whole, path, convert=partial(vit.convert, antialias=network.antialias))
    return keras.Model(pixels, [features, logits, whole.get_layer("patch_map").output])


def check_equal(name, found, expected):
    difference = np.abs(np.asarray(found) - expected).max()
    print(f"{name}: values of up to {np.abs(expected).max():.2f} differ by at most {difference:.1e}")
    assert np.abs(expected).max() > 0.1
    assert difference < 1e-4


TIMM = {
    "vit_tiny_patch16_224": vit.Transformer(width=192, heads=3),
    "vit_small_patch16_224": vit.Transformer(width=384, heads=6),
    "vit_small_patch14_dinov2": vit.Transformer(width=384, heads=6, patch=14, layer_scale=True),
    "vit_small_patch14_reg4_dinov2": vit.Transformer(width=384, heads=6, patch=14, layer_scale=True, registers=4),
}


@pytest.mark.parametrize("name", TIMM)
def test_features_logits_and_patches_are_those_of_timm(name, tmp_path):
    theirs = randomised(timm.create_model(name, pretrained=False, num_classes=7, dynamic_img_size=True))
    save_file(
        {key: tensor.contiguous().numpy() for key, tensor in theirs.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    seen = {}
    theirs.blocks[-1].norm1.register_forward_hook(lambda _module, _given, result: seen.update(tokens=result))
    network = TIMM[name]
    native = theirs.patch_embed.img_size
    # One side of the grid becomes smaller than the published one, the other larger.
    for size in (native, (native[0] - 4 * network.patch, native[1] + 3 * network.patch)):
        pixels, scaled = pictures(network, size)
        with torch.no_grad():
            tokens = theirs.forward_features(scaled)
            logits = theirs.forward_head(tokens).numpy()
        found, answer, patches = ours(network, size, tmp_path / "model.safetensors", 7)(pixels)
        check_equal(f"{name} {size}: features", found, tokens[:, 0].numpy())
        check_equal(f"{name} {size}: logits", answer, logits)
        expected = seen["tokens"][:, 1 + network.registers :].numpy()
        check_equal(f"{name} {size}: patches", patches, expected.reshape(patches.shape))


@pytest.mark.parametrize("norm", [False, True])  # tiny and small, and base
def test_features_and_logits_of_eva_x_are_those_of_timm(norm, tmp_path):
    settings = {"img_size": 224, "patch_size": 16, "embed_dim": 192, "depth": 4, "num_heads": 3, "mlp_ratio": 8 / 3}
    settings |= {"swiglu_mlp": True, "use_rot_pos_emb": True, "ref_feat_shape": (14, 14), "num_classes": 7}
    settings |= {"qkv_fused": False, "scale_mlp": True} if norm else {}
    theirs = randomised(timm.models.eva.Eva(**settings, dynamic_img_size=True))
    save_file(
        {key: tensor.contiguous().numpy() for key, tensor in theirs.state_dict().items()},
        tmp_path / "model.safetensors",
    )
    network = eva.Transformer(width=192, heads=3, depth=4, norm=norm)
    for size in ((224, 224), (160, 272)):
        draw = np.random.default_rng(1).integers(0, 256, (2, *size, 3)).astype("float32")
        scaled = (draw / 255 - np.float32(eva.MEAN)) / np.float32(eva.DEVIATION)
        with torch.no_grad():
            tokens = theirs.forward_features(torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy()))
            features, logits = (theirs.forward_head(tokens, pre_logits=early).numpy() for early in (True, False))
        pixels = keras.Input((*size, 3))
        found = eva.build(eva.scale(pixels), None, network)
        ours = keras.Model(pixels, [found, keras.layers.Dense(7, name="logits")(found)])
        load_weights(ours, tmp_path / "model.safetensors", convert=eva.convert)
        for name, mine, expected in zip(("features", "logits"), ours(draw), (features, logits), strict=True):
            check_equal(f"EVA-X {size}, norm {norm}: {name}", mine, expected)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2 with SwiGLU", "Dinov2WithRegisters"])
def test_features_are_those_of_transformers(kind, tmp_path):
    registers = kind == "Dinov2WithRegisters"
    settings = {
        "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 70, "patch_size": 14,
        "use_swiglu_ffn": kind == "Dinov2 with SwiGLU",
    }  # fmt: skip
    family = "Dinov2WithRegisters" if registers else "Dinov2"
    if registers:
        settings["num_register_tokens"] = 4
    config = getattr(transformers, f"{family}Config")(**settings)
    theirs = randomised(getattr(transformers, f"{family}Model")(config))
    theirs.save_pretrained(tmp_path)  # under the names that files on the Hub have
    network = vit.Transformer(
        width=64, heads=4, depth=3, patch=14, layer_scale=True, swiglu=settings["use_swiglu_ffn"],
        registers=4 if registers else 0, antialias=registers,
    )  # fmt: skip
    for size in ((70, 70), (42, 98)):
        pixels, scaled = pictures(network, size)
        with torch.no_grad():
            expected = theirs(scaled).last_hidden_state[:, 0].numpy()
        found, _, _ = ours(network, size, tmp_path / "model.safetensors", 2)(pixels)
        check_equal(f"{kind} {size}: features", found, expected)
