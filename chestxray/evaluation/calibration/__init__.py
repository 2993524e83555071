"""Calibration of probabilities: expected calibration error, slope, intercept and curve."""
