"""Paired comparison of models, and of subgroups: differences with intervals and tests."""
