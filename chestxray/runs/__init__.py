"""A run's folder, and where its numbers come from."""
