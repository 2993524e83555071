"""What is typed in a notebook, documented in docs/python.md and offered by `import chestxray` itself."""
