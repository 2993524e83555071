"""Jobs of many runs: comparison, folds, ensembles, leakage, a second hospital."""
