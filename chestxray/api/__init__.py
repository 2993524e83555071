"""The Python interface for notebooks, exported by `import chestxray` and documented in docs/python.md."""
