"""Checks of what one build has to do with another: nothing is shared, parameters are parameters, the seed counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from chestxray.models.assembly import OWN_LAYERS, RESERVED
from chestxray.plugin import pooled_head
from chestxray.testing.model_under_test import Subject
from chestxray.testing.results import CheckFailed

#: A drawn array of fewer elements is taken for numbers that belong to the network, as the means of the colours.
FEW = 4


def check_names(subject: Subject) -> None:
    """No layer of `scale` and `build` has a name that chestxray gives to a layer of its own."""
    _ = subject.features
    reserved = RESERVED if subject.plugin.head is pooled_head else {*OWN_LAYERS, "logits"}
    if taken := sorted(reserved & set(subject.shapes)):
        raise CheckFailed(
            f"the layer name {taken[0]!r} is reserved: the whole model has a layer of that name",
            f"choose another name; reserved are {', '.join(sorted(reserved))}",
        )


def check_builds(subject: Subject) -> None:
    """Two builds share no layer with weights: otherwise one fold would go on from what another has learned."""
    first, second = ({id(v): v for v in built.model.variables} for built in (subject.built, subject.again))
    if shared := [variable.path for key, variable in first.items() if key in second]:
        raise CheckFailed(
            f"two builds share the variable {shared[0]}: a fold would begin with what another fold has learned",
            "make layers and models inside build and head: not at import, in a default argument or in a cache",
        )


def check_parameters(subject: Subject) -> None:
    """Nothing that should be trained is a constant of an operation."""
    mine, other = (list(_constants(model)) for model in (subject.built.model, subject.other_seed))
    for number, (name, value) in enumerate(mine):
        if isinstance(value, keras.Variable):
            reason = f"a keras.Variable is an argument of {name}: no layer owns it, so that it is never trained"
        elif value.size > FEW and np.ptp(value) == 0:
            reason = f"{name} has a constant of shape {value.shape} that is {value.flat[0]:g} throughout"
        elif value.size > FEW and number < len(other) and not np.array_equal(value, other[number][1]):
            reason = f"{name} has a constant of shape {value.shape} that is drawn at random"
        else:
            continue
        raise CheckFailed(
            f"{reason}. Is it meant as a parameter?",
            "tensors computed outside the graph are constants: let a layer that is applied to the graph own the "
            "parameter, with its initializer",
        )


def check_seed(subject: Subject) -> None:
    """Two builds with one seed have the same initial weights, and two builds with different seeds have others."""
    first, second = subject.built.model.weights, subject.again.model.weights
    if len(first) != len(second):
        raise CheckFailed(f"two builds have {len(first)} and {len(second)} variables")
    other = subject.other_seed.weights
    for one, same, different in zip(first, second, other, strict=True):
        a, b, c = (keras.ops.convert_to_numpy(variable) for variable in (one, same, different))
        if a.shape != b.shape or not np.array_equal(a, b):
            raise CheckFailed(
                f"two builds with one seed differ in {one.path}",
                "draw initial weights with keras initializers: a generator of your own knows no seed",
            )
        if one.trainable and np.ptp(a) > 0 and np.array_equal(a, c):
            raise CheckFailed(
                f"two builds with different seeds have the same {one.path}, so that repeated runs are no repeats",
                "give initializers no seed of their own, and draw nothing at import; a kernel that is fixed on "
                "purpose belongs to a layer with trainable=False",
            )
    del subject.other_seed  # a third of the memory


def _constants(model: keras.Model) -> Iterator[tuple[str, Any]]:
    """The variables and arrays of floating-point numbers among the arguments of a model's operations."""
    for operation in model.operations:
        for node in operation._inbound_nodes:
            for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
                if isinstance(value, keras.Variable):
                    yield operation.name, value
                elif not isinstance(value, keras.KerasTensor) and hasattr(value, "shape"):
                    array = keras.ops.convert_to_numpy(value)
                    if array.dtype.kind == "f":
                        yield operation.name, array
