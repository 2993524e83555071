"""Models and groups beside each other: differences with intervals and tests."""
