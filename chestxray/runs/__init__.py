"""A run's folder: writing it, reading it, and recording where its numbers come from."""
