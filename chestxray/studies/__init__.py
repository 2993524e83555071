"""Studies of several runs: comparison, cross-validation, ensembles, leakage, external validation."""
