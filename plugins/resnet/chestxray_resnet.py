"""ResNet-18, ResNet-50, ResNet-101 and ResNet-200-D for chestxray.

ResNet-50 and ResNet-101 are those of keras.applications. The other two follow torchvision and timm, including the
padding, so that weights published for PyTorch give the same outputs; layers have their names in those packages, with
underscores for dots.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import keras

from chestxray.plugin import ModelPlugin, load_huggingface

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red

VARIABLES = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def scale(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3), standardised by ImageNet's mean and standard deviation."""
    factors = [1 / (255 * deviation) for deviation in DEVIATION]
    offsets = [-mean / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    return keras.layers.Rescaling(factors, offset=offsets)(pixels)


def scale_caffe(pixels: Any) -> Any:
    """Return `pixels` (batch, height, width, 3) in the order blue, green, red, minus their ImageNet means."""
    swapped = keras.ops.take(pixels, [2, 1, 0], axis=-1)
    return keras.layers.Rescaling(1.0, offset=[-mean for mean in CAFFE_MEAN])(swapped)


def build_resnet18(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 512)."""
    x = apply_convolution(scaled, 64, 7, "conv1", "bn1", stride=2)
    x = apply_max_pool(keras.layers.Activation("relu", name="relu")(x))
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            x = apply_basic_block(x, filters, stride, f"layer{stage}_{block}")
    if weights:
        load_huggingface(scaled, x, "timm/resnet18.tv_in1k", convert=convert)
    return x


def build_keras(scaled: Any, weights: str | None, network: str) -> Any:
    """Return the features (batch, height/32, width/32, 2048) of the `network` of that name in keras.applications."""
    return getattr(keras.applications, network)(input_tensor=scaled, include_top=False, weights=weights).output


def build_resnet200d(scaled: Any, weights: str | None) -> Any:
    """Return the features (batch, height/32, width/32, 2048)."""
    x = apply_convolution(scaled, 32, 3, "conv1_0", "conv1_1", stride=2)
    x = keras.layers.Activation("relu", name="conv1_2")(x)
    x = apply_convolution(x, 32, 3, "conv1_3", "conv1_4")
    x = keras.layers.Activation("relu", name="conv1_5")(x)
    x = apply_convolution(x, 64, 3, "conv1_6", "bn1")
    x = apply_max_pool(keras.layers.Activation("relu", name="relu")(x))
    for stage, (filters, blocks) in enumerate(((64, 3), (128, 24), (256, 36), (512, 3)), start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            x = apply_bottleneck(x, filters, stride, f"layer{stage}_{block}")
    if weights:
        load_huggingface(scaled, x, "timm/resnet200d.ra2_in1k", convert=convert)
    return x


def apply_convolution(
    x: Any, filters: int, size: int, name: str, norm: str, stride: int = 1, gamma: str = "ones"
) -> Any:
    """Apply a convolution with PyTorch's symmetric padding, and batch normalisation with the initial scale `gamma`."""
    if stride > 1 and size > 1:  # where Keras's "same" padding would be asymmetric
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    padding = "same" if stride == 1 else "valid"
    he = "he_normal"
    x = keras.layers.Conv2D(filters, size, stride, padding, use_bias=False, kernel_initializer=he, name=name)(x)
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=gamma, name=norm)(x)


def apply_max_pool(x: Any) -> Any:
    """Apply the max pooling of the stem; zero padding does no harm, since a ReLU precedes it."""
    return keras.layers.MaxPooling2D(3, 2, name="maxpool")(keras.layers.ZeroPadding2D(1, name="maxpool_pad")(x))


