"""DenseNet-121 and ResNet-50 as torchxrayvision defines and trained them, for chestxray.

Both take one channel in -1024..1024 and follow torchvision, including its padding, so that the published weights
give the published outputs. Layers have their names in PyTorch, with underscores for dots. What the publisher says of
each file of weights is in `WEIGHTS`.
"""

from collections.abc import Mapping
from typing import Any

import keras

from chestxray.plugin import ModelPlugin, PublishedWeights

PLACE = "https://github.com/mlmed/torchxrayvision/releases/download/v1/"
#: Findings in the order of the outputs, as torchxrayvision 1.5.7 lists them.
FINDINGS = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
    "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip
#: Of the first convolution's output with random weights: twice the mean square of numbers evenly in -1024..1024.
#: Without it the numbers of an untrained network would not fit float16.
STEM_VARIANCE = 2 * 1024**2 / 3
VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def published(
    file: str, trained_on: tuple[str, ...], thresholds: tuple[float | None, ...], findings: tuple[str, ...] = ()
) -> PublishedWeights:
    """Return the facts of a file below `PLACE`; without `findings` they are those with a threshold."""
    named = findings or tuple(n if value is not None else "" for n, value in zip(FINDINGS, thresholds, strict=True))
    # torchxrayvision crops the middle square of a film before it scales it.
    return PublishedWeights(url=PLACE + file, trained_on=trained_on, findings=named, thresholds=thresholds, fit="crop")


def densenet_file(sets: str) -> str:
    """Return the name of the file of a DenseNet-121 that was trained on `sets`."""
    return f"{sets}-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"


# The thresholds are `op_threshs` of torchxrayvision 1.5.7, the sets those of its file names and descriptions: pc is
# PadChest, google other labels of films of nih, kaggle the challenge of RSNA.
# fmt: off
WEIGHTS: dict[str, PublishedWeights] = {
    "densenet121-res224-all": published(
        densenet_file("nih-pc-chex-mimic_ch-google-openi-kaggle"),
        ("nih", "padchest", "chexpert", "mimic-cxr", "google", "openi", "rsna"), (
            0.07422872, 0.038290843, 0.09814756, 0.0098118475, 0.023601074, 0.0022490358, 0.010060724, 0.103246614,
            0.056810737, 0.026791653, 0.050318155, 0.023985857, 0.01939503, 0.042889766, 0.053369623, 0.035975814,
            0.20204692, 0.05015312,
        ),
    ),
    "densenet121-res224-nih": published(
        densenet_file("nih"), ("nih",), (
            0.039117552, 0.0034529066, 0.11396341, 0.0057298196, 0.00045666535, 0.0018880932, 0.012037827, 0.038744126,
            0.0037213727, 0.014730946, 0.016149804, 0.054241467, 0.037198864, 0.0004403434, None, None, None, None,
        ),
    ),
    "densenet121-res224-rsna": published(
        densenet_file("kaggle"), ("rsna",), (
            None, None, None, None, None, None, None, None, 0.13486601, None, None, None, None, None, None, None,
            0.13511065, None,
        ),
    ),
    "densenet121-res224-pc": published(
        densenet_file("pc"), ("padchest",), (
            0.031012505, 0.013347598, 0.081435576, 0.001262615, 0.002587246, 0.0035944257, 0.0023071, 0.055412333,
            0.044385884, 0.042766232, 0.043258056, 0.037629247, 0.005658899, 0.0091741895, None, 0.026507627, None,
            None,
        ),
    ),
    "densenet121-res224-chex": published(
        densenet_file("chex"), ("chexpert",), (
            0.1988969, 0.05710573, None, 0.0531293, 0.1435217, None, None, 0.27212676, 0.07749717, None, 0.19712369,
            None, None, None, 0.09932402, 0.09273402, 0.3270967, 0.10888247,
        ),
    ),
    "densenet121-res224-mimic_nb": published(
        densenet_file("mimic_nb"), ("mimic-cxr",), (
            0.08558747, 0.011884617, None, 0.0040595434, 0.010733786, None, None, 0.118761964, 0.022924708, None,
            0.06358637, None, None, None, 0.022143636, 0.017476924, 0.1258702, 0.014020768,
        ),
    ),
    "densenet121-res224-mimic_ch": published(
        densenet_file("mimic_ch"), ("mimic-cxr",), (
            0.09121389, 0.010573786, None, 0.005023008, 0.003698257, None, None, 0.08001232, 0.037242252, None,
            0.05006329, None, None, None, 0.019866971, 0.03823637, 0.11303808, 0.0069147074,
        ),
    ),
    "resnet50-res512-all": published(
        "pc-nih-rsna-siim-vin-resnet50-test512-e400-state.pt", ("padchest", "nih", "rsna", "siim", "vindr"), (
            0.51570356, 0.50444704, 0.53787947, 0.50723547, 0.5025118, 0.5035252, 0.5038076, 0.51862943, 0.5078151,
            0.50724894, 0.5056339, 0.510706, 0.5053923, 0.5020846, None, 0.5080557, 0.5138526, None,
        ), FINDINGS,
    ),
}
# fmt: on


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 1) mapped from 0..255 to -1024..1024."""
    return keras.layers.Rescaling(2048 / 255, offset=-1024)(pixels)


def build_densenet121(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 1024)."""
    x = keras.layers.ZeroPadding2D(3, name="features_conv0_pad")(scaled)
    x = apply_convolution(x, 64, 7, "features_conv0", stride=2)
    x = apply_max_pool(apply_norm(x, "features_norm0", relu=True, variance=STEM_VARIANCE))
    for block, layers in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, layers + 1):
            x = apply_dense_layer(x, f"features_denseblock{block}_denselayer{layer}")
        if block < 4:
            name = f"features_transition{block}"
            x = apply_convolution(apply_norm(x, f"{name}_norm", relu=True), x.shape[-1] // 2, 1, f"{name}_conv")
            x = keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)
    return apply_norm(x, "features_norm5", relu=True)


