"""Heads of models, to come back from by a gradient: those that are known, and what stops the others."""

import keras
from keras import layers


def dense(x, classes, activation=None):
    return layers.Dense(classes, dtype="float32", name="logits", activation=activation)(x)


def pooled(features, classes):
    return dense(layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(features)), classes)


def greatest(features, classes):
    return dense(layers.GlobalMaxPooling2D()(features), classes)


def flattened(features, classes):
    x = layers.Flatten()(layers.MaxPooling2D(2)(features))
    return dense(layers.Dense(7, activation="relu")(layers.Dense(9, activation="tanh")(x)), classes)


def overlapping(features, classes):
    x = layers.AveragePooling2D(3, strides=2, padding="same")(layers.MaxPooling2D(3, strides=1)(features))
    return dense(layers.Dense(8, activation="sigmoid")(layers.Flatten()(x)), classes)


def normalised(features, classes):
    x = layers.ReLU(max_value=0.5)(layers.BatchNormalization(name="after")(features))
    return dense(layers.Activation("relu6")(layers.GlobalAveragePooling2D(keepdims=False)(x)), classes)


def vectors(features, classes):
    x = layers.GlobalAveragePooling2D()(features)
    x = layers.BatchNormalization(scale=False, name="after")(layers.Activation("relu")(layers.Dense(8)(x)))
    return dense(layers.Identity()(x), classes)


def gated(features, classes):
    return dense(layers.Dense(8, activation="gelu")(layers.GlobalAveragePooling2D()(features)), classes)


def branched(features, classes):
    one, other = layers.GlobalAveragePooling2D()(features), layers.GlobalMaxPooling2D()(features)
    return dense(layers.Concatenate()([one, other]), classes)


def convolved(features, classes):
    return pooled(layers.Conv2D(5, 3, activation="relu", name="behind")(features), classes)


def by_operations(features, classes):
    return dense(keras.ops.mean(features, axis=(1, 2)), classes)


KNOWN = (pooled, greatest, flattened, overlapping, normalised, vectors)
UNKNOWN = {gated: "activation gelu", branched: "one input", convolved: "'behind'", by_operations: "Mean"}
