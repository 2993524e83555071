"""A plugin becomes one Keras graph with weights, on devices."""
