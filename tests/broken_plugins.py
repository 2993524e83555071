"""Model plugins, each broken in one way, and the check that is meant for it.

`GOOD` passes everything; `BROKEN` maps a name to (plugin, the one check that must fail).
"""

import functools
import socket
from dataclasses import replace

import keras
import numpy as np
from keras import layers, ops

from chestxray.plugin import ModelPlugin, inline


def scale(pixels):
    return layers.Rescaling(1 / 255)(pixels)


def build(scaled, weights):
    x = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="first")(scaled)
    x = layers.BatchNormalization(name="norm")(x)
    return layers.Conv2D(6, 3, padding="same", activation="relu", name="last")(x)


GOOD = ModelPlugin(
    build=build,
    scale=scale,
    image_size=(24, 24),
    minimum_size=(16, 16),
    cam_layer="last",
    finetune_from="last",
    reference="none: made for a test",
    licence="Apache-2.0",
)


def scale_to_whole_numbers(pixels):
    return ops.cast(pixels, "int32")


def scale_by_spread(pixels):
    return pixels / ops.std(pixels, axis=(1, 2, 3), keepdims=True)


def scale_to_grey(pixels):
    return ops.mean(pixels, axis=-1, keepdims=True)


def build_model(scaled, weights):
    return keras.Model(keras.utils.get_source_inputs(scaled), build(scaled, weights))


def build_beyond_onnx(scaled, weights):
    return ops.erfinv(ops.cast(ops.tanh(build(scaled, weights)), "float32") / 2)


def build_tokens(scaled, weights):
    return layers.Reshape((-1, 6), name="tokens")(build(scaled, weights))


def build_four_images(scaled, weights):
    features = build(scaled, weights)
    return ops.reshape(features, (4, *features.shape[1:]))


def build_without_padding(scaled, weights):
    x = layers.Conv2D(4, 11, name="first")(scaled)
    return layers.Conv2D(4, 11, name="last")(x)


def build_for_even_sizes(scaled, weights):
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="first")(scaled)
    x = layers.Concatenate(name="both")([layers.UpSampling2D(2, name="up")(x), scaled])
    return layers.Conv2D(6, 3, padding="same", name="last")(x)


def build_nested(scaled, weights):
    inputs = keras.Input(scaled.shape[1:])
    return keras.Model(inputs, build(inputs, weights))(scaled)


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.convolution = layers.Conv2D(6, 3)

    def call(self, x):
        return self.convolution(x)


def build_subclassed(scaled, weights):
    return Subclassed()(build(scaled, weights))


def build_lambda(scaled, weights):
    return layers.Lambda(lambda x: x * 2, name="twice")(build(scaled, weights))


def build_for_grey_files(scaled, weights):
    (pixels,) = keras.utils.get_source_inputs(scaled)
    return build(scaled if pixels.shape[-1] == 1 else scaled / 0, weights)


def build_spread(scaled, weights):
    return build(scale_by_spread(scaled), weights)


def build_against_the_others(scaled, weights):
    features = build(scaled, weights)
    return features - ops.mean(features, axis=0, keepdims=True)


def build_with_luck(scaled, weights):
    kernel = np.random.default_rng().normal(size=(3, 3, 6, 6)) / 10
    options = {"padding": "same", "kernel_initializer": keras.initializers.Constant(kernel)}
    return layers.Conv2D(6, 3, name="lucky", **options)(build(scaled, weights))


def build_huge(scaled, weights):
    return build(layers.Rescaling(1e-6)(layers.Rescaling(1e6)(scaled)), weights)


def build_unnamed(scaled, weights):
    return layers.Conv2D(6, 3)(build(scaled, weights))


def build_shared(scaled, weights):
    shared = layers.Conv2D(6, 3, padding="same", name="shared")
    return shared(shared(build(scaled, weights)))


def build_rounded(scaled, weights):
    x = layers.Conv2D(4, 3, 2, padding="same", name="first", trainable=False)(scaled)
    x = layers.Conv2D(6, 3, padding="same", name="rounded_off", trainable=False)(x)
    return layers.Add(name="sum")([ops.stop_gradient(x), build_second(scaled)])


def build_second(scaled):
    return layers.Conv2D(6, 3, strides=2, padding="same", name="second")(scaled)


def build_reserved(scaled, weights):
    return layers.Conv2D(6, 3, padding="same", name="calibration")(build(scaled, weights))


def build_as_in_the_head(scaled, weights):
    return layers.SpatialDropout2D(0.1, name="dropout")(build(scaled, weights))


KEPT = layers.Conv2D(6, 3, padding="same", name="kept")


def build_kept(scaled, weights):
    return KEPT(build(scaled, weights))


@functools.cache
def kept_model():
    return keras.Sequential([keras.Input((None, None, 6)), layers.Conv2D(6, 3, padding="same", name="kept")])


def build_copy_of_a_kept_model(scaled, weights):
    return inline(kept_model(), build(scaled, weights))


