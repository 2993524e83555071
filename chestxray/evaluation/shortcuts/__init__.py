"""Shortcut controls: small classifiers that see no lungs, compared with the model."""
