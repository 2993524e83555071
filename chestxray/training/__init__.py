"""Rows and a graph become trained weights."""