def build_drawn_token(scaled, weights):
    return build(scaled, weights) + keras.random.normal((1, 1, 1, 6))


def build_zero_positions(scaled, weights):
    return build(scaled, weights) + ops.zeros((1, 1, 1, 6))


def build_embedded_token(scaled, weights):
    token = layers.Embedding(1, 6, name="token")(ops.zeros((1, 1, 1), dtype="int32"))
    return build(scaled, weights) + token


def build_variable(scaled, weights):
    return build(scaled, weights) + keras.Variable(np.arange(6.0), dtype="float32")


def build_with_own_seed(scaled, weights):
    draw = keras.initializers.GlorotUniform(seed=0)
    return layers.Conv2D(6, 3, padding="same", kernel_initializer=draw, name="own")(build(scaled, weights))


def build_with_given_kernel(scaled, weights):
    kernel = keras.initializers.Constant(np.random.default_rng(0).normal(size=(3, 3, 6, 6)) / 10)
    return layers.Conv2D(6, 3, padding="same", kernel_initializer=kernel, name="given")(build(scaled, weights))


def build_from_a_table(scaled, weights):
    return build(scaled, {None: None, "imagenet": "file"}[weights])


def build_from_a_socket(scaled, weights):
    if weights:
        socket.create_connection(("127.0.0.1", 9))
    return build(scaled, weights)


def build_pooled(scaled, weights):
    return layers.GlobalAveragePooling2D(keepdims=True, name="pooled")(build(scaled, weights))


def build_dead(scaled, weights):
    x = build(scaled, weights)
    gate = layers.Conv2D(6, 1, name="gate")(x)
    return layers.Multiply(name="gated")([ops.round(ops.sigmoid(gate)), x])


def build_unused(scaled, weights):
    x = build(scaled, weights)
    aside = layers.Conv2D(6, 1, name="aside")(x)
    return layers.Add(name="sum")([x, ops.stop_gradient(aside)])


def build_logarithm(scaled, weights):
    # Minus infinity where it is dark, which the exponential makes good: nothing is trained before it.
    dark = ops.relu(layers.AveragePooling2D(2, padding="same", name="mean")(scaled) - 0.5)
    logarithm = layers.Identity(name="logarithm")(ops.log(dark))
    again = layers.Conv2D(6, 3, padding="same", name="again")(ops.exp(logarithm))
    return layers.Add(name="sum")([again, build(scaled, weights)])


class Doubling(layers.Layer):
    def call(self, x):
        return x * 2


@keras.saving.register_keras_serializable("broken_plugins")
class Tripling(layers.Layer):
    def call(self, x):
        return x * 3


def build_custom(scaled, weights):
    return Doubling(name="doubling")(build(scaled, weights))


def build_registered(scaled, weights):
    return Tripling(name="tripling")(build(scaled, weights))


def build_root(scaled, weights):
    return ops.sqrt(build(scaled, weights))  # its gradient is infinite at 0, and ReLU gives many zeros


def head_of_one(features, classes):
    return layers.Dense(1, name="logits")(layers.GlobalAveragePooling2D(name="pool")(features))


def head_of_three(features, classes):
    return layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D(name="pool")(features))


def head_in_half_precision(features, classes):
    return layers.Dense(classes, name="logits")(layers.GlobalAveragePooling2D(name="pool")(features))


def head_without_weights(features, classes):
    return layers.GlobalAveragePooling2D(dtype="float32", name="pool")(features)[:, :classes]


def head_that_normalises(features, classes):
    return ops.log_softmax(head_of(classes)(layers.GlobalAveragePooling2D(name="pool")(features)))


def head_with_softmax(features, classes):
    pooled = layers.GlobalAveragePooling2D(name="pool")(features)
    return layers.Dense(classes, activation="softmax", dtype="float32", name="logits")(pooled)


def head_with_sigmoid(features, classes):
    return ops.sigmoid(head_of(classes)(layers.GlobalAveragePooling2D(name="pool")(features)))


def head_with_relu(features, classes):
    return ops.relu(head_of(classes)(layers.GlobalAveragePooling2D(name="pool")(features)))


def head_of(classes):
    return layers.Dense(classes, dtype="float32", name="logits")


OFFERED = replace(GOOD, weights=("imagenet", "chests"), weights_licence="none: made for a test")