def build_resnet50(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 2048)."""
    x = keras.layers.ZeroPadding2D(3, name="conv1_pad")(scaled)
    x = apply_convolution(x, 64, 7, "conv1", stride=2)
    x = apply_max_pool(apply_norm(x, "bn1", relu=True, variance=STEM_VARIANCE))
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            x = apply_bottleneck(x, filters, stride, f"layer{stage}_{block}")
    return x


def apply_convolution(x: Any, filters: int, size: int, name: str, stride: int = 1) -> Any:
    """Apply a convolution without bias; where it has a stride and sees neighbours, `x` is padded already."""
    padding = "same" if stride == 1 else "valid"
    he = "he_normal"
    return keras.layers.Conv2D(filters, size, stride, padding, use_bias=False, kernel_initializer=he, name=name)(x)


def apply_norm(x: Any, name: str, *, relu: bool = False, variance: float = 1.0) -> Any:
    """Apply batch normalisation with PyTorch's constants and the initial moving `variance`."""
    start = keras.initializers.Constant(variance)
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, moving_variance_initializer=start, name=name)(x)
    return keras.layers.Activation("relu", name=f"{name}_relu")(x) if relu else x


def apply_max_pool(x: Any) -> Any:
    """Apply the max pooling of the stem; zero padding does no harm, since a ReLU precedes it."""
    return keras.layers.MaxPooling2D(3, 2, name="pool0")(keras.layers.ZeroPadding2D(1, name="pool0_pad")(x))


def apply_dense_layer(x: Any, name: str) -> Any:
    """Append 32 features that a 1x1 and a 3x3 convolution make of all before them (Huang et al., table 1)."""
    y = apply_convolution(apply_norm(x, f"{name}_norm1", relu=True), 128, 1, f"{name}_conv1")
    y = apply_convolution(apply_norm(y, f"{name}_norm2", relu=True), 32, 3, f"{name}_conv2")
    return keras.layers.Concatenate(name=name)([x, y])


def apply_bottleneck(x: Any, filters: int, stride: int, name: str) -> Any:
    """Apply 1x1, 3x3 (with the stride) and 1x1 convolutions with a shortcut around them."""
    y = apply_norm(apply_convolution(x, filters, 1, f"{name}_conv1"), f"{name}_bn1", relu=True)
    if stride > 1:  # where Keras's "same" padding would be asymmetric
        y = keras.layers.ZeroPadding2D(1, name=f"{name}_conv2_pad")(y)
    y = apply_norm(apply_convolution(y, filters, 3, f"{name}_conv2", stride), f"{name}_bn2", relu=True)
    y = apply_norm(apply_convolution(y, 4 * filters, 1, f"{name}_conv3"), f"{name}_bn3")
    if x.shape[-1] != 4 * filters:
        x = apply_norm(apply_convolution(x, 4 * filters, 1, f"{name}_downsample_0", stride), f"{name}_downsample_1")
    return keras.layers.Activation("relu", name=name)(keras.layers.Add(name=f"{name}_add")([y, x]))


def convert(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Convert PyTorch's weights, such as ``features.conv0.weight`` (out, in, height, width), to Keras's."""
    arrays = {}
    for name, tensor in tensors.items():
        module, _, variable = name.rpartition(".")
        layer = module.replace(".", "_")
        if module in ("classifier", "fc"):
            arrays["logits/kernel" if variable == "weight" else "logits/bias"] = tensor.T
        elif tensor.ndim == 4:
            arrays[f"{layer}/kernel"] = tensor.transpose(2, 3, 1, 0)
        elif variable in VARIABLES:
            arrays[f"{layer}/{VARIABLES[variable]}"] = tensor
    return arrays


WEIGHTS_LICENCE = (
    "Apache-2.0 (torchxrayvision, which states no other for its weights), trained on public sets, some of which forbid "
    "commercial use"
)

densenet121 = ModelPlugin(
    build=build_densenet121,
    scale=scale,
    image_size=(224, 224),
    channels=1,
    cam_layer="features_norm5_relu",
    finetune_from="features_denseblock4_denselayer1_norm1",
    weights=tuple(name for name in WEIGHTS if name.startswith("densenet")),
    published={name: facts for name, facts in WEIGHTS.items() if name.startswith("densenet")},
    convert=convert,
    reference="Cohen et al., TorchXRayVision: A library of chest X-ray datasets and models, MIDL 2022, "
    "arXiv:2111.00595; Huang et al., Densely Connected Convolutional Networks, CVPR 2017, arXiv:1608.06993",
    licence="Apache-2.0",
    weights_licence=WEIGHTS_LICENCE,
)
resnet50 = ModelPlugin(
    build=build_resnet50,
    scale=scale,
    image_size=(512, 512),
    channels=1,
    cam_layer="layer4_2",
    finetune_from="layer4_0_conv1",
    weights=("resnet50-res512-all",),
    published={"resnet50-res512-all": WEIGHTS["resnet50-res512-all"]},
    convert=convert,
    reference="Cohen et al., TorchXRayVision: A library of chest X-ray datasets and models, MIDL 2022, "
    "arXiv:2111.00595; He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
    licence="Apache-2.0",
    weights_licence=WEIGHTS_LICENCE,
)
