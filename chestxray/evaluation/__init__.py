"""Evaluation of predictions: figures with intervals, comparisons, operating points and shortcut controls."""