BROKEN = {
    "reserved name": (replace(GOOD, build=build_reserved), "names"),
    "name of the default head": (replace(GOOD, build=build_as_in_the_head), "names"),
    "layer kept between builds": (replace(GOOD, build=build_kept), "builds"),
    "copies of one kept model": (replace(GOOD, build=build_copy_of_a_kept_model), "seed"),
    "token drawn outside the graph": (replace(GOOD, build=build_drawn_token), "parameters"),
    "positions of zeros": (replace(GOOD, build=build_zero_positions), "parameters"),
    "embedding applied outside the graph": (replace(GOOD, build=build_embedded_token), "parameters"),
    "variable that no layer owns": (replace(GOOD, build=build_variable), "parameters"),
    "initializer with a seed of its own": (replace(GOOD, build=build_with_own_seed), "seed"),
    "kernel given as numbers": (replace(GOOD, build=build_with_given_kernel), "seed"),
    "head with softmax": (replace(GOOD, head=head_with_softmax), "head"),
    "head with sigmoid": (replace(GOOD, head=head_with_sigmoid), "head"),
    "head with ReLU": (replace(GOOD, head=head_with_relu), "head"),
    "weights that build does not load": (OFFERED, "weights"),
    "weights that build does not know": (replace(OFFERED, build=build_from_a_table), "weights"),
    "weights fetched without a message": (replace(OFFERED, build=build_from_a_socket), "weights"),
    "cam_layer of one place": (replace(GOOD, build=build_pooled, cam_layer="pooled"), "cam_layer"),
    "weights behind a rounding": (replace(GOOD, build=build_dead), "gradients"),
    "weights behind stop_gradient": (replace(GOOD, build=build_unused), "gradients"),
    "finetune in one string": (replace(GOOD, finetune_from=None, finetune="last"), "fields"),
    "finetune misspelt": (replace(GOOD, finetune_from=None, finetune=("lats*",)), "freezing"),
    "logits normalised over the classes": (replace(GOOD, head=head_that_normalises), "findings"),
    "no reference": (replace(GOOD, reference=""), "metadata"),
    "no licence": (replace(GOOD, licence=" "), "metadata"),
    "weights without a licence": (replace(GOOD, weights=("imagenet",)), "metadata"),
    "weights in one string": (replace(GOOD, weights="imagenet", weights_licence="MIT"), "fields"),
    "no reason for no cam_layer": (replace(GOOD, cam_layer=None), "metadata"),
    "minimum above image size": (replace(GOOD, minimum_size=(32, 32)), "fields"),
    "scale to whole numbers": (replace(GOOD, scale=scale_to_whole_numbers), "scale"),
    "scale divides by zero": (replace(GOOD, scale=scale_by_spread), "scale"),
    "scale drops channels": (replace(GOOD, scale=scale_to_grey), "scale"),
    "build returns a model": (replace(GOOD, build=build_model), "features"),
    "build returns rank 3": (replace(GOOD, build=build_tokens), "features"),
    "fixed batch": (replace(GOOD, build=build_four_images), "features"),
    "head of one logit": (replace(GOOD, head=head_of_one), "head"),
    "head of three logits": (replace(GOOD, head=head_of_three), "head"),
    "minimum size that lies": (replace(GOOD, build=build_without_padding), "sizes"),
    "even sizes only": (replace(GOOD, build=build_for_even_sizes), "sizes"),
    "nested model": (replace(GOOD, build=build_nested), "flat"),
    "subclassed model": (replace(GOOD, build=build_subclassed), "flat"),
    "lambda": (replace(GOOD, build=build_lambda), "flat"),
    "grey files only": (replace(GOOD, build=build_for_grey_files), "channels"),
    "not finite on one grey level": (replace(GOOD, build=build_spread), "channels"),
    "images seen against the others": (replace(GOOD, build=build_against_the_others), "inference"),
    "weights of one's own generator": (replace(GOOD, build=build_with_luck), "seed"),
    "beyond float16": (replace(GOOD, build=build_huge), "float16"),
    "head in float16": (replace(GOOD, head=head_in_half_precision), "float16"),
    "cam_layer misspelt": (replace(GOOD, cam_layer="lats"), "cam_layer"),
    "cam_layer numbered": (replace(GOOD, build=build_unnamed, cam_layer="conv2d"), "cam_layer"),
    "cam_layer of rank 2": (replace(GOOD, cam_layer="pool"), "cam_layer"),
    "cam_layer applied twice": (replace(GOOD, build=build_shared, cam_layer="shared"), "cam_layer"),
    "cam_layer not connected": (
        replace(GOOD, build=build_rounded, cam_layer="rounded_off", finetune_from=None),
        "cam_layer",
    ),
    "map not finite": (replace(GOOD, build=build_logarithm, cam_layer="logarithm"), "gradcam"),
    "finetune_from misspelt": (replace(GOOD, finetune_from="lats"), "freezing"),
    "finetune_from numbered": (replace(GOOD, build=build_unnamed, finetune_from="conv2d"), "freezing"),
    "finetune_from in the head": (replace(GOOD, finetune_from="logits"), "freezing"),
    "head without weights": (replace(GOOD, head=head_without_weights), "freezing"),
    "layer not registered": (replace(GOOD, build=build_custom), "reload"),
    "layer of the plugin's own": (replace(GOOD, build=build_registered), "reload"),
    "infinite gradient": (
        replace(GOOD, build=build_root, cam_layer=None, cam_reason="its gradient is not finite"),
        "replicas",
    ),
    "operation that ONNX lacks": (replace(GOOD, build=build_beyond_onnx), "export"),
}
