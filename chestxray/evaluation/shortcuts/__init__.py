"""Shortcut controls: small classifiers whose input shows little or nothing of the lungs, compared with the model."""
