"""Inference on new images: engines, batch prediction, answers and their output files."""