def apply_basic_block(x: Any, filters: int, stride: int, name: str) -> Any:
    """Apply two 3x3 convolutions with a shortcut around them (He et al., figure 5, left)."""
    y = apply_convolution(x, filters, 3, f"{name}_conv1", f"{name}_bn1", stride)
    y = keras.layers.Activation("relu", name=f"{name}_relu1")(y)
    y = apply_convolution(y, filters, 3, f"{name}_conv2", f"{name}_bn2")
    if stride > 1:
        x = apply_convolution(x, filters, 1, f"{name}_downsample_0", f"{name}_downsample_1", stride)
    return keras.layers.Activation("relu", name=name)(keras.layers.Add(name=f"{name}_add")([y, x]))


def apply_bottleneck(x: Any, filters: int, stride: int, name: str) -> Any:
    """Apply 1x1, 3x3 and 1x1 convolutions; the shortcut is averaged instead of subsampled (ResNet-D)."""
    y = apply_convolution(x, filters, 1, f"{name}_conv1", f"{name}_bn1")
    y = keras.layers.Activation("relu", name=f"{name}_relu1")(y)
    y = apply_convolution(y, filters, 3, f"{name}_conv2", f"{name}_bn2", stride)
    y = keras.layers.Activation("relu", name=f"{name}_relu2")(y)
    # The initial value of timm; otherwise the sum over 66 blocks is too large for float16.
    y = apply_convolution(y, 4 * filters, 1, f"{name}_conv3", f"{name}_bn3", gamma="zeros")
    if stride > 1:
        x = keras.layers.AveragePooling2D(2, padding="same", name=f"{name}_downsample_0")(x)
    if x.shape[-1] != 4 * filters:
        x = apply_convolution(x, 4 * filters, 1, f"{name}_downsample_1", f"{name}_downsample_2")
    return keras.layers.Activation("relu", name=name)(keras.layers.Add(name=f"{name}_add")([y, x]))


def convert(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Convert PyTorch's weights, such as ``layer1.0.conv1.weight`` (out, in, height, width), to Keras's."""
    arrays = {}
    for name, tensor in tensors.items():
        module, _, variable = name.rpartition(".")
        layer = module.replace(".", "_")
        if module == "fc":
            arrays["logits/kernel" if variable == "weight" else "logits/bias"] = tensor.T
        elif tensor.ndim == 4:
            arrays[f"{layer}/kernel"] = tensor.transpose(2, 3, 1, 0)
        elif variable in VARIABLES:
            arrays[f"{layer}/{VARIABLES[variable]}"] = tensor
    return arrays


def keras_plugin(network: str, last: str) -> ModelPlugin:
    """Return the plugin of the `network` of that name in keras.applications, whose `last` block is explained."""
    return ModelPlugin(
        build=partial(build_keras, network=network),
        scale=scale_caffe,
        image_size=(224, 224),
        cam_layer=last,
        finetune_from="conv5_block1_1_conv",
        weights=("imagenet",),
        reference="He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
        licence="Apache-2.0",
        weights_licence="MIT (K. He; keras.applications), trained on ImageNet",
    )


resnet18 = ModelPlugin(
    build=build_resnet18,
    scale=scale,
    image_size=(224, 224),
    cam_layer="layer4_1",
    finetune_from="layer4_0_conv1_pad",
    weights=("imagenet",),
    convert=convert,
    reference="He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385",
    licence="Apache-2.0",
    weights_licence="BSD-3-Clause (torchvision; timm/resnet18.tv_in1k), trained on ImageNet",
)
resnet50 = keras_plugin("ResNet50", "conv5_block3_out")
resnet101 = keras_plugin("ResNet101", "conv5_block3_out")
resnet200d = ModelPlugin(
    build=build_resnet200d,
    scale=scale,
    image_size=(256, 256),
    cam_layer="layer4_2",
    finetune_from="layer4_0_conv1",
    weights=("imagenet",),
    convert=convert,
    reference="He et al., Bag of Tricks for Image Classification, CVPR 2019, arXiv:1812.01187; timm",
    licence="Apache-2.0",
    weights_licence="Apache-2.0 (timm/resnet200d.ra2_in1k), trained on ImageNet",
)
