"""Figures of a test with their intervals, comparisons, operating points and shortcut controls, from predictions."""
